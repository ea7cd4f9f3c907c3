"""What a function does with arrays before and after the numerics: precision, masks, axes, parameters."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError

Axes = int | Iterable[int]


class Input(NamedTuple):
    """An input that statistics can be taken from.

    Attributes:
        x: The given values in the precision of the statistics, and zero where `invalid`.
        mask: Booleans of x's rank that broadcast to x, or None.
        invalid: Where the mask is False and the given value is not finite; None without a mask.
        given: The input as it was given.
        dtype: Dtype of the output, or None.
        name: Of the normalization, for error messages.
    """

    x: jax.Array
    mask: jax.Array | None
    invalid: jax.Array | None
    given: ArrayLike
    dtype: DTypeLike | None
    name: str

    def real(self) -> "Input":
        """This input, if it is real.

        Returns:
            The input.

        Raises:
            UserError: If it is complex.
        """
        if jnp.iscomplexobj(self.x):
            raise UserError(
                f"{self.name}'s input must be real, but is {self.x.dtype}; normalize real and imaginary part apart"
            )
        return self

    def axes(self, axes: Axes, argument: str) -> tuple[int, ...]:
        """Axes of the input, see `canonical_axes`.

        Args:
            axes: The value of an argument.
            argument: Its name.

        Returns:
            The axes.
        """
        return canonical_axes(self.x.ndim, axes, f"{self.name}'s {argument}")

    def other_axes(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """The axes of the input that are not among the given.

        Args:
            axes: As from `axes`.

        Returns:
            The others.
        """
        return tuple(axis for axis in range(self.x.ndim) if axis not in axes)

    def parameter(self, value: ArrayLike, feature_axes: tuple[int, ...], argument: str) -> jax.Array:
        """A parameter as it broadcasts to the input.

        Args:
            value: Of the feature axes' shape; that shape for each sample, (N, *features); or broadcastable with the
                input's rank.
            feature_axes: As from `axes`.
            argument: Its name.

        Returns:
            The array.

        Raises:
            UserError: If its shape does not fit.
        """
        shape, of_x = jnp.shape(value), self.x.shape
        if len(shape) == len(of_x) and all(length in (1, most) for length, most in zip(shape, of_x, strict=True)):
            return jnp.asarray(value)
        features = tuple(of_x[axis] for axis in feature_axes)
        if 0 not in feature_axes and shape == (*of_x[:1], *features):
            feature_axes = (0, *feature_axes)
        elif shape not in (features, (math.prod(features),)):
            raise UserError(
                f"{self.name}'s {argument} must have the shape of the feature axes, {features}, but has {shape} for an "
                f"input of shape {of_x}; give {features}, {(*of_x[:1], *features)} for a value of each sample, or "
                f"{len(of_x)} axes that broadcast to the input"
            )
        return jnp.reshape(value, tuple(length if axis in feature_axes else 1 for axis, length in enumerate(of_x)))

    def scale_and_bias(
        self, scale: ArrayLike | None, bias: ArrayLike | None, feature_axes: tuple[int, ...]
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Both as they broadcast to the input.

        Args:
            scale: As `value` in `parameter`, or None.
            bias: As `value` in `parameter`, or None.
            feature_axes: As from `axes`.

        Returns:
            The arrays; None for None.
        """
        return (
            None if scale is None else self.parameter(scale, feature_axes, "scale"),
            None if bias is None else self.parameter(bias, feature_axes, "bias"),
        )

    def output(self, y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
        """The output: `y` in its dtype, and the bias at invalid positions.

        Args:
            y: The normalized input.
            scale: Broadcastable to y, or None.
            bias: Broadcastable to y, or None.

        Returns:
            The result of the function.
        """
        if self.invalid is not None:
            y = jnp.where(self.invalid, 0 if bias is None else bias, y)
        dtype = self.dtype
        if dtype is None:
            dtype = _inexact(jnp.result_type(*(array for array in (self.given, scale, bias) if array is not None)))
        return y.astype(dtype)

    def affine_output(self, y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
        """The output of scale * y + bias.

        Args:
            y: As in `output`, before scale and bias.
            scale: As in `output`.
            bias: As in `output`.

        Returns:
            The result of the function.
        """
        y = y if scale is None else y * scale
        return self.output(y if bias is None else y + bias, scale, bias)


def prepare(
    x: ArrayLike,
    mask: ArrayLike | None,
    dtype: DTypeLike | None,
    force_float32_reductions: bool,
    name: str,
) -> Input:
    """`x` in the precision of the statistics, with the values removed that the mask hides and that are not finite.

    They become zero before anything is computed from them, because the product of a NaN and a zero gradient is NaN.

    Args:
        x: Any numeric array.
        mask: Broadcastable to x; None selects every value.
        dtype: Dtype of the output, or None.
        force_float32_reductions: Whether to promote to float32 at least.
        name: Of the normalization, for error messages.

    Returns:
        The input.

    Raises:
        UserError: If the mask does not broadcast to x, or if `dtype` is neither floating-point nor complex.
    """
    if dtype is not None and not jnp.issubdtype(dtype, jnp.inexact):
        raise UserError(
            f"{name}'s dtype must be floating-point or complex, but is {jnp.dtype(dtype)}; give float32 or None"
        )
    given = x
    if dtype is not None and not jnp.issubdtype(dtype, jnp.complexfloating):
        x = jnp.real(x)
    promoted = _inexact(jnp.promote_types(jnp.result_type(x), dtype or jnp.result_type(x)))
    if force_float32_reductions:
        promoted = jnp.promote_types(promoted, jnp.float32)
    x = jnp.asarray(x, promoted)
    if mask is None:
        return Input(x, None, None, given, dtype, name)
    mask = jnp.asarray(mask, bool)
    try:
        fits = jnp.broadcast_shapes(mask.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"{name}'s mask must broadcast to the input's shape {x.shape}, but has {mask.shape}; "
            "give each axis the input's length or 1"
        )
    mask = mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
    invalid = ~(mask | jnp.isfinite(x))
    return Input(jnp.where(invalid, 0, x), mask, invalid, given, dtype, name)


def canonical_axes(ndim: int, axes: Axes, argument: str) -> tuple[int, ...]:
    """Axes as non-negative numbers in ascending order, each once.

    Args:
        ndim: Number of axes of the array.
        axes: An axis or several; negative numbers count from the end.
        argument: What the axes are, for the error message.

    Returns:
        The axes.

    Raises:
        UserError: If the array has no such axis.
    """
    numbers = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    for axis in numbers:
        if not -ndim <= axis < ndim:
            raise UserError(
                f"{argument} must be axes of the input, from {-ndim} to {ndim - 1}, but include {axis}; the input has "
                f"{ndim} axes"
            )
    return tuple(sorted({axis % ndim for axis in numbers}))


def feature_shape(x: ArrayLike, axes: Axes, argument: str) -> tuple[int, ...]:
    """The shape of a parameter.

    Args:
        x: The input.
        axes: The feature axis or axes.
        argument: What the axes are, for the error message.

    Returns:
        The lengths of x's feature axes.
    """
    shape = jnp.shape(x)
    return tuple(shape[axis] for axis in canonical_axes(len(shape), axes, argument))


def check_feature_axes(feature_axes: tuple[int, ...], argument: str) -> None:
    """Checks that the leading axis, which holds the samples, is no feature axis.

    Args:
        feature_axes: As from `canonical_axes`.
        argument: What the axes are, for the error message.

    Raises:
        UserError: If it is one.
    """
    if 0 in feature_axes:
        raise UserError(
            "The channel axes cannot include the leading dimension as this is assumed to be the batch axis, but "
            f"{argument} is {feature_axes}; choose other axes"
        )


def _inexact(dtype: Any) -> Any:
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.promote_types(jnp.float32, dtype)
