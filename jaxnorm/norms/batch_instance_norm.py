"""Batch-instance normalization."""

from flax import linen as nn
from flax.typing import Array, Initializer
from jax import lax
from jax.nn import initializers

from jaxnorm.norms.batch_norm import BatchNorm, check_more_than_one_value
from jaxnorm.norms.ghost_batches import average, repeat_for_samples, split_batch
from jaxnorm.norms.input_statistics import active_axis_name, input_moments
from jaxnorm.norms.inputs import cast_output, check_feature_axes, promote_input
from jaxnorm.norms.moments import Moments, canonical_axes, combine, normalize_mixed
from jaxnorm.norms.shared_fields import with_shared_fields
from jaxnorm.norms.variables import (
    broadcast_shape,
    feature_shape,
    running_statistics,
    scale_and_bias,
    update_running_statistics,
)


@with_shared_fields
class BatchInstanceNorm(BatchNorm):
    """y = scale * (gate * x_batch + (1 - gate) * x_instance) + bias: batch norm and instance norm, mixed per channel.

    x_batch and x_instance are (x - E[x]) / sqrt(Var[x] + epsilon). For x_batch, E and Var are over batch and positions
    as in `BatchNorm`. For x_instance, they are over the positions of each sample as in `InstanceNorm`.

    The input has shape (N, ..., C). `scale`, `bias`, `gate` (rho) and the running `mean` and `var` have shape (C,). In
    evaluation, x_batch takes the running statistics and x_instance those of each sample.

    The layer does not limit `gate` to [0, 1]; the optimizer must do so. The authors clip it after every step, start it
    at 1 and train it at ten times the learning rate. `axis_name` concerns x_batch only; each instance is on one device.

    References:
        Nam and Kim 2018, "Batch-Instance Normalization", https://arxiv.org/abs/1805.07925

    Attributes:
        use_running_average: Whether to take the running statistics (evaluation). May be given at the call instead.
        axis: The feature axis or axes, by default the last.
        momentum: Weight of the old running value.
        ghost_batch_size: In training, take batch statistics over parts of this many neighbouring samples, as in
            `BatchNorm`.
        train_gate: Whether the gate has a gradient.
        gate_init: Initializer of `gate`, by default ones: batch norm.

    Raises:
        ValueError: As `BatchNorm`; and if `axis` includes the leading axis, which holds the samples.

    Examples:
        >>> import jax
        >>> from jaxnorm import BatchInstanceNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> layer = BatchInstanceNorm(use_running_average=False)
        >>> y, variables = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape, variables["params"]["gate"].shape
        ((8, 4, 4, 3), (3,))
    """

    train_gate: bool = True
    gate_init: Initializer = initializers.ones

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
        check_feature_axes(feature_axes, type(self).__name__)
        axes = tuple(axis for axis in range(1, promoted.ndim) if axis not in feature_axes)
        running = running_statistics(self, promoted, feature_axes)
        instance = input_moments(self, promoted, axes, mask)
        if nn.merge_param("use_running_average", self.use_running_average, use_running_average):
            batch = running
        elif self.ghost_batch_size is None or self.is_initializing():
            check_more_than_one_value(self, promoted, (0, *axes), mask)
            batch = combine(instance, (0,), active_axis_name(self), self.axis_index_groups)
            update_running_statistics(self, batch)
        else:
            check_more_than_one_value(self, promoted[: self.ghost_batch_size], (0, *axes), mask)
            batch = self._combine_ghost_batches(instance, self.ghost_batch_size)
        scale, bias = scale_and_bias(self, promoted, feature_axes)
        gate = self.param("gate", self.gate_init, feature_shape(promoted, feature_axes), self.param_dtype)
        gate = (gate if self.train_gate else lax.stop_gradient(gate)).reshape(broadcast_shape(promoted, feature_axes))
        y = normalize_mixed(promoted, batch, instance, gate, scale, bias, self.epsilon)
        return cast_output(y, x, scale, bias, dtype=self.dtype, invalid=invalid)

    def _combine_ghost_batches(self, instance: Moments, size: int) -> Moments:
        """The moments of each sample's ghost batch from those of its instances; updates the running statistics."""

        def split(leaf: Array) -> Array:
            return split_batch(leaf, size, self.axis_name)

        counts = instance.count if isinstance(instance.count, float) else split(instance.count)
        parts = Moments(split(instance.shift), split(instance.offset), split(instance.var), counts)
        moments = combine(parts, (1,))
        update_running_statistics(self, average(moments))
        return repeat_for_samples(moments, size)
