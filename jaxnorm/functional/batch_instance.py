"""Batch-instance normalization."""

from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.ghost_batches import average, ghost_moments, repeat_for_samples
from jaxnorm.functional.inputs import Axes, check_feature_axes, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import combine, compute_moments, normalize_mixed
from jaxnorm.functional.running_statistics import Running, running_moments, start_or_check, updated


@document
@on_any_mesh
def batch_instance_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    gate: ArrayLike,
    train: bool,
    train_gate: bool = True,
    axis: Axes = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    mask: ArrayLike | None = None,
    axis_name: Any = None,
    axis_index_groups: Any = None,
    ghost_batch_size: int | None = None,
    use_fast_variance: bool = True,
    dtype: DTypeLike | None = None,
    force_float32_reductions: bool = True,
    _checked: bool = True,  # as in `batch_norm`
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """y = scale * (gate * x_batch + (1 - gate) * x_instance) + bias: batch norm and instance norm, mixed per channel.

    x_batch and x_instance are (x - E[x]) / sqrt(Var[x] + epsilon). For x_batch, E and Var are over batch and positions
    as in `batch_norm`. For x_instance, they are over the positions of each sample as in `instance_norm`.

    The input has shape (N, ..., C). `scale`, `bias`, `gate` (rho) and the running `mean` and `var` have shape (C,). In
    evaluation, x_batch takes the running statistics and x_instance those of each sample.

    The gate is not limited to [0, 1]; the optimizer must do so. The authors clip it after every step, start it at 1 and
    train it at ten times the learning rate. `axis_name` concerns x_batch only; each instance is on one device.

    References:
        Nam and Kim 2018, "Batch-Instance Normalization", https://arxiv.org/abs/1805.07925

    Args:
        x: Shape (N, ..., C).
        running: `mean` and `var`. In training, None starts at mean 0 and variance 1.
        gate: The weight of x_batch, of a shape like `scale`'s.
        train: Whether to take the statistics of the batch, and to update the running ones.
        train_gate: Whether the gate has a gradient.
        axis: The feature axis or axes, by default the last.
        momentum: Weight of the old running value.
        ghost_batch_size: In training, take batch statistics over parts of this many neighbouring samples, as in
            `batch_norm`.

    Returns:
        As `batch_norm`.

    Raises:
        UserError: As `batch_norm`; and if `axis` includes the leading axis, which holds the samples.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import batch_instance_norm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, running = batch_instance_norm(x, gate=jnp.full(3, 0.5), train=True)
        >>> y.shape, running["var"].shape
        ((8, 4, 4, 3), (3,))
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "batch_instance_norm")
    feature_axes = given.axes(axis, "axis")
    check_feature_axes(feature_axes, "batch_instance_norm's axis")
    axes = given.other_axes((0, *feature_axes))
    statistics = start_or_check(running, given, feature_axes, train)
    running_average = running_moments(statistics, given, feature_axes)
    instance = compute_moments(
        given.x, axes, mask=given.mask, axis_index_groups=axis_index_groups, use_fast_variance=use_fast_variance
    )
    if not train:
        batch = running_average
    elif ghost_batch_size is None:
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, (0, *axes))
        batch = combine(instance, (0,), axis_name, axis_index_groups)
        statistics = updated(statistics, batch, momentum)
    else:
        ghosts = ghost_moments(instance, ghost_batch_size, axis_name)
        check_more_than_one_value(given, (ghost_batch_size, *given.x.shape[1:]), (0, *axes))
        statistics = updated(statistics, average(ghosts), momentum)
        batch = repeat_for_samples(ghosts, ghost_batch_size)
    scale, bias = given.scale_and_bias(scale, bias, feature_axes)
    gate = given.parameter(gate if train_gate else lax.stop_gradient(gate), feature_axes, "gate")
    y = normalize_mixed(given.x, batch, instance, gate, scale, bias, epsilon)
    return given.output(y, scale, bias), statistics
