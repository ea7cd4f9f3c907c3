"""The numerics of every layer: mean and variance in one pass without cancellation, and the normalization with them.

A float32 number has seven digits. The usual one-pass variance, E[x^2] - E[x]^2, subtracts two numbers whose first
2 log10(mean / std) digits agree: at mean/std = 1e4 no digit remains. Here a value from the middle of the set, the
`shift`, is subtracted first. The difference is exact for values near the shift, and a constant changes neither the
variance nor any gradient. E[d^2] - E[d]^2 of d = x - shift then loses few digits: no element of n is further than
sqrt(n - 1) standard deviations from the mean (Samuelson), and medians of three find one that is no outlier.

Short sums keep their digits, so they run over the positions of each sample and channel first. Where XLA splits long
sums itself, batch and positions are one sum. Sets with different shifts (instances, devices) are combined as in Chan,
Golub and LeVeque, "Algorithms for computing the sample variance" (1983). The mean remains the unevaluated sum
`shift + offset`, because rounding it once would cause a larger error than all steps above.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxnorm.functional.shift import representative
from jaxnorm.functional.sums import (
    MIN_BLOCK,
    XLA_SUMS_WELL,
    abs_square,
    as_count,
    at_least,
    over_groups,
    set_size,
    sum_and_square,
    sum_over,
)


class Moments(NamedTuple):
    """Mean, as `shift + offset`, and biased variance of sets of values, and the number of values in each set.

    The arrays keep every axis of the input, so that they broadcast to it.

    Attributes:
        shift: First part of the mean, a constant for derivatives.
        offset: Second part of the mean, which has the derivatives of the mean.
        var: Biased variance.
        count: Number of values: a float, an array with a mask or a symbolic size, None for running statistics.
    """

    shift: jax.Array
    offset: jax.Array
    var: jax.Array
    count: Any

    @property
    def mean(self) -> jax.Array:
        """Mean, rounded to the dtype of `shift`."""
        return self.shift + self.offset


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
        x: Floating-point or complex array.
        axes: Axes to reduce, as non-negative numbers in ascending order.
        num_groups: Reduce the last axis, which must be among `axes`, in this many groups of neighbours.
        mask: Booleans of x's rank, broadcastable to x; None means True everywhere.
        axis_name: Mapped axis, or axes, along which the sets continue. Every value has the same weight on any device.
        axis_index_groups: Groups of indices along `axis_name` that are reduced separately.
        use_fast_variance: One shifted pass over x; False takes two passes.

    Returns:
        Moments in x's dtype (the variance of complex values is real); mean and variance of an empty set are zero.
    """
    if not use_fast_variance:
        return _two_pass(x, axes, num_groups, mask, axis_name, axis_index_groups)
    moments = _one_pass(x, axes, num_groups, mask)
    return moments if axis_name is None else combine(moments, (), axis_name, axis_index_groups)


def mean_square(
    x: jax.Array,
    axes: tuple[int, ...],
    *,
    mask: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> jax.Array:
    """E[|x|^2] over `axes`, over the true positions of `mask` and over the devices of `axis_name`.

    Args:
        x: Floating-point or complex array.
        axes: Axes to reduce, as non-negative numbers in ascending order.
        mask: As in `compute_moments`.
        axis_name: As in `compute_moments`.
        axis_index_groups: As in `compute_moments`.

    Returns:
        A real array with length 1 on `axes`; zero for an empty set.
    """
    values = _sum_of_squares(x, axes, mask), _count(x, axes, None, mask)
    return _nan_if_infinite(_over(*_psum(values, axis_name, axis_index_groups)))


def sum_of_squares(
    x: jax.Array,
    axes: tuple[int, ...],
    *,
    mask: jax.Array | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
) -> jax.Array:
    """The sum of |x|^2 over `axes`, over the true positions of `mask` and over the devices of `axis_name`.

    Args:
        x: Floating-point or complex array.
        axes: Axes to reduce, as non-negative numbers in ascending order.
        mask: As in `compute_moments`.
        axis_name: As in `compute_moments`.
        axis_index_groups: As in `compute_moments`.

    Returns:
        A real array with length 1 on `axes`.
    """
    return _psum(_sum_of_squares(x, axes, mask), axis_name, axis_index_groups)


def combine(parts: Moments, axes: tuple[int, ...], axis_name: Any = None, axis_index_groups: Any = None) -> Moments:
    """The moments of the union of the sets along `axes` and along the devices of `axis_name`.

    Args:
        parts: Moments of the sets.
        axes: Axes of `parts` to reduce.
        axis_name: Mapped axis, or axes, to reduce too.
        axis_index_groups: Groups of indices along `axis_name` that are reduced separately.

    Returns:
        Moments with length 1 on the reduced axes.
    """

    def add(values: Any) -> Any:
        values = jax.tree.map(lambda value: sum_over(value, axes), values) if axes else values
        return _psum(values, axis_name, axis_index_groups)

    counts = parts.count
    if axes:
        counts = jnp.broadcast_to(jnp.asarray(counts, jnp.promote_types(parts.var.dtype, jnp.float32)), parts.var.shape)
    # Two sums: the first finds a shift for all sets. A single sum would cancel, or need every set on every device.
    count, rough = add((counts, counts * parts.mean))
    shift = _rounded((rough / jnp.maximum(count, 1)).astype(parts.shift.dtype))
    offset = (parts.shift - shift) + parts.offset
    weight = jnp.asarray(counts / jnp.maximum(count, 1), parts.var.dtype)
    mean, square = add((weight * offset, weight * (parts.var + abs_square(offset))))
    return Moments(shift, mean, _variance(square, mean), count)


def normalize(
    x: jax.Array, moments: Moments, scale: jax.Array | None, bias: jax.Array | None, epsilon: float
) -> jax.Array:
    """scale * (x - mean) / sqrt(var + epsilon) + bias.

    Args:
        x: The array.
        moments: Broadcastable to x.
        scale: Broadcastable to x, or None for 1.
        bias: Broadcastable to x, or None for 0.
        epsilon: Added to the variance.

    Returns:
        The normalized array, of x's shape.
    """
    d = x - moments.shift
    mul = lax.rsqrt(moments.var + epsilon)
    affine_shape = jnp.broadcast_shapes(mul.shape, *(p.shape for p in (scale, bias) if p is not None))
    if at_least(_repeats(x.shape, affine_shape), MIN_BLOCK):
        mul = mul if scale is None else mul * scale
        add = -moments.offset * mul
        return _affine(d, mul, add if bias is None else add + bias)
    # Scale and bias vary along a reduced axis. Folded coefficients would be as large as x.
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
    """scale * (gate * (x normalized by `batch`) + (1 - gate) * (x normalized by `instance`)) + bias.

    Args:
        x: The array.
        batch: Moments that the gate multiplies, broadcastable to x.
        instance: The other moments, broadcastable to x.
        gate: Broadcastable to x.
        scale: Broadcastable to x, or None for 1.
        bias: Broadcastable to x, or None for 0.
        epsilon: Added to both variances.

    Returns:
        The normalized array, of x's shape.
    """
    # Both branches are affine in x, so the mixture is one multiplication and one addition per value.
    by_batch = gate * lax.rsqrt(batch.var + epsilon)
    by_instance = (1 - gate) * lax.rsqrt(instance.var + epsilon)
    mul = by_batch + by_instance
    add = ((instance.shift - batch.shift) - batch.offset) * by_batch - instance.offset * by_instance
    if scale is not None:
        mul, add = mul * scale, add * scale
    return _affine(x - instance.shift, mul, add if bias is None else add + bias)


def _repeats(shape: tuple[int, ...], of: tuple[int, ...]) -> int:
    """How many values of an array of this shape have one coefficient of the shape `of`."""
    return math.prod(length for length, own in zip(shape, of, strict=True) if own == 1)


def _affine(d: jax.Array, mul: jax.Array, add: jax.Array) -> jax.Array:
    """d * mul + add, arranged so that the backward pass sums only the cotangent and the cotangent times d."""
    shape = jnp.broadcast_shapes(mul.shape, add.shape)
    if not XLA_SUMS_WELL and at_least(_repeats(d.shape[1:], shape[1:]), MIN_BLOCK):
        # One coefficient per sample: the backward pass then sums over positions first, faster and more exactly.
        shape = (d.shape[0], *shape[1:])
    mul, add = lax.optimization_barrier((jnp.broadcast_to(mul, shape), jnp.broadcast_to(add, shape)))
    return d * mul + add


def _one_pass(x: jax.Array, axes: tuple[int, ...], num_groups: int | None, mask: jax.Array | None) -> Moments:
    inner = _inner_axes(x.shape, axes, num_groups)
    outer = tuple(axis for axis in axes if axis not in inner)

    def add(values: jax.Array) -> jax.Array:
        return over_groups(sum_over, sum_over(values, inner), outer, num_groups)

    def mean(total: jax.Array) -> jax.Array:
        return _over(total, count)

    count = _count(x, axes, num_groups, mask)
    if mask is None:
        shift = representative(lax.stop_gradient(x), inner, outer, num_groups)
        d = x - shift
    else:
        # Any element may be masked out, so the shift is a rough mean, for one more look at x.
        shift = _rounded(mean(add(jnp.where(mask, x, 0))))
        d = jnp.where(mask, x - shift, 0)
    if XLA_SUMS_WELL and x.ndim - 1 not in axes:
        inner, outer = axes, ()
    total, square = sum_and_square(d, inner)
    if outer:
        # Without the barrier XLA joins the two short sums to a long one, which costs digits and time.
        total, square = lax.optimization_barrier((total, square))
        total, square = (over_groups(sum_over, each, outer, num_groups) for each in (total, square))
    offset = mean(total)
    return Moments(shift, offset, _variance(mean(square), offset), count)


def _sum_of_squares(x: jax.Array, axes: tuple[int, ...], mask: jax.Array | None) -> jax.Array:
    square = abs_square(x if mask is None else jnp.where(mask, x, 0))
    inner = _inner_axes(x.shape, axes, None)
    return sum_over(sum_over(square, inner), tuple(axis for axis in axes if axis not in inner))


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
        values = over_groups(partial(jnp.sum, keepdims=True), values, axes, num_groups)
        return _over(_psum(values, axis_name, axis_index_groups), total)

    mu = mean(x)
    return Moments(mu, jnp.zeros_like(mu), _nan_if_infinite(mean(abs_square(x - mu))), total)


def _count(x: jax.Array, axes: tuple[int, ...], num_groups: int | None, mask: jax.Array | None) -> Any:
    """The number of values in each set, in float32 at least, because float16 ends at 65504."""
    dtype = jnp.promote_types(x.real.dtype, jnp.float32)
    if mask is None:
        return as_count(set_size(x.shape, axes, num_groups), dtype)
    return over_groups(sum_over, jnp.broadcast_to(mask, x.shape).astype(dtype), axes, num_groups)


def _over(total: jax.Array, count: Any) -> jax.Array:
    """total / count, and zero for an empty set."""
    return (total / (max(count, 1.0) if isinstance(count, float) else jnp.maximum(count, 1))).astype(total.dtype)


def _rounded(shift: jax.Array) -> jax.Array:
    """`shift` without a derivative and without its last bit: the same value in every fusion that computes it.

    The compiler computes `shift` again in every fusion that uses it. There it may make a product and a difference one
    multiply-add, which does not round the product. Two such shifts would differ by half a unit in the last place, 4e-3
    standard deviations at mean/std = 1e5. An integer operation between them prevents this; a barrier does not.
    """
    shift = lax.stop_gradient(shift)
    if jnp.iscomplexobj(shift):
        return lax.complex(_rounded(lax.real(shift)), _rounded(lax.imag(shift)))
    bits = lax.bitcast_convert_type(shift, jnp.dtype(f"uint{8 * shift.dtype.itemsize}"))
    return lax.bitcast_convert_type(bits & ~jnp.ones((), bits.dtype), shift.dtype)


def _variance(square: jax.Array, mean: jax.Array) -> jax.Array:
    """E[|d|^2] - |E[d]|^2, not negative after rounding, and nan after overflow: a finite output would hide it.

    The derivative is that of the formula everywhere; `maximum` would halve it at zero.
    """
    var = square - abs_square(mean)
    value = lax.stop_gradient(var)
    # The comparison is with `square`, because `var` overflows to nan or to infinity.
    too_large = lax.stop_gradient(square) == jnp.inf
    return var - lax.select(too_large, lax.full_like(value, jnp.nan), lax.min(value, lax.full_like(value, 0)))


def _nan_if_infinite(square: jax.Array) -> jax.Array:
    """The same for a mean square: 1 / sqrt(inf) is zero, and the output would be finite and wrong."""
    return square + 0 * lax.stop_gradient(square)


def _inner_axes(shape: tuple[int, ...], axes: tuple[int, ...], num_groups: int | None) -> tuple[int, ...]:
    """The axes to sum first: positions, without samples, and without channels if these are reduced too."""
    last = len(shape) - 1
    inner = tuple(axis for axis in axes if axis > 0)
    if num_groups is not None or (inner == tuple(range(1, last + 1)) and last > 1):
        inner = tuple(axis for axis in inner if axis < last)
    return inner if num_groups is not None or at_least(set_size(shape, inner, None), MIN_BLOCK) else axes


def _psum(values: Any, axis_name: Any, axis_index_groups: Any) -> Any:
    return values if axis_name is None else lax.psum(values, axis_name, axis_index_groups=axis_index_groups)
