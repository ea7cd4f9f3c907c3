"""The numerics of every layer: mean and variance in one pass without cancellation, and the normalization they give.

Float32 knows a number to seven digits. The usual one-pass variance, E[x^2] - E[x]^2, subtracts two numbers that agree
in 2 log10(mean / std) of them: at mean/std = 1e4 nothing is left. Here a value from the midst of the set, the
`shift`, is subtracted first. That is exact for nearby values and changes neither the variance nor any gradient, and
E[d^2] - E[d]^2 of d = x - shift loses little: no element of n lies further than sqrt(n - 1) standard deviations from
their mean (Samuelson's inequality), and medians of three find one that is no outlier. Sums run over the positions of
each sample and channel first, then over samples or channels: short sums keep their digits. Sets with a shift each,
instances or devices, are put together as in Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
(1983). The mean stays the unevaluated sum `shift + offset`, because to round it once would cost more than everything
above.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

MIN_BLOCK = 16
"""Sums of fewer values are not split, and coefficients are folded only where x has this many values for each."""
FEW = 32
"""In a set of fewer values along the last axis any element will do as shift: none is an outlier that costs digits."""
SHORT = 64
"""Along a last axis of fewer values, sums go value by value."""
MAX_PRODUCT = 1024
"""The longest sum along the last axis that is taken as one product: rounding errors grow with its length."""
MAX_BLOCK = 4096
"""Sums of more values are split where they run over several axes: rounding errors grow with their length."""


class Moments(NamedTuple):
    """Mean, as `shift + offset`, and biased variance of sets of values, and how many values a set has.

    The arrays keep every axis of the input, so that they broadcast against it. `shift` is a constant to derivatives;
    `offset` carries those of the mean. `count` is a float where no mask is given, an array where one is.
    """

    shift: jax.Array
    offset: jax.Array
    var: jax.Array
    count: Any

    @property
    def mean(self) -> jax.Array:
        return self.shift + self.offset


def canonical_axes(ndim: int, axes: int | Iterable[int]) -> tuple[int, ...]:
    """`axes` counted from the front, in order, each once."""
    axes = axes if isinstance(axes, Iterable) else (axes,)
    return tuple(sorted({axis + ndim if axis < 0 else axis for axis in axes}))


def compute_moments(
    x: jax.Array,
    axes: tuple[int, ...],
    *,
    num_groups: int | None = None,
    mask: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
) -> Moments:
    """E[x] and E[|x - E[x]|^2] over `axes`, over the true positions of `mask` and over the devices of `axis_name`.

    Args:
        x: floating or complex array.
        axes: axes to reduce, as from `canonical_axes`.
        num_groups: reduce the last axis, which must be among `axes`, in this many groups of neighbours.
        mask: bool, of x's rank, broadcastable to x; None means true everywhere.
        axis_name: mapped axis, or axes, along which the sets continue; every value counts once, wherever it lies.
        axis_index_groups: groups of indices along `axis_name` that are reduced among themselves.
        use_fast_variance: one shifted pass over x; False takes the textbook's two.

    Returns:
        Moments in x's dtype (the variance of complex values is real); mean and variance of an empty set are zero.
    """
    if not use_fast_variance:
        return _two_pass(x, axes, num_groups, mask, axis_name, axis_index_groups)
    moments = _one_pass(x, axes, num_groups, mask)
    return moments if axis_name is None else combine(moments, (), axis_name, axis_index_groups)


def combine(parts: Moments, axes: tuple[int, ...], axis_name: Any = None, axis_index_groups: Any = None) -> Moments:
    """The moments of the union of sets that lie along `axes`, and along the devices of `axis_name`."""

    def add(values: Any) -> Any:
        values = jax.tree.map(lambda value: _sum(value, axes), values) if axes else values
        return _psum(values, axis_name, axis_index_groups)

    counts = parts.count
    if axes:
        counts = jnp.broadcast_to(jnp.asarray(counts, jnp.promote_types(parts.var.dtype, jnp.float32)), parts.var.shape)
    # Two sums, of which the first finds a shift for all sets: a single one would cancel, or need every set everywhere.
    count, rough = add((counts, counts * parts.mean))
    shift = _rounded((rough / jnp.maximum(count, 1)).astype(parts.shift.dtype))
    offset = (parts.shift - shift) + parts.offset
    weight = jnp.asarray(counts / jnp.maximum(count, 1), parts.var.dtype)
    mean, square = add((weight * offset, weight * (parts.var + _abs_sq(offset))))
    return Moments(shift, mean, _variance(square, mean), count)


def normalize(
    x: jax.Array, moments: Moments, scale: jax.Array | None, bias: jax.Array | None, epsilon: float
) -> jax.Array:
    """scale * (x - mean) / sqrt(var + epsilon) + bias"""
    d = x - moments.shift
    mul = lax.rsqrt(moments.var + epsilon)
    affine_shape = jnp.broadcast_shapes(mul.shape, *(p.shape for p in (scale, bias) if p is not None))
    if MIN_BLOCK * math.prod(affine_shape) <= x.size:
        mul = mul if scale is None else mul * scale
        add = -moments.offset * mul
        return _affine(d, mul, add if bias is None else add + bias)
    # Scale and bias vary along a reduced axis: folded, they would be as large as x.
    y = _affine(d, mul, -moments.offset * mul)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def normalize_mixed(
    x: jax.Array,
    batch: Moments,
    instance: Moments,
    gate: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    epsilon: float,
) -> jax.Array:
    """scale * (gate * (x normalized by `batch`) + (1 - gate) * (x normalized by `instance`)) + bias"""
    # Both branches are affine in x, so the mixture is one multiplication and one addition per value.
    by_batch = gate * lax.rsqrt(batch.var + epsilon)
    by_instance = (1 - gate) * lax.rsqrt(instance.var + epsilon)
    mul = by_batch + by_instance
    add = ((instance.shift - batch.shift) - batch.offset) * by_batch - instance.offset * by_instance
    if scale is not None:
        mul, add = mul * scale, add * scale
    return _affine(x - instance.shift, mul, add if bias is None else add + bias)


def _affine(d: jax.Array, mul: jax.Array, add: jax.Array) -> jax.Array:
    """d * mul + add, arranged so that the backward pass sums only the cotangent and the cotangent times d."""
    shape = jnp.broadcast_shapes(mul.shape, add.shape)
    if d.size >= MIN_BLOCK * d.shape[0] * math.prod(shape[1:]):
        # One coefficient per sample: the backward pass then sums over positions first, which is faster and more exact.
        shape = (d.shape[0], *shape[1:])
    mul, add = lax.optimization_barrier((jnp.broadcast_to(mul, shape), jnp.broadcast_to(add, shape)))
    return d * mul + add


def _one_pass(x: jax.Array, axes: tuple[int, ...], num_groups: int | None, mask: jax.Array | None) -> Moments:
    inner = _inner_axes(x.shape, axes, num_groups)
    outer = tuple(axis for axis in axes if axis not in inner)

    def add(values: jax.Array) -> jax.Array:
        return _over(_sum, _sum(values, inner), outer, num_groups)

    def mean(total: jax.Array) -> jax.Array:
        return (total / jnp.maximum(count, 1)).astype(total.dtype)

    count = _count(x, axes, num_groups, mask)
    if mask is None:
        shift = lax.stop_gradient(_representative(x, inner, outer, num_groups))
        d = x - shift
    else:
        # Any element may be masked out, so the shift is a rough mean, for one more look at x.
        shift = _rounded(mean(add(jnp.where(mask, x, 0))))
        d = jnp.where(mask, x - shift, 0)
    total, square = _sum_and_square(d, inner)
    if outer:
        # Without the barrier XLA makes one long sum of the two short ones, which costs digits and time.
        total, square = lax.optimization_barrier((total, square))
        total, square = _over(_sum, total, outer, num_groups), _over(_sum, square, outer, num_groups)
    offset = mean(total)
    return Moments(shift, offset, _variance(mean(square), offset), count)


def _two_pass(
    x: jax.Array,
    axes: tuple[int, ...],
    num_groups: int | None,
    mask: jax.Array | None,
    axis_name: Any,
    axis_index_groups: Any,
) -> Moments:
    total = _psum(_count(x, axes, num_groups, mask), axis_name, axis_index_groups)

    def mean(values: jax.Array) -> jax.Array:
        values = values if mask is None else jnp.where(mask, values, 0)
        values = _psum(_over(partial(jnp.sum, keepdims=True), values, axes, num_groups), axis_name, axis_index_groups)
        return (values / jnp.maximum(total, 1)).astype(values.dtype)

    mu = mean(x)
    return Moments(mu, jnp.zeros_like(mu), mean(_abs_sq(x - mu)), total)


def _count(x: jax.Array, axes: tuple[int, ...], num_groups: int | None, mask: jax.Array | None) -> Any:
    """How many values each set has, in float32 at least: float16 counts to 65504."""
    if mask is None:
        return float(_size(x.shape, axes, num_groups))
    dtype = jnp.promote_types(x.real.dtype, jnp.float32)
    return _over(_sum, jnp.broadcast_to(mask, x.shape).astype(dtype), axes, num_groups)


def _rounded(shift: jax.Array) -> jax.Array:
    """`shift` without a derivative and without its last bit, the same wherever the compiler computes it anew.

    It does so in every fusion that uses `shift`, and may turn a product and a difference into one fused multiply-add,
    which does not round in between. Two such shifts would differ by half a unit in the last place: at mean/std = 1e5,
    4e-3 standard deviations. An integer operation in between rules that out (an optimization barrier does not).
    """
    shift = lax.stop_gradient(shift)
    if jnp.iscomplexobj(shift):
        return lax.complex(_rounded(lax.real(shift)), _rounded(lax.imag(shift)))
    bits = lax.bitcast_convert_type(shift, jnp.dtype(f"uint{8 * shift.dtype.itemsize}"))
    return lax.bitcast_convert_type(bits & ~jnp.ones((), bits.dtype), shift.dtype)


def _variance(square: jax.Array, mean: jax.Array) -> jax.Array:
    """E[|d|^2] - |E[d]|^2, neither negative from rounding nor infinite from overflow.

    The derivative is that of the formula: at zero, where `maximum` would halve it, and below.
    """
    var = jnp.where(jnp.isposinf(square), jnp.finfo(square.dtype).max, square - _abs_sq(mean))
    return var - lax.stop_gradient(jnp.minimum(var, 0))


def _inner_axes(shape: tuple[int, ...], axes: tuple[int, ...], num_groups: int | None) -> tuple[int, ...]:
    """The axes that are summed first: positions, as opposed to samples and, where they are reduced too, channels."""
    last = len(shape) - 1
    inner = tuple(axis for axis in axes if axis > 0)
    if num_groups is not None or (inner == tuple(range(1, last + 1)) and last > 1):
        inner = tuple(axis for axis in inner if axis < last)
    return inner if num_groups is not None or _size(shape, inner, None) >= MIN_BLOCK else axes


def _size(shape: tuple[int, ...], axes: tuple[int, ...], num_groups: int | None) -> int:
    """How many values of an array of this shape are reduced to one."""
    return math.prod(shape[axis] for axis in axes) // (num_groups or 1)


def _over(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    axes: tuple[int, ...],
    num_groups: int | None,
) -> jax.Array:
    """`reduce` over `axes`, over the last one within groups of neighbours, where the result is repeated."""
    if num_groups is None:
        return reduce(x, axes)
    grouped = (*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    reduced = reduce(x.reshape(grouped), (*axes[:-1], x.ndim))
    return jnp.broadcast_to(reduced, (*reduced.shape[:-1], grouped[-1])).reshape(*reduced.shape[:-2], x.shape[-1])


def _psum(values: Any, axis_name: Any, axis_index_groups: Any) -> Any:
    return values if axis_name is None else lax.psum(values, axis_name, axis_index_groups=axis_index_groups)


def _sum_and_square(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Sums of x and of |x|^2."""
    if axes == (x.ndim - 1,) and 0 < x.shape[-1] < SHORT:
        return lax.platform_dependent(x, _abs_sq(x), cpu=_sums_along_last, default=_two_sums_along_last)
    return _sum(x, axes), _sum(_abs_sq(x), axes)


@jax.custom_jvp
def _sums_along_last(x: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sums in one loop, twice as fast on CPU as the two that XLA makes of two reductions."""
    zeros = jnp.zeros((), x.dtype), jnp.zeros((), square.dtype)
    first, second = lax.reduce((x, square), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), (x.ndim - 1,))
    return first[..., None], second[..., None]


def _two_sums_along_last(x: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x.sum(-1, keepdims=True), square.sum(-1, keepdims=True)


@_sums_along_last.defjvp
def _(values: Any, tangents: Any) -> Any:
    return _sums_along_last(*values), _two_sums_along_last(*tangents)


def _sum(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    if len(axes) > 1 and _size(x.shape, axes, None) > MAX_BLOCK:
        return _sum(lax.optimization_barrier(_sum(x, axes[1:])), axes[:1])
    if axes != (x.ndim - 1,) or x.shape[-1] < MIN_BLOCK:
        return jnp.sum(x, axes, keepdims=True)
    if x.shape[-1] > MAX_PRODUCT:
        if x.shape[-1] % MAX_PRODUCT:
            return jnp.sum(x, axes, keepdims=True)
        return _sum(x.reshape(*x.shape[:-1], -1, MAX_PRODUCT), (x.ndim,)).sum(-2)
    # XLA sums along the last axis one value after the other on CPU; a product with ones takes the vector unit.
    ones = jnp.ones((x.shape[-1], 1), x.dtype)
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    return lax.platform_dependent(x, ones, cpu=product, default=lambda x, _: jnp.sum(x, axes, keepdims=True))


def _representative(x: jax.Array, inner: tuple[int, ...], outer: tuple[int, ...], num_groups: int | None) -> jax.Array:
    """One element of each set, near its middle and no lonely outlier; zero where a set is empty.

    Nothing is computed, only chosen, so the compiler cannot round it differently in different places (see `_rounded`).
    Where there is more than one axis the last choice, among four medians, is a reduction, which XLA stores: medians it
    would fuse into x - shift and choose anew for every element of x.
    """
    if inner == (x.ndim - 1,) and 0 < x.shape[-1] < FEW and not outer:
        # Neighbours in memory, where choosing costs most; and in a short set every element is near enough.
        return lax.slice_in_dim(x, x.shape[-1] // 2, x.shape[-1] // 2 + 1, axis=-1)
    *middle, last = inner or (None,)
    if last is None or not (middle or outer) or x.shape[last] == 0:
        return _over(_median, _median(x, inner), outer, num_groups)
    length = x.shape[last]
    few = x if length < 4 else lax.slice_in_dim(x, length // 8, length // 8 + 3 * (length // 4) + 1, length // 4, last)
    medians = _median(_over(_median, few, outer, num_groups), tuple(middle))
    if jnp.iscomplexobj(x):
        return lax.slice_in_dim(medians, 0, 1, axis=last)
    if length >= 4:  # of two pairs the larger minimum: a minimum alone would lie low
        medians = jnp.min(medians.reshape(*medians.shape[:last], 2, 2, *medians.shape[last + 1 :]), last)
    return jnp.max(medians, last, keepdims=True)


def _median(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Of three elements along each axis the median, of those the median along the next, and so on.

    The three lie away from the borders, which padding makes unlike the rest.
    """
    for axis in axes:
        length = x.shape[axis]
        if length == 0:
            x = jnp.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
            continue
        positions = (length // 4, length // 2, length * 3 // 4)
        low, middle, high = (lax.slice_in_dim(x, at, at + 1, axis=axis) for at in positions)
        if jnp.iscomplexobj(x):
            x = middle  # complex numbers have no order
        else:
            x = jnp.maximum(jnp.minimum(low, high), jnp.minimum(jnp.maximum(low, high), middle))
    return x


def _abs_sq(x: jax.Array) -> jax.Array:
    return lax.square(lax.real(x)) + lax.square(lax.imag(x)) if jnp.iscomplexobj(x) else lax.square(x)
