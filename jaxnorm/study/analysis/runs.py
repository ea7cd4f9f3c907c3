"""Reads a workdir into frozen dataclasses: what was planned, what was trained, what came of it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.errors import UserError
from jaxnorm.files import reading
from jaxnorm.study.analysis.arrays import EpochArrays, find_arrays
from jaxnorm.study.analysis.epochs import Epoch, quantiles_of, read_epochs
from jaxnorm.study.analysis.predictions import Predictions, read_predictions
from jaxnorm.study.config import REFERENCE_BATCH_SIZE

SPLITS = ("train", "validation", "test")
STATISTICS = ("running", "precise", "precise_128", "evaluation_batch")
"""What the final weights were evaluated with besides the running averages, where that was asked for."""


@dataclass(frozen=True, eq=False)
class SplitResult:
    """The final evaluation of one run on one split."""

    accuracy: float
    micro_f1: float
    macro_f1: float
    loss: float
    num_images: int
    confusion_matrix: np.ndarray
    """Images of class i (row) that were called j (column)."""

    @property
    def class_f1(self) -> np.ndarray:
        """F1 of every class, 2 TP / (2 TP + FP + FN); 0 for a class neither present nor predicted."""
        hits = np.diag(self.confusion_matrix).astype(float)
        either = self.confusion_matrix.sum(axis=0) + self.confusion_matrix.sum(axis=1)
        return np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)


@dataclass(frozen=True)
class Evaluation:
    """The final weights on one split, with one kind of statistics in the normalization."""

    accuracy: float
    loss: float
    num_images: int


@dataclass(frozen=True, eq=False)
class Run:
    """One normalization trained from one seed in one setting, as far as it came."""

    norm: str
    seed: int
    label: str
    status: str
    """complete, diverged or crashed as recorded; unfinished without a result, missing without a directory (unless a
    publication says that it was under way)."""
    name: str
    """The run's directory within its workdir."""
    tags: tuple[str, ...] = ()
    """What sets the run apart from others of its norm and seed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The run's configuration; the study's recipe where the run has none of its own."""
    epochs: tuple[Epoch, ...] = ()
    epoch: int | None = None
    step: int | None = None
    num_epochs: int | None = None
    num_params: int | None = None
    diverged_at_step: int | None = None
    error: str | None = None
    seconds: float | None = None
    best_val_accuracy: float | None = None
    best_val_epoch: int | None = None
    splits: Mapping[str, SplitResult] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None
    statistics: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    """By kind of statistics (see `STATISTICS`), then split; empty where nothing but the running averages was used."""
    arrays: tuple[EpochArrays, ...] = ()

    @property
    def variant(self) -> str:
        """Normalization and setting: what all seeds of it share."""
        return "-".join([self.norm, *self.tags])

    @property
    def batch_size(self) -> int | None:
        """Images per step."""
        return self.settings.get("batch_size")

    @property
    def learning_rate(self) -> float | None:
        """The configured rate, before the rule for the batch size and the schedule."""
        return self.settings.get("learning_rate")

    @property
    def lr_rule(self) -> str:
        """fixed, or linear in the batch size."""
        return str(self.settings.get("lr_rule") or "fixed")

    @property
    def peak_learning_rate(self) -> float | None:
        """The rate before the schedule lowers it, after the rule for the batch size."""
        if self.learning_rate is None or self.batch_size is None:
            return None
        return self.learning_rate * (self.batch_size / REFERENCE_BATCH_SIZE if self.lr_rule == "linear" else 1)

    @property
    def ghost_batch_size(self) -> int | None:
        """Images whose statistics are taken together, where that is only a part of the batch."""
        return self.settings.get("ghost_batch_size")

    @property
    def num_replicas(self) -> int:
        """Parts of each batch that have batch statistics of their own; 1 where these are of the whole batch."""
        value = self.settings.get("num_replicas")
        return value if isinstance(value, int) else 1

    @property
    def complete(self) -> bool:
        """Whether the run has final figures."""
        return self.status == "complete"


@dataclass(frozen=True, eq=False)
class Study:
    """A workdir: every planned run in the order of the plan."""

    workdir: Path
    name: str
    preset: str | None
    recipe: Mapping[str, Any]
    norms: tuple[str, ...]
    seeds: tuple[int, ...]
    command: str
    runs: tuple[Run, ...]
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What the study varies besides norms and seeds, such as `batch_sizes`."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Every norm in every setting, in the order of the runs; the norms themselves where there is one setting."""
        return tuple(dict.fromkeys(run.variant for run in self.runs)) or self.norms

    def of(self, variant: str) -> tuple[Run, ...]:
        """The runs of one variant, in the order of the seeds; empty for one that was not planned."""
        return tuple(run for run in self.runs if run.variant == variant)

    def finished(self, variant: str) -> tuple[Run, ...]:
        """The runs of one variant that have final figures."""
        return tuple(run for run in self.of(variant) if run.complete)

    def norm(self, variant: str) -> str:
        """The normalization of a variant."""
        return next((run.norm for run in self.of(variant)), variant)

    def label(self, variant: str) -> str:
        """The name a reader sees: the norm's (its id where no run has said one), then what its setting is."""
        setting = next((run.tags for run in self.of(variant)), ())
        return ", ".join(filter(None, [self.norm_label(self.norm(variant)), setting_words(setting)]))

    def norm_label(self, norm: str) -> str:
        """The name of a norm in any setting."""
        return next((run.label for run in self.runs if run.norm == norm and run.label != norm), norm)

    def within(self, keep: Callable[[Run], bool], *, keep_tags: bool = False) -> "Study":
        """The study with some of its runs; without their tags, unless these are kept, so that a variant is a norm."""
        kept = (run for run in self.runs if keep(run))
        return replace(self, runs=tuple(run if keep_tags else replace(run, tags=()) for run in kept))

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The percentages of the features that were recorded."""
        return quantiles_of(self.recipe)

    @property
    def num_epochs(self) -> int | None:
        """Length of the schedule."""
        value = self.recipe.get("num_epochs")
        return value if isinstance(value, int) else None

    @property
    def dataset(self) -> str:
        """Id of the data set, `digits` or `cifar10`."""
        return str(self.recipe.get("dataset", "unknown"))

    @property
    def parallel_seeds(self) -> tuple[int, ...]:
        """How many runs trained at once, in ascending order: (1,) where every run had the device to itself."""
        return tuple(sorted({epoch.parallel_seeds for run in self.runs for epoch in run.epochs}))

    @property
    def data(self) -> Mapping[str, Any]:
        """What the first run that says so recorded about its data; empty before any has started."""
        return next((run.provenance["data"] for run in self.runs if run.provenance.get("data")), {})

    @property
    def data_description(self) -> str:
        """The data in words, as it must stand at every figure."""
        return str(self.data.get("description") or self.dataset)

    @property
    def image_side(self) -> int:
        """Pixels along an image; CIFAR-10's where no run has recorded it."""
        shape = self.data.get("image_shape")
        return int(shape[0]) if isinstance(shape, list) and shape and isinstance(shape[0], int) else 32


def read_study(workdir: Path) -> Study:
    """Reads `study.json` and every run directory it plans; a run that is unfinished or absent is no error.

    Raises:
        UserError: if `workdir` is no workdir, or a file in it is damaged (the message names the file).
    """
    path = workdir / "study.json"
    if not path.is_file():
        raise UserError(
            f"a workdir holds a study.json, but {workdir} does not; give the folder that a driver wrote (its --workdir)"
        )
    with reading(path):
        plan = json.loads(path.read_text(encoding="utf-8"))
        norms, seeds = tuple(plan["norms"]), tuple(plan["seeds"])
        if not all(isinstance(norm, str) and Path(norm).name == norm for norm in norms):
            raise ValueError("its norms are not names")
        if not all(isinstance(seed, int) for seed in seeds):
            raise ValueError("its seeds are not whole numbers")
        recipe, grid = dict(plan["recipe"]), dict(plan.get("grid") or {})
        quantiles_of(recipe)
        labels = dict(plan.get("labels") or {})
        planned = [_planned(recipe, labels, entry) for entry in plan["runs"]] if "runs" in plan else None
        if planned is None:  # a plan without a list of runs: every norm from every seed, in one setting
            planned = [
                Run(norm, seed, str(labels.get(norm) or norm), "missing", f"{norm}-seed{seed}", (), recipe)
                for norm in norms
                for seed in seeds
            ]
        left_out = dict(plan.get("left_out") or {})  # of a publication: what was under way then, and how far
        planned = [
            replace(run, status="unfinished", epoch=left_out[run.name], num_epochs=run.settings.get("num_epochs"))
            if run.name in left_out
            else run
            for run in planned
        ]
    return Study(
        workdir=workdir,
        name=str(plan["study"]),
        preset=plan.get("preset"),
        recipe=recipe,
        norms=norms,
        seeds=seeds,
        command=str(plan.get("command") or ""),
        runs=tuple(_read_run(workdir / run.name, run) for run in planned),
        grid={str(key): tuple(values) for key, values in grid.items()},
    )


def _planned(recipe: Mapping[str, Any], labels: Mapping[str, Any], entry: Mapping[str, Any]) -> Run:
    """A run as the plan lists it."""
    name, norm, seed, tags = entry["name"], entry["norm"], entry["seed"], tuple(entry.get("tags") or ())
    if not all(isinstance(text, str) and Path(text).name == text for text in (name, norm, *tags)):
        raise ValueError("a run's name, norm or tag is no name")
    if not isinstance(seed, int):
        raise ValueError("a run's seed is no whole number")
    return Run(norm, seed, str(labels.get(norm) or norm), "missing", name, tags, {**recipe, **entry})


def _read_run(directory: Path, planned: Run) -> Run:
    """What the directory holds of a run that was planned."""
    if not directory.is_dir():
        return planned
    path = directory / "provenance.json"
    provenance = _read_object(path)
    with reading(path):
        for key in ("git", "versions", "device", "data"):
            if not isinstance(provenance.get(key, {}), dict):
                raise ValueError(f"its {key} is not an object")
    path = directory / "config.json"
    config = _read_object(path)
    with reading(path):
        settings = {**planned.settings, **config}
        epochs = read_epochs(directory / "metrics.jsonl", len(quantiles_of(settings)))
    path = directory / "result.json"
    result = _read_object(path)
    begun = replace(
        planned,
        label=str(provenance.get("label") or result.get("label") or planned.label),
        settings=settings,
        epochs=epochs,
        provenance=provenance,
        arrays=find_arrays(directory),
    )
    if not result:
        return replace(
            begun,
            status="unfinished",
            epoch=epochs[-1].epoch if epochs else None,
            step=epochs[-1].step if epochs else None,
            num_epochs=config.get("num_epochs"),
        )
    with reading(path):
        if result["status"] not in ("complete", "diverged", "crashed"):
            raise ValueError(f"its status is {result['status']!r}")
        splits = {split: _split_result(result[split]) for split in SPLITS if result.get(split)}
        if result["status"] == "complete" and len(splits) < len(SPLITS):
            raise ValueError("it is complete, but a split's evaluation is absent")
        return replace(
            begun,
            status=result["status"],
            epoch=result.get("epoch"),
            step=result.get("step"),
            num_epochs=result.get("num_epochs"),
            num_params=result.get("num_params"),
            diverged_at_step=result.get("diverged_at_step"),
            error=result.get("error"),
            seconds=result.get("seconds"),
            best_val_accuracy=result.get("best_val_accuracy"),
            best_val_epoch=result.get("best_val_epoch"),
            splits=splits,
            predictions=read_predictions(directory / "predictions.npz"),
            statistics={
                kind: {split: _evaluation(found) for split, found in by_split.items()}
                for kind, by_split in (result.get("statistics") or {}).items()
            },
        )


def _evaluation(found: Mapping[str, Any]) -> Evaluation:
    loss = found["loss"]
    return Evaluation(float(found["accuracy"]), float("nan" if loss is None else loss), int(found["num_images"]))


def setting_words(tags: Sequence[str]) -> str:
    """Tags in words: bs8 is batch size 8."""

    def words_of(tag: str) -> str:
        found = ((re.fullmatch(pattern, tag), words) for pattern, words in _SETTINGS)
        return next((words.format(*match.groups()) for match, words in found if match), tag)

    return ", ".join(map(words_of, tags))


_SETTINGS = (
    (r"bs(\d+)", "batch size {}"),
    (r"ghost(\d+)", "ghosts of {}"),
    (r"lr([\d.e-]+)", "rate {}"),
    (r"linear", "linear rate"),
    (r"fixed", "fixed rate"),
)


def _split_result(found: Mapping[str, Any]) -> SplitResult:
    matrix = np.array(found["confusion_matrix"], dtype=np.int64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"its confusion matrix has shape {matrix.shape}")
    return SplitResult(
        **{key: float(found[key]) for key in ("accuracy", "micro_f1", "macro_f1", "loss")},
        num_images=int(found["num_images"]),
        confusion_matrix=matrix,
    )


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where the file is absent."""
    if not path.is_file():
        return {}
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found
