"""The page of calibrations. Imports no JAX."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.compact_json import compact_json
from jaxnorm.study.probes.calibration import BINS, calibration, reliability
from jaxnorm.study.report import style
from jaxnorm.study.report.formats import DASH, number, percent
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.statistics import Interval
from jaxnorm.study.report.write import write_page
from jaxnorm.study.words import counted

RESULT = "calibration.json"


def write_calibration(study: Study, workdir: Path) -> pd.DataFrame:
    """Writes the page, its figures and ``calibration.json``.

    Args:
        study: with predictions.
        workdir: the folder.

    Returns:
        The table, see `calibration`.

    Raises:
        UserError: if no run is finished, predictions are damaged, or the folder cannot be written.
    """
    if not len(study.finished):
        raise UserError(f"calibration needs finished runs, but {study.folder} has none; train one to its end")
    found = calibration(study)
    write_page(workdir, _page(study, found))
    plain = found.map(lambda value: [value.low, value.high] if isinstance(value, Interval) else value)
    records = plain.astype(object).where(plain.notna(), None).to_dict("records")
    files.write_text(workdir / RESULT, compact_json({"study": study.name, "data": study.data, "variants": records}))
    return found


def _page(study: Study, found: pd.DataFrame) -> Page:
    seeds = f"{found.seeds.min()} to {found.seeds.max()} seeds" if found.seeds.nunique() > 1 else ""
    about = f"{study.data_description} · {seeds or counted(int(found.seeds.max()), 'seed')}"
    drawn = style.png(_figure(reliability(study), about))
    caption = (
        f"Accuracy of the test predictions in {BINS} bins of their confidence, over all seeds; below the diagonal a "
        "network is too sure. The area of a mark is in proportion to the number of predictions."
    )
    return Page(
        title="Can the networks' probabilities be believed?",
        kicker=f"calibration · {study.data_description}",
        introduction=(
            f"The saved predictions of {counted(int(found.seeds.sum()), 'finished run')} on "
            f"{found.images.iloc[0]:,} test images, under the final weights."
        ),
        lead=[_words(one) for one in found.itertuples()],
        cautions=[
            f"On {found.images.iloc[0]:,} images even a calibrated network has a calibration error above zero: the "
            "column beside it says how large."
        ],
        sections=[
            Section("Calibration", tables=[_table(found)], figures=[Picture("reliability", _TITLE, caption, drawn)])
        ],
    )


_TITLE = "Accuracy by confidence"


def _words(one: Any) -> str:
    gap = one.confidence - one.accuracy
    return (
        f"{one.label}: confidence {percent(one.confidence)} %, accuracy {percent(one.accuracy)} %, "
        f"{'too sure' if gap > 0 else 'not sure enough'} by {number(abs(gap), 1, 100)} points."
    )


def _table(found: pd.DataFrame) -> Table:
    columns: dict[Any, pd.Series] = {"Variant": found.label, "Accuracy, %": found.accuracy.map(percent)}
    columns["Confidence, %"] = found.confidence.map(percent)
    for name, title, digits, scale in (("nll", "NLL", 3, 1), ("brier", "Brier", 4, 1), ("ece", "ECE, %", 2, 100)):
        columns[(title, "mean")] = found[name].map(lambda value, d=digits, s=scale: number(value, d, s))
        if name == "ece":
            columns[(title, "if calibrated")] = found.ece_calibrated.map(lambda value: number(value, 2, 100))
        columns[(title, "95 % interval")] = found[f"{name}_interval"].map(
            lambda one, d=digits, s=scale: f"{number(one.low, d, s)} to {number(one.high, d, s)}" if one else DASH
        )
    note = (
        "NLL in nats. Brier: the mean square of confidence minus 1 for a right prediction, or minus 0 for a wrong one. "
        "Intervals of NLL and Brier: for another seed and other test images (crossed random effects), with one seed "
        "for other images alone; of ECE: Student's t over seeds, for these images."
    )
    return Table("Calibration", pd.DataFrame(columns).set_axis(found.norm), note)


@style.styled
def _figure(rows: pd.DataFrame, about: str) -> Figure:
    groups = list(rows.groupby("label", sort=False))
    panels = [str(label) for label, _ in groups]
    figure, axes = style.sheet(_TITLE, about, [], panels, 4, 1.7, "Confidence", 8, sharex=True, sharey=True)
    for axis, (_, mine) in zip(axes, groups, strict=True):
        look = style.of(mine.norm.iloc[0])
        axis.plot([0, 1], [0, 1], color=style.GRID, linewidth=1, zorder=1)
        axis.plot(mine.confidence, mine.accuracy, color=look.colour, linewidth=0.9, zorder=2)
        sizes = 160 * mine["count"] / mine["count"].sum() + 4
        axis.scatter(mine.confidence, mine.accuracy, sizes, color=look.colour, alpha=0.7, linewidth=0, zorder=3)
        axis.set(xlim=(-0.12, 1.12), ylim=(-0.12, 1.12), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    return figure
