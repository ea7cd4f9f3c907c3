"""Root mean square normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import mean_square


@document
@on_any_mesh
def rms_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    *,
    scale_offset: float = 0.0,
    reduction_axes: Axes = -1,
    feature_axes: Axes = -1,
    epsilon: float = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = (scale_offset + scale) * x / sqrt(E[x^2] + epsilon), with E over `reduction_axes`: layer norm without a mean.

    `scale` has the shape of the feature axes. The default reduces the last axis. Training and evaluation are the same.

    References:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", https://arxiv.org/abs/1910.07467

    Args:
        x: Any shape that has the axes.
        scale_offset: Added to `scale`. With 1, as in Gemma, a scale that starts at 0 and decays to 0 is neutral.
        reduction_axes: Axes over which the mean square is taken, by default the last.
        feature_axes: Axes of `scale`, by default the last.

    Returns:
        The normalized array, of x's shape.

    Raises:
        UserError: If an array or an axis does not fit the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import rms_norm
        >>> y = rms_norm(jnp.asarray([[3.0, 4.0]]))
        >>> print(*(f"{value:.4f}" for value in y[0]))
        0.8485 1.1314
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "rms_norm")
    square = mean_square(
        given.x,
        given.axes(reduction_axes, "reduction_axes"),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    scale, _ = given.scale_and_bias(scale, None, given.axes(feature_axes, "feature_axes"))
    y = given.x * lax.rsqrt(square + epsilon)
    if scale is not None and scale_offset:  # in the precision of the statistics: 1 + 1e-3 is 1 in bfloat16
        y = y * (scale_offset + scale.astype(jnp.promote_types(scale.dtype, y.real.dtype)))
    elif scale is not None:
        y = y * scale
    return given.output(y, scale, None)
