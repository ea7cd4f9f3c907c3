"""The page of corrupted images, from its table alone. Imports no JAX."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxnorm import files
from jaxnorm.study.compact_json import compact_json
from jaxnorm.study.data.corruptions import CORRUPTIONS, STRENGTHS
from jaxnorm.study.report import style
from jaxnorm.study.report.formats import DASH, percent, spread
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.write import write_page
from jaxnorm.study.words import counted

ROWS, RESULT = "corruptions.csv", "corruptions.json"
"""The files of the page: a row for each run, corruption, strength and kind of statistics; and the settings."""
_KEYS = ["norm", "label", "seed", "statistics", "batch_size"]


def write_corruptions(workdir: Path, settings: Mapping[str, Any], rows: pd.DataFrame) -> Page:
    """Writes the page, its figures, ``corruptions.csv`` and ``corruptions.json``.

    Args:
        workdir: the folder.
        settings: JSON values: `data` (in words), `images`, `seed`, `command`, and what else describes the rows.
        rows: of several runs, from `jaxnorm.study.probes.corruptions.corruption_accuracy`, with `norm`, `label` and
            `seed`.

    Returns:
        The page.

    Raises:
        UserError: if the folder cannot be written.
    """
    page = _page(settings, rows)
    write_page(workdir, page)
    kinds = {name: {"amount": one.words, "amounts": list(one.amounts)} for name, one in CORRUPTIONS.items()}
    files.write_text(workdir / ROWS, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    files.write_text(workdir / RESULT, compact_json({"settings": {**settings, "corruptions": kinds}}))
    return page


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The accuracy of each run with each kind of statistics.

    Args:
        rows: see `write_corruptions`.

    Returns:
        By norm, label, seed, statistics and batch size: `clean`, and `corrupted`, the mean over all corruptions and
        strengths.
    """
    found = {}
    for name, mine in (("clean", rows[rows.strength == 0]), ("corrupted", rows[rows.strength > 0])):
        found[name] = mine.groupby(_KEYS, sort=False, dropna=False).accuracy.mean()
    return pd.DataFrame(found).reset_index()


def _page(settings: Mapping[str, Any], rows: pd.DataFrame) -> Page:
    found, images = means(rows), settings["images"]
    seeds = counted(rows.seed.nunique(), "seed")
    about = f"{settings['data']} · {images:,} test images · {seeds}"
    drawn = [Picture("strengths", "Accuracy by strength", _STRENGTHS, style.png(_by_strength(rows, about)))]
    if (found.statistics == "batch").any():
        drawn.append(Picture("batches", "Whose statistics", _BATCHES, style.png(_by_batch(found, about))))
    amounts = pd.DataFrame(
        [
            {"Corruption": name, "Amount": one.words, "At strengths 1 to 5": ", ".join(f"{a:g}" for a in one.amounts)}
            for name, one in CORRUPTIONS.items()
        ]
    )
    note = "Pixels from 0 to 1. Noise and clouds are drawn from a seed, and are the same at all strengths."
    return Page(
        title="How accurate do the networks remain on corrupted images, and whose statistics help?",
        kicker=f"corruptions · {settings['data']}",
        introduction=(
            f"The final weights of {counted(rows.groupby(['norm', 'label', 'seed']).ngroups, 'finished run')} on "
            f"{images:,} test images, clean and with {len(CORRUPTIONS)} kinds of corruption at "
            f"{len(STRENGTHS)} strengths. Networks with batch statistics are evaluated with those of training, with "
            "those of all images of the same corruption, and with those of each batch."
        ),
        lead=[_words(str(label), mine) for label, mine in found.groupby("label", sort=False)],
        cautions=[
            "The corruptions are our own: accuracies cannot be compared with those of CIFAR-10-C.",
            "Statistics of a batch assume that all its images are corrupted alike, and that it has many classes.",
        ],
        sections=[
            Section("Accuracy", tables=[_whose(found), _kinds(rows)], figures=drawn),
            Section("Corruptions", tables=[Table("Corruptions", amounts.set_axis([""] * len(amounts)), note)]),
        ],
    )


_STRENGTHS = "With the statistics of training; mean over seeds. Strength 0: clean images."
_BATCHES = (
    "Mean over all corruptions and strengths, and over seeds. Lines: each batch's own statistics, by its size. Marks "
    "on the right: running averages of training (r), and statistics of all corrupted images (a)."
)


def _words(label: str, mine: pd.DataFrame) -> str:
    by_kind = {kind: rows.corrupted.mean() for kind, rows in mine.groupby("statistics")}
    clean = mine.clean[mine.statistics == "running"].mean()
    said = f"{label}: {percent(clean)} % on clean images, {percent(by_kind['running'])} % on corrupted ones"
    if "recomputed" not in by_kind:
        return f"{said}."
    recomputed = percent(by_kind["recomputed"])
    return f"{said} with the statistics of training, {recomputed} % with those of all corrupted images."


def _whose(found: pd.DataFrame) -> Table:
    titles = {("running", None): "those of training", ("recomputed", None): "all images"}
    sizes = sorted(found.batch_size.dropna().unique())
    titles |= {("batch", size): f"batches of {size:g}" for size in sizes}
    columns: dict[Any, pd.Series] = {}
    for name in ("clean", "corrupted"):
        for (kind, size), title in titles.items():
            mine = found[
                (found.statistics == kind) & (found.batch_size.isna() if size is None else found.batch_size == size)
            ]
            columns[f"{name.capitalize()} images, %", title] = _cells(mine, name)
    note = "Corrupted: the mean over all corruptions and strengths. Statistics are of images that are corrupted alike."
    return _table("Whose statistics", found, columns, note)


def _kinds(rows: pd.DataFrame) -> Table:
    running, columns = rows[(rows.statistics == "running") & (rows.strength > 0)], {}
    for kind in CORRUPTIONS:
        by_run = running[running.corruption == kind].groupby(_KEYS[:3], sort=False).accuracy.mean().reset_index()
        columns[kind.capitalize().replace("Jpeg", "JPEG")] = _cells(by_run, "accuracy")
    note = "Accuracy in percent with the statistics of training, the mean over five strengths."
    return _table("By corruption", rows, columns, note)


def _cells(mine: pd.DataFrame, column: str) -> pd.Series:
    return mine.groupby("label", sort=False)[column].agg(lambda values: spread(values, 1, 100)).astype(object)


def _table(title: str, rows: pd.DataFrame, columns: Mapping[Any, pd.Series], note: str) -> Table:
    norms = rows.drop_duplicates("label").set_index("label").norm
    frame = pd.DataFrame(
        {"Variant": norms.index, **{name: cells.reindex(norms.index).to_numpy() for name, cells in columns.items()}}
    )
    return Table(title, frame.fillna(DASH).set_axis(norms.to_numpy()), note)


@style.styled
def _by_strength(rows: pd.DataFrame, about: str) -> Figure:
    running = rows[rows.statistics == "running"]
    labels = running.drop_duplicates("label")
    entries = [style.entry(str(one.label), style.of(one.norm)) for one in labels.itertuples()]
    title, panels = "Accuracy by strength of the corruption", [kind.replace("jpeg", "JPEG") for kind in CORRUPTIONS]
    figure, axes = style.sheet(title, f"{about} · accuracy in %", entries, panels, 4, 1.7, "Strength", 8.5, sharey=True)
    for axis, kind in zip(axes, CORRUPTIONS, strict=True):
        mine = running[running.corruption.isin([kind, "none"])]
        for _, one in mine.groupby("label", sort=False):
            middle = 100 * one.groupby("strength").accuracy.mean()
            axis.plot(middle.index, middle, **style.line(style.of(one.norm.iloc[0]), 3.5))
        axis.set_xticks([0, *STRENGTHS])
    return figure


@style.styled
def _by_batch(found: pd.DataFrame, about: str) -> Figure:
    known = found[found.label.isin(found.label[found.statistics == "batch"])]
    entries = [style.entry(str(one.label), style.of(one.norm)) for one in known.drop_duplicates("label").itertuples()]
    sizes = sorted(known.batch_size.dropna().unique())
    about = f"{about} · accuracy on corrupted images in %"
    xlabel = "Images in a batch (log scale); r: training's, a: all images'"
    figure, (axis,) = style.sheet("Whose statistics, on corrupted images", about, entries, height=3, xlabel=xlabel)
    places = {"running": sizes[-1] * 4, "recomputed": sizes[-1] * 8}
    for _, mine in known.groupby("label", sort=False):
        look = style.of(mine.norm.iloc[0])
        by_size = 100 * mine[mine.statistics == "batch"].groupby("batch_size").corrupted.mean()
        axis.plot(by_size.index, by_size, **style.line(look, 5))
        for kind, place in places.items():
            mean = 100 * mine.corrupted[mine.statistics == kind].mean()
            axis.plot([place], [mean], **style.markers(look, 6, linestyle="none"))
    axis.set_xscale("log", base=2)
    axis.set_xticks([*sizes, *places.values()], [*(f"{size:g}" for size in sizes), "r", "a"])
    axis.set_xticks([], minor=True)
    return figure
