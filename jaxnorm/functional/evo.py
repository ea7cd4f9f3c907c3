"""Evolving normalization-activation layers: EvoNorm-B0 and EvoNorm-S0."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.group import count_groups
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import combine, compute_moments
from jaxnorm.functional.running_statistics import Running, start_or_check, updated


@document
@on_any_mesh
def evo_norm_b0(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    slope: ArrayLike | None = None,
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
    """y = scale * x / max(sqrt(Var_batch[x] + epsilon), slope * x + sqrt(Var_instance[x] + epsilon)) + bias.

    Var_batch is of each channel over batch and positions, Var_instance of each sample and channel over positions. The
    input has shape (N, ..., C). `scale`, `bias`, `slope` (v1) and the running `var` have shape (C,). The maximum is the
    activation: none follows. Evaluation takes the running variance, whose `momentum` is the weight of the old value.
    There is no running mean.

    References:
        Liu et al. 2020, "Evolving Normalization-Activation Layers", https://arxiv.org/abs/2004.02967

    Args:
        x: Shape (N, ..., C), real.
        running: `var`. In training, None starts at 1.
        slope: Of a shape like `scale`'s; None for no activation: x is divided by the batch's standard deviation alone.
        train: Whether to take the variance of the batch, and to update the running one.
        momentum: Weight of the old running value.

    Returns:
        The output, of x's shape, and the running `var`: the new one in training, the given one in evaluation.

    Raises:
        UserError: In training, if a channel has exactly one value. If an array does not fit the input, or if the input
            is complex.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import evo_norm_b0
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, running = evo_norm_b0(x, slope=jnp.ones(3), train=True)
        >>> y.shape, sorted(running)
        ((8, 4, 4, 3), ['var'])
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "evo_norm_b0").real()
    channels = (given.x.ndim - 1,)
    axes = given.other_axes((0, *channels))
    statistics = start_or_check(running, given, channels, train, ("var",))
    var = given.parameter(statistics["var"], channels, "running var")
    instance = compute_moments(given.x, axes, mask=given.mask, use_fast_variance=use_fast_variance)
    if train:
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, (0, *axes))
        batch = combine(instance, (0,), axis_name, axis_index_groups)
        statistics, var = updated(statistics, batch, momentum), batch.var
    divisor = jnp.sqrt(var + epsilon)
    if slope is not None:
        own = given.parameter(slope, channels, "slope") * given.x + jnp.sqrt(instance.var + epsilon)
        divisor = jnp.maximum(divisor, own)
    scale, bias = given.scale_and_bias(scale, bias, channels)
    return given.affine_output(given.x / divisor, scale, bias), statistics


@document
@on_any_mesh
def evo_norm_s0(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    slope: ArrayLike | None = None,
    num_groups: int | None = 32,
    group_size: int | None = None,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
) -> jax.Array:
    """y = scale * x * sigmoid(slope * x) / sqrt(Var[x] + epsilon) + bias.

    Var is of each sample over positions and the channels of a group, neighbouring channels. The input has shape
    (N, ..., C). `scale`, `bias` and `slope` (v1) have shape (C,). The sigmoid is the activation: none follows. Training
    and evaluation are the same.

    References:
        Liu et al. 2020, "Evolving Normalization-Activation Layers", https://arxiv.org/abs/2004.02967

    Args:
        x: Shape (N, ..., C), real.
        slope: Of a shape like `scale`'s; None for no activation: x is divided by the group's standard deviation.
        num_groups: Number of groups, by default 32.
        group_size: Number of channels in a group.

    Returns:
        The output, of x's shape.

    Raises:
        UserError: If both or none of `num_groups` and `group_size` are given, or if they do not divide the channels. If
            an array does not fit the input, or if the input is complex.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import evo_norm_s0
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
        >>> evo_norm_s0(x, slope=jnp.ones(6), num_groups=3).shape
        (2, 4, 4, 6)
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "evo_norm_s0").real()
    last = given.x.ndim - 1
    var = compute_moments(
        given.x,
        tuple(range(1, last + 1)),
        num_groups=count_groups(given.x.shape[-1], num_groups, group_size, "evo_norm_s0"),
        mask=given.mask,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
        use_fast_variance=use_fast_variance,
    ).var
    scale, bias = given.scale_and_bias(scale, bias, (last,))
    y = given.x * lax.rsqrt(var + epsilon)
    if slope is not None:
        y = y * jax.nn.sigmoid(given.parameter(slope, (last,), "slope") * given.x)
    return given.affine_output(y, scale, bias)
