"""Global response normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import sum_of_squares


@document
@on_any_mesh
def global_response_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    epsilon: float = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = x + scale * x * n / (E[n] + epsilon) + bias, where n is the norm of each channel, and E over channels.

    n = sqrt(sum of x^2 over positions), of each sample and channel. The input has shape (N, ..., C). `scale` (gamma)
    and `bias` (beta) have shape (C,). Layers start both at zero, where the output is the input. Training and evaluation
    are the same. The gradient at x = 0 is that of the limit, not NaN.

    References:
        Woo et al. 2023, "ConvNeXt V2", https://arxiv.org/abs/2301.00808

    Args:
        x: Shape (N, ..., C), real.
        epsilon: Added to the mean of n.

    Returns:
        The output, of x's shape.

    Raises:
        UserError: If an array does not fit the input, or if the input is complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import global_response_norm
        >>> print(*(f"{value:.3f}" for value in global_response_norm(jnp.asarray([[[1.0, 3.0]]])).ravel()))
        1.500 7.500
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "global_response_norm").real()
    channels = (given.x.ndim - 1,)
    total = sum_of_squares(
        given.x,
        given.other_axes((0, *channels)),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    positive = total > 0  # the square root has no derivative at zero
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)
    scale, bias = given.scale_and_bias(scale, bias, channels)
    response = norm / (norm.mean(-1, keepdims=True) + epsilon)
    y = given.x + given.x * (response if scale is None else response * scale)
    return given.output(y if bias is None else y + bias, scale, bias)
