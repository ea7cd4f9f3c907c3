"""Instance normalization."""

from typing import Any

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import Axes, check_feature_axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import compute_moments, normalize


@document
@on_any_mesh
def instance_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    feature_axes: Axes = -1,
    epsilon: float = 1e-6,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample and channel over positions.

    The input has shape (N, ..., C). `scale` and `bias` have the shape of the feature axes, (C,). Training and
    evaluation are the same. A single position has variance 0, and the output is the bias, as in flax; PyTorch raises an
    error in training.

    References:
        Ulyanov, Vedaldi and Lempitsky 2016, "Instance Normalization", https://arxiv.org/abs/1607.08022

    Args:
        x: Shape (N, ..., C).
        feature_axes: Axes of `scale` and `bias`, by default the last. All others but the first are reduced.

    Returns:
        The normalized array, of x's shape.

    Raises:
        UserError: If `feature_axes` includes the leading axis, which holds the samples. If an array or an axis does not
            fit the input.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import instance_norm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> bool(abs(instance_norm(x).mean((1, 2))).max() < 1e-6)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "instance_norm")
    features = given.axes(feature_axes, "feature_axes")
    check_feature_axes(features, "instance_norm's feature_axes")
    moments = compute_moments(
        given.x,
        given.other_axes((0, *features)),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        use_fast_variance=use_fast_variance,
    )
    scale, bias = given.scale_and_bias(scale, bias, features)
    return given.output(normalize(given.x, moments, scale, bias, epsilon), scale, bias)
