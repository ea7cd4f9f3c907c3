"""What the layers have in common beside the maths: inputs made ready, variables, running statistics, output dtype."""

from typing import Any

import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype
from flax.typing import Array

from jaxnorm.norms.moments import Moments, compute_moments


def prepare(layer: Any, x: Array, mask: Array | None) -> tuple[Array, Array | None, Array | None]:
    """`x` in the precision of the statistics, `mask` as booleans of x's rank, and where x is hidden and not finite.

    There x becomes zero, before anything is computed from it: a NaN times a zero gradient is still NaN.
    """
    dtype = jnp.promote_types(jnp.result_type(x), layer.dtype or jnp.result_type(x))
    if layer.force_float32_reductions:
        dtype = jnp.promote_types(dtype, jnp.float32)
    x = jnp.asarray(x, dtype)
    if mask is None:
        return x, None, None
    mask = jnp.asarray(mask, bool)
    try:
        fits = jnp.broadcast_shapes(mask.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{type(layer).__name__}'s mask must broadcast to the input's shape {x.shape}, but has {mask.shape}; "
            "give each axis the input's length or 1"
        )
    mask = mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
    void = ~(mask | jnp.isfinite(x))
    return jnp.where(void, 0, x), mask, void


def layer_moments(
    layer: Any,
    x: Array,
    axes: tuple[int, ...],
    mask: Array | None,
    axis_name: Any = None,
    num_groups: int | None = None,
) -> Moments:
    """`compute_moments` with the layer's own settings."""
    return compute_moments(
        x,
        axes,
        num_groups=num_groups,
        mask=mask,
        axis_name=axis_name,
        axis_index_groups=layer.axis_index_groups,
        use_fast_variance=layer.use_fast_variance,
    )


def ghosts(layer: Any, array: Array) -> Array:
    """An array (N, ...) cut into ghosts, (N / ghost_batch_size, ghost_batch_size, ...).

    Raises:
        ValueError: if the ghosts do not divide the batch, or statistics are to be combined across devices as well.
    """
    size = layer.ghost_batch_size
    if size < 1 or array.shape[0] % size:
        raise ValueError(f"ghost_batch_size must divide the batch of {array.shape[0]}, but is {size}; choose a divisor")
    if layer.axis_name is not None:
        raise ValueError(
            f"a ghost lies on one device, but axis_name is {layer.axis_name!r}; set it or ghost_batch_size to None"
        )
    return array.reshape(-1, size, *array.shape[1:])


def of_each_image(ghostly: Moments, size: int) -> Moments:
    """The moments of each image's ghost: from (N / size, 1, ...) to (N, ...)."""

    def spread(leaf: Array) -> Array:
        return jnp.repeat(jnp.squeeze(leaf, 1), size, axis=0)

    return Moments(spread(ghostly.shift), spread(ghostly.offset), spread(ghostly.var), ghostly.count)


def average(ghostly: Moments) -> Moments:
    """Mean of the ghosts' means and of their variances, each ghost weighing as many values as it counts."""
    count = jnp.broadcast_to(jnp.asarray(ghostly.count, ghostly.var.dtype), ghostly.var.shape)
    total = count.sum(axis=0)
    mean, var = ((count * leaf).sum(axis=0) / jnp.maximum(total, 1) for leaf in (ghostly.mean, ghostly.var))
    return Moments(mean, jnp.zeros_like(mean), var, total)


def active_axis_name(layer: Any) -> Any:
    """The mapped axis, which need not exist while the layer is initialised."""
    return None if layer.is_initializing() else layer.axis_name


def scale_and_bias(layer: Any, x: Array, feature_axes: tuple[int, ...]) -> tuple[Array | None, Array | None]:
    """The parameters that the layer has, shaped to broadcast against x; None for one it lacks."""
    shape, kept = feature_shape(x, feature_axes), kept_shape(x, feature_axes)
    scale = layer.param("scale", layer.scale_init, shape, layer.param_dtype).reshape(kept) if layer.use_scale else None
    bias = layer.param("bias", layer.bias_init, shape, layer.param_dtype).reshape(kept) if layer.use_bias else None
    return scale, bias


def running_statistics(layer: Any, x: Array, feature_axes: tuple[int, ...]) -> Moments:
    """The collection `batch_stats`, mean 0 and variance 1 at first, shaped to broadcast against x."""
    shape, kept = feature_shape(x, feature_axes), kept_shape(x, feature_axes)
    dtype = jnp.float32 if layer.force_float32_reductions else layer.param_dtype
    mean = layer.variable("batch_stats", "mean", jnp.zeros, shape, dtype).value.reshape(kept)
    var = layer.variable("batch_stats", "var", jnp.ones, shape, dtype).value.reshape(kept)
    return Moments(mean, jnp.zeros_like(mean), var, None)


def update_running_statistics(layer: Any, batch: Moments) -> None:
    """running = momentum * running + (1 - momentum) * batch, where the batch has values; nothing in initialisation."""
    if layer.is_initializing() or (isinstance(batch.count, float) and not batch.count):
        return
    for name, value in (("mean", batch.mean), ("var", batch.var)):
        old = layer.get_variable("batch_stats", name)
        new = layer.momentum * old + (1 - layer.momentum) * value.reshape(old.shape)
        if not isinstance(batch.count, float):
            counts = jnp.broadcast_to(batch.count, value.shape).reshape(old.shape)
            new = jnp.where(counts > 0, new, old)
        layer.put_variable("batch_stats", name, new)


def finish(layer: Any, y: Array, x: Array, scale: Array | None, bias: Array | None, void: Array | None) -> Array:
    """`y` in the promised dtype, and the bias where there was nothing to normalize."""
    if void is not None:
        y = jnp.where(void, 0 if bias is None else bias, y)
    given = (array for array in (x, scale, bias) if array is not None)
    return y.astype(canonicalize_dtype(*given, dtype=layer.dtype))


def feature_shape(x: Array, feature_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter: x's lengths on the feature axes."""
    return tuple(x.shape[axis] for axis in feature_axes)


def kept_shape(x: Array, feature_axes: tuple[int, ...]) -> tuple[int, ...]:
    """x's shape with length 1 everywhere but on the feature axes."""
    return tuple(length if axis in feature_axes else 1 for axis, length in enumerate(x.shape))
