"""Figures of what the layers compute: quantiles over training, and the gates of batch-instance norm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

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
    paths, known, share_axes = _paths(rows), published or {}, dict(sharex=True, sharey=True)
    compressed, title, panels = _far_apart(paths.values()), "Distribution of the pooled features", list(paths)
    about, entries = subtitle + _COMPRESSED * compressed, _quantile_legend(rows)
    figure, axes = style.sheet(title, about, entries, panels, 4, 1.9, "Epoch", **share_axes)
    for axis, (label, path) in zip(axes, paths.items(), strict=True):
        norm = _draw_fan(axis, path, rows, label)
        if values := known.get(norm):
            diamonds = style.markers(style.PUBLISHED, 2.5, markeredgewidth=0.9, clip_on=False, zorder=4)
            axis.plot([100] * len(values), values, linestyle="none", **diamonds)
    style.value_axis(axes[0], compressed)
    return figure


@style.styled
def layers(rows: pd.DataFrame, subtitle: str) -> Figure:
    """Quantiles of every layer (a row) and variant (a column) over the epochs; a row shares its vertical axis.

    `rows` are of `Study.layers`; `subtitle` says what the figure is of.
    """
    paths = {str(name): _paths(mine) for name, mine in rows.groupby("layer", observed=True, sort=False)}
    labels = list(dict.fromkeys(label for found in paths.values() for label in found))
    panels = labels + [""] * (len(paths) - 1) * len(labels)
    about = subtitle + _COMPRESSED * any(_far_apart(found.values()) for found in paths.values())
    title, columns, share_axes = (
        "Distribution of every layer over training",
        len(labels),
        dict(sharex="col", sharey="row"),
    )
    figure, axes = style.sheet(title, about, _quantile_legend(rows), panels, columns, 0.74, "Epoch", 7, **share_axes)
    for row, (name, found) in enumerate(paths.items()):
        mine, compressed = axes[row * columns : (row + 1) * columns], _far_apart(found.values())
        for axis, label in zip(mine, labels, strict=True):
            if label in found:
                _draw_fan(axis, found[label], rows, label, width=0.6)
            axis.tick_params(labelsize=7.5)
        style.value_axis(mine[0], compressed, 3)
        text = name.replace("/", "\n") + "\nasinh" * compressed
        mine[0].set_ylabel(text, rotation=0, ha="right", va="center", size=7.5, color=style.INK, parse_math=False)
    return figure


def _draw_fan(axis: Axes, path: pd.DataFrame, rows: pd.DataFrame, label: str, width: float = 1.0) -> str:
    """A line for each quantile; a pale band between the outermost two and a darker one between the next."""
    norm = str(rows.norm[rows.label == label].iloc[0])
    one = style.of(norm)
    for outer, alpha in zip(range(path.shape[1] // 2), (0.14, 0.3), strict=False):
        low, high = path.iloc[:, outer], path.iloc[:, -1 - outer]
        axis.fill_between(path.index, low, high, color=one.colour, alpha=alpha, linewidth=0)
    for index, name in enumerate(path):
        linewidth = width * (1.7 if 0 < index < path.shape[1] - 1 else 1.0)
        marker = 4 if len(path) == 1 else None
        axis.plot(path.index, path[name], **style.line(replace(one, dash=()), marker, linewidth=linewidth))
    return norm


def _paths(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By label: quantiles by epoch, the mean over the finished runs; a gap where a value of a run is not finite."""
    means = {}
    for label, mine in finished_rows(rows).groupby("label", observed=True):
        table = mine[quantiles_of(rows)]
        means[str(label)] = table.where(np.isfinite(table)).groupby(mine.epoch).mean(skipna=False)
    return means


def _far_apart(paths: Iterable[pd.DataFrame]) -> bool:
    """Whether one panel is so much larger that a linear axis would hide the others."""
    sizes = sorted(float(np.nanmax(np.abs(table))) for table in paths if table.notna().any(axis=None))
    return bool(sizes) and sizes[-1] > 4 * (sizes[len(sizes) // 2] or 1.0)


def _quantile_legend(rows: pd.DataFrame) -> Sequence[Artist]:
    names = [name[1:] for name in quantiles_of(rows)]
    bands = list(zip(names[: len(names) // 2], reversed(names), (0.14, 0.4), strict=False))
    return [
        Patch(label=f"{low} to {high} % quantile", facecolor=style.INK, alpha=shade, linewidth=0)
        for low, high, shade in reversed(bands)
    ]


@style.styled
def gate_histograms(runs: pd.DataFrame, gates: pd.DataFrame, subtitle: str) -> Figure:
    """Share of each layer's channels by their gate after the last epoch; a vertical line where all gates are equal.

    `gates` are of `Study.gates`, `runs` all for the legend; `subtitle` says what the figure is of.
    """
    last = final_gates(gates)
    # A file holds the layers by name; the network applies the stem before the stages.
    names = sorted(last.layer.unique(), key=lambda name: not name.startswith("stem"))
    entries = style.run_legend(runs[runs.variant.isin(last.variant)])
    panels = [name.replace("/", "/ ") for name in names]
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
