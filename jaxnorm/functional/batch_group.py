"""Batch-group normalization: batch, group, instance and layer norm, and all between them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError
from jaxnorm.functional.batch import check_more_than_one_value
from jaxnorm.functional.fields import document
from jaxnorm.functional.ghost_batches import average, ghost_moments, repeat_for_samples
from jaxnorm.functional.group import count_groups
from jaxnorm.functional.inputs import prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import Moments, combine, compute_moments, normalize
from jaxnorm.functional.running_statistics import Running, running_moments, start_or_check, updated


@document
@on_any_mesh
def batch_group_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    train: bool,
    num_groups: int | None = None,
    group_size: int | None = 1,
    ghost_batch_size: int | None = None,
    own_weight: ArrayLike = 0.0,
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
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var over parts of (samples, channels).

    A part is `ghost_batch_size` neighbouring samples, all positions, and a group of neighbouring channels. A group of
    one channel and the whole batch are batch norm; one sample and all channels are layer norm.

    Evaluation takes the running statistics, or weighs them with those of each sample: moments = own_weight * own +
    (1 - own_weight) * running, for E[x] and E[x^2]. This repairs what differs between training and evaluation where
    batches were small. The weight is chosen after training, on validation data.

    The input has shape (N, ..., C). `scale`, `bias` and the running `mean` and `var` have shape (C,); the channels of a
    group have equal statistics.

    References:
        Summers and Dinneen 2019, "Four Things Everyone Should Know to Improve Batch Normalization",
        https://arxiv.org/abs/1906.03548

    Args:
        x: Shape (N, ..., C), real.
        running: `mean` and `var`. In training, None starts at mean 0 and variance 1.
        train: Whether to take the statistics of the batch, and to update the running ones.
        num_groups: Number of groups.
        group_size: Number of channels in a group, by default 1.
        ghost_batch_size: Samples in a part; None for the whole batch. The running statistics take the parts' average.
        own_weight: In evaluation, the weight of each sample's own statistics, from 0 to 1.
        momentum: Weight of the old running value.

    Returns:
        As `batch_norm`.

    Raises:
        UserError: As `batch_norm` and `group_norm`; if `own_weight` is a number outside [0, 1]; if the input is
            complex.

    Examples:
        >>> import jax
        >>> from jaxnorm.functional import batch_group_norm, batch_norm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
        >>> bool(abs(batch_group_norm(x, train=True)[0] - batch_norm(x, train=True)[0]).max() < 1e-5)
        True
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "batch_group_norm").real()
    channels = (given.x.ndim - 1,)
    number = own_weight if isinstance(own_weight, int | float) else None
    if number is not None and not 0 <= number <= 1:
        raise UserError(f"batch_group_norm's own_weight must be from 0 to 1, but is {own_weight}; choose one between")
    groups = count_groups(given.x.shape[-1], num_groups, group_size, "batch_group_norm")
    statistics = start_or_check(running, given, channels, train)
    moments = running_moments(statistics, given, channels)
    if train or number != 0:
        own = compute_moments(
            given.x,
            tuple(range(1, given.x.ndim)),
            num_groups=groups,
            mask=given.mask,
            use_fast_variance=use_fast_variance,
        )
    if train:
        size = ghost_batch_size or given.x.shape[0]
        if _checked and axis_name is None and groups == given.x.shape[-1]:
            check_more_than_one_value(given, (size, *given.x.shape[1:]), given.other_axes(channels))
        if ghost_batch_size is None:
            moments = combine(own, (0,), axis_name, axis_index_groups)
            statistics = updated(statistics, moments, momentum)
        else:
            parts = ghost_moments(own, ghost_batch_size, axis_name)
            statistics = updated(statistics, average(parts), momentum)
            moments = repeat_for_samples(parts, ghost_batch_size)
    elif number != 0:
        moments = _weighed(own, moments, jnp.asarray(own_weight, given.x.dtype))
    scale, bias = given.scale_and_bias(scale, bias, channels)
    return given.output(normalize(given.x, moments, scale, bias, epsilon), scale, bias), statistics


def _weighed(own: Moments, running: Moments, weight: jax.Array) -> Moments:
    """Means and mean squares, weighed. The squared difference of the means is what the variances do not hold."""
    difference = (own.shift - running.shift) + own.offset
    var = weight * own.var + (1 - weight) * running.var + weight * (1 - weight) * jnp.square(difference)
    return Moments(running.shift, weight * difference, var, None)
