"""Figures of what the layers compute: their distributions over training, and the gates of batch-instance norm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxnorm.study.report import style
from jaxnorm.study.report.frames import by_depth, finished_rows, quantiles_of


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
    about, entries = subtitle + style.COMPRESSED * compressed, [*_quantile_legend(rows)]
    if {*rows.norm} & {*known}:
        entries.append(style.entry("original paper, epoch 100", style.PUBLISHED, joined=False))
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
    some = any(_far_apart(found.values()) for found in paths.values())
    about = subtitle + " · rows with asinh: axis compressed beyond ±1" * some
    title, columns = "Distribution of every layer over training", len(labels)
    share_axes = dict(sharex="col", sharey="row")
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
        axis.plot(path.index, path[name], **style.line(replace(one, dash=()), None, linewidth=linewidth))
    return norm


def _paths(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By label: quantiles by epoch, the mean over the finished runs; a gap where a value of a run is not finite."""
    means = {}
    for label, mine in finished_rows(rows).groupby("label", observed=True):
        table = mine[quantiles_of(rows)]
        means[str(label)] = table.where(np.isfinite(table)).groupby(mine.epoch).mean(skipna=False)
    return means


def _far_apart(paths: Iterable[pd.DataFrame]) -> bool:
    return style.far_apart(float(np.nanmax(np.abs(table))) for table in paths if table.notna().any(axis=None))


def _quantile_legend(rows: pd.DataFrame) -> Sequence[Artist]:
    names = [name[1:] for name in quantiles_of(rows)]
    bands = list(zip(names[: len(names) // 2], reversed(names), (0.14, 0.4), strict=False))
    return [
        Patch(label=f"{low} to {high} % quantile", facecolor=style.INK, alpha=shade, linewidth=0)
        for low, high, shade in reversed(bands)
    ]


@style.styled
def ridges(rows: pd.DataFrame, subtitle: str) -> Figure:
    """Density of a layer's values after its recorded epochs, a panel for each variant; the finished runs together.

    `rows` are of `Study.histograms`, for one layer. Heights are shares of the values in equal parts of the axis, which
    has all but two in a thousand; each panel has its own scale. `subtitle` says what the figure is of.
    """
    shares = {
        str(label): {int(epoch): _shares(one) for epoch, one in mine.groupby("epoch")}
        for label, mine in finished_rows(rows).groupby("label", observed=True)
    }
    ends = [np.interp((0.001, 0.999), share, at) for mine in shares.values() for at, share in mine.values()]
    edges = np.sinh(np.linspace(np.arcsinh(np.min(ends, initial=0)), np.arcsinh(np.max(ends, initial=0)), 121))
    centres = (edges[1:] + edges[:-1]) / 2
    epochs = sorted({epoch for mine in shares.values() for epoch in mine})
    title, about = f"{rows.layer.iloc[0]}: distribution by epoch", subtitle + style.COMPRESSED
    figure, axes = style.sheet(title, about, [], list(shares), 4, 1.7, "Value", 8.5, sharex=True, sharey=True)
    for axis, (name, mine) in zip(axes, shares.items(), strict=True):
        heights = {epoch: np.diff(np.interp(edges, *mine[epoch])) for epoch in mine}
        one, tallest = style.of(rows.norm[rows.label == name].iloc[0]), max(map(np.max, heights.values()))
        for epoch, height in heights.items():
            base, order = len(epochs) - 1 - epochs.index(epoch), 2 + epochs.index(epoch)
            ridge = base + 1.6 * height / tallest
            axis.fill_between(centres, base, ridge, facecolor=style.PAPER, linewidth=0, zorder=order)
            axis.fill_between(centres, base, ridge, facecolor=one.colour, alpha=0.35, linewidth=0, zorder=order)
            axis.plot(centres, ridge, **style.line(replace(one, dash=()), None, linewidth=1.1, zorder=order))
    axes[0].set_yticks(range(len(epochs)), [f"epoch {epoch}" for epoch in reversed(epochs)])
    style.value_axis(axes[0], True, 3, "x")
    return figure


def _shares(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the buckets of `rows`, and the share of values below each."""
    counts = rows.groupby(["low", "high"])["count"].sum().reset_index()
    until = counts["count"].cumsum()
    shares = np.stack([until - counts["count"], until], axis=1).ravel() / until.iloc[-1]
    return counts[["low", "high"]].to_numpy().ravel(), shares


@style.styled
def gates(runs: pd.DataFrame, gates: pd.DataFrame, subtitle: str) -> Figure:
    """1 - gate of each layer's channels after the last epoch: the median, a bar for 80 % of them, a line for all.

    `gates` are of `Study.gates`, `runs` all for the legend; `subtitle` says what the figure is of.
    """
    last = final_gates(gates)
    names = by_depth(last.layer.unique())
    about = f"{subtitle} · log scale, linear below 0.0001"
    entries, places = style.run_legend(runs[runs.variant.isin(last.variant)]), np.arange(len(names))
    figure, (axis,) = style.sheet("Gates by depth", about, entries, height=3.3)
    groups = list(last.groupby("label", observed=True))
    for side, (_, rows) in zip(np.linspace(-0.3, 0.3, len(groups) + 2)[1:-1], groups, strict=True):
        one, x = style.of(rows.norm.iloc[0]), places + side
        away = (1 - rows.gate).groupby(rows.layer, observed=True).quantile([0, 0.1, 0.5, 0.9, 1]).unstack().loc[names]
        axis.vlines(x, away[0.0], away[1.0], color=one.colour, linewidth=1)
        axis.vlines(x, away[0.1], away[0.9], color=one.colour, linewidth=4.5, alpha=0.4)
        axis.plot(x, away[0.5], **style.markers(one, 6, linestyle="none", zorder=4))
    axis.set_yscale("symlog", linthresh=1e-4, linscale=0.5)
    axis.set_yticks([0, 1e-4, 1e-3, 1e-2, 0.1, 1], ["0", "0.0001", "0.001", "0.01", "0.1", "1"])
    axis.set(ylim=(-2e-5, 1.3), ylabel="1 − gate")
    axis.set_xticks(places, names, rotation=50, ha="right", rotation_mode="anchor", size=7.5, parse_math=False)
    return figure


def final_gates(gates: pd.DataFrame) -> pd.DataFrame:
    """Of each variant the `gates` after the last epoch of its finished runs."""
    rows = finished_rows(gates)
    return rows[rows.epoch == rows.groupby("variant", observed=True).epoch.transform("max")]
