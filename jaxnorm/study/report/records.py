"""Rows of the tables of runs and evaluations, made from a run's files and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.files import reading
from jaxnorm.study.report.folders import OBJECTS, object_path

SPLITS = ("train", "validation", "test")
METRICS = ("accuracy", "micro_f1", "macro_f1", "loss")
OUTCOME = {
    **dict.fromkeys(("num_epochs", "epoch", "step", "num_params", "diverged_at_step", "best_val_epoch"), "Int64"),
    **dict.fromkeys(("seconds", "best_val_accuracy"), float),
    "error": object,
}
"""What a result says of a run, and the types of these columns."""
TYPED = {
    **dict.fromkeys(("batch_size", "ghost_batch_size", "num_replicas"), "Int64"),
    **OUTCOME,
    "learning_rate": float,
}
"""The columns of `Study.runs` that are not text, and their types."""


def planned(plan: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the plan lists it."""
    name, norm, tags = entry["name"], entry["norm"], list(entry.get("tags") or ())
    if not all(isinstance(text, str) and Path(text).name == text for text in (name, norm, *tags)):
        raise ValueError("a run's name, norm or tag is no name")
    if not isinstance(entry["seed"], int):
        raise ValueError("a run's seed is no whole number")
    about = {"norm_label": str((plan.get("labels") or {}).get(norm) or norm), "tags": " ".join(tags)}
    return _checked({**plan["recipe"], **entry, **about, "status": "missing", "provenance": {}})


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, if its numbers are numbers."""
    for name, kind in {**TYPED, "lr_rule": object}.items():
        value: Any = row.get(name)
        kinds: Any = {"Int64": int, float: int | float}.get(kind, str)
        if value is not None and not (isinstance(value, kinds) and (kind != "Int64" or abs(value) < 2**53)):
            raise ValueError(f"its {name} is {value!r}")
    return row


def outcome(folder: Path, row: dict[str, Any], found: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's files say of it beyond the plan's row; `last` is its last epoch."""
    config, provenance, result = (found[name] for name in OBJECTS)
    with reading(object_path(folder, row["name"], "provenance")):
        if wrong := [
            key for key in ("git", "versions", "device", "data") if not isinstance(provenance.get(key, {}), dict)
        ]:
            raise ValueError(f"its {wrong[0]} is not an object")
    fixed = ("name", "norm", "seed", "tags", "norm_label", "status")
    with reading(object_path(folder, row["name"], "config")):
        about = _checked(row | {name: config[name] for name in row if name in config and name not in fixed})
    about["provenance"] = provenance
    about["norm_label"] = str(provenance.get("label") or result.get("label") or row["norm_label"])
    if not result:
        return about | {"status": "unfinished", "epoch": last.get("epoch"), "step": last.get("step")}
    with reading(object_path(folder, row["name"], "result")):
        if result["status"] not in ("complete", "diverged", "crashed"):
            raise ValueError(f"its status is {result['status']!r}")
        if result["status"] == "complete" and not all(result.get(split) for split in SPLITS):
            raise ValueError("it is complete, but a split's evaluation is absent")
        return _checked(about | {name: result.get(name) for name in ("status", *OUTCOME)})


def evaluations(folder: Path, run: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run's final evaluations."""
    rows = []
    with reading(object_path(folder, run, "result")):
        for split in filter(result.get, SPLITS):
            values = result[split]
            matrix = np.array(values["confusion_matrix"], dtype=np.int64)
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
                raise ValueError(f"its confusion matrix has shape {matrix.shape}")
            row = {name: float(values[name]) for name in METRICS} | {"num_images": int(values["num_images"])}
            rows.append({"run": run, "split": split, "statistics": "running", **row, "confusion_matrix": matrix})
        for kind, others in (result.get("statistics") or {}).items():
            for split, one in others.items() if kind != "running" else ():  # that is the same as above
                loss = float("nan" if one["loss"] is None else one["loss"])
                row = {"accuracy": float(one["accuracy"]), "loss": loss, "num_images": int(one["num_images"])}
                rows.append({"run": run, "split": split, "statistics": kind, **row})
    return rows
