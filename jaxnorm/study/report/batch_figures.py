"""Figures of the batch-size study: errors by batch size, ghost batches, and curves at each batch size."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnorm.study.report import style
from jaxnorm.study.report.figures import draw_crosses, draw_curve, draw_points, error_axis, errors, run_legend
from jaxnorm.study.report.frames import under_rule

RULES = {"fixed": "Fixed rate", "linear": "Linear rate"}
OTHER_STATISTICS = {
    "precise": ("precise statistics, own batch size", "D"),
    "precise_128": ("precise statistics, batches of 128", "s"),
    "evaluation_batch": ("statistics of the evaluation batch", "^"),
}


def rules_of(rows: pd.DataFrame) -> list[str]:
    """The rules under which anything was trained."""
    return [rule for rule in RULES if (rows.lr_rule == rule).any()]


@style.styled
def batch_sizes(runs: pd.DataFrame, evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Validation error by batch size, a panel for each rule; hollow markers for the same weights with other statistics.

    Args:
        runs: all runs.
        evaluations: their rows on the validation images, with every kind of statistics.
        subtitle: what the figure says of itself.
    """
    shown = errors(evaluations[evaluations.ghost_batch_size.isna()])
    kinds = {kind: of for kind, of in OTHER_STATISTICS.items() if (shown.statistics == kind).any()}
    entries = run_legend(runs[runs.ghost_batch_size.isna()], "norm_label")
    entries += [style.marked(name, style.Style(style.INK, marker, outline=True)) for name, marker in kinds.values()]
    rules = rules_of(shown)
    title = "Validation error by batch size"
    figure, axes = style.sheet(title, subtitle, entries, len(rules), 2, 3.1, sharey=True)
    for axis, rule in zip(axes, rules, strict=True):
        for norm, rows in under_rule(shown, rule).groupby("norm", sort=False):
            draw_points(axis, rows[rows.statistics == "running"], "batch_size", "error", style.of(str(norm)))
            for place, (kind, (_, marker)) in enumerate(kinds.items(), start=1):
                means = rows[rows.statistics == kind].groupby("batch_size").error.mean()
                hollow = replace(style.of(str(norm)), marker=marker, outline=True)
                beside = means.index / 2 ** (0.14 * place)
                axis.plot(beside, means, linestyle="none", **style.markers(hollow, 4, zorder=4))
        style.panel(axis, f"{RULES[rule]}: validation error (%)", "Batch size (log scale)")
        _batch_axis(axis, shown.batch_size)
    error_axis(axes)
    return figure


@style.styled
def ghosts(evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Validation error by the images behind one statistic: real batches, and ghosts in a large one (dashed).

    Ghosts are trained with the rate of their large batch, and are drawn in the panel of every rule.
    """
    shown = errors(evaluations[evaluations.statistics == "running"])
    parts = shown[shown.ghost_batch_size.notna()]
    labels = dict(zip(parts.norm, parts.norm_label, strict=True))
    large = " or ".join(f"{size:g}" for size in sorted(parts.batch_size.unique()))
    entries = []
    for norm, label in labels.items():
        entries.append(style.named(f"{style.plain(label, 30)}, real batches", style.of(norm)))
        entries.append(style.named(f"{style.plain(label, 30)}, ghosts in {large}", _ghost(norm)))
    rules = rules_of(shown)
    title = "Ghost batches beside real small ones"
    figure, axes = style.sheet(title, subtitle, entries, len(rules), 2, 2.9, sharey=True)
    images = pd.concat([shown.batch_size[shown.ghost_batch_size.isna()], parts.ghost_batch_size])
    for axis, rule in zip(axes, rules, strict=True):
        for norm in labels:
            real = under_rule(shown[shown.norm == norm], rule)
            draw_points(axis, real, "batch_size", "error", style.of(norm))
            draw_points(axis, parts[parts.norm == norm], "ghost_batch_size", "error", _ghost(norm))
        style.panel(axis, f"{RULES[rule]}: validation error (%)", "Images behind one statistic (log scale)")
        _batch_axis(axis, images)
    error_axis(axes)
    return figure


@style.styled
def batch_curves(runs: pd.DataFrame, epochs: pd.DataFrame, rule: str, subtitle: str) -> Figure:
    """Validation (thick) and training accuracy (thin) over the epochs under a rule, a panel for each batch size."""
    shown = under_rule(epochs, rule)
    shown = shown.assign(val_accuracy=100 * shown.val_accuracy, train_accuracy=100 * shown.train_accuracy)
    sizes = sorted(shown.batch_size.unique(), reverse=True)
    planned = under_rule(runs, rule)
    thin = style.named("thin: training accuracy", style.Style(style.MUTED, "", style.DASHES[3]), marker=None)
    title, entries = f"Accuracy (%): {RULES[rule].lower()}", [*run_legend(planned, "norm_label"), thin]
    figure, axes = style.sheet(title, subtitle, entries, len(sizes), 3, 2.2, sharex=True, sharey=True)
    for index, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        here = shown[shown.batch_size == size]
        for offset, (norm, rows) in enumerate(here.groupby("norm", sort=False)):
            draw_curve(axis, rows, "val_accuracy", style.of(str(norm)), offset)
            for _, run in rows.groupby("run"):
                dotted = replace(style.of(str(norm)), dash=style.DASHES[3])
                marker = 3 if len(run) == 1 else None
                axis.plot(run.epoch, run.train_accuracy, **style.line(dotted, marker, linewidth=0.9, zorder=2.5))
        draw_crosses(axis, planned[planned.batch_size == size], here, "val_accuracy", 0.02)
        style.panel(axis, f"Batch size {size:g}", "Epoch" if index + 3 >= len(sizes) else "")
    style.epoch_axis(axes)
    return figure


def _ghost(norm: str) -> style.Style:
    return replace(style.of(norm), marker="h", dash=style.DASHES[1], outline=True)


def _batch_axis(axis: Axes, sizes: pd.Series) -> None:
    """A base-two axis with a tick at each size; the largest on the left, as in the Group Normalization paper."""
    ticks = sorted(sizes.dropna().unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{size:g}" for size in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(max(ticks) * 2**0.35, min(ticks) / 2**0.6)
