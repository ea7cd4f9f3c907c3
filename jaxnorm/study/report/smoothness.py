"""How smooth the loss is along the gradient while variants train: at equal step and at equal loss."""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jaxnorm.study.config import Recipe
from jaxnorm.study.report import style, tables
from jaxnorm.study.report.formats import digits, within
from jaxnorm.study.report.frames import Study, finished_rows
from jaxnorm.study.report.page import Section, Table
from jaxnorm.study.report.sections import Sections

MEASURES = {"range": "Range of the loss", "change": "Change of the gradient", "beta": "Effective β"}
"""Columns of `smoothness`, and their names."""
LEVELS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Ends of the intervals of the loss within which variants are compared."""
_ABOUT = (
    "Before some steps the loss and its gradient are taken on the step's batch, at the weights and at 0.5, 1, 2 and 4 "
    "rates along the negative gradient; the rate is that before the schedule lowers it. Range: the highest less the "
    "lowest of the five losses. Change: the largest change of the gradient. Effective β: the largest change of the "
    "gradient over the distance (Santurkar et al. 2018, arXiv 1805.11604). The lower, the smoother. A step of gradient "
    "descent lowers a quadratic only where β is below 2 / rate."
)
_TRAP = (
    "A network that has not left the plateau at the start looks smoothest of all, since its gradient is small there. "
    "So variants are compared at the same step, and at the same loss of the batch."
)


def smoothness(study: Study) -> pd.DataFrame:
    """The rows of `Study.smoothness` and what follows from them.

    Args:
        study: the study.

    Returns:
        The rows of finished runs with `range`, `change` and `beta`, see `MEASURES`, and `level`, the place of the loss
        in `LEVELS`, an Interval. Where nothing was probed, no rows and none of these columns.
    """
    rows = finished_rows(study.smoothness)
    if not len(rows):
        return rows
    lengths = {name: float(name.removeprefix("change_")) for name in rows if re.fullmatch(r"change_[\d.]+", str(name))}
    losses = rows[["loss", *(f"loss_{length:g}" for length in lengths.values())]].astype(float)
    settings = rows[["batch_size", "learning_rate", "lr_rule"]].to_dict("records")
    peak = pd.Series([Recipe(**one).peak_learning_rate for one in settings], rows.index, dtype=float)
    changes = rows[[*lengths]].astype(float)
    betas = pd.DataFrame({name: changes[name] / (length * peak * rows.gradient) for name, length in lengths.items()})
    found = {"range": losses.max(axis=1) - losses.min(axis=1), "change": changes.max(axis=1), "beta": betas.max(axis=1)}
    # A step that leads to a loss that is not finite has no range: nan, where the largest would leave it out.
    finite = np.isfinite(pd.concat([losses, changes, betas], axis=1)).all(axis=1)
    measured = pd.DataFrame(found, rows.index).where(finite)
    return rows.assign(**measured, level=pd.cut(rows.loss.astype(float), LEVELS, right=False))


def section(parts: Sections) -> Section:
    """The section of a page: tables at equal step and at equal loss, and a figure of both; empty without a probe."""
    study = parts.study
    rows = smoothness(study)
    if not len(rows):
        return Section("Smoothness")
    caption = (
        "Left: by step; right: by the loss of the probed batch, which falls from left to right, in intervals of half a "
        "power of two. Median over the probed steps of all finished seeds; an interval needs three. Log scales."
    )
    drawn = parts.picture("smoothness", caption, _figure(study.runs, rows, parts.about))
    both = [_at_equal_step(study, rows), _at_equal_loss(study, rows)]
    return Section("Smoothness", [_ABOUT, _TRAP, *_words(rows)], both, [drawn])


def _median(rows: pd.DataFrame, measure: str) -> pd.Series:
    """By label: the median over seeds of the medians over their probed steps."""
    by_run = rows.groupby(["label", "run"], observed=True)[measure].median()
    return by_run.groupby("label", observed=True).median()


def _at_equal_step(study: Study, rows: pd.DataFrame) -> Table | None:
    epochs = dict.fromkeys([1, (rows.epoch.max() + 1) // 2, rows.epoch.max()])
    columns: dict[Any, pd.Series] = {
        (title, f"epoch {epoch}"): _median(rows[rows.epoch == epoch], measure).map(digits)
        for measure, title in MEASURES.items()
        for epoch in epochs
    }
    note = "Median over the probed steps of an epoch, then over the finished seeds."
    return tables.of_variants(study, "Smoothness at equal step", columns, note)


def _at_equal_loss(study: Study, rows: pd.DataFrame) -> Table | None:
    levels = [level for level in reversed(rows.level.cat.categories) if (rows.level == level).any()]
    columns: dict[Any, pd.Series] = {
        (title, f"loss {level.left:g} to {level.right:g}"): _median(rows[rows.level == level], measure).map(digits)
        for measure, title in MEASURES.items()
        if measure != "change"
        for level in levels
    }
    note = "Median over the probed steps whose batch has such a loss, then over the seeds that have any."
    return tables.of_variants(study, "Smoothness at equal loss", columns, note)


def _words(rows: pd.DataFrame) -> list[str]:
    """Which variant is smoothest by β in the first epoch, and which where all of most variants have a loss."""
    shared = rows.groupby("level", observed=True).label.nunique()
    if not len(shared) or rows.label.nunique() < 2:
        return []
    level = shared[shared == shared.max()].index[0]  # the lowest of those that most variants have
    said = []
    for where, mine in (("In epoch 1", rows[rows.epoch == 1]), (_between(level), rows[rows.level == level])):
        betas = _median(mine, "beta").dropna().sort_values()
        ends = (
            [f"{within(str(betas.index[at]))} ({digits(betas.iloc[at])})" for at in (0, -1)] if len(betas) > 1 else []
        )
        said += [f"{where} the effective β is lowest with {ends[0]} and highest with {ends[1]}."] * bool(ends)
    return said


def _between(level: Any) -> str:
    return f"At a loss of {level.left:g} to {level.right:g}"


@style.styled
def _figure(runs: pd.DataFrame, rows: pd.DataFrame, about: str) -> Figure:
    entries = style.run_legend(runs[runs.label.isin(rows.label)])
    panels = [text for title in MEASURES.values() for text in (f"{title}, by step", "by loss")]
    figure, axes = style.sheet("Smoothness along the gradient", about, entries, panels, 2, 1.7, sharey="row")
    halves = 2.0 ** ((np.floor(2 * np.log2(rows.loss.astype(float).clip(lower=1e-6))) + 0.5) / 2)
    for left, right, measure in zip(axes[::2], axes[1::2], MEASURES, strict=True):
        for _, mine in rows.groupby("label", observed=True):
            look = style.of(mine.norm.iloc[0])
            middle = mine.groupby("step")[measure].median()
            left.plot(middle.index, middle.where(middle > 0), **style.line(look, 3))
            found = mine[measure].groupby(halves[mine.index]).agg(["median", "count"])
            found = found[(found["count"] >= 3) & (found["median"] > 0)]
            right.plot(found.index, found["median"], **style.line(look, 4))
        style.log_axis(left)
        right.set_xscale("log")
        right.invert_xaxis()
        right.xaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    axes[-2].set_xlabel("Step")
    axes[-1].set_xlabel("Loss of the batch")
    return figure
