"""Numbers and names as a reader wants them: text for tables and sentences."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report.statistics import LEAST_SEEDS
from jaxnorm.study.words import counted

DASH = "–"
"""The cell of a table where there is no value."""
NAMED = 6
"""Up to how many runs are all named."""


def number(value: Any, digits: int = 0, scale: float = 1.0) -> str:
    """`scale` times `value` with `digits` decimals and a true minus sign; a dash where there is none.

    Ties are rounded away from zero whatever their last bits are: 77.045 is 77.05.
    """
    if pd.isna(value) or not math.isfinite(value):
        return DASH
    return f"{scale * value * (1 + 1e-12):z,.{digits}f}".replace("-", "−")


def digits(value: Any) -> str:
    """`value` with three significant digits and a true minus sign; a dash where there is none."""
    return DASH if pd.isna(value) or not math.isfinite(value) else f"{value:.3g}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """The fraction `value` in per cent with `digits` decimals, without the sign."""
    return number(value, digits, 100)


def points(value: Any, digits: int = 2) -> str:
    """`value`, a difference of fractions, in percentage points with `digits` decimals, always signed."""
    shown = number(value, digits, 100)
    return "+" * (shown[0].isdigit() and bool(shown.strip("0."))) + shown


def spread(values: Iterable[float], digits: int, scale: float = 1.0) -> str:
    """Of `scale` times `values` with `digits` decimals: mean ± standard deviation; of fewer than four mean and range.

    One value is alone; a dash for none. Two or three values are too few for a standard deviation.
    """
    scaled = [scale * value for value in values]
    mean = number(float(np.mean(scaled)) if scaled else None, digits)
    if mean == DASH or len(scaled) == 1:
        return mean
    if len(scaled) < LEAST_SEEDS:
        return f"{mean} ({number(min(scaled), digits)} to {number(max(scaled), digits)})"
    return f"{mean} ± {number(float(np.std(scaled, ddof=1)), digits)}"


def interval_points(interval: Any, digits: int = 2) -> str:
    """`interval`, an `Interval` of fractions, in points with `digits` decimals; a dash for None."""
    return DASH if interval is None else f"{points(interval.low, digits)} to {points(interval.high, digits)}"


def undecided(seeds: int, end: str = ".") -> str:
    """That no verdict is possible from so few `seeds`, with the `end` of the sentence; empty for enough."""
    return "" if seeds >= LEAST_SEEDS else f"No verdict is possible from {counted(seeds, 'seed')}{end}"


def p_value(value: Any) -> str:
    """The p-value `value` with three significant digits, or that it is below 0.001."""
    return DASH if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3g}"


def times(ratio: float) -> str:
    """`ratio` with three significant digits and a times sign."""
    return f"{number(ratio, 2 if ratio < 10 else 1 if ratio < 100 else 0)} ×" if math.isfinite(ratio) else DASH


def listed(items: Sequence[str], most: int | None = None) -> str:
    """`items` as "a, b and c"; beyond `most` of them the rest is a number."""
    if most is not None and len(items) > most:
        items = [*items[:most], f"{len(items) - most} more"]
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def within(label: str) -> str:
    """`label` within a sentence: "batch norm"; "Flax" stays, and a name with a capital second letter, as "BN"."""
    return label if label[1:2].isupper() or label.startswith("Flax ") else label[:1].lower() + label[1:]
