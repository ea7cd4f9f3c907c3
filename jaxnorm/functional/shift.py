"""The shift of a set: one of its elements, near the middle."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnorm.functional.sums import at_least, over_groups

FEW = 32
"""In a shorter set along the last axis any element can be the shift: no outlier is far enough to cost digits."""


def representative(x: jax.Array, inner: tuple[int, ...], outer: tuple[int, ...], num_groups: int | None) -> jax.Array:
    """One element of each set, near its middle and no single outlier; zero if the set is empty.

    The element is selected, not computed, so that every fusion has the same value (see `_rounded` in `moments`). With
    more than one axis, the last selection, among four medians, is a reduction, whose result XLA stores. XLA would fuse
    medians into x - shift and select them again for every element of x.

    Args:
        x: Floating-point or complex array.
        inner: Axes to reduce first.
        outer: Axes to reduce then.
        num_groups: Number of groups of the last axis, or None.

    Returns:
        The elements, with length 1 on the reduced axes; with groups, the last axis has x's length.
    """
    if inner == (x.ndim - 1,) and x.shape[-1] and not at_least(x.shape[-1], FEW) and not outer:
        # Selecting among neighbours in memory is slowest, and in a short set every element is near enough.
        return lax.slice_in_dim(x, x.shape[-1] // 2, x.shape[-1] // 2 + 1, axis=-1)
    *middle, last = inner or (None,)
    if last is None or not (middle or outer) or not isinstance(x.shape[last], int) or x.shape[last] == 0:
        return over_groups(_median, _median(x, inner, gather=True), outer, num_groups)
    length = x.shape[last]
    few = x if length < 4 else lax.slice_in_dim(x, length // 8, length // 8 + 3 * (length // 4) + 1, length // 4, last)
    of_outer = partial(_median, gather=num_groups is None)
    medians = _median(over_groups(of_outer, few, outer, num_groups), tuple(middle))
    if jnp.iscomplexobj(x):
        return lax.slice_in_dim(medians, 0, 1, axis=last)
    if length >= 4:  # the larger of two pairs' minima: one minimum would be too low
        medians = jnp.min(medians.reshape(*medians.shape[:last], 2, 2, *medians.shape[last + 1 :]), last)
    return jnp.max(medians, last, keepdims=True)


def _median(x: jax.Array, axes: tuple[int, ...], *, gather: bool = False) -> jax.Array:
    """The median of three elements along each axis: of x along the first, of these medians along the next, and so on.

    The three elements are away from the borders, where padding makes values different. A gather is one message where
    the axis is sharded, and each slice would be one; but in groups and among positions a gather is slower.
    """
    for axis in axes:
        length = x.shape[axis]
        if length == 0:
            x = jnp.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
            continue
        positions = (length // 4, length // 2, length * 3 // 4)
        if gather and len(axes) == 1 and isinstance(length, int):
            x, positions = _take(x, positions, axis), (0, 1, 2)
        low, middle, high = (lax.slice_in_dim(x, at, at + 1, axis=axis) for at in positions)
        if jnp.iscomplexobj(x):
            x = middle  # complex numbers have no order
        else:
            x = jnp.maximum(jnp.minimum(low, high), jnp.minimum(jnp.maximum(low, high), middle))
    return x


def _take(x: jax.Array, positions: tuple[int, ...], axis: int) -> jax.Array:
    """`jnp.take` of positions that exist. A layer is traced half a millisecond faster without its checks."""
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(each for each in range(x.ndim) if each != axis),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    indices = np.asarray(positions, np.int32)[:, None]
    return lax.gather(x, indices, numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
