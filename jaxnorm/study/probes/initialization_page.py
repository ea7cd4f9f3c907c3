"""The page of a probe at initialization, from its files alone. Imports no JAX."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.compact_json import compact_json
from jaxnorm.study.probes import initialization_figures
from jaxnorm.study.probes.speed import MEASURES, PREDICTORS, SKETCH, at_initialization, correlations, learning_speed
from jaxnorm.study.report import style
from jaxnorm.study.report.formats import DASH, digits, listed, number, p_value, spread, within
from jaxnorm.study.report.frames import Study
from jaxnorm.study.report.page import Page, Picture, Section, Table
from jaxnorm.study.report.write import write_page
from jaxnorm.study.words import counted

LAYERS, PLAIN, SETTINGS = "layers.csv", "plain.csv", "initialization.json"
"""The files of a probe: the layers of ResNet-14 by norm and seed, the plain network by norm and seed, and the rest."""
TITLE = "What does a normalization do before training, and does that tell how fast it learns?"


def write_files(workdir: Path, settings: Mapping[str, Any], layers: pd.DataFrame, plain: pd.DataFrame) -> None:
    """Keeps what was probed.

    Args:
        workdir: the folder.
        settings: JSON values: `dataset`, `data` (in words), `init`, `batch_size`, `command`.
        layers: of ResNet-14, all first tables of `jaxnorm.study.probes.initialization.probe_initialization`.
        plain: of the plain network, all second ones.
    """
    for name, table in ((LAYERS, layers), (PLAIN, plain)):
        files.write_text(workdir / name, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    files.write_text(workdir / SETTINGS, compact_json({"settings": dict(settings)}))


def write_probe(workdir: Path, study: Study | None = None) -> Page:
    """Rebuilds the page of a probe, its figures and ``initialization.json`` from the probe's files.

    Args:
        workdir: what `write_files` has filled.
        study: trained runs whose speed of learning is compared; their data and initial weights must be the probe's. By
            default the speed that an earlier page of this probe was compared with, if any.

    Returns:
        The page.

    Raises:
        UserError: if a file is missing or damaged, or the study is of other data or initial weights.
    """
    path = workdir / SETTINGS
    before = files.read_json(path) or {}
    settings = before.get("settings")
    if settings is None:
        raise UserError(
            f"a probe is a folder with {SETTINGS}, but {workdir} has none; probe first, without --from-files"
        )
    layers, plain = (_table(workdir / name) for name in (LAYERS, PLAIN))
    with files.reading(workdir / LAYERS):
        probed = at_initialization(layers, plain)
    if study is not None:
        check_same(settings, study)
    speed = pd.DataFrame(before.get("speed", [])) if study is None else learning_speed(study)
    found = correlations(probed, speed) if len(speed) else []
    page = _page(settings, layers, plain, probed, speed, pd.DataFrame(found))
    content = {"settings": settings, "norms": _records(probed), "speed": _records(speed), "correlations": found}
    write_page(workdir, page)
    files.write_text(path, compact_json(content))
    return page


def check_same(settings: Mapping[str, Any], study: Study) -> None:
    """Checks that trained runs are of the probe's data and initial weights.

    Args:
        settings: of the probe.
        study: the runs.

    Raises:
        UserError: naming what differs.
    """
    for field in ("dataset", "init"):
        if study.recipe.get(field) != settings[field]:
            raise UserError(
                f"--runs must be of the probe's {field} {settings[field]}, but {study.folder} is of "
                f"{study.recipe.get(field)}; give other runs, or --{field} {study.recipe.get(field)}"
            )


def _table(path: Path) -> pd.DataFrame:
    """A file of the probe. A norm may have any name, such as "nan"."""
    with files.reading(path):
        table = pd.read_csv(io.BytesIO(files.read_bytes(path)), dtype=str, keep_default_na=False)
        words = table.columns.intersection(["norm", "label", "layer"])
        return table[words].join(table.drop(columns=words).apply(pd.to_numeric))[list(table)]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    rows = table.reset_index() if table.index.name else table
    finite = rows.replace([np.inf, -np.inf], np.nan).astype(object)
    return finite.where(finite.notna(), None).to_dict("records")


def _page(
    settings: Mapping[str, Any],
    layers: pd.DataFrame,
    plain: pd.DataFrame,
    probed: pd.DataFrame,
    speed: pd.DataFrame,
    found: pd.DataFrame,
) -> Page:
    seeds = counted(layers.seed.nunique(), "seed")
    start = {"torch": "PyTorch's initial weights", "he": "He's initial weights"}[settings["init"]]
    about = f"{settings['data']} · batch size {settings['batch_size']} · {start} · {seeds}"
    drawn = [
        Picture("growth", "Growth of the gradient", _GROWTH, style.png(initialization_figures.growth(plain, about))),
        Picture("layers", "Gradients by layer", _LAYERS, style.png(initialization_figures.layers(layers, about))),
    ]
    sections = [
        Section("Gradients and features", tables=[_probed_table(layers, plain, probed)], figures=drawn),
        _speed_section(probed, speed, found, about),
    ]
    return Page(
        title=TITLE,
        kicker=f"initialization · {settings['data']}",
        introduction=(
            f"ResNet-14 with each of {counted(len(probed), 'normalization')} is probed before its first step, on the "
            f"first batch of {settings['batch_size']} images, from {start}, over {seeds}: gradients of the loss and "
            "features of every layer. A plain network of 30 layers, for which mean-field theory predicts how gradients "
            "grow, is probed beside it."
        ),
        lead=[*_growth_words(probed), *_speed_words(found)],
        cautions=_cautions(speed, found),
        sections=sections,
    )


_GROWTH = (
    "Dots: seeds. Diamonds: mean-field theory. Above 1 the gradient is larger in lower layers; 1.2 is a factor of 240 "
    "over 30 layers."
)
_LAYERS = (
    "Norm of the gradient by each layer's kernel, from the stem to the classifier; the geometric mean over seeds. "
    "Pale: the other normalizations."
)
_SPEED = (
    "Each mark is a normalization: the stem's gradient before training, and the mean validation loss over training, "
    "both averaged over seeds."
)


def _growth_words(probed: pd.DataFrame) -> list[str]:
    known = probed[probed.predicted.notna()]
    said = [f"{within(one.label)} {number(one.growth, 3)} ({number(one.predicted, 3)})" for one in known.itertuples()]
    words = "Growth of the gradient per layer of the plain network, in brackets the prediction of mean-field theory: "
    return [f"{words}{listed(said)}."] if said else []


def _speed_words(found: pd.DataFrame) -> list[str]:
    """What the correlation of the hypothesis is, and whether its interval excludes zero."""
    if not len(found):
        return []
    main = found[(found.predictor == next(iter(PREDICTORS))) & (found.measure == next(iter(MEASURES)))]
    words = []
    for one in main.itertuples():
        which = {"all": "all", "new": "those that the hypothesis was not drawn from"}[one.norms]
        verdict = "the interval excludes zero" if one.low > 0 or one.high < 0 else "the interval includes zero"
        setting = f" ({one.tags})" * bool(one.tags)
        words.append(
            f"Rank correlation of the stem's gradient with the speed of learning{setting}, over {one.pairs} "
            f"normalizations ({which}): {_rho(one)}; {verdict}."
        )
    return words


def _rho(one: Any) -> str:
    return f"{number(one.rho, 2)} (95 % interval {number(one.low, 2)} to {number(one.high, 2)}, p {p_value(one.p)})"


def _cautions(speed: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    if not len(found):
        return []
    few = int(speed.seeds.min())
    return [
        "A rank correlation over normalizations treats them as independent, but several are relatives, and some are "
        "the same function before training: batch-instance norm with its gate at 1 is batch norm. So intervals are too "
        "narrow. A correlation says what goes together, not what causes what.",
        "One predictor and one measure were chosen before any result was seen: the stem's gradient and the mean "
        "validation loss over training. All others are exploratory.",
        *([f"Speed is known from as few as {counted(few, 'finished seed')} a normalization."] if few < 4 else []),
    ]


def _probed_table(layers: pd.DataFrame, plain: pd.DataFrame, probed: pd.DataFrame) -> Table:
    growths = plain.groupby("norm", sort=False).growth.agg(lambda one: spread(one, 3))
    rows = {
        ("", "Variant"): probed.label,
        ("Gradient by the kernel", "stem"): probed.stem_gradient.map(digits),
        ("Gradient by the kernel", "last convolution"): probed.last_gradient.map(digits),
        ("Growth per layer, plain network", "measured"): growths.reindex(probed.index),
        ("Growth per layer, plain network", "theory"): probed.predicted.map(lambda one: number(one, 3)),
        ("Pooled features", "cosine"): probed.cosine.map(lambda one: number(one, 4)),
        ("Pooled features", "stable rank"): probed.stable_rank.map(lambda one: number(one, 2)),
        ("Plain network", "cosine"): probed.plain_cosine.map(lambda one: number(one, 3)),
    }
    note = (
        f"Means over {counted(layers.seed.nunique(), 'seed')}; of gradients the geometric mean. Cosine: the mean over "
        "pairs of images. Stable rank: the squared Frobenius norm of the features, an image a row, over the squared "
        "spectral norm."
    )
    return Table("At initialization", pd.DataFrame(rows, index=probed.index).fillna(DASH), note)


def _speed_section(probed: pd.DataFrame, speed: pd.DataFrame, found: pd.DataFrame, about: str) -> Section:
    if not len(found):
        return Section("Speed of learning")
    rows = [
        {
            "Setting": one.tags or DASH,
            "Name": PREDICTORS[one.predictor],
            "Kind": "hypothesis" if _is_first(one) else "exploratory",
            ("Validation loss"): MEASURES[one.measure],
            "Normalizations": f"{one.pairs}" + " (new)" * (one.norms == "new"),
            "Rank correlation": number(one.rho, 2),
            "95 % interval": f"{number(one.low, 2)} to {number(one.high, 2)}",
            "p": p_value(one.p),
        }
        for one in found.itertuples()
    ]
    frame = pd.DataFrame(rows)
    frame = (frame if found.tags.any() else frame.drop(columns="Setting")).set_axis([""] * len(rows))
    note = (
        "Spearman's correlation with minus the validation loss: positive where a larger value goes with faster "
        f"learning. Intervals: bootstrap over normalizations. New: without {', '.join(SKETCH)}, from which the "
        "hypothesis was drawn. p: permutations, not corrected for the number of rows."
    )
    drawn = Picture("speed", "Speed of learning", _SPEED, style.png(initialization_figures.speed(probed, speed, about)))
    return Section("Speed of learning", tables=[Table("Rank correlations", frame, note)], figures=[drawn])


def _is_first(one: Any) -> bool:
    return one.predictor == next(iter(PREDICTORS)) and one.measure == next(iter(MEASURES))
