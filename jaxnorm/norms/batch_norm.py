"""Batch normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.norms.ghost_batches import average, repeat_for_samples, split_batch
from jaxnorm.norms.input_statistics import active_axis_name, input_moments
from jaxnorm.norms.inputs import cast_output, has_one_value, promote_input
from jaxnorm.norms.moments import Moments, canonical_axes, normalize
from jaxnorm.norms.shared_fields import with_shared_fields
from jaxnorm.norms.variables import (
    RunningNormLayer,
    running_statistics,
    scale_and_bias,
    update_running_statistics,
)


@with_shared_fields
class BatchNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each channel over batch and positions.

    The input has shape (N, ..., C). `scale`, `bias` and the running `mean` and `var` (collection `batch_stats`) have
    shape (C,).

    Training takes the statistics of the batch and updates ``running = momentum * running + (1 - momentum) * batch``.
    `momentum` is therefore the weight of the old value; PyTorch's is the weight of the new one. The running variance is
    biased; PyTorch's is not. The running statistics start at mean 0 and variance 1, which keep a weight of momentum^n
    after n updates. A batch without any value (an all-False mask, an empty batch) updates nothing.

    Evaluation takes the running statistics, so that the output of a sample does not depend on the other samples.

    References:
        Ioffe and Szegedy 2015, "Batch Normalization", https://arxiv.org/abs/1502.03167

    Attributes:
        use_running_average: Whether to take the running statistics (evaluation). May be given at the call instead.
        axis: The feature axis or axes, by default the last.
        momentum: Weight of the old running value.
        ghost_batch_size: In training, take statistics over parts of this many neighbouring samples instead of the
            whole batch, and their average for the running ones (Hoffer et al. 2017, https://arxiv.org/abs/1705.08741).

    Raises:
        ValueError: In training, if a channel has exactly one value. The output would be the bias for any input.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import BatchNorm
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> layer = BatchNorm(use_running_average=False, momentum=0.9)
        >>> variables = layer.init(jax.random.key(0), x)
        >>> y, updates = layer.apply(variables, x, mutable=["batch_stats"])
        >>> print(*(f"{value:.3f}" for value in [*y[:, 0], *updates["batch_stats"]["mean"]]))
        -1.342 -0.447 0.447 1.342 0.300 0.400
    """

    use_running_average: bool | None = None
    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    ghost_batch_size: int | None = None

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics, unless the field says so.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        promoted, mask, invalid = promote_input(
            x,
            mask,
            dtype=self.dtype,
            force_float32_reductions=self.force_float32_reductions,
            name=type(self).__name__,
        )
        feature_axes = canonical_axes(promoted.ndim, self.axis)
        axes = tuple(axis for axis in range(promoted.ndim) if axis not in feature_axes)
        running = running_statistics(self, promoted, feature_axes)
        if nn.merge_param("use_running_average", self.use_running_average, use_running_average):
            moments = running
        elif self.ghost_batch_size is None or self.is_initializing():
            check_more_than_one_value(self, promoted, axes, mask)
            moments = input_moments(self, promoted, axes, mask, active_axis_name(self))
            update_running_statistics(self, moments)
        else:
            moments = self._ghost_batch_moments(promoted, axes, mask, self.ghost_batch_size)
        scale, bias = scale_and_bias(self, promoted, feature_axes)
        y = normalize(promoted, moments, scale, bias, self.epsilon)
        return cast_output(y, x, scale, bias, dtype=self.dtype, invalid=invalid)

    def _ghost_batch_moments(self, x: Array, axes: tuple[int, ...], mask: Array | None, size: int) -> Moments:
        """The moments of each sample's ghost batch; updates the running statistics."""
        parts = split_batch(x, size, self.axis_name)
        check_more_than_one_value(self, parts[0], axes, mask)
        masks = None if mask is None else split_batch(jnp.broadcast_to(mask, x.shape), size)
        moments = input_moments(self, parts, tuple(axis + 1 for axis in axes), masks)
        update_running_statistics(self, average(moments))
        return repeat_for_samples(moments, size)


def check_more_than_one_value(layer: RunningNormLayer, x: Array, axes: tuple[int, ...], mask: Array | None) -> None:
    """Checks that a batch can be normalized by its own statistics.

    Args:
        layer: The layer, within its `__call__`.
        x: The batch.
        axes: Axes to reduce.
        mask: With a mask the number of values is unknown, and nothing is checked.

    Raises:
        ValueError: If each channel has exactly one value.
    """
    known = mask is None and layer.axis_name is None and not layer.is_initializing()
    if known and has_one_value(x.shape, axes):
        raise ValueError(
            f"{type(layer).__name__} needs more than one value per channel to train, but an input of shape {x.shape} "
            "has one; use a larger batch, or use_running_average=True"
        )
