"""What a layer does with arrays before and after the numerics: precision, masks, axes."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.typing import Array, Dtype


class Input(NamedTuple):
    """An input that statistics can be taken from.

    Attributes:
        x: The given values in the precision of the statistics, and zero where `invalid`.
        mask: Booleans of x's rank that broadcast to x, or None.
        invalid: Where the mask is False and the given value is not finite; None without a mask.
    """

    x: Array
    mask: Array | None
    invalid: Array | None


def promote_input(
    x: Array, mask: Array | None, *, dtype: Dtype | None, force_float32_reductions: bool, name: str
) -> Input:
    """`x` in the precision of the statistics, with the values removed that the mask hides and that are not finite.

    They become zero before anything is computed from them, because the product of a NaN and a zero gradient is NaN.

    Args:
        x: Any numeric array.
        mask: Broadcastable to x; None selects every value.
        dtype: The layer's dtype of the output, or None.
        force_float32_reductions: Whether to promote to float32 at least.
        name: The layer's name in the error message.

    Returns:
        The promoted input.

    Raises:
        ValueError: If the mask does not broadcast to x.
    """
    promoted = jnp.promote_types(jnp.result_type(x), dtype or jnp.result_type(x))
    if force_float32_reductions:
        promoted = jnp.promote_types(promoted, jnp.float32)
    x = jnp.asarray(x, promoted)
    if mask is None:
        return Input(x, None, None)
    mask = jnp.asarray(mask, bool)
    try:
        fits = jnp.broadcast_shapes(mask.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}'s mask must broadcast to the input's shape {x.shape}, but has {mask.shape}; "
            "give each axis the input's length or 1"
        )
    mask = mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
    invalid = ~(mask | jnp.isfinite(x))
    return Input(jnp.where(invalid, 0, x), mask, invalid)


def cast_output(
    y: Array, x: Array, scale: Array | None, bias: Array | None, *, dtype: Dtype | None, invalid: Array | None
) -> Array:
    """`y` in the output's dtype, and the bias at invalid positions.

    Args:
        y: The normalized input.
        x: The input as it was given.
        scale: Broadcastable to y, or None.
        bias: Broadcastable to y, or None.
        dtype: Dtype of the output; None takes that of input and parameters.
        invalid: As in `Input`.

    Returns:
        The layer's output.
    """
    if invalid is not None:
        y = jnp.where(invalid, 0 if bias is None else bias, y)
    arrays = (array for array in (x, scale, bias) if array is not None)
    return y.astype(canonicalize_dtype(*arrays, dtype=dtype))


def check_feature_axes(feature_axes: tuple[int, ...], name: str) -> None:
    """Checks that the leading axis, which holds the samples, is no feature axis.

    Args:
        feature_axes: As from `canonical_axes`.
        name: The layer's name in the error message.

    Raises:
        ValueError: If it is one.
    """
    if 0 in feature_axes:
        raise ValueError(
            f"{name}'s feature axes cannot include the leading dimension, which holds the samples, but are "
            f"{feature_axes}; choose other axes"
        )


def has_one_value(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a reduction of `axes` takes exactly one value for each result.

    Args:
        shape: Shape of the array.
        axes: The axes.

    Returns:
        True if their lengths are 1.
    """
    return math.prod(shape[axis] for axis in axes) == 1
