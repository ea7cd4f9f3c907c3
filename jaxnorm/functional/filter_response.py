"""Filter response normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import mean_square


@document
@on_any_mesh
def filter_response_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    threshold: ArrayLike | None = None,
    *,
    epsilon: ArrayLike = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = max(scale * x / sqrt(E[x^2] + epsilon) + bias, threshold), with E of each sample and channel over positions.

    The input has shape (N, ..., C). `scale`, `bias` and `threshold` (tau) have shape (C,). The maximum, a thresholded
    linear unit, is the activation: none follows. Training and evaluation are the same.

    References:
        Singh and Krishnan 2019, "Filter Response Normalization Layer", https://arxiv.org/abs/1911.09737

    Args:
        x: Shape (N, ..., C), real.
        threshold: The lowest output, of a shape like `scale`'s; None for no activation.
        epsilon: Added to the mean square; a number, or one of each channel. Inputs with a single position need a large
            one, for which the authors train it: their output is the sign of x otherwise.

    Returns:
        The output, of x's shape.

    Raises:
        UserError: If an array does not fit the input, or if the input is complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import filter_response_norm
        >>> x = jnp.asarray([[[3.0], [-4.0]]])
        >>> print(*(f"{value:.4f}" for value in filter_response_norm(x, threshold=jnp.zeros(1)).ravel()))
        0.8485 0.0000
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "filter_response_norm").real()
    channels = (given.x.ndim - 1,)
    square = mean_square(
        given.x,
        given.other_axes((0, *channels)),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    if jnp.ndim(epsilon):
        epsilon = given.parameter(epsilon, channels, "epsilon")
    scale, bias = given.scale_and_bias(scale, bias, channels)
    y = given.affine_output(given.x * lax.rsqrt(square + epsilon), scale, bias)
    if threshold is None:
        return y
    return jnp.maximum(y, given.parameter(threshold, channels, "threshold").astype(y.dtype))
