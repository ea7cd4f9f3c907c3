"""Numbers and names as a reader wants them: text for tables and sentences."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxnorm.study.report.statistics import Interval, standard_deviation
from jaxnorm.study.words import duration

DASH = "–"
"""The cell of a table where there is no value."""


def number(value: Any, digits: int = 0, scale: float = 1.0) -> str:
    """A number with `digits` decimals and a true minus sign; a dash where there is none."""
    if pd.isna(value) or not math.isfinite(value):
        return DASH
    return f"{scale * value:,.{digits}f}".replace("-", "−")


def percent(value: Any, digits: int = 1) -> str:
    """A fraction in per cent, without the sign."""
    return number(value, digits, 100)


def points(value: Any, digits: int = 2) -> str:
    """A difference of fractions in percentage points, always signed."""
    rounded = float("nan") if value is None else round(100 * value, digits) + 0.0  # no "−0.00"
    return ("+" if rounded > 0 else "") + number(rounded, digits)


def spread(values: Iterable[float], digits: int, scale: float = 1.0) -> str:
    """mean ± standard deviation; the value alone where there is one, a dash where there is none."""
    scaled = [scale * value for value in values]
    mean = number(float(np.mean(scaled)) if scaled else None, digits)
    return mean if mean == DASH or len(scaled) == 1 else f"{mean} ± {number(standard_deviation(scaled), digits)}"


def interval_points(interval: Interval | None, digits: int = 2) -> str:
    """An interval of fractions in points."""
    return DASH if interval is None else f"{points(interval.low, digits)} to {points(interval.high, digits)}"


def p_value(value: Any) -> str:
    """A p-value with three significant digits, or that it is below 0.001."""
    return DASH if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3g}"


def times(ratio: float) -> str:
    """A ratio with three significant digits."""
    return f"{number(ratio, 2 if ratio < 10 else 1 if ratio < 100 else 0)} ×" if math.isfinite(ratio) else DASH


def seconds(value: Any) -> str:
    """A duration; a dash where there is none."""
    return DASH if pd.isna(value) else duration(value, 1 if value >= 1 else 2)


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def within(label: str) -> str:
    """A label within a sentence: "batch norm"; "Flax" stays, and a name with a capital second letter, as "BN"."""
    return label if label[1:2].isupper() or label.startswith("Flax ") else label[:1].lower() + label[1:]


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]
