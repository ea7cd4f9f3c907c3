"""Sums over axes with short rounding errors: long sums are split, and each form is one that XLA makes fast."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MIN_BLOCK = 16
"""Shorter sums are not split. Coefficients are folded only if x has at least this many values for each."""
SHORT = 64
"""Along a shorter last axis, sums add value by value."""
MAX_PRODUCT = 1024
"""The longest sum along the last axis that is one product: rounding errors grow with its length."""
MAX_BLOCK = 4096
"""Longer sums over several axes are split: rounding errors grow with their length."""


def set_size(shape: tuple[int, ...], axes: tuple[int, ...], num_groups: int | None) -> int:
    """The number of values of an array of this shape that are reduced to one.

    Args:
        shape: Shape of the array.
        axes: Axes to reduce.
        num_groups: Number of groups of the last axis, or None.

    Returns:
        Values for each result.
    """
    return math.prod(shape[axis] for axis in axes) // (num_groups or 1)


def at_least(size: Any, least: int) -> bool:
    """Whether a size is so large. A symbolic size of `jax.export`, which may be anything from 1, counts as large.

    Args:
        size: Number of values.
        least: The size to compare with.

    Returns:
        False if it is known to be smaller.
    """
    return not isinstance(size, int) or size >= least


def as_count(size: Any, dtype: Any) -> Any:
    """A number of values for a division.

    Args:
        size: The number, perhaps symbolic.
        dtype: Of a symbolic number's array.

    Returns:
        A float, or an array for a symbolic size.
    """
    return float(size) if isinstance(size, int) else jnp.asarray(size).astype(dtype)


def over_groups(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    axes: tuple[int, ...],
    num_groups: int | None,
) -> jax.Array:
    """`reduce` over `axes`. With groups, the last axis is reduced in each group, whose channels repeat the result.

    Args:
        reduce: Called as ``reduce(x, axes)``; keeps the axes with length 1.
        x: An array.
        axes: Axes to reduce, ascending; with groups, the last axis is among them.
        num_groups: Number of groups of the last axis, or None.

    Returns:
        The reduced array; with groups, its last axis has x's length.
    """
    if num_groups is None:
        return reduce(x, axes)
    grouped = (*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    reduced = reduce(x.reshape(grouped), (*axes[:-1], x.ndim))
    return jnp.broadcast_to(reduced, (*reduced.shape[:-1], grouped[-1])).reshape(*reduced.shape[:-2], x.shape[-1])


def abs_square(x: jax.Array) -> jax.Array:
    """|x|^2, which is real.

    Args:
        x: Real or complex array.

    Returns:
        A real array of x's shape.
    """
    return lax.square(lax.real(x)) + lax.square(lax.imag(x)) if jnp.iscomplexobj(x) else lax.square(x)


def sum_and_square(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Sums of x and of |x|^2.

    Args:
        x: Floating-point or complex array.
        axes: Axes to reduce.

    Returns:
        The two sums, with length 1 on `axes`.
    """
    if axes == (x.ndim - 1,) and x.shape[-1] and not at_least(x.shape[-1], SHORT):
        return lax.platform_dependent(x, abs_square(x), cpu=_sums_along_last, default=_two_sums_along_last)
    return sum_over(x, axes), sum_over(abs_square(x), axes)


@jax.custom_jvp
def _sums_along_last(x: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sums in one loop, which is twice as fast on CPU as XLA's two loops for two reductions."""
    zeros = jnp.zeros((), x.dtype), jnp.zeros((), square.dtype)
    first, second = lax.reduce((x, square), zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), (x.ndim - 1,))
    return first[..., None], second[..., None]


def _two_sums_along_last(x: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x.sum(-1, keepdims=True), square.sum(-1, keepdims=True)


@_sums_along_last.defjvp
def _(values: Any, tangents: Any) -> Any:
    return _sums_along_last(*values), _two_sums_along_last(*tangents)


def sum_over(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The sum over `axes`, which are kept with length 1.

    Args:
        x: Floating-point or complex array.
        axes: Axes to reduce.

    Returns:
        The sum, in x's dtype.
    """
    if len(axes) > 1 and at_least(set_size(x.shape, axes, None), MAX_BLOCK + 1):
        return sum_over(lax.optimization_barrier(sum_over(x, axes[1:])), axes[:1])
    if axes != (x.ndim - 1,) or not at_least(x.shape[-1], MIN_BLOCK):
        return jnp.sum(x, axes, keepdims=True)
    if at_least(x.shape[-1], MAX_PRODUCT + 1):
        if x.shape[-1] % MAX_PRODUCT:
            return jnp.sum(x, axes, keepdims=True)
        return sum_over(x.reshape(*x.shape[:-1], -1, MAX_PRODUCT), (x.ndim,)).sum(-2)
    # On CPU, XLA adds one value after the other along the last axis. A product with ones uses the vector unit.
    ones = jnp.ones((x.shape[-1], 1), x.dtype)
    product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    return lax.platform_dependent(x, ones, cpu=product, default=lambda x, _: jnp.sum(x, axes, keepdims=True))
