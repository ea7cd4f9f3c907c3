"""Figures of the batch-size study: accuracy, curves and time by batch size, and ghosts beside real small batches."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnorm.study.analysis import batches
from jaxnorm.study.analysis.batches import KINDS, RULE_NAMES, Cell
from jaxnorm.study.analysis.curves import draw_curve
from jaxnorm.study.analysis.runs import Study
from jaxnorm.study.analysis.scales import batch_axis, plain_log_ticks, share_limits
from jaxnorm.study.analysis.sheet import Entry, Layout, line_style, marker_style, panel, plain, sheet, subtitle
from jaxnorm.study.analysis.styles import INK, MUTED, Style, styles_of

BATCH_AXIS = "Batch size (log scale)"
KIND_MARKERS = {"precise": "D", "precise_128": "s", "evaluation_batch": "^"}
GHOST = "h"


def draw_batch_sizes(study: Study, layout: Layout) -> Figure:
    """Validation error by batch size, a panel for each rule; other statistics as hollow markers."""
    rules, norms, styles = batches.rules(study), batches.norms_of(study), styles_of(study)
    kinds = [
        kind for kind in KIND_MARKERS if any(c.with_statistics(kind) for c in batches.cells(study) if c.ghost is None)
    ]
    entries = _norm_entries(study, norms)
    entries += [Entry(KINDS[kind], _hollow(INK, kind), line=False) for kind in kinds]
    figure, axes = sheet(
        layout,
        "Validation error by batch size",
        subtitle(study),
        entries,
        panels=len(rules),
        columns=len(rules) if layout.wide else 1,
        height=3.0,
    )
    for axis, rule in zip(axes, rules, strict=True):
        for norm in norms:
            found = [cell for cell in batches.real(study, norm, rule) if cell.validation]
            _draw_line(axis, [(cell.batch_size, cell) for cell in found], styles[norm])
            for place, kind in enumerate(kinds, start=1):
                points = [
                    (c.batch_size / 2 ** (0.12 * place), v)
                    for c in found
                    if (v := _error(c.with_statistics(kind))) is not None
                ]
                if points:
                    axis.plot(
                        *zip(*points, strict=True), linestyle="none", zorder=4, **_hollow_style(styles[norm], kind)
                    )
        batch_axis(axis, batches.sizes(study))
        panel_title(axis, f"{RULE_NAMES[rule]}: validation error (%)", BATCH_AXIS)
    _error_scale(axes)
    return figure


def draw_ghosts(study: Study, layout: Layout) -> Figure:
    """Validation error by the number of images behind one statistic: real small batches, and ghosts in a large one."""
    norms, styles = batches.norms_of(study, lambda cell: cell.ghost is not None), styles_of(study)
    rules = batches.rules(study)
    large = sorted({cell.batch_size for cell in batches.ghosts(study)})
    within = " or ".join(map(str, large))
    entries = [Entry(f"{plain(study.norm_label(norm), 30)}, real batches", styles[norm]) for norm in norms]
    entries += [
        Entry(f"{plain(study.norm_label(norm), 30)}, ghosts in {within}", _ghost_style(styles[norm])) for norm in norms
    ]
    figure, axes = sheet(
        layout,
        "Ghost batches beside real small ones",
        subtitle(study),
        entries,
        panels=len(rules),
        columns=len(rules) if layout.wide else 1,
        height=2.8,
    )
    images = set(batches.sizes(study)) | {cell.ghost for cell in batches.ghosts(study) if cell.ghost}
    for axis, rule in zip(axes, rules, strict=True):
        for norm in norms:
            found = [cell for cell in batches.real(study, norm, rule) if cell.validation]
            _draw_line(axis, [(cell.batch_size, cell) for cell in found], styles[norm])
            parts = [cell for cell in batches.ghosts(study, norm) if cell.validation]
            # The ghosts' own batch is the rule's reference, so that they belong into both panels.
            _draw_line(axis, [(cell.ghost or 1, cell) for cell in parts], _ghost_style(styles[norm]))
        batch_axis(axis, sorted(images))
        panel_title(
            axis, f"Real batches: {RULE_NAMES[rule].lower()}, error (%)", "Images behind one statistic (log scale)"
        )
    _error_scale(axes)
    return figure


def draw_batch_curves(study: Study, layout: Layout, rule: str) -> Figure:
    """Accuracy over the epochs, a panel for each batch size."""
    norms, styles = batches.norms_of(study), styles_of(study)
    table = {norm: {cell.batch_size: cell for cell in batches.real(study, norm, rule)} for norm in norms}
    shown = [
        size for size in batches.sizes(study)
        if any(run.epochs for norm in norms if size in table[norm] for run in table[norm][size].runs)
    ]  # fmt: skip
    columns = min(len(shown), 4 if layout.wide else 2)
    entries = [*_norm_entries(study, norms), Entry("thin: training accuracy", Style(MUTED, "", (1.5, 1.2)))]
    figure, axes = sheet(
        layout,
        f"Accuracy (%): {RULE_NAMES[rule].lower()}",
        subtitle(study),
        entries,
        panels=len(shown),
        columns=columns,
        height=2.0,
        share=True,
    )
    for index, (axis, size) in enumerate(zip(axes, shown, strict=True)):
        for offset, norm in enumerate(norms):
            if (cell := table[norm].get(size)) is None:
                continue
            draw_curve(axis, cell.runs, lambda e: 100 * e.val_accuracy, styles[norm], offset=offset)
            for run in cell.runs:
                points = [(e.epoch, 100 * e.train_accuracy) for e in run.epochs]
                if points:
                    thin: dict[str, Any] = {
                        "color": styles[norm].colour,
                        "linewidth": 0.9,
                        "linestyle": (0, (1.5, 1.2)),
                    }
                    axis.plot(*zip(*points, strict=True), zorder=2.5, **thin)
        panel(axis, f"Batch size {size}", "Epoch" if index + columns >= len(shown) else "")
    share_limits(axes)
    return figure


def draw_batch_time(study: Study, layout: Layout) -> Figure:
    """Median seconds of an epoch by batch size, both axes logarithmic."""
    norms, styles = batches.norms_of(study), styles_of(study)
    figure, (axis,) = sheet(
        layout, "Time of an epoch by batch size", subtitle(study), _norm_entries(study, norms),
        panels=1, columns=1, height=2.8,
    )  # fmt: skip
    axis.set_yscale("log")
    for norm in norms:
        if seconds := batches.epoch_medians(study, norm):
            axis.plot(list(seconds), list(seconds.values()), **line_style(styles[norm]))
    batch_axis(axis, batches.sizes(study))
    _widen(axis, 1.6)
    plain_log_ticks(axis)
    panel_title(axis, "Median seconds of an epoch (log scale)", BATCH_AXIS)
    return figure


def panel_title(axis: Axes, title: str, xlabel: str) -> None:
    """Titles a panel whose ticks are set already."""
    axis.set_title(title, parse_math=False)
    axis.set_xlabel(xlabel)


def _norm_entries(study: Study, norms: Sequence[str]) -> list[Entry]:
    styles = styles_of(study)
    return [Entry(plain(study.norm_label(norm), 34), styles[norm]) for norm in norms]


def _draw_line(axis: Axes, points: Sequence[tuple[int, Cell]], style: Style) -> None:
    """The mean over the seeds, with a dot for each where there are several."""
    if not points:
        return
    errors = [_error(cell.validation) or 0.0 for _, cell in points]
    axis.plot([x for x, _ in points], errors, zorder=3, **line_style(style))
    for x, cell in points:
        if len(cell.validation) > 1:
            dots = [100 * (1 - value) for value in cell.validation]
            axis.plot([x] * len(dots), dots, "o", color=style.colour, alpha=0.35, markersize=4, markeredgewidth=0)


def _error(accuracies: Sequence[float]) -> float | None:
    return 100 * (1 - float(np.mean(accuracies))) if accuracies else None


def _error_scale(axes: Sequence[Axes]) -> None:
    """Shared limits; logarithmic where the errors span more than a factor of four and none is zero."""
    shown = [float(y) for axis in axes for line in axis.lines for y in np.atleast_1d(line.get_ydata()) if y is not None]
    finite = [value for value in shown if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 4 * min(finite):
        for axis in axes:
            axis.set_yscale("log")
        share_limits(axes)
        for axis in axes:
            _widen(axis, 1.1)
            plain_log_ticks(axis)
    else:
        share_limits(axes)


def _widen(axis: Axes, factor: float) -> None:
    low, high = axis.get_ylim()
    axis.set_ylim(low / factor, high * factor)


def _ghost_style(style: Style) -> Style:
    return Style(style.colour, GHOST, (3, 1.8), open=True)


def _hollow(colour: str, kind: str) -> Style:
    return Style(colour, KIND_MARKERS[kind], open=True)


def _hollow_style(style: Style, kind: str) -> dict[str, Any]:
    return marker_style(_hollow(style.colour, kind), size=4.5)
