"""Numbers and lists as a reader wants them."""

import math
from collections.abc import Sequence

import numpy as np

from jaxnorm.study.analysis.statistics import Interval, standard_deviation

DASH = "–"
"""Stands where there is no value."""


def number(value: float | None, digits: int) -> str:
    """A number with `digits` decimals and a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, without the sign."""
    return number(None if value is None else 100 * value, digits)


def points(value: float | None, digits: int = 2) -> str:
    """A difference of fractions in percentage points, always signed."""
    if value is None or not math.isfinite(value):
        return DASH
    rounded = round(100 * value, digits) + 0.0  # no "−0.00"
    return ("+" if rounded > 0 else "") + number(rounded, digits)


def spread(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """mean ± standard deviation; the value alone where there is one, a dash where there is none."""
    if not values:
        return DASH
    scaled = [scale * value for value in values]
    deviation = standard_deviation(scaled)
    mean = number(float(np.mean(scaled)), digits)
    return mean if deviation is None or mean == DASH else f"{mean} ± {number(deviation, digits)}"


def interval_points(interval: Interval | None) -> str:
    """An interval of fractions in points."""
    return DASH if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def p_value(value: float | None) -> str:
    """A p-value with three significant digits, or that it is below 0.001."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3g}"


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def counted(count: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shared_time(parallel_seeds: Sequence[int]) -> str:
    """A sentence for a table of times where several seeds trained at once, else nothing.

    Example:
        >>> shared_time([1]), shared_time([1, 4])
        ('', ' Seeds trained up to 4 at once, and the time of a run is that of all of them together.')
    """
    most = max(parallel_seeds, default=1)
    if most == 1:
        return ""
    return f" Seeds trained up to {most} at once, and the time of a run is that of all of them together."


def duration(seconds: float | None) -> str:
    """Seconds as a reader says them: 4.2 s, 3 min 10 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def within(label: str) -> str:
    """A label within a sentence: "batch norm"; "Flax" stays, and a name with a capital second letter, as "BN"."""
    if len(label) < 2 or label[1].isupper() or label.startswith("Flax "):
        return label
    return label[:1].lower() + label[1:]


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]
