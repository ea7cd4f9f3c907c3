"""Batch-instance norm's gates: where they end in each layer, how they got there, and what may be said of it."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnorm.study.analysis.layers import Path, gate_paths
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.sheet import Entry, Layout, legend_text, line_style, panel, sheet, subtitle
from jaxnorm.study.analysis.styles import INK, Style, styles_of
from jaxnorm.study.analysis.tables import Column, Row, Table
from jaxnorm.study.analysis.words import listed, number, percent, sentence, within

BINS = np.linspace(0, 1, 11)
DOTTED = (1.2, 1.4)
MOVED = 1e-6
"""Gates start at 1; one that is farther from it than this has moved."""


def groups(study: Study) -> dict[str, list[str]]:
    """Layers with gates by the part of the network they lie in: the stem and each stage."""
    found: dict[str, list[str]] = {}
    for layer in _layers(study):
        stage = re.match(r"stage(\d+)", layer)
        found.setdefault(f"stage {stage[1]}" if stage else layer.partition("_")[0], []).append(layer)
    return found


def draw_gate_histograms(study: Study, layout: Layout) -> Figure:
    """Final gates, a panel for each layer."""
    layers, styles = _layers(study), styles_of(study)
    columns = 5 if layout.wide else 2
    figure, axes = _sheet(study, layout, "Gates of every layer at the end", len(layers), min(columns, len(layers)), 1.0)
    tallest = 0.0
    for index, (axis, layer) in enumerate(zip(axes, layers, strict=True)):
        for variant, paths in gate_paths(study).items():
            if layer not in paths:
                continue
            values, style = paths[layer][1][-1], styles[variant]
            dash: object = (0, style.dash) if style.dash else "-"
            if np.ptp(values) == 0:  # a bar of 100 % would press all others flat
                axis.axvline(values[0], color=style.colour, linewidth=1.7, linestyle=dash, zorder=2)
                continue
            share = 100 * np.histogram(values, BINS)[0] / len(values)
            tallest = max(tallest, float(share.max()))
            axis.stairs(share, BINS, fill=True, color=style.colour, alpha=0.25, linewidth=0)
            axis.stairs(share, BINS, color=style.colour, linewidth=1.5, linestyle=dash)
        panel(axis, layer, "Gate" if index + columns >= len(layers) else "")
        axis.set_title(layer, size=8.5, weight="normal", loc="left", parse_math=False)
        axis.set_xlim(-0.04, 1.04)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    for axis in axes:
        axis.set_ylim(0, 1.08 * (tallest or 100))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    return figure


def draw_gate_paths(study: Study, layout: Layout) -> Figure:
    """Gates over training by part of the network: median and band above, the share at either end below."""
    parts, styles = groups(study), styles_of(study)
    columns = len(parts) if layout.wide else 1 + (len(parts) % 2 == 0)  # a row must hold one kind: it has one scale
    entries = [
        Entry("share of channels at 1", Style(INK, "")),
        Entry("share of channels at 0", Style(INK, "", DOTTED)),
    ]
    order = [(name, kind) for kind in ("gate", "share") for name in parts]
    figure, axes = _sheet(study, layout, "Gates over training", len(order), columns, 1.5, entries)
    for index, (axis, (name, kind)) in enumerate(zip(axes, order, strict=True)):
        for variant, paths in gate_paths(study).items():
            epochs, values = _joined(paths, parts[name])
            draw = _draw_band if kind == "gate" else _draw_shares
            draw(axis, epochs, values, styles[variant])
        title = f"{sentence(name)}: {'median gate' if kind == 'gate' else 'share, %'}"
        panel(axis, title, "Epoch" if index + columns >= len(order) else "")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
        axis.set_ylim(*((-0.04, 1.04) if kind == "gate" else (-4, 104)))
        axis.set_yticks(*(([0, 0.5, 1], ["0", "0.5", "1"]) if kind == "gate" else ([0, 50, 100],)))
    return figure


def _draw_band(axis: Axes, epochs: list[int], values: np.ndarray, style: Style) -> None:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=1)
    axis.fill_between(epochs, low, high, color=style.colour, alpha=0.2, linewidth=0)
    every = max(1, len(epochs) // 8)
    axis.plot(epochs, middle, markevery=every, **line_style(style, marker=len(epochs) < 200))


def _draw_shares(axis: Axes, epochs: list[int], values: np.ndarray, style: Style) -> None:
    for end, dash in ((1.0, "-"), (0.0, (0, DOTTED))):
        axis.plot(epochs, 100 * (values == end).mean(axis=1), color=style.colour, linestyle=dash)


def gate_table(study: Study) -> Table | None:
    """Final gates by layer; None where no run has gates."""
    rows = []
    for variant, paths in gate_paths(study).items():
        ends_of = {layer: paths[layer][1][-1] for layer in _in_order(paths)}
        if np.ptp(everything := np.concatenate([*ends_of.values()])) == 0:
            ends_of = {"all layers": everything}
        for layer, values in ends_of.items():
            low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
            cells = (number(float(value), 2) for value in (low, middle, high))
            ends = (percent(float((values == end).mean()), 0) for end in (0.0, 1.0))
            rows.append(Row(variant, (study.label(variant), layer, *cells, *ends)))
    columns = (
        Column("Variant", numeric=False),
        Column("Layer", numeric=False),
        *(Column(title, "Gate") for title in ("10 %", "Median", "90 %")),
        *(Column(title, "Share of channels, %") for title in ("at 0", "at 1")),
    )
    note = (
        "After the last recorded epoch, all channels of all finished seeds. A gate of 1 is batch norm, 0 instance norm."
    )
    return Table("Gates by layer", columns, tuple(rows), note) if rows else None


def about_gates(study: Study) -> list[str]:
    """Whether the gates trained, where they ended and in which part of the network they moved most."""
    words = []
    for variant, paths in gate_paths(study).items():
        values = np.concatenate([table[-1] for _, table in paths.values()])
        name, epoch = within(study.label(variant)), next(iter(paths.values()))[0][-1]
        moved = float((np.abs(values - 1) > MOVED).mean())
        if not moved:
            words.append(
                f"The gates of {name} are all at 1 after epoch {epoch}: such a layer computes batch norm, which is "
                "what the published study trained under the name of batch-instance norm."
            )
            continue
        low, middle, high = (number(float(value), 2) for value in np.quantile(values, (0.1, 0.5, 0.9)))
        medians = {part: float(np.median(_joined(paths, layers)[1][-1])) for part, layers in groups(study).items()}
        least = min(medians, key=medians.__getitem__)
        others = [f"{number(value, 2)} in {_the(part)}" for part, value in medians.items() if part != least]
        words.append(
            f"The gates of {name} did train: after epoch {epoch}, {percent(moved, 0)} % of the {len(values):,} lie "
            f"below their start at 1. Their median is {middle} (80 % of them lie between {low} and {high}); "
            f"{percent(float((values == 1).mean()), 0)} % are at 1, {percent(float((values == 0).mean()), 0)} % at 0. "
            f"They moved farthest towards instance norm in {_the(least)}, where the median is "
            f"{number(medians[least], 2)}" + (f", against {listed(others)}." if others else ".")
        )
    return words


def _the(part: str) -> str:
    return part if part.startswith("stage") else f"the {part}"


def _layers(study: Study) -> list[str]:
    return _in_order(dict.fromkeys(layer for paths in gate_paths(study).values() for layer in paths))


def _in_order(layers: Iterable[str]) -> list[str]:
    """As the network applies them: a file holds them by name, and the stem after the stages."""
    return sorted(layers, key=lambda layer: not layer.startswith("stem"))


def _joined(paths: Mapping[str, Path], layers: list[str]) -> Path:
    """All channels of several layers, over the epochs."""
    chosen = [paths[layer] for layer in layers if layer in paths]
    return chosen[0][0], np.concatenate([table for _, table in chosen], axis=1)


def _sheet(
    study: Study,
    layout: Layout,
    title: str,
    panels: int,
    columns: int,
    height: float,
    entries: list[Entry] | None = None,
) -> tuple[Figure, list[Axes]]:
    styles = styles_of(study)
    named = [Entry(legend_text(study, variant), styles[variant]) for variant in gate_paths(study)]
    return sheet(
        layout, title, subtitle(study), [*named, *(entries or [])], panels=panels, columns=columns, height=height,
        left=0.38, share=True,
    )  # fmt: skip
