"""Figures of final accuracies: a dot for each seed, on the test images, as differences, and by learning rate.

Each takes rows of a `Study`'s tables and a subtitle, and returns a matplotlib Figure. Fractions are drawn in per cent.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxnorm.study.report import style
from jaxnorm.study.report.formats import within


@style.styled
def test_accuracy(
    evaluations: pd.DataFrame, ends: Mapping[str, tuple[float, float]], subtitle: str, published: Mapping[str, float]
) -> Figure:
    """Accuracy of `evaluations` on test: dots for the seeds, a mark for their mean, a bar for its interval.

    The scale is the logit. `ends` has those of the bars by label, `published` the original paper's value by norm;
    `subtitle` says what the figure is of.
    """
    groups = [(str(label), rows) for label, rows in evaluations.groupby("label", observed=True)]
    known = any(rows.norm.iloc[0] in published for _, rows in groups)
    entries = [style.entry("original paper (one seed)", style.PUBLISHED, joined=False)] if known else []
    title, height = "Accuracy on the test images", 0.32 * len(groups) + 0.45
    broken = max(evaluations.accuracy.max(), *(high for _, high in ends.values())) >= 1
    xlabel = "Test accuracy (%), logit scale" + ", broken before 100 %" * bool(broken)
    figure, (axis,) = style.sheet(title, subtitle, entries, height=height, xlabel=xlabel)
    for row, (label, rows) in enumerate(groups):
        one, values = style.of(rows.norm.iloc[0]), 100 * rows.accuracy
        if len(values) > 1:
            axis.plot(values, [row] * len(values), "o", color=one.colour, alpha=0.4, markersize=4.5, markeredgewidth=0)
        bar = np.clip(100 * np.array(ends[label]), 0, 100)
        axis.plot(bar, [row, row], color=one.colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot([values.mean()], [row], **style.markers(one, 7.5, zorder=5))
        if rows.norm.iloc[0] in published:
            axis.plot([100 * published[rows.norm.iloc[0]]], [row], **style.markers(style.PUBLISHED, 5.5, zorder=6))
    name_rows(axis, [style.plain(label, 34) for label, _ in groups])
    style.logit_axis(axis, int(evaluations.num_images.max()), "x")
    return figure


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Makes `axis` a list of rows with these `names`, the first on top."""
    axis.set_yticks(range(len(names)), names)
    for text in axis.get_yticklabels():
        text.set(color=style.INK, parse_math=False)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(True, axis="x")


@style.styled
def forest(found: pd.DataFrame, null: float | None, subtitle: str) -> Figure:
    """Paired differences in test accuracy: dots for the seeds, a mark for their mean, a bar for its interval.

    `found` are rows of `comparisons.paired`: `label` minus `against`. Shaded is from -`null` to `null`, a fraction: how
    far two runs of one function are apart. `subtitle` says what the figure is of.
    """
    bars = [100 * np.array([one.low, one.high] if one else []) for one in found.interval]
    compressed = style.far_apart(
        [np.abs([*bar, 100 * mean]).max() for bar, mean in zip(bars, found["mean"], strict=True)]
    )
    words = []
    for one in found.itertuples():
        sides = style.plain(one.label, 100), f"− {style.plain(within(one.against), 100)}"
        wrapped = "\n".join("\n".join(textwrap.wrap(side, 42)) for side in sides)
        words.append(" ".join(sides) if len(" ".join(sides)) <= 36 else wrapped)
    lines = max(text.count("\n") for text in words)
    band = f"two runs of one function: within {100 * (null or 0):.2f} points of each other"
    entries = [] if null is None else [Patch(label=band, facecolor=style.GRID)]
    title, about, xlabel = "Paired differences", subtitle + style.COMPRESSED * compressed, "Points of test accuracy"
    height = (0.36 + 0.13 * lines) * len(words) + 0.45
    figure, (axis,) = style.sheet(title, about, entries, height=height, xlabel=xlabel)
    if null is not None:
        axis.axvspan(-100 * null, 100 * null, color=style.GRID, linewidth=0, zorder=0)
    axis.axvline(0, color=style.INK, linewidth=0.9, zorder=1)
    for row, (bar, one) in enumerate(zip(bars, found.to_dict("records"), strict=True)):
        look, values = style.of(one["norm"]), 100 * np.array(one["differences"])
        if len(values) > 1:
            axis.plot(values, [row] * len(values), "o", color=look.colour, alpha=0.35, markersize=4, markeredgewidth=0)
        axis.plot(bar, [row] * len(bar), color=look.colour, linewidth=1.8, solid_capstyle="butt")
        axis.plot([100 * one["mean"]], [row], **style.markers(look, 6.5, zorder=5))
    name_rows(axis, words)
    style.value_axis(axis, compressed, 9, "x")
    return figure


@style.styled
def learning_rates(runs: pd.DataFrame, evaluations: pd.DataFrame, chosen: Mapping[str, float], subtitle: str) -> Figure:
    """Validation error by learning rate, a panel for each norm: a dot for each seed, a line through the means.

    `evaluations` are of validation; a cross at the top: one of `runs` diverged. `chosen` has the rate of each norm that
    its comparisons use. No error is drawn below half an image. `subtitle` says what the figure is of.
    """
    rates, groups = sorted(runs.learning_rate.unique()), list(runs.groupby("norm", sort=False))
    entries: list[Artist] = [Patch(label="chosen on validation", facecolor=style.GRID)]
    if (runs.status == "diverged").any():
        entries.append(style.entry("diverged (one cross a seed)", style.DIVERGED, joined=False))
    title, about = "Validation error by learning rate", f"{subtitle} · error in %, log scale"
    panels, share_axes = [rows.norm_label.iloc[0] for _, rows in groups], dict(sharex=True, sharey=True)
    figure, axes = style.sheet(title, about, entries, panels, 3, 1.8, "Learning rate", 8.5, **share_axes)
    error = 100 * (1 - evaluations.accuracy).clip(lower=0.5 / evaluations.num_images)
    seeds = sorted(runs.seed.unique())
    side = dict(zip(seeds, np.linspace(-0.2, 0.2, len(seeds) + 2)[1:-1], strict=True))
    for axis, (norm, mine) in zip(axes, groups, strict=True):
        one, rows = style.of(str(norm)), evaluations[evaluations.norm == norm]
        if norm in chosen:
            axis.axvspan(rates.index(chosen[norm]) - 0.4, rates.index(chosen[norm]) + 0.4, color=style.GRID, lw=0)
        x = rows.learning_rate.map(rates.index)
        dots: dict[str, Any] = dict(
            color=one.colour, alpha=0.5, markersize=4.5, markeredgewidth=0, linestyle="none", marker="o"
        )
        axis.plot(x + rows.seed.map(side), error[rows.index], **dots)
        means = error[rows.index].groupby(x).mean()
        axis.plot(means.index, means, **style.line(one, 5.5, zorder=4))
        for run in mine[mine.status == "diverged"].itertuples():
            cross = style.markers(replace(one, marker=style.DIVERGED.marker, outline=False), 6.5, clip_on=False)
            at = rates.index(run.learning_rate) + side[run.seed]
            axis.plot([at], [1], transform=axis.get_xaxis_transform(), **cross)
    axes[0].set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes[0].set_xlim(-0.5, len(rates) - 0.5)
    style.log_axis(axes[0])  # shared
    return figure
