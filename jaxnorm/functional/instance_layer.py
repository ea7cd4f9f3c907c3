"""Instance-layer normalization."""

import jax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import combine, compute_moments, normalize_mixed


@document
@on_any_mesh
def instance_layer_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    gate: ArrayLike,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = scale * (gate * x_instance + (1 - gate) * x_layer) + bias: instance norm and layer norm, mixed per channel.

    x_instance and x_layer are (x - E[x]) / sqrt(Var[x] + epsilon): E and Var of each sample over positions, and over
    positions and channels. The variance is biased, so that a single position is possible. The input has shape
    (N, ..., C). `scale`, `bias` and `gate` (rho) have shape (C,). Training and evaluation are the same.

    The gate is not limited to [0, 1]; the optimizer must do so, as for `batch_instance_norm`.

    References:
        Kim et al. 2019, "U-GAT-IT", https://arxiv.org/abs/1907.10830

    Args:
        x: Shape (N, ..., C).
        gate: The weight of x_instance, of a shape like `scale`'s.

    Returns:
        The normalized array, of x's shape.

    Raises:
        UserError: If an array does not fit the input.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import instance_layer_norm, instance_norm
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
        >>> y = instance_layer_norm(x, gate=jnp.ones(3))
        >>> bool(abs(y - instance_norm(x, epsilon=1e-5)).max() < 1e-5)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "instance_layer_norm")
    channels = (given.x.ndim - 1,)
    axes = given.other_axes((0, *channels))
    instance = compute_moments(given.x, axes, mask=given.mask, use_fast_variance=use_fast_variance)
    layer = combine(instance, channels)
    scale, bias = given.scale_and_bias(scale, bias, channels)
    gate = 1 - given.parameter(gate, channels, "gate")
    return given.output(normalize_mixed(given.x, layer, instance, gate, scale, bias, epsilon), scale, bias)
