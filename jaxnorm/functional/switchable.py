"""Switchable normalization."""

from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError
from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import Moments, combine, compute_moments, normalize
from jaxnorm.functional.running_statistics import Running, running_moments, start_or_check, updated


@document
@on_any_mesh
def switchable_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    mean_weights: ArrayLike,
    var_weights: ArrayLike,
    train: bool,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
    _checked: bool = True,  # as in `batch_norm`
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """y = scale * (x - m) / sqrt(v + epsilon) + bias: m and v mix the statistics of instance, layer and batch norm.

    m = a[0] m_instance + a[1] m_layer + a[2] m_batch with a = softmax(mean_weights), and v likewise with
    softmax(var_weights). The variances are biased. The input has shape (N, ..., C). `scale`, `bias` and the running
    `mean` and `var` have shape (C,). In evaluation the running statistics take the batch's place.

    References:
        Luo et al. 2018, "Differentiable Learning-to-Normalize via Switchable Normalization",
        https://arxiv.org/abs/1806.10779

    Args:
        x: Shape (N, ..., C), real.
        running: `mean` and `var`. In training, None starts at mean 0 and variance 1.
        mean_weights: Three numbers, before the softmax: of instance, layer and batch. Layers train them, from ones.
        var_weights: As `mean_weights`, for the variances.
        train: Whether to take the statistics of the batch, and to update the running ones.
        momentum: Weight of the old running value.

    Returns:
        As `batch_norm`.

    Raises:
        UserError: As `batch_norm`; if the weights are not three; if the input is complex.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import switchable_norm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, running = switchable_norm(x, mean_weights=jnp.ones(3), var_weights=jnp.ones(3), train=True)
        >>> y.shape, running["var"].shape
        ((8, 4, 4, 3), (3,))
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "switchable_norm").real()
    channels = (given.x.ndim - 1,)
    axes = given.other_axes((0, *channels))
    statistics = start_or_check(running, given, channels, train)
    batch = running_moments(statistics, given, channels)
    instance = compute_moments(given.x, axes, mask=given.mask, use_fast_variance=use_fast_variance)
    layer = combine(instance, channels)
    if train:
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, (0, *axes))
        batch = combine(instance, (0,), axis_name, axis_index_groups)
        statistics = updated(statistics, batch, momentum)
    by_mean, by_var = (_shares(weights, given.x.dtype) for weights in (mean_weights, var_weights))
    sets = (instance, layer, batch)
    offset = sum(
        share * ((each.shift - instance.shift) + each.offset) for share, each in zip(by_mean, sets, strict=True)
    )
    var = sum(share * each.var for share, each in zip(by_var, sets, strict=True))
    scale, bias = given.scale_and_bias(scale, bias, channels)
    mixed = Moments(instance.shift, offset, var, None)
    return given.output(normalize(given.x, mixed, scale, bias, epsilon), scale, bias), statistics


def _shares(weights: ArrayLike, dtype: Any) -> jax.Array:
    """The softmax of three weights."""
    shares = jax.nn.softmax(lax.convert_element_type(weights, dtype), axis=-1)
    if shares.shape != (3,):
        raise UserError(
            f"switchable_norm's weights must have the shape (3,): instance, layer, batch; but have {shares.shape}; "
            "give three"
        )
    return shares
