"""Layers in place of a normalization, which take no statistics: dynamic tanh and dynamic erf."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, Input, prepare
from jaxnorm.functional.meshes import on_any_mesh


@document
@on_any_mesh
def dynamic_tanh(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 0.5,
    feature_axes: Axes = -1,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """y = scale * tanh(alpha * x) + bias.

    `scale` and `bias` have the shape of the feature axes. There are no statistics: each value of the output depends on
    one value of the input.

    References:
        Zhu et al. 2025, "Transformers without Normalization", https://arxiv.org/abs/2503.10622

    Args:
        x: Any shape that has the axes, real.
        alpha: Factor, a number or of a shape like `scale`'s. Layers train it, from 0.5.
        feature_axes: Axes of `scale` and `bias`, by default the last.

    Returns:
        The output, of x's shape.

    Raises:
        UserError: If an array or an axis does not fit the input, or if the input is complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import dynamic_tanh
        >>> print(*(f"{value:.3f}" for value in dynamic_tanh(jnp.asarray([0.0, 2.0, 100.0]))))
        0.000 0.762 1.000
    """
    given = prepare(x, None, dtype, True, "dynamic_tanh").real()
    features = given.axes(feature_axes, "feature_axes")
    y = jnp.tanh(_factor(given, alpha, features, "alpha") * given.x)
    return given.affine_output(y, *given.scale_and_bias(scale, bias, features))


@document
@on_any_mesh
def dynamic_erf(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 0.5,
    shift: ArrayLike = 0.0,
    feature_axes: Axes = -1,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """y = scale * erf(alpha * x + shift) + bias.

    `scale` and `bias` have the shape of the feature axes. There are no statistics: each value of the output depends on
    one value of the input.

    References:
        Chen et al. 2025, "Stronger Normalization-Free Transformers", https://arxiv.org/abs/2512.10938

    Args:
        x: Any shape that has the axes, real.
        alpha: Factor, a number or of a shape like `scale`'s. Layers train it, from 0.5.
        shift: Summand, a number or of a shape like `scale`'s. Layers train it, from 0.
        feature_axes: Axes of `scale` and `bias`, by default the last.

    Returns:
        The output, of x's shape.

    Raises:
        UserError: If an array or an axis does not fit the input, or if the input is complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import dynamic_erf
        >>> print(*(f"{value:.3f}" for value in dynamic_erf(jnp.asarray([0.0, 2.0, 100.0]))))
        0.000 0.843 1.000
    """
    given = prepare(x, None, dtype, True, "dynamic_erf").real()
    features = given.axes(feature_axes, "feature_axes")
    factor, shift = _factor(given, alpha, features, "alpha"), _factor(given, shift, features, "shift")
    return given.affine_output(lax.erf(factor * given.x + shift), *given.scale_and_bias(scale, bias, features))


def _factor(given: Input, value: ArrayLike, features: tuple[int, ...], argument: str) -> jax.Array:
    """A number as it is, an array as it broadcasts to the input; both in the precision of the computation."""
    if jnp.size(value) == 1:
        return jnp.reshape(value, ()).astype(given.x.dtype)
    return given.parameter(value, features, argument).astype(given.x.dtype)
