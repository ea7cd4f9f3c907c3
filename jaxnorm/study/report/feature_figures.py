"""Figures of what the layers compute: quantiles over training, histograms, and the gates of batch-instance norm."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from jaxnorm.study.report import style
from jaxnorm.study.report.arrays import bucket_edges
from jaxnorm.study.report.figures import run_legend
from jaxnorm.study.report.frames import finished_rows

COMPRESSED = " · axis compressed beyond ±1 (asinh)"
NUM_BINS = 80
DOTS = style.DASHES[3]
MOMENTS = (
    ("first epoch", 0.0, 1.0, DOTS),
    ("middle epoch", 0.0, 1.2, style.DASHES[1]),
    ("last epoch", 0.28, 1.6, ()),
)
"""Name, opacity of the area, width and dash of the outline."""


def quantiles_of(rows: pd.DataFrame) -> list[str]:
    """The columns of quantiles, as q1, q20, q80, q99, in ascending order."""
    found = [name for name in map(str, rows) if re.fullmatch(r"q\d+(\.\d+)?", name)]
    return sorted(found, key=lambda name: float(name[1:]))


@style.styled
def feature_quantiles(
    rows: pd.DataFrame,
    subtitle: str,
    title: str = "Distribution of the pooled features",
    published: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Quantiles over the epochs, a panel for each variant, on shared axes: the mean over the finished runs.

    Args:
        rows: the epochs, or a layer's rows of `Study.layers` (for `last_convolution`).
        subtitle: what the figure says of itself.
        title: of the figure.
        published: the original paper's quantiles after epoch 100, by norm.
    """
    paths = _paths(rows)
    columns = min(4, len(paths))
    known = [value for values in (published or {}).values() for value in values]
    low, high, compressed = _limits(paths.values(), known)
    about, entries = subtitle + COMPRESSED * compressed, _quantile_legend(rows)
    figure, axes = style.sheet(title, about, entries, len(paths), columns, 1.9, sharex=True, sharey=True)
    for index, (axis, (label, path)) in enumerate(zip(axes, paths.items(), strict=True)):
        norm = rows.norm[rows.label == label].iloc[0]
        draw_fan(axis, path, style.of(norm))
        if values := (published or {}).get(norm):
            diamonds = style.markers(style.PUBLISHED, 2.5, markeredgewidth=0.9, clip_on=False, zorder=4)
            axis.plot([100] * len(values), values, linestyle="none", **diamonds)
        style.panel(axis, label, "Epoch" if index + columns >= len(paths) else "", letters=22)
    style.value_axis(axes[0], low, high, compressed=compressed)
    style.epoch_axis(axes, ticks=4)
    return figure


@style.styled
def layers(rows: pd.DataFrame, subtitle: str) -> Figure:
    """Quantiles of every layer (a row) and variant (a column) over the epochs; a row shares its vertical axis."""
    names = list(dict.fromkeys(rows.layer))
    paths = {name: _paths(rows[rows.layer == name]) for name in names}
    labels = list(dict.fromkeys(label for found in paths.values() for label in found))
    limits = {name: _limits(found.values()) for name, found in paths.items()}
    about = subtitle + " · asinh: axis compressed beyond ±1" * any(compressed for _, _, compressed in limits.values())
    title, size = "Distribution of every layer over training", len(names) * len(labels)
    # Not shared axes: matplotlib's time grows with the square of their number.
    figure, axes = style.sheet(title, about, _quantile_legend(rows), size, len(labels), 0.74)
    for index, axis in enumerate(axes):
        name, label = names[index // len(labels)], labels[index % len(labels)]
        low, high, compressed = limits[name]
        if label in paths[name]:
            draw_fan(axis, paths[name][label], style.of(rows.norm[rows.label == label].iloc[0]), width=0.6)
        style.value_axis(axis, low, high, compressed=compressed, ticks=3)
        axis.set_xlim(1 - 0.04 * rows.epoch.max(), 1.04 * rows.epoch.max())
        axis.tick_params(labelsize=7.5, labelleft=label == labels[0], labelbottom=name == names[-1])
        if name == names[0]:
            style.panel(axis, label, letters=84 // len(labels), size=7)
        if name == names[-1]:
            axis.set_xlabel("Epoch", size=8)
        if label == labels[0]:
            text = name.replace("/", "\n") + "\nasinh" * compressed
            axis.set_ylabel(text, rotation=0, ha="right", va="center", size=7.5, color=style.INK, parse_math=False)
    style.epoch_axis(axes, ticks=2)
    return figure


def draw_fan(axis: Axes, path: pd.DataFrame, one: style.Style, width: float = 1.0) -> None:
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
    """Lowest and highest value with zero, and whether a compressed axis is needed."""
    tables = [table.to_numpy()[np.isfinite(table.to_numpy())] for table in paths]
    tables = [table for table in tables if table.size]
    ends = [0.0, *known, *(float(end(table)) for table in tables for end in (np.min, np.max))]
    return min(ends), max(ends) or 1.0, style.far_apart(float(np.abs(table).max()) for table in tables)


def _quantile_legend(rows: pd.DataFrame) -> Sequence[Artist]:
    names = [name[1:] for name in quantiles_of(rows)]
    bands = zip(names[: len(names) // 2], reversed(names), (0.14, 0.4), strict=False)
    return [style.shaded(f"{low} to {high} % quantile", shade) for low, high, shade in bands][::-1]


@style.styled
def histograms(
    counts: Mapping[str, Mapping[int, np.ndarray]], runs: pd.DataFrame, layer: str, title: str, subtitle: str
) -> Figure:
    """The density of a layer's values at the first, middle and last epoch on a logarithmic axis, a panel a variant.

    Args:
        counts: by variant and epoch, as `Study.histograms` gives them; (65536,).
        runs: says the label and norm of each variant.
        layer: the layer's name.
        title: of the figure.
        subtitle: what the figure says of itself.
    """
    about = runs.drop_duplicates("variant").set_index("variant")
    epochs = sorted({epoch for by_epoch in counts.values() for epoch in by_epoch})
    picked = sorted({epochs[0], epochs[len(epochs) // 2 - (len(epochs) + 1) % 2], epochs[-1]})
    moments = dict(zip(picked, (*MOMENTS[: len(picked) - 1], MOMENTS[-1]), strict=True))
    spreads = [spread(by_epoch[epoch]) for by_epoch in counts.values() for epoch in by_epoch]
    low, high = min(low for low, _ in spreads), max(high for _, high in spreads)
    compressed = style.far_apart(max(abs(low), abs(high)) for low, high in spreads)
    entries = [_dashed(f"{name} ({epoch})", dash) for epoch, (name, _, _, dash) in moments.items()]
    below = f"{subtitle} · {layer}" + COMPRESSED * compressed
    figure, axes = style.sheet(title, below, entries, len(counts), 4, 1.8, sharex=True, sharey=True)
    tallest = 0.0
    for axis, (variant, by_epoch) in zip(axes, counts.items(), strict=True):
        one = style.of(about.norm[variant])
        for epoch, (_, alpha, width, dash) in moments.items():
            if epoch in by_epoch:
                middles, density = density_of(by_epoch[epoch], low, high, compressed=compressed)
                tallest = max(tallest, float(np.nanmax(density)))
                if alpha:
                    axis.fill_between(middles, density, 1e-30, color=one.colour, alpha=alpha, linewidth=0)
                axis.plot(middles, density, **style.line(replace(one, dash=dash), None, linewidth=width))
        style.panel(axis, str(about.label[variant]), letters=22)
    style.value_axis(axes[0], low, high, compressed=compressed, ticks=5, along="x")
    axes[0].set_yscale("log")
    axes[0].set_ylim(tallest / 1e5, tallest * 2)
    axes[0].yaxis.set_major_locator(LogLocator(numticks=8))
    axes[0].set_yticks([], minor=True)
    axes[0].set_ylabel("density (log scale)", size=8.5)
    return figure


def spread(counts: np.ndarray, outside: float = 1e-3) -> tuple[float, float]:
    """The bucket edges between which all but the share `outside` of a histogram's finite values is."""
    edges, finite = _finite()
    until = counts[finite].cumsum()
    low = np.searchsorted(until, until[-1] * outside / 2, side="right")
    high = np.searchsorted(until, until[-1] * (1 - outside / 2), side="left")
    return float(edges[low]), float(edges[min(high + 1, len(edges) - 1)])


def density_of(counts: np.ndarray, low: float, high: float, *, compressed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Middles of about 80 bins of equal width on the drawn axis, and the share of all values a unit in each bin.

    The edges of a bin are moved to the nearest bucket's, by at most 0.4 %, so that every count is exact. The density
    of an empty bin is nan. Values outside `low` to `high` are left out, but count as values.
    """
    edges, finite = _finite()
    there, back = (np.arcsinh, np.sinh) if compressed else (np.asarray, np.asarray)
    wanted = back(np.linspace(there(low), there(high), NUM_BINS + 1))
    above = np.clip(np.searchsorted(edges, wanted), 1, len(edges) - 1)
    nearest = np.unique(above - (wanted - edges[above - 1] < edges[above] - wanted))
    binned = np.diff(np.concatenate([[0], counts[finite].cumsum()])[nearest])
    taken = edges[nearest]
    density = binned / max(int(counts.sum()), 1) / np.diff(taken)
    return back((there(taken[:-1]) + there(taken[1:])) / 2), np.where(binned > 0, density, np.nan)


def _finite() -> tuple[np.ndarray, slice]:
    """The finite edges of buckets (n + 1,), and the n buckets between them."""
    edges = bucket_edges()
    known = np.flatnonzero(np.isfinite(edges))
    return edges[known[0] : known[-1] + 1], slice(known[0], known[-1])


@style.styled
def gate_histograms(runs: pd.DataFrame, gates: pd.DataFrame, subtitle: str) -> Figure:
    """Share of each layer's channels by their gate after the last epoch; a vertical line where all gates are equal."""
    last = finished_rows(gates)
    last = last[last.epoch == last.groupby("variant").epoch.transform("max")]
    names = _in_order(last)
    entries = run_legend(runs[runs.variant.isin(last.variant)])
    title = "Gates of every layer at the end"
    figure, axes = style.sheet(title, subtitle, entries, len(names), 5, 1.25, sharex=True, sharey=True)
    for index, (axis, name) in enumerate(zip(axes, names, strict=True)):
        for _, rows in last[last.layer == name].groupby("label", observed=True):
            one = style.of(rows.norm.iloc[0])
            if rows.gate.nunique() == 1:  # a bar of 100 % would make all others flat
                axis.axvline(rows.gate.iloc[0], **style.line(one, None))
                continue
            counts, edges = np.histogram(rows.gate, np.linspace(0, 1, 11))
            axis.stairs(100 * counts / len(rows), edges, fill=True, color=one.colour, alpha=0.25, linewidth=0)
            axis.stairs(100 * counts / len(rows), edges, **style.line(one, None, linewidth=1.5))
        axis.set_title(name.replace("/", "\n"), size=7.5, weight="normal", parse_math=False)
        axis.set_xlabel("Gate" if index + 5 >= len(names) else "", size=8)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes[0].set_xlim(-0.04, 1.04)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("channels (%)", size=8)
    return figure


@style.styled
def gate_paths(runs: pd.DataFrame, gates: pd.DataFrame, subtitle: str) -> Figure:
    """Gates over training by part of the network: median and 10 to 90 % band above, share at 1 and at 0 below."""
    rows = finished_rows(gates)
    part_of = rows.layer.str.extract(r"^([^_/]*)")[0].str.replace(r"(\d+)", r" \1", regex=True).str.capitalize()
    rows = rows.assign(part=part_of, at_one=rows.gate == 1, at_zero=rows.gate == 0)
    parts = sorted(rows.part.unique(), key=lambda part: part != "Stem")
    shares = [_dashed("share at 1", ()), _dashed("share at 0", DOTS)]
    entries, columns = [*run_legend(runs[runs.variant.isin(rows.variant)]), *shares], min(5, len(parts))
    figure, axes = style.sheet("Gates over training", subtitle, entries, 2 * len(parts), columns, 1.65, sharex=True)
    for axis, part in zip(axes, parts, strict=False):
        for _, mine in rows[rows.part == part].groupby("label", observed=True):
            one, by_epoch = style.of(mine.norm.iloc[0]), mine.groupby("epoch").gate
            middle = by_epoch.median()
            low, high = by_epoch.quantile(0.1), by_epoch.quantile(0.9)
            axis.fill_between(middle.index, low, high, color=one.colour, alpha=0.2, linewidth=0)
            axis.plot(middle.index, middle, markevery=max(1, len(middle) // 8), **style.line(one, 4))
        style.panel(axis, f"{part}: median")
        axis.set_ylim(-0.04, 1.04)
        axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    for axis, part in zip(axes[len(parts) :], parts, strict=True):
        for _, mine in rows[rows.part == part].groupby("label", observed=True):
            percent = 100 * mine.groupby("epoch")[["at_one", "at_zero"]].mean()
            for name, dash in (("at_one", ()), ("at_zero", DOTS)):
                one = replace(style.of(mine.norm.iloc[0]), dash=dash)
                axis.plot(percent.index, percent[name], **style.line(one, 4 if len(percent) == 1 else None))
        style.panel(axis, f"{part}: share (%)", "Epoch")
        axis.set_ylim(-4, 104)
        axis.set_yticks([0, 50, 100])
    style.epoch_axis(axes, ticks=3)
    return figure


def _dashed(text: str, dash: tuple[float, ...]) -> Artist:
    return style.named(text, style.Style(style.INK, "", dash), marker=None)


def _in_order(gates: pd.DataFrame) -> list[str]:
    """Layers as the network applies them: a file holds them by name, and the stem after the stages."""
    return sorted(dict.fromkeys(gates.layer), key=lambda name: not name.startswith("stem"))
