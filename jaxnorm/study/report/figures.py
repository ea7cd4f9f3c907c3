"""Figures that compare norms: curves over the epochs, batch sizes, confusions.

Each takes rows of a `Study`'s tables and a subtitle, and returns a matplotlib Figure. Fractions are drawn in per cent.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxnorm.study.report import style
from jaxnorm.study.report.frames import RULES, finished_rows, under_rule
from jaxnorm.study.report.statistics import LEAST_SEEDS

STATISTICS = {
    "running": ("running averages", ""),
    "precise": ("precise, own size", "D"),
    "precise_128": ("precise, 128", "s"),
    "evaluation_batch": ("the evaluation batch", "^"),
}
"""What the final weights are evaluated with, in words, and its marker if it is not a norm's own."""
_CURVES = {
    "accuracy": {"train_accuracy": "Training accuracy (%)", "val_accuracy": "Validation accuracy (%)"},
    "loss": {"train_loss": "Training loss (log scale)", "val_loss": "Validation loss (log scale)"},
}


def subtitle(runs: pd.DataFrame, data: str) -> str:
    """What every figure says of itself: the `data` in words; batch size, epochs, initialization and seeds of `runs`."""
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
def curves(runs: pd.DataFrame, epochs: pd.DataFrame, kind: str, subtitle: str) -> Figure:
    """Training and validation accuracy or loss (`kind`) over the `epochs`, with a cross where one of `runs` diverged.

    With one seed, a panel for training and one for validation; with several, a panel for each variant. `subtitle` says
    what the figure is of.
    """
    titles, title, losses = _CURVES[kind], f"{kind.capitalize()} over training", epochs[["train_loss", "val_loss"]]
    # A logarithmic axis has a gap where a loss is not finite.
    shown = epochs.assign(
        **losses.where(np.isfinite(losses)).clip(lower=1e-8), **100 * epochs[["train_accuracy", "val_accuracy"]]
    )
    begun, worst = runs[runs.name.isin(epochs.run) | (runs.status == "diverged")], 0.98 if kind == "loss" else 0.02
    entries, columns = style.run_legend(begun), list(titles)
    groups = [(str(label), rows) for label, rows in shown.groupby("label", observed=True)]
    if begun.variant.duplicated().any():
        panels = {str(label): mine for label, mine in begun.groupby("label", observed=True)}
        names = [str(entry.get_label()) for entry in entries]
        ink, pale = style.Style(style.INK, ""), style.Style(style.GRID, "")
        entries = [
            style.entry("validation", replace(ink, marker="o")),
            style.entry("training", ink, linewidth=0.9),
            style.entry("others, validation", pale, linewidth=1),
            *entries[len(panels) :],
        ]
        about = f"{subtitle} · {titles[columns[1]].removeprefix('Validation ')}"
        figure, axes = style.sheet(
            title, about, entries, names[: len(panels)], 4, 1.75, "Epoch", 8, sharex=True, sharey=True
        )
        for axis, (name, mine) in zip(axes, panels.items(), strict=True):
            for label, rows in groups:
                if label == name:
                    for column, size in zip(columns, (None, 3.5), strict=True):
                        _draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]), size)
                else:
                    middle = _of_finished(rows, columns[1]).median(axis=1)
                    axis.plot(middle.index, middle, color=style.GRID, linewidth=1, zorder=1)
            _draw_crosses(axis, mine, shown, columns[1], worst)
    else:
        figure, axes = style.sheet(title, subtitle, entries, list(titles.values()), 2, 3.0, "Epoch", sharey=True)
        for axis, column in zip(axes, columns, strict=True):
            for offset, (_, rows) in enumerate(groups):
                _draw_curve(axis, rows, column, style.of(rows.norm.iloc[0]), 4.5, offset)
            _draw_crosses(axis, runs, shown, column, worst)
    if kind == "loss":
        style.log_axis(axes[0])  # shared
    return figure


def _of_finished(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A `column` of one variant's `finished_rows`, by epoch and run; with a gap where a run has none."""
    return finished_rows(rows).pivot(index="epoch", columns="run", values=column)


def _draw_curve(
    axis: Axes, rows: pd.DataFrame, column: str, one: style.Style, size: float | None, offset: int = 0
) -> None:
    """One variant's `column` over the epochs: the median of its finished runs, with a band between the quartiles.

    Of two or three runs the band is from the lowest to the highest. Markers have a `size`; without, the line is thin.
    Every other run is a thin line of its own: a run that ended early must not make the median jump.
    """
    table = _of_finished(rows, column)
    middle, above = table.median(axis=1, skipna=False), 3.5 if one.outline else 3
    width = {} if size else {"linewidth": 0.9, "linestyle": "-"}
    axis.plot(
        middle.index, middle, **style.line(one, size, markevery=_spaced(len(middle), offset), zorder=above, **width)
    )
    if table.shape[1] > 1:
        share = 0.25 if table.shape[1] >= LEAST_SEEDS else 0
        low, high = table.quantile(share, axis=1), table.quantile(1 - share, axis=1)
        axis.fill_between(table.index, low, high, color=one.colour, alpha=0.25, lw=0)
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
        one = replace(style.of(run.norm), marker=style.DIVERGED.marker, outline=False)
        cross = style.markers(one, 8, clip_on=False, zorder=5)
        if len(mine):
            y = [mine[column].iloc[-1]]
            axis.plot([mine.epoch.iloc[-1], x], 2 * y, **style.line(style.of(run.norm), None, linewidth=1.1))
            axis.plot([x], y, **cross)
        else:
            axis.plot([x], [worst], transform=axis.get_xaxis_transform(), **cross)


@style.styled
def batch_sizes(runs: pd.DataFrame, evaluations: pd.DataFrame, subtitle: str) -> Figure:
    """Error of `evaluations` on validation by batch size, a panel for each rule; `runs` are all, for the legend.

    Hollow markers: the same weights with other statistics. Dashed hexagons, in both panels: ghosts, at their own size,
    trained with the rate of their large batch. `subtitle` says what the figure is of.
    """
    parts = evaluations[evaluations.ghost_batch_size.notna()]
    kinds = {kind: STATISTICS[kind] for kind in list(STATISTICS)[1:] if (evaluations.statistics == kind).any()}
    ghosts = {norm: replace(style.of(norm), marker="h", dash=style.DASHES[1]) for norm in parts.norm}
    entries = style.run_legend(runs[runs.ghost_batch_size.isna()], "norm_label")
    labels = runs.groupby("norm").norm_label.first()
    for name, marker in kinds.values():
        entries.append(style.entry(f"statistics: {name}", style.Style(style.INK, marker, outline=True), joined=False))
    entries += [style.entry(f"{labels[norm]}, ghosts", look) for norm, look in ghosts.items()]
    title, rules = "Validation error by batch size", rules_of(evaluations)
    xlabel = f"Batch size{', or size of the ghosts' * bool(ghosts)} (log scale)"
    errors, panels = 1 - evaluations.accuracy, [f"{rule.capitalize()} rate" for rule in rules]
    compressed = 0 < 4 * errors.min() < errors.max()
    about = f"{subtitle} · validation error in %{', log scale' * bool(compressed)}"
    figure, axes = style.sheet(title, about, entries, panels, 2, 3.1, xlabel, sharey=True)
    for axis, rule in zip(axes, rules, strict=True):
        for norm, rows in under_rule(evaluations, rule).groupby("norm", sort=False):
            one = style.of(str(norm))
            _draw_errors(axis, rows, "batch_size", one)
        for norm, look in ghosts.items():
            _draw_errors(axis, parts[parts.norm == norm], "ghost_batch_size", look)
        axis.set_xscale("log", base=2)
        sizes = sorted({*evaluations.batch_size, *evaluations.ghost_batch_size.dropna()})
        axis.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set_xlim(max(sizes) * 2**0.35, min(sizes) / 2**0.9)  # the largest on the left, as in the group norm paper
    if compressed:
        style.log_axis(axes[0])  # shared
    return figure


def rules_of(rows: pd.DataFrame) -> list[str]:
    """The rules for the learning rate under which any of `rows` was trained."""
    return [rule for rule in RULES if (rows.lr_rule == rule).any()]


def _draw_errors(axis: Axes, rows: pd.DataFrame, x: str, one: style.Style) -> None:
    """The mean error at each `x`, joined by a line, a pale dot for each seed, other statistics beside them."""
    for place, (kind, (_, marker)) in enumerate(list(STATISTICS.items())[1:], start=1):
        means = 100 * (1 - rows[rows.statistics == kind].groupby(x).accuracy.mean())
        hollow = style.markers(replace(one, marker=marker, outline=True), 4, zorder=4)
        axis.plot(means.index / 2 ** (0.22 * place), means, linestyle="none", **hollow)
    rows = rows[rows.statistics == "running"]
    errors = 100 * (1 - rows.accuracy)
    means = errors.groupby(rows[x]).agg(["mean", "size"])
    axis.plot(means.index, means["mean"], **style.line(one, zorder=3))
    several = rows[x].isin(means.index[means["size"] > 1])
    axis.plot(rows[x][several], errors[several], "o", color=one.colour, alpha=0.35, markersize=4, markeredgewidth=0)


@style.styled
def steps(epochs: pd.DataFrame, images: int, subtitle: str) -> Figure:
    """Validation accuracy by epochs and by steps, a row for each norm and rule: a line for each batch size.

    Lines are medians over the finished runs; the smaller the batch, the darker. Dashed: ghosts, which have the
    statistics of a small batch and the steps of a large one. The scale is the logit for so many `images`; `subtitle`
    says what the figure is of.
    """
    own, parts = epochs.ghost_batch_size.fillna(epochs.batch_size), epochs.ghost_batch_size.notna()
    sizes = sorted(own.unique(), reverse=True)
    shades = dict(zip(sizes, np.linspace(0.3, 1, len(sizes)), strict=True))
    real, dashed = {*epochs.batch_size[~parts]}, style.Style(style.INK, "", style.DASHES[1])
    entries = [
        style.entry(f"batch size {size:g}", style.Style(style.INK, ""), alpha=shades[size])
        if size in real
        else style.entry(f"ghosts of {size:g}", dashed, alpha=shades[size])
        for size in sizes
    ]
    if real & {*own[parts]}:
        entries.append(style.entry("ghosts in a large batch", dashed))
    groups = [
        (rule, str(norm), pd.concat([rows, epochs[parts & (epochs.norm == norm)]]))
        for rule in rules_of(epochs)
        for norm, rows in under_rule(epochs, rule).groupby("norm", sort=False)
    ]
    panels = [text for rule, _, rows in groups for text in (f"{rows.norm_label.iloc[0]}, {rule} rate", "")]
    about = f"{subtitle} · validation accuracy in %, logit scale"
    title = "Validation by epochs and by steps"
    figure, axes = style.sheet(title, about, entries, panels, 2, 1.5, "Epoch", sharex="col", sharey=True)
    for left, right, (_, norm, rows) in zip(axes[::2], axes[1::2], groups, strict=True):
        for _, mine in rows.groupby("variant", sort=False):
            middle, ghost = 100 * _of_finished(mine, "val_accuracy").median(axis=1), mine.ghost_batch_size.notna().any()
            dash = style.DASHES[1] if ghost else ()
            look = style.line(replace(style.of(norm), dash=dash), None, alpha=shades[own[mine.index[0]]])
            left.plot(middle.index, middle, **look)
            right.plot(middle.index * (mine.step / mine.epoch).median(), middle, **look)
        right.set_xscale("log")
        right.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes[-1].set_xlabel("Step (log scale)")
    style.logit_axis(axes[0], images, most=4)  # shared
    return figure


@style.styled
def confusion(evaluations: pd.DataFrame, class_names: Sequence[str], subtitle: str) -> Figure:
    """What each variant takes the images of a class for: shares of `evaluations` on test, over all seeds.

    Of more than 30 classes every tenth or so has its number. Numbers are shown, too, if there are too many or too few
    `class_names`; `subtitle` says what the figure is of.
    """
    groups = {str(label): rows for label, rows in evaluations.groupby("label", observed=True)}
    title, height = "Confusions on the test images", 1.7 + 0.9 / math.ceil(len(groups) / 4)  # names below the lowest
    share_axes = dict(sharex=True, sharey=True)
    panels = [*groups, *[""] * (4 - len(groups))]  # always four columns, about square
    figure, axes = style.sheet(title, subtitle, [], panels, 4, height, "Predicted class", 8, **share_axes)
    for spare in axes[len(groups) :]:
        spare.remove()
    axes = axes[: len(groups)]
    places = range(len(evaluations.confusion_matrix.iloc[0]))
    names = [style.plain(str(name), 12) for name in (class_names if len(class_names) == len(places) else places)]
    size = 6.5 if len(names) <= 10 else 4
    if len(places) > 30:
        places = range(0, len(places), 10 ** (len(str(len(places) - 1)) - 1))
        names, size = list(map(str, places)), 6.5
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
    bar.set_label("images of the class (%),\npower scale (exponent 0.4)", size=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure
