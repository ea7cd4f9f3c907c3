"""How fast each layer learns: its effective learning rate and rotation, where a study's runs have probed them."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxnorm.study.report import style, tables
from jaxnorm.study.report.formats import digits, number, within
from jaxnorm.study.report.frames import Study, by_depth, finished_rows
from jaxnorm.study.report.page import Section, Table
from jaxnorm.study.report.sections import Sections

MEASURES = {
    "weight": "Kernel's norm",
    "ratio": "Gradient / kernel",
    "effective": "Rate / kernel²",
    "rotation": "Rotation, °/epoch",
}
"""Columns of `effective_rates`, and their names."""
_ABOUT = (
    "Before a norm, the length of a layer's kernel w changes nothing that the network computes, but how far a step "
    "turns it: by atan(rate |g| / |w|) for a gradient g, which itself falls with the length. So rate / |w|² is the "
    "effective learning rate of such a layer (van Laarhoven 2017, arXiv 1706.05350; Arora et al. 2019, arXiv "
    "1812.03981). Without a norm the length matters by itself, and the number is for comparison only."
)


def effective_rates(study: Study) -> pd.DataFrame:
    """The rows of `Study.rates` with the network's layers in order, and what follows from the norms.

    Args:
        study: the study.

    Returns:
        The rows of finished runs with `ratio` (gradient over kernel), `effective` (the epoch's rate over the square of
        the kernel's norm) and `rotation` in degrees; none where nothing was probed.
    """
    rows = finished_rows(study.rates)
    known = study.epochs[["run", "epoch", "rate"]]
    rows = rows.merge(known, on=["run", "epoch"], how="left")
    rows["layer"] = pd.Categorical(rows.layer, by_depth(rows.layer.unique()), ordered=True)
    return rows.assign(
        ratio=rows.gradient / rows.weight, effective=rows.rate / rows.weight**2, rotation=np.degrees(rows.rotation)
    )


def section(parts: Sections) -> Section:
    """The section of a page: a table by variant, and figures by epoch and by layer; empty where nothing was probed."""
    rows = effective_rates(parts.study)
    if not len(rows):
        return Section("Effective learning rate")
    caption = "Geometric mean over all layers with a kernel; median over the finished seeds. Gradient: of one step."
    drawn = [parts.picture("effective_rates", caption, _by_epoch(parts.study.runs, rows, parts.about))]
    caption = (
        "By how many degrees an epoch turns each layer's kernel, from the stem to the classifier; median over seeds. "
        "Layers 8 and 13 of ResNet-14 are 1x1 convolutions of shortcuts."
    )
    drawn.append(parts.picture("rotation", caption, _by_layer(rows, parts.about)))
    return Section("Effective learning rate", [_ABOUT, *_words(rows)], [_table(parts.study, rows)], drawn)


def _means(rows: pd.DataFrame) -> pd.DataFrame:
    """By variant, label, run and epoch: the geometric mean over layers of each measure."""
    keys = ["norm", "label", "run", "epoch"]
    names = list(MEASURES)
    with np.errstate(divide="ignore"):
        logs = np.log(rows[names].replace([np.inf, -np.inf], np.nan))
    return np.exp(logs.groupby([rows[key] for key in keys], observed=True, sort=False).mean()).reset_index()


def _epochs(rows: pd.DataFrame) -> dict[str, int]:
    """The epochs that the table shows."""
    last = int(rows.epoch.max())
    return {"first": int(rows.epoch.min()), "middle": (last + 1) // 2, "last": last}


def _words(rows: pd.DataFrame) -> list[str]:
    """Which variant turns least in the first epoch, and which most."""
    means = _means(rows)
    first = means[means.epoch == means.epoch.min()].groupby("label", observed=True).rotation.mean().sort_values()
    if len(first) < 2:
        return []
    ends = [f"{number(first.iloc[at], 1)}° ({within(str(first.index[at]))})" for at in (0, -1)]
    return [f"In epoch {means.epoch.min()} an average layer turns by {ends[0]} to {ends[1]}."]


def _table(study: Study, rows: pd.DataFrame) -> Table | None:
    means, shown = _means(rows), _epochs(rows)
    columns: dict[Any, pd.Series] = {}
    for measure, title in MEASURES.items():
        for place, epoch in shown.items():
            if place != "middle" or measure == "rotation":
                mine = means[means.epoch == epoch].groupby("label", observed=True)[measure].median()
                columns[title, f"epoch {epoch}"] = mine.map(digits)
    note = (
        "Geometric mean over all layers with a kernel, median over the finished seeds. Kernel and gradient: norms "
        "after the epoch; the gradient is of the step that follows. Rotation: the angle between the kernel before and "
        "after the epoch."
    )
    return tables.of_variants(study, "Effective learning rate", columns, note)


@style.styled
def _by_epoch(runs: pd.DataFrame, rows: pd.DataFrame, about: str) -> Figure:
    means = _means(rows)
    entries = style.run_legend(runs[runs.label.isin(means.label)])
    wide = {measure: bool(means[measure].max() > 3 * means[measure].min()) for measure in MEASURES}
    title, panels = "Effective learning rate", [name + " (log scale)" * wide[one] for one, name in MEASURES.items()]
    figure, axes = style.sheet(title, about, entries, panels, 2, 1.9, "Epoch", sharex=True)
    for axis, measure in zip(axes, MEASURES, strict=True):
        for _, mine in means.groupby("label", observed=True):
            middle = mine.groupby("epoch")[measure].median()
            axis.plot(middle.index, middle.where(middle > 0), **style.line(style.of(mine.norm.iloc[0]), 3.5))
        if wide[measure]:
            style.log_axis(axis)
        else:
            style.value_axis(axis, False)
    return figure


@style.styled
def _by_layer(rows: pd.DataFrame, about: str) -> Figure:
    groups, shades = list(rows.groupby("label", observed=True)), (1.0, 0.6, 0.3)
    epochs = dict(zip(dict.fromkeys(_epochs(rows).values()), shades, strict=False))
    ink = style.Style(style.INK, "")
    entries = [style.entry(f"epoch {epoch}", ink, alpha=shade) for epoch, shade in epochs.items()]
    panels = [style.plain(str(label), 34) for label, _ in groups]
    figure, axes = style.sheet(
        "Rotation by layer", about, entries, panels, 4, 1.5, "Layer", 7.5, sharex=True, sharey=True
    )
    for axis, (_, mine) in zip(axes, groups, strict=True):
        for epoch, shade in epochs.items():
            turned = mine[mine.epoch == epoch].groupby("layer", observed=True).rotation.median()
            look = style.line(style.of(mine.norm.iloc[0]), None, alpha=shade, linestyle="-")
            axis.plot(range(1, len(turned) + 1), turned.where(turned > 0), **look)
    axes[0].set_ylabel("degrees")
    style.log_axis(axes[0])  # shared
    return figure
