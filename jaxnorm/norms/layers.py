"""The layers, with flax.linen's names, fields and variables. Each picks its axes; `moments` does the numerics.

Change ``from flax.linen import BatchNorm`` to ``from jaxnorm.norms.layers import BatchNorm`` and nothing else. What
differs from flax.linen, in all layers:

- Statistics are right at any mean/std (float32: error below 2e-5 of a standard deviation), in one pass, as
  `use_fast_variance=True` promises. `False` is flax's two-pass formula, operation for operation.
- With `axis_name` every value counts once, so devices with uneven masks give the answer of a single device.
- `mask` may have any shape that broadcasts to the input, in `GroupNorm` too. It says which values the statistics are
  taken from; every finite value is then normalized with them. Where a masked-out value is NaN or infinite,
  the output is the bias and the gradient zero, and it reaches nothing else. Where a set has no value left, mean and
  variance count as zero.

The fields that all layers share:

    epsilon: added to the variance before the root.
    dtype: of the output; by default that of input and parameters. Statistics are kept in float32 at least.
    param_dtype: of the parameters.
    use_bias, use_scale: whether the layer has a `bias` (beta) and a `scale` (gamma).
    bias_init, scale_init: their initializers, zeros and ones.
    axis_name: mapped axis (of vmap, shard_map, pmap) over which statistics are combined. jit needs none.
    axis_index_groups: groups of indices along that axis, each with statistics of its own.
    use_fast_variance: one pass over the input instead of two.
    force_float32_reductions: False keeps the statistics of bfloat16 and float16 in that precision.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax import lax
from jax.nn import initializers

from jaxnorm.norms.moments import Moments, canonical_axes, combine, normalize, normalize_mixed
from jaxnorm.norms.variables import (
    active_axis_name,
    average,
    feature_shape,
    finish,
    ghosts,
    kept_shape,
    layer_moments,
    of_each_image,
    prepare,
    running_statistics,
    scale_and_bias,
    update_running_statistics,
)


class BatchNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each channel over batch and positions.

    Input of shape (N, ..., C); `scale`, `bias` and the running `mean` and `var` (collection `batch_stats`) have shape
    (C,). Training uses the batch's own statistics and updates ``running = momentum * running + (1 - momentum) *
    batch``, so `momentum` is the weight of the OLD value (PyTorch's is that of the new one) and the running variance
    is biased (PyTorch's is not). `running` starts at mean 0 and variance 1: after n updates a weight of momentum^n is
    still on those. Evaluation uses the running statistics, so no output depends on its batch-mates. Without a value
    (an all-False mask, an empty batch) nothing is updated.

    Batch Normalization, Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167

    Attributes:
        use_running_average: evaluate with the running statistics; may be given at the call instead.
        axis: the feature axis or axes, by default the last.
        momentum: weight of the old running value.
        ghost_batch_size: in training, take statistics over parts of this many neighbouring samples instead of the whole
            batch (Hoffer et al. 2017, https://arxiv.org/abs/1705.08741), and their average into the running ones.

    Raises:
        ValueError: in training, where a channel has exactly one value: the output would be the bias, whatever the
        input.

    Example:
        >>> import jax
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
        """Normalizes `x`; `mask`, broadcastable to it, tells which values the statistics are taken from."""
        work, mask, void = prepare(self, x, mask)
        feature_axes = canonical_axes(work.ndim, self.axis)
        axes = tuple(axis for axis in range(work.ndim) if axis not in feature_axes)
        running = running_statistics(self, work, feature_axes)
        if nn.merge_param("use_running_average", self.use_running_average, use_running_average):
            moments = running
        elif self.ghost_batch_size is None or self.is_initializing():
            _check_more_than_one_value(self, work, axes, mask)
            moments = layer_moments(self, work, axes, mask, axis_name=active_axis_name(self))
            update_running_statistics(self, moments)
        else:
            parts = ghosts(self, work)
            _check_more_than_one_value(self, parts[0], axes, mask)
            shown = None if mask is None else ghosts(self, jnp.broadcast_to(mask, work.shape))
            ghostly = layer_moments(self, parts, tuple(axis + 1 for axis in axes), shown)
            update_running_statistics(self, average(ghostly))
            moments = of_each_image(ghostly, self.ghost_batch_size)
        scale, bias = scale_and_bias(self, work, feature_axes)
        return finish(self, normalize(work, moments, scale, bias, self.epsilon), x, scale, bias, void)


class BatchInstanceNorm(BatchNorm):
    """y = scale * (gate * x_batch + (1 - gate) * x_instance) + bias: batch norm and instance norm, mixed per channel.

    x_batch and x_instance are (x - E[x]) / sqrt(Var[x] + epsilon), with E and Var over batch and positions as in
    `BatchNorm`, and over the positions of each sample as in `InstanceNorm`. Input of shape (N, ..., C); `scale`,
    `bias`, `gate` (rho) and the running `mean` and `var` have shape (C,). In evaluation the batch branch uses the
    running statistics, the instance branch those of each sample. `gate` is read as it stands: to keep it in [0, 1] is
    the optimiser's part (its authors clip it after every step, start it at 1 and train it at ten times the learning
    rate). `axis_name` concerns the batch branch; an instance lies on one device.

    Batch-Instance Normalization, Nam and Kim 2018, https://arxiv.org/abs/1805.07925

    Attributes:
        train_gate: False stops the gate's gradient.
        gate_init: the gate's initializer, by default ones: batch norm.

    Raises:
        ValueError: as `BatchNorm`; and where `axis` includes the leading axis, which holds the samples.

    Example:
        >>> import jax
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
        """Normalizes `x`; `mask`, broadcastable to it, tells which values the statistics are taken from."""
        work, mask, void = prepare(self, x, mask)
        feature_axes = canonical_axes(work.ndim, self.axis)
        _check_leading_axis(feature_axes)
        axes = tuple(axis for axis in range(1, work.ndim) if axis not in feature_axes)
        running = running_statistics(self, work, feature_axes)
        instance = layer_moments(self, work, axes, mask)
        if nn.merge_param("use_running_average", self.use_running_average, use_running_average):
            batch = running
        elif self.ghost_batch_size is None or self.is_initializing():
            _check_more_than_one_value(self, work, (0, *axes), mask)
            batch = combine(instance, (0,), active_axis_name(self), self.axis_index_groups)
            update_running_statistics(self, batch)
        else:
            _check_more_than_one_value(self, work[: self.ghost_batch_size], (0, *axes), mask)
            cut = functools.partial(ghosts, self)
            counts = instance.count if mask is None else cut(instance.count)
            parts = Moments(cut(instance.shift), cut(instance.offset), cut(instance.var), counts)
            ghostly = combine(parts, (1,))
            update_running_statistics(self, average(ghostly))
            batch = of_each_image(ghostly, self.ghost_batch_size)
        scale, bias = scale_and_bias(self, work, feature_axes)
        gate = self.param("gate", self.gate_init, feature_shape(work, feature_axes), self.param_dtype)
        gate = (gate if self.train_gate else lax.stop_gradient(gate)).reshape(kept_shape(work, feature_axes))
        y = normalize_mixed(work, batch, instance, gate, scale, bias, self.epsilon)
        return finish(self, y, x, scale, bias, void)


class InstanceNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample and channel over positions.

    Input of shape (N, ..., C); `scale` and `bias` have the shape of the feature axes, (C,). The same in training and
    evaluation, as there is nothing to remember. A single position gives variance 0 and the bias as output (PyTorch
    raises there in training, flax does not).

    Instance Normalization, Ulyanov, Vedaldi and Lempitsky 2016, https://arxiv.org/abs/1607.08022

    Attributes:
        feature_axes: axes of `scale` and `bias`, by default the last; all others but the first are reduced.

    Raises:
        ValueError: where `feature_axes` includes the leading axis, which holds the samples.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = InstanceNorm().init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 3), (3,))
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes `x`; `mask`, broadcastable to it, tells which values the statistics are taken from."""
        feature_axes = canonical_axes(jnp.ndim(x), self.feature_axes)
        _check_leading_axis(feature_axes)
        axes = tuple(axis for axis in range(1, jnp.ndim(x)) if axis not in feature_axes)
        return _normalize_by_own_statistics(self, x, axes, feature_axes, mask)


class LayerNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var over `reduction_axes`.

    `scale` and `bias` have the shape of the feature axes. The default reduces the last axis; images (N, H, W, C) with
    one statistic per sample take ``reduction_axes=(1, 2, 3)``, which equals `GroupNorm` with one group.

    Layer Normalization, Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450

    Attributes:
        reduction_axes: axes over which statistics are taken.
        feature_axes: axes of `scale` and `bias`.

    Example:
        >>> import jax
        >>> x = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
        >>> y, _ = LayerNorm().init_with_output(jax.random.key(0), x)
        >>> print(*(f"{value:.3f}" for value in y[0]))
        -1.342 -0.447 0.447 1.342
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes `x`; `mask`, broadcastable to it, tells which values the statistics are taken from."""
        axes = canonical_axes(jnp.ndim(x), self.reduction_axes)
        return _normalize_by_own_statistics(self, x, axes, canonical_axes(jnp.ndim(x), self.feature_axes), mask)


class GroupNorm(nn.Module):
    """y = scale * (x - E[x]) / sqrt(Var[x] + epsilon) + bias, with E and Var of each sample over positions and a group.

    Input of shape (N, ..., C); `scale` and `bias` have shape (C,); neighbouring channels form a group. Give either
    `num_groups` or `group_size`, and None for the other.

    Group Normalization, Wu and He 2018, https://arxiv.org/abs/1803.08494

    Attributes:
        num_groups: how many groups, by default 32.
        group_size: how many channels in a group.
        reduction_axes: axes over which statistics are taken, the last among them; by default all but the first.

    Raises:
        ValueError: where both or none of `num_groups` and `group_size` are given, where they do not divide the
        channels,
            and where `reduction_axes` lacks the last axis.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> y, variables = GroupNorm(num_groups=None, group_size=2).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 6), (6,))
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes `x`; `mask`, broadcastable to it, tells which values the statistics are taken from."""
        ndim, channels = jnp.ndim(x), jnp.shape(x)[-1]
        given = self.reduction_axes
        axes = canonical_axes(ndim, (*range(1, ndim - 1), ndim - 1) if given is None else given)
        if ndim - 1 not in axes:
            raise ValueError(
                f"GroupNorm's reduction_axes must include the last axis, {ndim - 1}, but are {given}; add -1"
            )
        if (self.num_groups is None) == (self.group_size is None):
            raise ValueError(
                f"GroupNorm takes num_groups or group_size, but was given num_groups={self.num_groups} and "
                f"group_size={self.group_size}; set one of them to None"
            )
        parts, name = (self.group_size, "group_size") if self.num_groups is None else (self.num_groups, "num_groups")
        if parts is None or parts <= 0 or channels % parts:
            raise ValueError(
                f"GroupNorm's {name} must divide the {channels} channels, but is {parts}; choose a divisor"
            )
        num_groups = channels // parts if self.num_groups is None else parts
        return _normalize_by_own_statistics(self, x, axes, (ndim - 1,), mask, num_groups)


def _normalize_by_own_statistics(
    layer: Any,
    x: Array,
    axes: tuple[int, ...],
    feature_axes: tuple[int, ...],
    mask: Array | None,
    num_groups: int | None = None,
) -> Array:
    work, mask, void = prepare(layer, x, mask)
    moments = layer_moments(layer, work, axes, mask, active_axis_name(layer), num_groups)
    scale, bias = scale_and_bias(layer, work, feature_axes)
    return finish(layer, normalize(work, moments, scale, bias, layer.epsilon), x, scale, bias, void)


def _check_leading_axis(feature_axes: tuple[int, ...]) -> None:
    if 0 in feature_axes:
        raise ValueError(
            "The channel axes cannot include the leading dimension as this is assumed to be the batch axis."
        )


def _check_more_than_one_value(layer: Any, x: Array, axes: tuple[int, ...], mask: Array | None) -> None:
    one = math.prod(x.shape[axis] for axis in axes) == 1
    if one and mask is None and layer.axis_name is None and not layer.is_initializing():
        raise ValueError(
            f"{type(layer).__name__} needs more than one value per channel to train, but an input of shape {x.shape} "
            "has one; use a larger batch, or use_running_average=True"
        )
