"""The lines of `metrics.jsonl`: what was measured after each epoch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxnorm.files import reading

QUANTILES = (1.0, 20.0, 80.0, 99.0)
"""The percentages that a run records unless told otherwise."""


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
    parallel_seeds: int = 1
    """Runs that trained at once in those seconds, of which this is one."""


def quantiles_of(settings: Mapping[str, Any]) -> tuple[float, ...]:
    """The percentages that a run with these settings records."""
    return tuple(float(value) for value in settings.get("quantiles") or QUANTILES)


def read_epochs(path: Path, num_quantiles: int) -> tuple[Epoch, ...]:
    """Every epoch in the file, in order; none where it is absent.

    Raises:
        UserError: if the file is damaged, or an epoch has another number of feature quantiles than `num_quantiles`.
    """
    if not path.is_file():
        return ()
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")
        # What follows the last line feed is empty, or a line that a kill cut off; resuming trains that epoch again.
        rows = [json.loads(line) for line in lines[:-1]]
        # A run resumed from an older checkpoint may record an epoch twice; the later line belongs to the weights.
        return tuple({epoch.epoch: epoch for epoch in (_epoch(row, num_quantiles) for row in rows)}.values())


def _epoch(row: Mapping[str, Any], num_quantiles: int) -> Epoch:
    values: dict[str, Any] = {
        key: _number(row[key])
        for key in Epoch.__dataclass_fields__
        if key not in ("feature_quantiles", "parallel_seeds")
    }
    quantiles = tuple(_number(value) for value in row["feature_quantiles"])
    if len(quantiles) != num_quantiles:
        raise ValueError(f"an epoch has {len(quantiles)} feature quantiles, not {num_quantiles}")
    whole = {"epoch": int(row["epoch"]), "step": int(row["step"]), "parallel_seeds": int(row.get("parallel_seeds", 1))}
    return Epoch(**(values | whole), feature_quantiles=quantiles)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
