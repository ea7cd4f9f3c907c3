"""Layer normalization."""

from typing import Any

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import compute_moments, normalize


@document
@on_any_mesh
def layer_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    reduction_axes: Axes = -1,
    feature_axes: Axes = -1,
    epsilon: float = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var over `reduction_axes`.

    `scale` and `bias` have the shape of the feature axes. The default reduces the last axis. For images (N, H, W, C)
    with one mean and variance per sample, give ``reduction_axes=(1, 2, 3)``, which equals `group_norm` with one group.
    Training and evaluation are the same.

    References:
        Ba, Kiros and Hinton 2016, "Layer Normalization", https://arxiv.org/abs/1607.06450

    Args:
        x: Any shape that has the axes.
        reduction_axes: Axes over which statistics are taken, by default the last.
        feature_axes: Axes of `scale` and `bias`, by default the last.

    Returns:
        The normalized array, of x's shape.

    Raises:
        UserError: If an array or an axis does not fit the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import layer_norm
        >>> y = layer_norm(jnp.asarray([[1.0, 2.0, 3.0, 4.0]]))
        >>> print(*(f"{value:.3f}" for value in y[0]))
        -1.342 -0.447 0.447 1.342
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "layer_norm")
    moments = compute_moments(
        given.x,
        given.axes(reduction_axes, "reduction_axes"),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        use_fast_variance=use_fast_variance,
    )
    scale, bias = given.scale_and_bias(scale, bias, given.axes(feature_axes, "feature_axes"))
    return given.output(normalize(given.x, moments, scale, bias, epsilon), scale, bias)
