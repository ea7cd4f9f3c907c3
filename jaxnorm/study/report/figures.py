"""Figures that compare norms: curves over the epochs, accuracies on the test images, learning rates, confusions.

Each takes DataFrames as `Study` has them, a subtitle (see `subtitle`), and returns a matplotlib Figure. Fractions are
drawn in per cent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnorm.study.report import style
from jaxnorm.study.report.comparisons import EQUALITY_MARGIN, SANITY_PAIR

EQUAL = "#009e73"  # the band in which two variants count as equal


def subtitle(runs: pd.DataFrame, data: str) -> str:
    """What every figure says of itself: the data in words, batch size, epochs, initialization, seeds."""
    words = [data]
    if runs.batch_size.nunique() == 1:
        words.append(f"batch size {runs.batch_size.iloc[0]:g}")
    if runs.num_epochs.notna().any():
        planned, last = runs.num_epochs.max(), runs.epoch.max()
        epochs = f"{planned:g} epoch{'s' if planned != 1 else ''}"
        words.append(epochs if pd.isna(last) or last == planned else f"{last:g} of {epochs}")
    if "init" in runs and (runs.init == "he").all():
        words.append("He initialization")
    seeds = runs.seed.unique()
    words.append(f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds")
    return " · ".join(words)


@style.styled
def accuracy(runs: pd.DataFrame, epochs: pd.DataFrame, subtitle: str) -> Figure:
    """Training and validation accuracy over the epochs, with a cross where a run diverged."""
    titles = {"train_accuracy": "Training accuracy (%)", "val_accuracy": "Validation accuracy (%)"}
    figure, _ = _curves("Accuracy over training", runs, _percent(epochs), titles, subtitle, worst=0.02)
    return figure


@style.styled
def loss(runs: pd.DataFrame, epochs: pd.DataFrame, subtitle: str) -> Figure:
    """Training and validation cross entropy in nats over the epochs, on a logarithmic axis."""
    titles = {"train_loss": "Training loss (log scale)", "val_loss": "Validation loss (log scale)"}
    figure, axes = _curves("Loss over training", runs, _percent(epochs), titles, subtitle, worst=0.98)
    style.log_axis(axes[0])  # shared
    return figure


def _curves(
    title: str, runs: pd.DataFrame, epochs: pd.DataFrame, titles: Mapping[str, str], subtitle: str, worst: float
) -> tuple[Figure, list[Axes]]:
    figure, axes = style.sheet(title, subtitle, run_legend(runs), 2, 2, 3.0, sharey=True)
    for axis, (column, name) in zip(axes, titles.items(), strict=True):
        for offset, (_, rows) in enumerate(epochs.groupby("label", observed=True)):
            draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]), offset)
        draw_crosses(axis, runs, epochs, column, worst)
        style.panel(axis, name, "Epoch")
    style.epoch_axis(axes)
    return figure, axes


def _percent(epochs: pd.DataFrame) -> pd.DataFrame:
    """Accuracies in per cent; losses as a logarithmic axis can show them, with a gap where one is not finite."""
    losses = epochs[["train_loss", "val_loss"]]
    shown = losses.where(np.isfinite(losses)).clip(lower=1e-8)
    return epochs.assign(**shown, **100 * epochs[["train_accuracy", "val_accuracy"]])


def run_legend(runs: pd.DataFrame, by: str = "label") -> list[Artist]:
    """An entry for each variant, with what happened to its runs where not all finished, and one for the crosses."""
    entries: list[Artist] = []
    for label, rows in runs.groupby(by, observed=True, sort=by == "label"):
        open_runs = rows.status[rows.status != "complete"]
        text = style.plain(str(label), 34)
        if len(open_runs) and len(rows) == 1:
            text += f" ({'not started' if open_runs.iloc[0] == 'missing' else open_runs.iloc[0]})"
        elif len(open_runs):
            text += f" ({len(open_runs)} of {len(rows)} not finished)"
        entries.append(style.named(text, style.of(rows.norm.iloc[0])))
    if (runs.status == "diverged").any():
        entries.append(style.marked("diverged", style.DIVERGED))
    return entries


def draw_curve(axis: Axes, rows: pd.DataFrame, column: str, one: style.Style, offset: int = 0) -> None:
    """One variant's `column` over the epochs: the mean of its finished runs, with a band from lowest to highest.

    Every other run is a thin line of its own: a run that ended early must not make the mean jump.
    """
    done = rows[rows.status == "complete"]
    everywhere = done.groupby("epoch").run.transform("size") == done.run.nunique()
    table = done[everywhere].pivot(index="epoch", columns="run", values=column)
    if len(table):
        mean = table.mean(axis=1, skipna=False)
        above = 3.5 if one.outline else 3
        axis.plot(mean.index, mean, **style.line(one, 4.5, markevery=spaced(len(mean), offset), zorder=above))
        if table.shape[1] > 1:
            axis.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=one.colour, alpha=0.16, lw=0)
    for _, run in rows[~rows.run.isin(table.columns)].groupby("run", sort=False):
        axis.plot(run.epoch, run[column], **style.line(one, 3.5, linewidth=1.1, markevery=spaced(len(run))))


def spaced(count: int, offset: int = 0) -> tuple[int, int]:
    """First of about 12 markers along a line of `count` points, and the step between them."""
    every = max(1, math.ceil(count / 12))
    return offset % every, every


def draw_crosses(axis: Axes, runs: pd.DataFrame, epochs: pd.DataFrame, column: str, worst: float) -> None:
    """A cross where a run diverged: at its last value, or at the height `worst` (0 to 1) if it finished no epoch."""
    steps = (epochs.step / epochs.epoch).groupby(epochs.batch_size).median()
    for _, run in runs[(runs.status == "diverged") & runs.batch_size.isin(steps.index)].iterrows():
        x, mine = run.diverged_at_step / steps[run.batch_size], epochs[epochs.run == run["name"]]
        if len(mine):
            y = mine[column].iloc[-1]
            axis.plot([mine.epoch.iloc[-1], x], [y, y], **style.line(style.of(run.norm), None, linewidth=1.1))
            axis.plot([x], [y], **_cross(run.norm))
        else:
            axis.plot([x], [worst], transform=axis.get_xaxis_transform(), **_cross(run.norm))


def _cross(norm: str) -> dict[str, Any]:
    one = replace(style.of(norm), marker=style.DIVERGED.marker, outline=False)
    return style.markers(one, 8, clip_on=False, zorder=5)


@style.styled
def test_accuracy(
    evaluations: pd.DataFrame, intervals: pd.DataFrame, subtitle: str, published: Mapping[str, float] | None = None
) -> Figure:
    """Test accuracy after the last epoch: dots for the seeds, a mark for their mean, a bar for its interval.

    Args:
        evaluations: rows of finished runs on the test images with the running averages.
        intervals: columns `low` and `high` by label.
        subtitle: what the figure says of itself.
        published: the original paper's value by norm.
    """
    published = published or {}
    groups = [(str(label), rows) for label, rows in evaluations.groupby("label", observed=True)]
    known = any(rows.norm.iloc[0] in published for _, rows in groups)
    entries = [style.marked("original paper (one seed)", style.PUBLISHED)] if known else []
    figure, (axis,) = style.sheet("Accuracy on the test images", subtitle, entries, height=0.32 * len(groups) + 0.45)
    for row, (label, rows) in enumerate(groups):
        one, values = style.of(rows.norm.iloc[0]), 100 * rows.accuracy
        if len(values) > 1:
            axis.plot(values, [row] * len(values), "o", color=one.colour, alpha=0.4, markersize=4.5, markeredgewidth=0)
        ends = np.clip(100 * intervals.loc[label, ["low", "high"]].astype(float), 0, 100)
        axis.plot(ends, [row, row], color=one.colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot([values.mean()], [row], **style.markers(one, 7.5, zorder=5))
        if rows.norm.iloc[0] in published:
            axis.plot([100 * published[rows.norm.iloc[0]]], [row], **style.markers(style.PUBLISHED, 5.5, zorder=6))
    axis.set_yticks(range(len(groups)), [style.plain(label, 34) for label, _ in groups])
    for text in axis.get_yticklabels():
        text.set(color=style.INK, parse_math=False)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    style.panel(axis, "", "Test accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.grid(True, axis="x")
    return figure


@style.styled
def sanity_check(
    epochs: pd.DataFrame, subtitle: str, pair: Sequence[str] = SANITY_PAIR, margin: float = EQUALITY_MARGIN
) -> Figure:
    """A norm and the baseline it must equal (`pair`): loss, validation accuracy, and their difference by seed.

    The band in the difference is `margin` on either side of zero.
    """
    other, baseline = (_percent(epochs[epochs.norm == norm]) for norm in pair)
    labels = {norm: str(rows.label.iloc[0]) for norm, rows in zip(pair, (other, baseline), strict=True)}
    entries = [style.named(labels[norm], style.of(norm)) for norm in reversed(pair)]
    title = f"Sanity check: {labels[pair[0]]}, {labels[pair[1]]}"
    figure, axes = style.sheet(title, subtitle, entries, 3, 3, 2.6)
    for axis, column in zip(axes, ("train_loss", "val_accuracy"), strict=False):
        for rows in (baseline, other):  # the outline last: both remain visible
            draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]))
    style.log_axis(axes[0])
    both = other.merge(baseline, on=["seed", "epoch"], suffixes=("", "_of_baseline"))
    table = (both.val_accuracy - both.val_accuracy_of_baseline).groupby([both.epoch, both.seed]).mean().unstack()
    axes[2].axhspan(-100 * margin, 100 * margin, color=EQUAL, alpha=0.2, linewidth=0)
    axes[2].axhline(0, color=style.MUTED, linewidth=0.8)
    if table.shape[1] == 1:
        axes[2].plot(table.index, table, **style.line(style.of(pair[0]), 4, markevery=spaced(len(table))))
    else:
        axes[2].plot(table.index, table, color=style.INK, linewidth=0.8, alpha=0.45)
        axes[2].plot(table.index, table.mean(axis=1, skipna=False), color=style.INK, linewidth=2.2)
    bound = 1.1 * max(200 * margin, float(np.nanmax(np.abs(table.to_numpy()))))
    style.value_axis(axes[2], -bound, bound, compressed=bound > 10)
    for axis, name in zip(axes, ("Training loss (log)", "Validation acc. (%)", "Difference (points)"), strict=True):
        style.panel(axis, name, "Epoch")
    if bound > 10:
        axes[2].set_ylabel("compressed beyond ±1", size=8)
    style.epoch_axis(axes)
    return figure


@style.styled
def learning_rates(runs: pd.DataFrame, evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Validation error after the last epoch by learning rate; a cross at the top where a run diverged.

    Args:
        runs: the runs at every rate.
        evaluations: their rows on the validation images with the running averages.
        subtitle: what the figure says of itself.
    """
    shown = errors(evaluations)
    title, legend = "Validation error by learning rate", run_legend(runs, "norm_label")
    figure, (axis,) = style.sheet(title, subtitle, legend, height=3.0)
    for norm, rows in shown.groupby("norm", sort=False):
        draw_points(axis, rows, "learning_rate", "error", style.of(str(norm)))
    error_axis([axis])
    for _, run in runs[runs.status == "diverged"].iterrows():
        axis.plot([run.learning_rate], [0.99], transform=axis.get_xaxis_transform(), **_cross(run.norm))
    style.panel(axis, "Validation error after the last epoch (%)", "Learning rate (log scale)")
    axis.set_xscale("log")
    rates = sorted(runs.learning_rate.unique())
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.set_xticks([], minor=True)
    return figure


def errors(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The same rows with a column `error`, in per cent."""
    return evaluations.assign(error=100 * (1 - evaluations.accuracy))


def draw_points(axis: Axes, rows: pd.DataFrame, x: str, y: str, one: style.Style, **changes: Any) -> None:
    """The mean of `y` at each `x`, joined by a line, and a pale dot for each seed where there are several."""
    means = rows.groupby(x)[y].agg(["mean", "size"])
    axis.plot(means.index, means["mean"], **style.line(one, zorder=3, **changes))
    several = rows[rows[x].isin(means.index[means["size"] > 1])]
    axis.plot(several[x], several[y], "o", color=one.colour, alpha=0.35, markersize=4, markeredgewidth=0)


def error_axis(axes: Sequence[Axes]) -> None:
    """A logarithmic scale where the errors (per cent) span more than a factor of four and none is zero."""
    shown = np.concatenate([np.asarray(one.get_ydata(), float) for axis in axes for one in axis.lines])
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() > 4 * shown.min():
        for axis in axes:
            axis.set_ylim(shown.min() / 1.25, min(shown.max() * 1.25, 100 if shown.max() <= 100 else np.inf))
            style.log_axis(axis)


@style.styled
def confusion(evaluations: pd.DataFrame, class_names: Sequence[str], subtitle: str) -> Figure:
    """What each variant takes the images of a class for: the share of every pair of classes, over all finished seeds.

    Args:
        evaluations: rows of one split with the running averages; `confusion_matrix` (C, C) counts images.
        class_names: names of the C classes.
        subtitle: what the figure says of itself.
    """
    groups = list(evaluations.groupby("label", observed=True))
    title = "Confusions on the test images"
    height = 1.7 + 0.9 / math.ceil(len(groups) / 4)  # the lowest row has the names
    figure, axes = style.sheet(title, subtitle, [], len(groups), 4, height, sharex=True, sharey=True)
    places, names = range(len(class_names)), [style.plain(name, 12) for name in class_names]
    size = 6.5 if len(names) <= 10 else 4
    for axis, (label, rows) in zip(axes, groups, strict=True):
        counts = np.sum([np.asarray(matrix, float) for matrix in rows.confusion_matrix], axis=0)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.4, 0, 100), aspect="auto")
        style.panel(axis, str(label), letters=16)
        axis.grid(False)
        axis.set_xticks(places, names, rotation=90, size=size, parse_math=False)
        axis.set_yticks(places, names, size=size, parse_math=False)
        axis.tick_params(length=0, pad=1)
    for axis in axes[::4]:
        axis.set_ylabel("True class", size=8)
    for axis in axes[-4:]:
        axis.set_xlabel("Predicted class", size=8)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 20, 50, 100], shrink=0.8, pad=0.01, aspect=30)
    bar.set_label("images of the class (%)", size=9)
    bar.outline.set_visible(False)
    return figure
