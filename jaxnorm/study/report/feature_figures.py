"""Figures of what the layers compute: quantiles over training, and the gates of batch-instance norm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxnorm.study.report import style
from jaxnorm.study.report.frames import finished_rows, quantiles_of

_COMPRESSED = " · axis compressed beyond ±1 (asinh)"


@style.styled
def feature_quantiles(
    rows: pd.DataFrame, subtitle: str, published: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """Quantiles over the epochs, a panel for each variant, on shared axes: the mean over the finished runs.

    `rows` are of `Study.epochs`, or of `Study.layers` for one layer; `published` has the original paper's quantiles
    after epoch 100 by norm; `subtitle` says what the figure is of.
    """
    title, paths = "Distribution of the pooled features", _paths(rows)
    known = [value for values in (published or {}).values() for value in values]
    low, high, compressed = _limits(paths.values(), known)
    about, entries, panels = subtitle + _COMPRESSED * compressed, _quantile_legend(rows), list(paths)
    figure, axes = style.sheet(title, about, entries, panels, 4, 1.9, "Epoch", sharex=True, sharey=True)
    for axis, (label, path) in zip(axes, paths.items(), strict=True):
        norm = rows.norm[rows.label == label].iloc[0]
        _draw_fan(axis, path, style.of(norm))
        if values := (published or {}).get(norm):
            diamonds = style.markers(style.PUBLISHED, 2.5, markeredgewidth=0.9, clip_on=False, zorder=4)
            axis.plot([100] * len(values), values, linestyle="none", **diamonds)
    style.value_axis(axes[0], low, high, compressed=compressed)
    return figure


@style.styled
def layers(rows: pd.DataFrame, subtitle: str) -> Figure:
    """Quantiles of every layer (a row) and variant (a column) over the epochs; a row shares its vertical axis.

    `rows` are of `Study.layers`; `subtitle` says what the figure is of.
    """
    paths = {str(name): _paths(mine) for name, mine in rows.groupby("layer", observed=True, sort=False)}
    labels = list(dict.fromkeys(label for found in paths.values() for label in found))
    panels = labels + [""] * (len(paths) - 1) * len(labels)
    about = subtitle + _COMPRESSED * any(_limits(found.values())[2] for found in paths.values())
    title, columns = "Distribution of every layer over training", len(labels)
    # Not shared axes: matplotlib's time grows with the square of their number.
    figure, axes = style.sheet(title, about, _quantile_legend(rows), panels, columns, 0.74, "Epoch", 7)
    for row, (name, found) in enumerate(paths.items()):
        low, high, compressed = _limits(found.values())
        for axis, label in zip(axes[row * columns : (row + 1) * columns], labels, strict=True):
            if label in found:
                _draw_fan(axis, found[label], style.of(rows.norm[rows.label == label].iloc[0]), width=0.6)
            style.value_axis(axis, low, high, compressed=compressed, ticks=3)
            axis.set_xlim(1 - 0.04 * rows.epoch.max(), 1.04 * rows.epoch.max())
            axis.tick_params(labelsize=7.5, labelleft=label == labels[0], labelbottom=row == len(paths) - 1)
        text = name.replace("/", "\n") + "\nasinh" * compressed
        look: dict[str, Any] = dict(rotation=0, ha="right", va="center", size=7.5, color=style.INK, parse_math=False)
        axes[row * columns].set_ylabel(text, **look)
    # Layout takes long, and the inner panels follow from the outermost ones.
    inner = [place for place in range(columns, len(axes) - columns) if place % columns]
    for place in inner:
        axes[place].set_in_layout(False)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")
    for place in inner:
        across, down = axes[place % columns].get_position(), axes[place - place % columns].get_position()
        axes[place].set_position((across.x0, down.y0, across.width, down.height))
    return figure


def _draw_fan(axis: Axes, path: pd.DataFrame, one: style.Style, width: float = 1.0) -> None:
    """A line for each quantile; a pale band between the outermost two and a darker one between the next."""
    for outer, alpha in zip(range(path.shape[1] // 2), (0.14, 0.3), strict=False):
        low, high = path.iloc[:, outer], path.iloc[:, -1 - outer]
        axis.fill_between(path.index, low, high, color=one.colour, alpha=alpha, linewidth=0)
    for index, name in enumerate(path):
        linewidth = width * (1.7 if 0 < index < path.shape[1] - 1 else 1.0)
        marker = 4 if len(path) == 1 else None
        axis.plot(path.index, path[name], **style.line(replace(one, dash=()), marker, linewidth=linewidth))


def _paths(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By label: quantiles by epoch, the mean over the finished runs; a gap where a value of a run is not finite."""
    means = {}
    for label, mine in finished_rows(rows).groupby("label", observed=True):
        table = mine[quantiles_of(rows)]
        means[str(label)] = table.where(np.isfinite(table)).groupby(mine.epoch).mean(skipna=False)
    return means


def _limits(paths: Iterable[pd.DataFrame], known: Sequence[float] = ()) -> tuple[float, float, bool]:
    """Lowest and highest value with zero, and whether one panel is so much larger that a linear axis hides others."""
    tables = [table.to_numpy()[np.isfinite(table.to_numpy())] for table in paths]
    tables = [table for table in tables if table.size]
    sizes = sorted(float(np.abs(table).max()) for table in tables)
    far_apart = bool(sizes) and sizes[-1] > 4 * (sizes[len(sizes) // 2] or 1.0)
    ends = [0.0, *known, *(float(end(table)) for table in tables for end in (np.min, np.max))]
    return min(ends), max(ends) or 1.0, far_apart


def _quantile_legend(rows: pd.DataFrame) -> Sequence[Artist]:
    names = [name[1:] for name in quantiles_of(rows)]
    bands = zip(names[: len(names) // 2], reversed(names), (0.14, 0.4), strict=False)
    shaded = [
        Patch(label=f"{low} to {high} % quantile", facecolor=style.INK, alpha=shade, linewidth=0)
        for low, high, shade in bands
    ]
    return shaded[::-1]


@style.styled
def gate_histograms(runs: pd.DataFrame, gates: pd.DataFrame, subtitle: str) -> Figure:
    """Share of each layer's channels by their gate after the last epoch; a vertical line where all gates are equal.

    `gates` are of `Study.gates`, `runs` all for the legend; `subtitle` says what the figure is of.
    """
    last = final_gates(gates)
    names = _in_order(last)
    entries, panels = (
        style.run_legend(runs[runs.variant.isin(last.variant)]),
        [name.replace("/", "/ ") for name in names],
    )
    title = "Gates of every layer at the end"
    figure, axes = style.sheet(title, subtitle, entries, panels, 5, 1.25, "Gate", 7.5, sharex=True, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        for _, rows in last[last.layer == name].groupby("label", observed=True):
            one = style.of(rows.norm.iloc[0])
            if rows.gate.nunique() == 1:  # a bar of 100 % would make all others flat
                axis.axvline(rows.gate.iloc[0], **style.line(one, None))
                continue
            counts, edges = np.histogram(rows.gate, np.linspace(0, 1, 11))
            axis.stairs(100 * counts / len(rows), edges, fill=True, color=one.colour, alpha=0.25, linewidth=0)
            axis.stairs(100 * counts / len(rows), edges, **style.line(one, None, linewidth=1.5))
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0].set(xlim=(-0.04, 1.04), ylim=(0, None), ylabel="channels (%)")
    return figure


def final_gates(gates: pd.DataFrame) -> pd.DataFrame:
    """Of each variant the `gates` after the last epoch of its finished runs."""
    rows = finished_rows(gates)
    return rows[rows.epoch == rows.groupby("variant", observed=True).epoch.transform("max")]


def _in_order(gates: pd.DataFrame) -> list[str]:
    """Layers as the network applies them: a file holds them by name, and the stem after the stages."""
    return sorted(dict.fromkeys(gates.layer), key=lambda name: not name.startswith("stem"))
