"""The variables of a linen layer: parameters and running statistics."""

from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp
from flax.typing import Array, Dtype, Initializer

from jaxnorm.norms.moments import Moments
from jaxnorm.norms.shared_fields import with_shared_fields


@with_shared_fields
class NormLayer(Protocol):
    """What this package needs of a layer: fields that all layers have, and methods of `flax.linen.Module`.

    Attributes:
    """

    epsilon: float
    dtype: Dtype | None
    param_dtype: Dtype
    use_bias: bool
    use_scale: bool
    bias_init: Initializer
    scale_init: Initializer
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool

    def param(self, name: str, init_fn: Callable[..., Any], *init_args: Any) -> Any:
        """A parameter.

        Args:
            name: Its name.
            init_fn: Makes it at first, as ``init_fn(key, *init_args)``.
            init_args: Further arguments of `init_fn`.

        Returns:
            Its value.
        """

    def variable(self, col: str, name: str, init_fn: Callable[..., Any], *init_args: Any) -> Any:
        """A variable.

        Args:
            col: Its collection.
            name: Its name.
            init_fn: Makes it at first, as ``init_fn(*init_args)``.
            init_args: Arguments of `init_fn`.

        Returns:
            The variable; `value` is its value.
        """

    def get_variable(self, col: str, name: str) -> Any:
        """The value of a variable.

        Args:
            col: Its collection.
            name: Its name.

        Returns:
            The value.
        """

    def put_variable(self, col: str, name: str, value: Any) -> None:
        """Sets the value of a variable.

        Args:
            col: Its collection.
            name: Its name.
            value: The new value.
        """

    def is_initializing(self) -> bool:
        """Whether `init` is running.

        Returns:
            True during `init`.
        """


class RunningNormLayer(NormLayer, Protocol):
    """A layer with running statistics.

    Attributes:
        momentum: Weight of the old running value.
    """

    momentum: float


def feature_shape(x: Array, feature_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter.

    Args:
        x: The input.
        feature_axes: As from `canonical_axes`.

    Returns:
        The lengths of x's feature axes.
    """
    return tuple(x.shape[axis] for axis in feature_axes)


def broadcast_shape(x: Array, feature_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a parameter broadcasts to x.

    Args:
        x: The input.
        feature_axes: As from `canonical_axes`.

    Returns:
        Length 1 on all but the feature axes.
    """
    return tuple(length if axis in feature_axes else 1 for axis, length in enumerate(x.shape))


def scale_and_bias(layer: NormLayer, x: Array, feature_axes: tuple[int, ...]) -> tuple[Array | None, Array | None]:
    """The parameters `scale` and `bias`.

    Args:
        layer: The layer, within its `__call__`.
        x: The input.
        feature_axes: As from `canonical_axes`.

    Returns:
        Both, broadcastable to x; None for one that the layer does not have.
    """
    shape, broadcast = feature_shape(x, feature_axes), broadcast_shape(x, feature_axes)

    def parameter(name: str, init: Initializer) -> Array:
        return layer.param(name, init, shape, layer.param_dtype).reshape(broadcast)

    scale = parameter("scale", layer.scale_init) if layer.use_scale else None
    bias = parameter("bias", layer.bias_init) if layer.use_bias else None
    return scale, bias


def running_statistics(layer: NormLayer, x: Array, feature_axes: tuple[int, ...]) -> Moments:
    """The collection `batch_stats`; mean 0 and variance 1 at first.

    Args:
        layer: The layer, within its `__call__`.
        x: The input.
        feature_axes: As from `canonical_axes`.

    Returns:
        Moments that broadcast to x, without a count.
    """
    shape, broadcast = feature_shape(x, feature_axes), broadcast_shape(x, feature_axes)
    dtype = jnp.float32 if layer.force_float32_reductions else layer.param_dtype
    mean = layer.variable("batch_stats", "mean", jnp.zeros, shape, dtype).value.reshape(broadcast)
    var = layer.variable("batch_stats", "var", jnp.ones, shape, dtype).value.reshape(broadcast)
    return Moments(mean, jnp.zeros_like(mean), var, None)


def update_running_statistics(layer: RunningNormLayer, batch: Moments) -> None:
    """running = momentum * running + (1 - momentum) * batch, except in channels without a value and during `init`.

    Args:
        layer: The layer, within its `__call__`.
        batch: Moments of the batch, broadcastable to the input.
    """
    if layer.is_initializing() or (isinstance(batch.count, float) and not batch.count):
        return
    for name, value in (("mean", batch.mean), ("var", batch.var)):
        old = layer.get_variable("batch_stats", name)
        new = layer.momentum * old + (1 - layer.momentum) * value.reshape(old.shape)
        if not isinstance(batch.count, float):
            counts = jnp.broadcast_to(batch.count, value.shape).reshape(old.shape)
            new = jnp.where(counts > 0, new, old)
        layer.put_variable("batch_stats", name, new)
