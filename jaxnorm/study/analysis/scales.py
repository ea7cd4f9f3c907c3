"""Axes with plain numbers along them: logarithmic, nearly linear around zero, powers of two."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

LINEAR_WIDTH = 1.0
"""Where the compressed axis turns from nearly linear to nearly logarithmic."""


def share_limits(axes: Sequence[Axes]) -> None:
    """Gives all axes the widest vertical limits among them."""
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def plain_log_ticks(axis: Axes) -> None:
    """Plain numbers along a logarithmic axis: 1, 2 and 5 in every decade, more of them in less than one."""
    low, high = axis.get_ylim()
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if span < 0.8 else (1, 2, 3, 5) if span < 1.2 else (1, 2, 5) if span < 4 else (1,)
    axis.set_yticks([step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}" if span < 4 else power_of_ten(y)))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks([], minor=True)


def far_apart(extremes: Sequence[float]) -> bool:
    """Whether one panel's values lie so far above the others' that a linear axis would press those flat."""
    magnitudes = sorted(abs(value) for value in extremes if math.isfinite(value))
    return bool(magnitudes) and magnitudes[-1] > 4 * (magnitudes[len(magnitudes) // 2] or 1.0)


def value_axis(axis: Axes, low: float, high: float, *, compressed: bool, ticks: int = 5, along: str = "y") -> None:
    """Limits and ticks from `low` to `high`; compressed: asinh, nearly linear up to 1, nearly logarithmic beyond."""
    side, limits = (axis.yaxis, axis.set_ylim) if along == "y" else (axis.xaxis, axis.set_xlim)
    if not compressed:
        side.set_major_locator(MaxNLocator(nbins=ticks))
        room = 0.04 * ((high - low) or 1.0)
        limits(low - room, high + room)
        return
    (axis.set_yscale if along == "y" else axis.set_xscale)("asinh", linear_width=LINEAR_WIDTH)
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    side.set_ticks(compressed_ticks(low, high, ticks))
    side.set_ticks([], minor=True)
    bottom, top = math.asinh(low), math.asinh(high)
    room = 0.05 * ((top - bottom) or 1.0)
    limits(math.sinh(bottom - room), math.sinh(top + room))


def compressed_ticks(low: float, high: float, count: int) -> list[float]:
    """0 and about `count` - 1 plain numbers between `low` and `high`, evenly along the compressed axis."""
    sides = [side for side in (-1, 1) if (low if side < 0 else high) * side > 0.1 * max(-low, high)]
    each = max(1, (count - 1) // max(1, len(sides)))
    found = {0.0}
    for side in sides:
        end = math.asinh(low if side < 0 else high) * side
        for step in range(1, each + 1):
            if (value := _plain_below(math.sinh(end * step / each))) > 0:
                found.add(side * value)
    return sorted(found)


def _plain_below(value: float) -> float:
    """The largest of 1, 2, 3, 5 times a power of ten that is not above a positive `value`."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 0.0
    return max((step * power for step in (1, 2, 3, 5) if step * power <= value * (1 + 1e-9)), default=0.0)


def power_of_ten(value: float) -> str:
    """1, 10 and 0.1 as they are; the powers beyond as 10⁻³ and 10².

    Example:
        >>> power_of_ten(0.001)
        '10⁻³'
    """
    power = round(math.log10(value))
    return f"{value:g}" if abs(power) <= 1 else "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def batch_axis(axis: Axes, sizes: Sequence[int], *, reverse: bool = True) -> None:
    """A base-two axis with a tick at each batch size; the largest on the left, as in the Group Normalization paper."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted(sizes), [str(size) for size in sorted(sizes)])
    axis.set_xticks([], minor=True)
    ends = (min(sizes) / 2**0.55, max(sizes) * 2**0.35)
    axis.set_xlim(*(ends[::-1] if reverse else ends))
