"""Figures that compare norms: curves over the epochs, accuracies on the test images, learning rates, confusions.

Each takes DataFrames as `Study` has them and returns a matplotlib Figure. Fractions are drawn in per cent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnorm.study.report import style
from jaxnorm.study.report.frames import RULES, under_rule

EQUAL = "#009e73"  # the band in which two variants count as equal


def subtitle(runs: pd.DataFrame, data: str) -> str:
    """What every figure says of itself: data, batch size, epochs, initialization, seeds.

    Args:
        runs: rows of `Study.runs`.
        data: the data in words.
    """
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


OTHER_STATISTICS = {
    "precise": ("precise statistics, own batch size", "D"),
    "precise_128": ("precise statistics, batches of 128", "s"),
    "evaluation_batch": ("statistics of the evaluation batch", "^"),
}
_CURVES = {
    "accuracy": {"train_accuracy": "Training accuracy (%)", "val_accuracy": "Validation accuracy (%)"},
    "loss": {"train_loss": "Training loss (log scale)", "val_loss": "Validation loss (log scale)"},
}


@style.styled
def curves(runs: pd.DataFrame, epochs: pd.DataFrame, kind: str, subtitle: str) -> Figure:
    """Training and validation accuracy or loss over the epochs, with a cross where a run diverged.

    Args:
        runs: rows of `Study.runs`.
        epochs: rows of `Study.epochs`.
        kind: accuracy or loss.
        subtitle: what the figure is of, see `subtitle`.
    """
    titles, shown, title = _CURVES[kind], _percent(epochs), f"{kind.capitalize()} over training"
    panels = list(titles.values())
    figure, axes = style.sheet(title, subtitle, style.run_legend(runs), panels, 2, 3.0, "Epoch", sharey=True)
    for axis, column in zip(axes, titles, strict=True):
        for offset, (_, rows) in enumerate(shown.groupby("label", observed=True)):
            _draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]), offset)
        _draw_crosses(axis, runs, shown, column, 0.98 if kind == "loss" else 0.02)
    if kind == "loss":
        style.log_axis(axes[0])  # shared
    return figure


def _percent(epochs: pd.DataFrame) -> pd.DataFrame:
    """Accuracies in per cent; losses as a logarithmic axis can show them, with a gap where one is not finite."""
    losses = epochs[["train_loss", "val_loss"]]
    shown = losses.where(np.isfinite(losses)).clip(lower=1e-8)
    return epochs.assign(**shown, **100 * epochs[["train_accuracy", "val_accuracy"]])


def _draw_curve(axis: Axes, rows: pd.DataFrame, column: str, one: style.Style, offset: int = 0) -> None:
    """One variant's `column` over the epochs: the mean of its finished runs, with a band from lowest to highest.

    Every other run is a thin line of its own: a run that ended early must not make the mean jump.
    """
    done = rows[rows.status == "complete"]
    everywhere = done.groupby("epoch").run.transform("size") == done.run.nunique()
    table = done[everywhere].pivot(index="epoch", columns="run", values=column)
    if len(table):
        mean = table.mean(axis=1, skipna=False)
        above = 3.5 if one.outline else 3
        axis.plot(mean.index, mean, **style.line(one, 4.5, markevery=_spaced(len(mean), offset), zorder=above))
        if table.shape[1] > 1:
            axis.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=one.colour, alpha=0.16, lw=0)
    for _, run in rows[~rows.run.isin(table.columns)].groupby("run", sort=False):
        axis.plot(run.epoch, run[column], **style.line(one, 3.5, linewidth=1.1, markevery=_spaced(len(run))))


def _spaced(count: int, offset: int = 0) -> tuple[int, int]:
    """First of about 12 markers along a line of `count` points, and the step between them."""
    every = max(1, math.ceil(count / 12))
    return offset % every, every


def _draw_crosses(axis: Axes, runs: pd.DataFrame, epochs: pd.DataFrame, column: str, worst: float) -> None:
    """A cross where a run diverged: at its last value, or at the height `worst` (0 to 1) if it finished no epoch."""
    steps = (epochs.step / epochs.epoch).groupby(epochs.batch_size).median()
    for run in runs[(runs.status == "diverged") & runs.batch_size.isin(steps.index)].itertuples():
        x, mine = run.diverged_at_step / steps[run.batch_size], epochs[epochs.run == run.name]
        if len(mine):
            y = [mine[column].iloc[-1]]
            axis.plot([mine.epoch.iloc[-1], x], 2 * y, **style.line(style.of(run.norm), None, linewidth=1.1))
            axis.plot([x], y, **_cross(run.norm))
        else:
            axis.plot([x], [worst], transform=axis.get_xaxis_transform(), **_cross(run.norm))


def _cross(norm: str) -> dict[str, Any]:
    one = replace(style.of(norm), marker=style.DIVERGED.marker, outline=False)
    return style.markers(one, 8, clip_on=False, zorder=5)


@style.styled
def test_accuracy(
    evaluations: pd.DataFrame, intervals: Mapping[str, tuple[float, float]], subtitle: str,
    published: Mapping[str, float] | None = None,
) -> Figure:  # fmt: skip
    """Test accuracy after the last epoch: dots for the seeds, a mark for their mean, a bar for its interval.

    Args:
        evaluations: rows of `Study.evaluations` on test.
        intervals: by label, the ends of the bar.
        subtitle: what the figure is of, see `subtitle`.
        published: by norm, the original paper's value.
    """
    published = published or {}
    groups = [(str(label), rows) for label, rows in evaluations.groupby("label", observed=True)]
    known = any(rows.norm.iloc[0] in published for _, rows in groups)
    entries = [style.entry("original paper (one seed)", style.PUBLISHED, joined=False)] if known else []
    title, height = "Accuracy on the test images", 0.32 * len(groups) + 0.45
    figure, (axis,) = style.sheet(title, subtitle, entries, height=height, xlabel="Test accuracy (%)")
    for row, (label, rows) in enumerate(groups):
        one, values = style.of(rows.norm.iloc[0]), 100 * rows.accuracy
        if len(values) > 1:
            axis.plot(values, [row] * len(values), "o", color=one.colour, alpha=0.4, markersize=4.5, markeredgewidth=0)
        ends = np.clip(100 * np.array(intervals[label]), 0, 100)
        axis.plot(ends, [row, row], color=one.colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot([values.mean()], [row], **style.markers(one, 7.5, zorder=5))
        if rows.norm.iloc[0] in published:
            axis.plot([100 * published[rows.norm.iloc[0]]], [row], **style.markers(style.PUBLISHED, 5.5, zorder=6))
    axis.set_yticks(range(len(groups)), [style.plain(label, 34) for label, _ in groups])
    for text in axis.get_yticklabels():
        text.set(color=style.INK, parse_math=False)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axis.grid(True, axis="x")
    return figure


@style.styled
def sanity_check(epochs: pd.DataFrame, subtitle: str, pair: Sequence[str], margin: float) -> Figure:
    """A norm and the baseline it must equal: loss, accuracy, and their difference with a band.

    Args:
        epochs: rows of `Study.epochs`.
        subtitle: what the figure is of, see `subtitle`.
        pair: the norm and the baseline.
        margin: half the height of the band, a fraction.
    """
    other, baseline = (_percent(epochs[epochs.norm == norm]) for norm in pair)
    labels = {norm: str(rows.label.iloc[0]) for norm, rows in zip(pair, (other, baseline), strict=True)}
    entries = [style.entry(labels[norm], style.of(norm)) for norm in reversed(pair)]
    title, panels = (
        f"Sanity check: {' and '.join(labels.values())}",
        ["Training loss (log)", "Validation acc. (%)", "Difference (points)"],
    )
    figure, axes = style.sheet(title, subtitle, entries, panels, 3, 2.6, "Epoch")
    for axis, column in zip(axes, ("train_loss", "val_accuracy"), strict=False):
        for rows in (baseline, other):  # the outline last: both remain visible
            _draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]))
    style.log_axis(axes[0])
    both = other.merge(baseline, on=["seed", "epoch"], suffixes=("", "_of_baseline"))
    table = (both.val_accuracy - both.val_accuracy_of_baseline).groupby([both.epoch, both.seed]).mean().unstack()
    axes[2].axhspan(-100 * margin, 100 * margin, color=EQUAL, alpha=0.2, linewidth=0)
    axes[2].axhline(0, color=style.MUTED, linewidth=0.8)
    axes[2].plot(table.index, table, color=style.INK, linewidth=0.8, alpha=0.45)
    mean = table.mean(axis=1, skipna=False)
    axes[2].plot(table.index, mean, **style.line(style.of(pair[0]), 4, markevery=_spaced(len(table))))
    bound = 1.1 * max(200 * margin, float(np.nanmax(np.abs(table.to_numpy()))))
    style.value_axis(axes[2], -bound, bound, compressed=bound > 10)
    if bound > 10:
        axes[2].set_ylabel("compressed beyond ±1", size=8)
    return figure


@style.styled
def learning_rates(runs: pd.DataFrame, evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Validation error after the last epoch by learning rate; a cross at the top where a run diverged.

    Args:
        runs: rows of `Study.runs`.
        evaluations: rows of `Study.evaluations` on validation.
        subtitle: what the figure is of, see `subtitle`.
    """
    panel = "Validation error after the last epoch (%)"
    title, legend = "Validation error by learning rate", style.run_legend(runs, "norm_label")
    figure, (axis,) = style.sheet(title, subtitle, legend, [panel], xlabel="Learning rate (log scale)")
    for norm, rows in evaluations.groupby("norm", sort=False):
        _draw_errors(axis, rows, "learning_rate", style.of(str(norm)))
    _error_axis([axis])
    for _, run in runs[runs.status == "diverged"].iterrows():
        axis.plot([run.learning_rate], [0.99], transform=axis.get_xaxis_transform(), **_cross(run.norm))
    axis.set_xscale("log")
    style.named_axis(axis, sorted(runs.learning_rate.unique()))
    return figure


def _draw_errors(axis: Axes, rows: pd.DataFrame, x: str, one: style.Style) -> None:
    """The mean error at each `x`, joined by a line, and a pale dot for each seed where there are several."""
    errors = 100 * (1 - rows.accuracy)
    means = errors.groupby(rows[x]).agg(["mean", "size"])
    axis.plot(means.index, means["mean"], **style.line(one, zorder=3))
    several = rows[x].isin(means.index[means["size"] > 1])
    axis.plot(rows[x][several], errors[several], "o", color=one.colour, alpha=0.35, markersize=4, markeredgewidth=0)


def _error_axis(axes: Sequence[Axes]) -> None:
    """A logarithmic scale where the errors (per cent) span more than a factor of four and none is zero."""
    shown = np.concatenate([np.asarray(one.get_ydata(), float) for axis in axes for one in axis.lines])
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() > 4 * shown.min():
        for axis in axes:
            axis.set_ylim(shown.min() / 1.25, min(shown.max() * 1.25, 100 if shown.max() <= 100 else np.inf))
            style.log_axis(axis)


def rules_of(rows: pd.DataFrame) -> list[str]:
    """The rules for the learning rate under which anything was trained.

    Args:
        rows: rows of any table of a `Study`.
    """
    return [rule for rule in RULES if (rows.lr_rule == rule).any()]


@style.styled
def batch_sizes(runs: pd.DataFrame, evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Validation error by batch size, a panel for each rule.

    Hollow markers: the same weights with other statistics. Dashed, in both panels: ghosts, at their own size, trained
    with the rate of their large batch.

    Args:
        runs: rows of `Study.runs`.
        evaluations: rows of `Study.evaluations` on validation.
        subtitle: what the figure is of, see `subtitle`.
    """
    shown = evaluations
    running, parts = shown[shown.statistics == "running"], shown[shown.ghost_batch_size.notna()]
    kinds = {kind: look for kind, look in OTHER_STATISTICS.items() if (shown.statistics == kind).any()}
    ghosts = {norm: replace(style.of(norm), marker="h", dash=style.DASHES[1], outline=True) for norm in parts.norm}
    entries = style.run_legend(runs[runs.ghost_batch_size.isna()], "norm_label")
    for name, marker in kinds.values():
        entries.append(style.entry(name, style.Style(style.INK, marker, outline=True), joined=False))
    entries += [style.entry(f"ghosts, {norm}", look) for norm, look in ghosts.items()]
    title, rules, xlabel = "Validation error by batch size", rules_of(shown), "Batch size (log scale)"
    panels = [f"{rule.capitalize()} rate: validation error (%)" for rule in rules]
    figure, axes = style.sheet(title, subtitle, entries, panels, 2, 3.1, xlabel, sharey=True)
    sizes = sorted({*shown.batch_size, *parts.ghost_batch_size})
    for axis, rule in zip(axes, rules, strict=True):
        for norm, rows in under_rule(shown, rule).groupby("norm", sort=False):
            _draw_errors(axis, rows[rows.statistics == "running"], "batch_size", style.of(str(norm)))
            for place, (kind, (_, marker)) in enumerate(kinds.items(), start=1):
                means = 100 * (1 - rows[rows.statistics == kind].groupby("batch_size").accuracy.mean())
                hollow = replace(style.of(str(norm)), marker=marker, outline=True)
                beside = means.index / 2 ** (0.14 * place)
                axis.plot(beside, means, linestyle="none", **style.markers(hollow, 4, zorder=4))
        for norm, look in ghosts.items():
            mine = running[(running.norm == norm) & running.ghost_batch_size.notna()]
            _draw_errors(axis, mine, "ghost_batch_size", look)
        axis.set_xscale("log", base=2)
        style.named_axis(axis, sizes)
        axis.set_xlim(max(sizes) * 2**0.35, min(sizes) / 2**0.6)  # the largest on the left, as in the group norm paper
    _error_axis(axes)
    return figure


@style.styled
def confusion(evaluations: pd.DataFrame, class_names: Sequence[str], subtitle: str) -> Figure:
    """What each variant takes the images of a class for: the share of every pair of classes, over all seeds.

    Args:
        evaluations: rows of `Study.evaluations` on test.
        class_names: names of the classes; numbers are shown if there are too many or too few.
        subtitle: what the figure is of, see `subtitle`.
    """
    groups = {str(label): rows for label, rows in evaluations.groupby("label", observed=True)}
    title, height = "Confusions on the test images", 1.7 + 0.9 / math.ceil(len(groups) / 4)  # names below the lowest
    figure, axes = style.sheet(
        title, subtitle, [], list(groups), 4, height, "Predicted class", 8, sharex=True, sharey=True
    )
    places = range(len(evaluations.confusion_matrix.iloc[0]))
    names = [style.plain(str(name), 12) for name in (class_names if len(class_names) == len(places) else places)]
    size = 6.5 if len(names) <= 10 else 4
    for index, (axis, rows) in enumerate(zip(axes, groups.values(), strict=True)):
        counts = np.sum([np.asarray(matrix, float) for matrix in rows.confusion_matrix], axis=0)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axis.imshow(share, cmap="Blues", norm=PowerNorm(0.4, 0, 100), aspect="auto")
        axis.grid(False)
        axis.set_xticks(places, names, rotation=90, size=size, parse_math=False)
        axis.set_yticks(places, names, size=size, parse_math=False)
        axis.set_ylabel("" if index % 4 else "True class", size=8)
        axis.xaxis.label.set_fontsize(8)
        axis.tick_params(length=0, pad=1)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1, 5, 20, 50, 100], shrink=0.8, pad=0.01, aspect=30)
    bar.set_label("images of the class (%)", size=9)
    bar.outline.set_visible(False)
    return figure
