"""Figures over the epochs: accuracy, loss, and the library's batch norm against ours."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnorm.study.analysis.comparison import EQUALITY_MARGIN, SANITY_PAIR
from jaxnorm.study.analysis.epochs import Epoch
from jaxnorm.study.analysis.runs import Run, Study
from jaxnorm.study.analysis.scales import plain_log_ticks, share_limits
from jaxnorm.study.analysis.sheet import (
    DIVERGED_ENTRY,
    Entry,
    Layout,
    legend_text,
    line_style,
    marker_style,
    panel,
    sheet,
    subtitle,
)
from jaxnorm.study.analysis.styles import DIVERGED, EQUAL, MUTED, Style, styles_of

Value = Callable[[Epoch], float]


def draw_accuracy(study: Study, layout: Layout) -> Figure:
    """Accuracy of every variant over the epochs, training beside validation, on shared axes."""
    figure, axes = _curve_sheet(study, layout, "Accuracy over training")
    values = (lambda e: 100 * e.train_accuracy, lambda e: 100 * e.val_accuracy)
    for axis, title, value in zip(axes, ("Training accuracy (%)", "Validation accuracy (%)"), values, strict=True):
        _curves(axis, study, value, worst="low")
        panel(axis, title)
    share_limits(axes)
    return figure


def draw_loss(study: Study, layout: Layout) -> Figure:
    """Cross entropy of every variant over the epochs, training beside validation, on a logarithmic axis."""
    figure, axes = _curve_sheet(study, layout, "Loss over training")
    values = (lambda e: drawable(e.train_loss), lambda e: drawable(e.val_loss))
    for axis, title, value in zip(axes, ("Training loss", "Validation loss"), values, strict=True):
        axis.set_yscale("log")
        _curves(axis, study, value, worst="high")
        panel(axis, f"{title} (cross entropy, log scale)" if layout.wide else f"{title} (log scale)")
    share_limits(axes)
    for axis in axes:
        plain_log_ticks(axis)
    return figure


def drawable(loss: float) -> float:
    """A loss as a logarithmic axis can show it: zero at its lower end, a gap where it is not finite."""
    return max(loss, 1e-8) if math.isfinite(loss) else math.nan


def _curve_sheet(study: Study, layout: Layout, title: str) -> tuple[Figure, list[Axes]]:
    styles = styles_of(study)
    entries = [Entry(legend_text(study, norm), styles[norm]) for norm in study.variants]
    if any(run.status == "diverged" for run in study.runs):
        entries.append(DIVERGED_ENTRY)
    return sheet(layout, title, subtitle(study), entries, panels=2, columns=2 if layout.wide else 1, height=2.9)


def _curves(axis: Axes, study: Study, value: Value, worst: str) -> None:
    styles = styles_of(study)
    for index, norm in enumerate(study.variants):
        draw_curve(axis, study.of(norm), value, styles[norm], offset=index)
    _crosses(axis, study, value, worst)


def draw_curve(axis: Axes, runs: Sequence[Run], value: Value, style: Style, offset: int = 0) -> None:
    """The mean of the finished runs with a band from lowest to highest; every other run as a thin line of its own.

    A run that ended early must not make the mean jump, hence the division.
    """
    finished = [run for run in runs if run.complete and run.epochs]
    shared = sorted(set.intersection(*({e.epoch for e in run.epochs} for run in finished))) if finished else []
    if shared:
        table = np.array([[value(e) for e in run.epochs if e.epoch in set(shared)] for run in finished])
        every = max(1, math.ceil(len(shared) / 12))
        above = 3.5 if style.open else 3  # what is drawn as outlines lies on top: what is below shows through
        axis.plot(shared, table.mean(axis=0), markevery=(offset % every, every), zorder=above, **line_style(style))
        if len(finished) > 1:
            low, high = table.min(axis=0), table.max(axis=0)
            axis.fill_between(shared, low, high, color=style.colour, alpha=0.16, linewidth=0, zorder=2)
    for run in runs:
        if run.epochs and not (run.complete and shared):
            points = [(e.epoch, value(e)) for e in run.epochs]
            every = max(1, math.ceil(len(points) / 12))
            thin = line_style(style) | {"linewidth": 1.1, "markersize": 4}
            axis.plot(*zip(*points, strict=True), markevery=every, zorder=3, **thin)


def _crosses(axis: Axes, study: Study, value: Value, worst: str) -> None:
    """A cross at the step at which each diverged run did so: beside its last value, or at the axis' worst end."""
    styles, per_epoch = styles_of(study), _steps_per_epoch(study)
    for run in study.runs:
        if run.status != "diverged" or run.diverged_at_step is None or per_epoch is None:
            continue
        x = run.diverged_at_step / per_epoch
        cross = marker_style(Style(styles[run.norm].colour, DIVERGED), size=9) | {"clip_on": False, "zorder": 5}
        if run.epochs:
            last = run.epochs[-1]
            axis.plot([last.epoch, x], [value(last)] * 2, color=styles[run.norm].colour, linewidth=1.1, zorder=3)
            axis.plot([x], [value(last)], **cross)
        else:
            y = 0.02 if worst == "low" else 0.98
            axis.plot([x], [y], transform=axis.get_xaxis_transform(), **cross)


def _steps_per_epoch(study: Study) -> float | None:
    for run in study.runs:
        if run.epochs:
            return run.epochs[0].step / run.epochs[0].epoch
    images, batch = study.data.get("num_train"), study.recipe.get("batch_size")
    return float(images // batch) if images and batch and images >= batch else None


def draw_sanity(study: Study, layout: Layout) -> Figure:
    """The library's batch norm against ours: loss, validation accuracy and their difference."""
    styles = styles_of(study)
    library, own = SANITY_PAIR
    entries = [Entry(legend_text(study, norm), styles[norm]) for norm in (own, library)]
    figure, axes = sheet(
        layout,
        f"Sanity check: {study.label(library)}, {study.label(own)}",
        subtitle(study),
        entries,
        panels=3,
        columns=3 if layout.wide else 1,
        height=2.5,
    )
    for axis, title, value in zip(
        axes,
        ("Training loss (log scale)", "Validation accuracy (%)"),
        (lambda e: drawable(e.train_loss), lambda e: 100 * e.val_accuracy),
        strict=False,
    ):
        for norm in (own, library):  # the library's dashes lie on our line where the two agree
            draw_curve(axis, study.of(norm), value, styles[norm])
        panel(axis, title)
    axes[0].set_yscale("log")
    plain_log_ticks(axes[0])
    _differences(axes[2], study, styles[library])
    panel(axes[2], "Validation difference (points)")
    return figure


def _differences(axis: Axes, study: Study, style: Style) -> None:
    library, own = SANITY_PAIR
    margin = 100 * EQUALITY_MARGIN
    axis.axhspan(-margin, margin, color=EQUAL, alpha=0.12, linewidth=0)
    axis.axhline(0, color=MUTED, linewidth=0.8)
    pairs = list(paired_differences(study, library, own))
    for points in pairs:
        thin = {"linewidth": 0.9, "alpha": 0.5} if len(pairs) > 1 else line_style(style)
        axis.plot(*zip(*points, strict=True), **({"color": style.colour} | thin))
    epochs = [epoch for epoch, _ in min(pairs, key=len)]
    if len(pairs) > 1:
        mean = np.mean([[difference for _, difference in points[: len(epochs)]] for points in pairs], axis=0)
        axis.plot(epochs, mean, **(line_style(style) | {"linestyle": "-", "marker": "", "linewidth": 2.2}))
    bound = 1.15 * max([2 * margin] + [abs(difference) for points in pairs for _, difference in points])
    axis.set_ylim(-bound, bound)


def paired_differences(study: Study, norm: str, baseline: str) -> list[list[tuple[int, float]]]:
    """For each seed that both have: (epoch, validation accuracy of `norm` minus `baseline` in points)."""
    found = []
    for run in study.of(norm):
        other = next((other for other in study.of(baseline) if other.seed == run.seed), None)
        theirs = {e.epoch: e.val_accuracy for e in other.epochs} if other else {}
        points = [(e.epoch, 100 * (e.val_accuracy - theirs[e.epoch])) for e in run.epochs if e.epoch in theirs]
        if points:
            found.append(points)
    return found
