"""What the files of one run say, checked, as rows of the tables in `frames`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnorm.files import reading
from jaxnorm.study.report.folders import RunFiles

SPLITS = ("train", "validation", "test")
METRICS = ("accuracy", "micro_f1", "macro_f1", "loss")
OUTCOME = ("epoch", "step", "num_params", "seconds", "diverged_at_step", "error", "best_val_accuracy", "best_val_epoch")
OF_AN_EPOCH = ("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "seconds")
PERCENTAGES = (1.0, 20.0, 80.0, 99.0)
"""The quantiles that a run records by default, in per cent."""


def quantile_columns(percentages: Iterable[float]) -> list[str]:
    """The columns of quantiles: q1, q20, q80, q99 for 1, 20, 80 and 99 per cent."""
    return [f"q{value:g}" for value in percentages]


def planned(plan: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """A run as the plan lists it."""
    name, norm, tags = entry["name"], entry["norm"], list(entry.get("tags") or ())
    if not all(isinstance(text, str) and Path(text).name == text for text in (name, norm, *tags)):
        raise ValueError("a run's name, norm or tag is no name")
    if not isinstance(entry["seed"], int):
        raise ValueError("a run's seed is no whole number")
    label = str((plan.get("labels") or {}).get(norm) or norm)
    return {
        **plan["recipe"],
        **entry,
        "tags": " ".join(tags),
        "norm_label": label,
        "status": "missing",
        "provenance": {},
    }


def epochs(found: RunFiles, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run's epochs."""
    percentages = found.config.get("quantiles") or run.get("quantiles") or PERCENTAGES
    rows = {}
    with reading(found.sources["epochs"]):
        for line in found.epochs:
            values = [_number(value) for value in line["feature_quantiles"]]
            if len(values) != len(percentages):
                raise ValueError(f"an epoch has {len(values)} feature quantiles, not {len(percentages)}")
            row = {name: _number(line[name]) for name in OF_AN_EPOCH} | {"rate": _number(line["learning_rate"])}
            row |= {"epoch": int(line["epoch"]), "step": int(line["step"])}
            # A run resumed from an older checkpoint may record an epoch twice; the later line belongs to the weights.
            rows[row["epoch"]] = row | dict(zip(quantile_columns(percentages), values, strict=True))
    return list(rows.values())


def outcome(found: RunFiles, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run's files say beyond the plan."""
    with reading(found.sources["provenance"]):
        for key in ("git", "versions", "device", "data"):
            if not isinstance(found.provenance.get(key, {}), dict):
                raise ValueError(f"its {key} is not an object")
    about = {name: value for name, value in found.config.items() if name not in ("norm", "seed", "tags")}
    about["provenance"] = found.provenance
    if label := found.provenance.get("label") or found.result.get("label"):
        about["norm_label"] = str(label)
    if not found.result:
        last = rows[-1] if rows else {}
        return about | {"status": "unfinished", "epoch": last.get("epoch"), "step": last.get("step")}
    with reading(found.sources["result"]):
        status = found.result["status"]
        if status not in ("complete", "diverged", "crashed"):
            raise ValueError(f"its status is {status!r}")
        about |= {name: found.result.get(name) for name in ("status", "num_epochs", *OUTCOME)}
    return about


def evaluations(found: RunFiles) -> list[dict[str, Any]]:
    """The rows of a run's final evaluations."""
    with reading(found.sources["result"]):
        by_split = {split: found.result[split] for split in SPLITS if found.result.get(split)}
        if found.result.get("status") == "complete" and len(by_split) < len(SPLITS):
            raise ValueError("it is complete, but a split's evaluation is absent")
        rows = []
        for split, values in by_split.items():
            matrix = np.array(values["confusion_matrix"], dtype=np.int64)
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
                raise ValueError(f"its confusion matrix has shape {matrix.shape}")
            row = {name: float(values[name]) for name in METRICS} | {"num_images": int(values["num_images"])}
            rows.append({"split": split, "statistics": "running", **row, "confusion_matrix": matrix})
        for kind, others in (found.result.get("statistics") or {}).items():
            if kind != "running":  # the same weights and statistics as above
                for split, one in others.items():
                    row = {"accuracy": float(one["accuracy"]), "loss": _number(one["loss"])}
                    rows.append({"split": split, "statistics": kind, **row, "num_images": int(one["num_images"])})
        return rows


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
