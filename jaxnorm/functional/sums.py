"""Sums over axes with short rounding errors: long sums are split, and each form is one that XLA makes fast."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

MIN_BLOCK = 16
"""Shorter sums are not split. Coefficients are folded only if x has at least this many values for each."""
SHORT = 64
"""Along a shorter last axis, sums add value by value."""
MAX_ROW = 1024
"""Longer sums along the last axis are split: rounding errors grow with their length."""
MAX_BLOCK = 4096
"""Longer sums over several axes are split: rounding errors grow with their length."""
XLA_SUMS_WELL = jax.__version_info__ >= (0, 11)
"""Whether XLA takes sums with the vector unit and in parts on CPU. For earlier ones, both is done here."""


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
        total, square = _SUMS.bind(x, abs_square(x))
        return total, square
    return sum_over(x, axes), sum_over(abs_square(x), axes)


def sum_over(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The sum over `axes`, which are kept with length 1.

    Args:
        x: Floating-point or complex array.
        axes: Axes to reduce.

    Returns:
        The sum, in x's dtype.
    """
    if len(axes) > 1 and not XLA_SUMS_WELL and at_least(set_size(x.shape, axes, None), MAX_BLOCK + 1):
        return sum_over(lax.optimization_barrier(sum_over(x, axes[1:])), axes[:1])
    if axes != (x.ndim - 1,) or not at_least(x.shape[-1], MIN_BLOCK):
        return jnp.sum(x, axes, keepdims=True)
    if at_least(x.shape[-1], MAX_ROW + 1):
        if x.shape[-1] % MAX_ROW:
            return jnp.sum(x, axes, keepdims=True)
        return sum_over(x.reshape(*x.shape[:-1], -1, MAX_ROW), (x.ndim,)).sum(-2)
    return _SUMS.bind(x)[0]


def _lengths_one(*arrays: Any) -> list[Any]:
    return [each.update(shape=(*each.shape[:-1], 1), weak_type=False) for each in arrays]


def _program(*arrays: jax.Array) -> list[jax.Array]:
    return [each.sum(-1, keepdims=True) for each in arrays]


def _program_for_cpu(*arrays: jax.Array) -> list[jax.Array]:
    if len(arrays) == 2:
        # One loop is twice as fast as XLA's two loops for two reductions.
        zeros = [jnp.zeros((), each.dtype) for each in arrays]
        found = lax.reduce([*arrays], zeros, lambda a, b: [a[0] + b[0], a[1] + b[1]], (arrays[0].ndim - 1,))
        return [each[..., None] for each in found]
    if XLA_SUMS_WELL:
        return _program(*arrays)
    ones = lax.full((arrays[0].shape[-1], 1), 1, arrays[0].dtype)
    return [jnp.matmul(arrays[0], ones, precision=lax.Precision.HIGHEST)]


def _jvp(values: Any, tangents: Any) -> Any:
    return _SUMS.bind(*values), [_SUMS.bind(ad.instantiate_zeros(each))[0] for each in tangents]


def _transposed(cotangents: Any, *arrays: Any) -> list[Any]:
    return [
        ad.Zero(array.aval) if type(each) is ad.Zero else jnp.broadcast_to(each, array.aval.shape)
        for each, array in zip(cotangents, arrays, strict=True)
    ]


def _batched(arrays: Any, axes: Any) -> Any:
    size = next(each.shape[axis] for each, axis in zip(arrays, axes, strict=True) if axis is not None)
    first = (batching.bdim_at_front(each, axis, size) for each, axis in zip(arrays, axes, strict=True))
    return _SUMS.bind(*first), [0] * len(arrays)


# Sums of one array or of two along the last axis, which is kept with length 1. `lax.platform_dependent` would do, but
# took half of the time in which a layer is traced.
_SUMS = Primitive("jaxnorm_sums_along_last")
_SUMS.multiple_results = True
_SUMS.def_impl(partial(xla.apply_primitive, _SUMS))
_SUMS.def_abstract_eval(_lengths_one)
ad.primitive_jvps[_SUMS] = _jvp
ad.primitive_transposes[_SUMS] = _transposed
batching.primitive_batchers[_SUMS] = _batched
mlir.register_lowering(_SUMS, mlir.lower_fun(_program, multiple_results=True))
mlir.register_lowering(_SUMS, mlir.lower_fun(_program_for_cpu, multiple_results=True), platform="cpu")
