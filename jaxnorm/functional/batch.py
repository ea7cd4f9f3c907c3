"""Batch normalization."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnorm.errors import UserError
from jaxnorm.functional.fields import document
from jaxnorm.functional.ghost_batches import average, repeat_for_samples, split_batch
from jaxnorm.functional.inputs import Axes, Input, prepare
from jaxnorm.functional.meshes import on_any_mesh
from jaxnorm.functional.moments import compute_moments, normalize
from jaxnorm.functional.running_statistics import Running, running_moments, start_or_check, updated


@document
@on_any_mesh
def batch_norm(
    x: ArrayLike,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    running: Running | None = None,
    *,
    train: bool,
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
    _checked: bool = True,  # False while a module is initialized, with any input of the right shape
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each channel over batch and positions.

    The input has shape (N, ..., C). `scale`, `bias` and the running `mean` and `var` have shape (C,).

    Training takes the statistics of the batch and updates ``running = momentum * running + (1 - momentum) * batch``.
    `momentum` is therefore the weight of the old value; PyTorch's is the weight of the new one. The running variance is
    biased; PyTorch's is not. The running statistics start at mean 0 and variance 1, which keep a weight of momentum^n
    after n updates. A batch without any value (an all-False mask, an empty batch) updates nothing.

    Evaluation takes the running statistics, so that the output of a sample does not depend on the other samples.

    References:
        Ioffe and Szegedy 2015, "Batch Normalization", https://arxiv.org/abs/1502.03167

    Args:
        x: Shape (N, ..., C).
        running: `mean` and `var`. In training, None starts at mean 0 and variance 1.
        train: Whether to take the statistics of the batch, and to update the running ones.
        axis: The feature axis or axes, by default the last.
        momentum: Weight of the old running value.
        ghost_batch_size: In training, take statistics over parts of this many neighbouring samples instead of the
            whole batch, and their average for the running ones (Hoffer et al. 2017, https://arxiv.org/abs/1705.08741).

    Returns:
        The normalized array, of x's shape, and the running statistics: the new ones in training, the given ones in
        evaluation.

    Raises:
        UserError: In training, if a channel has exactly one value: the output would be the bias for any input. If an
            array, an axis or `ghost_batch_size` does not fit the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jaxnorm.functional import batch_norm
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> y, running = batch_norm(x, train=True, momentum=0.9)
        >>> print(*(f"{value:.3f}" for value in [*y[:, 0], *running["mean"]]))
        -1.342 -0.447 0.447 1.342 0.300 0.400
        >>> y, _ = batch_norm(x, running=running, train=False)
    """
    given = prepare(x, mask, dtype, force_float32_reductions, "batch_norm")
    feature_axes = given.axes(axis, "axis")
    axes = given.other_axes(feature_axes)
    statistics = start_or_check(running, given, feature_axes, train)
    running_average = running_moments(statistics, given, feature_axes)
    settings: dict[str, Any] = dict(axis_index_groups=axis_index_groups, use_fast_variance=use_fast_variance)
    if not train:
        moments = running_average
    elif ghost_batch_size is None:
        if _checked and axis_name is None:
            check_more_than_one_value(given, given.x.shape, axes)
        moments = compute_moments(given.x, axes, mask=given.mask, axis_name=axis_name, **settings)
        statistics = updated(statistics, moments, momentum)
    else:
        parts = split_batch(given.x, ghost_batch_size, axis_name)
        masks = given.mask
        if masks is not None:
            masks = split_batch(jnp.broadcast_to(masks, given.x.shape), ghost_batch_size)
        check_more_than_one_value(given, parts.shape[1:], axes)
        moments = compute_moments(parts, tuple(axis + 1 for axis in axes), mask=masks, **settings)
        statistics = updated(statistics, average(moments), momentum)
        moments = repeat_for_samples(moments, ghost_batch_size)
    scale, bias = given.scale_and_bias(scale, bias, feature_axes)
    return given.output(normalize(given.x, moments, scale, bias, epsilon), scale, bias), statistics


def check_more_than_one_value(given: Input, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Checks that a batch can be normalized by its own statistics.

    Args:
        given: The input. With a mask the number of values is unknown, and nothing is checked.
        shape: Of the batch, or of one ghost batch.
        axes: Axes to reduce.

    Raises:
        UserError: If each channel has exactly one value.
    """
    if given.mask is None and math.prod(shape[axis] for axis in axes) == 1:
        raise UserError(
            f"{given.name} needs more than one value per channel to train, but an input of shape {shape} has one; use "
            "a larger batch, or the running statistics (evaluation)"
        )
