"""Reads a workdir into frozen dataclasses: what was planned, what was trained, what came of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.analysis.predictions import Predictions, read_predictions
from jaxnorm.analysis.reading import reading
from jaxnorm.errors import UserError

SPLITS = ("train", "validation", "test")
QUANTILES = (1, 20, 80, 99)
"""The per cent of the pooled features that `feature_quantiles` holds, in this order."""


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
class Epoch:
    """One line of `metrics.jsonl`."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    seconds: float
    feature_quantiles: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Run:
    """One normalization trained from one seed, as far as it came."""

    norm: str
    seed: int
    label: str
    status: str
    """complete, diverged or crashed as recorded; unfinished without a result, missing without a directory."""
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

    @property
    def name(self) -> str:
        """The run's directory within its workdir."""
        return f"{self.norm}-seed{self.seed}"

    @property
    def complete(self) -> bool:
        """Whether the run has final figures."""
        return self.status == "complete"


@dataclass(frozen=True, eq=False)
class Study:
    """A workdir: every planned run in the order of its norms, then seeds."""

    workdir: Path
    name: str
    preset: str | None
    recipe: Mapping[str, Any]
    norms: tuple[str, ...]
    seeds: tuple[int, ...]
    command: str
    runs: tuple[Run, ...]

    def of(self, norm: str) -> tuple[Run, ...]:
        """The runs of one normalization, in the order of the seeds; empty for one that was not planned."""
        return tuple(run for run in self.runs if run.norm == norm)

    def finished(self, norm: str) -> tuple[Run, ...]:
        """The runs of one normalization that have final figures."""
        return tuple(run for run in self.of(norm) if run.complete)

    def label(self, norm: str) -> str:
        """The name a reader sees; the id where no run has said one."""
        return next((run.label for run in self.of(norm) if run.label != norm), norm)

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
    def data(self) -> Mapping[str, Any]:
        """What the first run that says so recorded about its data; empty before any has started."""
        return next((run.provenance["data"] for run in self.runs if run.provenance.get("data")), {})

    @property
    def data_description(self) -> str:
        """The data in words, as it must stand at every figure."""
        return str(self.data.get("description") or self.dataset)


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
        return Study(
            workdir=workdir,
            name=str(plan["study"]),
            preset=plan.get("preset"),
            recipe=dict(plan["recipe"]),
            norms=norms,
            seeds=seeds,
            command=str(plan.get("command") or ""),
            runs=tuple(_read_run(workdir / f"{norm}-seed{seed}", norm, seed) for norm in norms for seed in seeds),
        )


def _read_run(directory: Path, norm: str, seed: int) -> Run:
    if not directory.is_dir():
        return Run(norm, seed, label=norm, status="missing")
    path = directory / "provenance.json"
    provenance = _read_object(path)
    with reading(path):
        for key in ("git", "versions", "device", "data"):
            if not isinstance(provenance.get(key, {}), dict):
                raise ValueError(f"its {key} is not an object")
    epochs = _read_epochs(directory / "metrics.jsonl")
    config = _read_object(directory / "config.json")
    path = directory / "result.json"
    result = _read_object(path)
    label = str(provenance.get("label") or result.get("label") or norm)
    if not result:
        return Run(
            norm,
            seed,
            label,
            status="unfinished",
            epochs=epochs,
            epoch=epochs[-1].epoch if epochs else None,
            step=epochs[-1].step if epochs else None,
            num_epochs=config.get("num_epochs"),
            provenance=provenance,
        )
    with reading(path):
        if result["status"] not in ("complete", "diverged", "crashed"):
            raise ValueError(f"its status is {result['status']!r}")
        splits = {split: _split_result(result[split]) for split in SPLITS if result.get(split)}
        if result["status"] == "complete" and len(splits) < len(SPLITS):
            raise ValueError("it is complete, but a split's evaluation is absent")
        return Run(
            norm,
            seed,
            label,
            status=result["status"],
            epochs=epochs,
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
            provenance=provenance,
            predictions=read_predictions(directory / "predictions.npz"),
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


def _read_epochs(path: Path) -> tuple[Epoch, ...]:
    if not path.is_file():
        return ()
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")
        # What follows the last line feed is empty, or a line that a kill cut off; resuming trains that epoch again.
        rows = [json.loads(line) for line in lines[:-1]]
        # A run resumed from an older checkpoint may record an epoch twice; the later line belongs to the weights.
        return tuple({epoch.epoch: epoch for epoch in map(_epoch, rows)}.values())


def _epoch(row: Mapping[str, Any]) -> Epoch:
    values: dict[str, Any] = {
        key: _number(row[key]) for key in Epoch.__dataclass_fields__ if key != "feature_quantiles"
    }
    quantiles = tuple(_number(value) for value in row["feature_quantiles"])
    if len(quantiles) != len(QUANTILES):
        raise ValueError(f"an epoch has {len(quantiles)} feature quantiles, not {len(QUANTILES)}")
    return Epoch(**(values | {key: int(row[key]) for key in ("epoch", "step")}), feature_quantiles=quantiles)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty where the file is absent."""
    if not path.is_file():
        return {}
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no JSON object")
        return found
