"""The variables of a linen layer: parameters and running statistics."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Initializer

from jaxnorm.functional.fields import fields_of
from jaxnorm.functional.inputs import feature_shape


def arguments_of(layer: Any, function: Callable[..., Any]) -> dict[str, Any]:
    """The fields of a layer that are keyword arguments of a function.

    Args:
        layer: The layer, within its `__call__`.
        function: A function of `jaxnorm.functional`.

    Returns:
        The values by name. During `init` there need not be several values, parts of a batch or a mapped axis.
    """
    fields = fields_of(layer, function)
    if layer.is_initializing():
        fields |= {"axis_name": None}
        if "ghost_batch_size" in fields:
            fields |= {"ghost_batch_size": None, "_checked": False}
    return fields


def scale_and_bias(layer: Any, shape: tuple[int, ...]) -> tuple[Array | None, Array | None]:
    """The parameters `scale` and `bias`.

    Args:
        layer: The layer, within its `__call__`.
        shape: The shape of both.

    Returns:
        Both; None for one that the layer does not have.
    """

    def parameter(name: str, init: Initializer) -> Array:
        return layer.param(name, init, shape, layer.param_dtype)

    scale = parameter("scale", layer.scale_init) if layer.use_scale else None
    bias = parameter("bias", layer.bias_init) if layer.use_bias else None
    return scale, bias


def normalize_batch(
    layer: Any,
    function: Callable[..., Any],
    x: Array,
    use_running_average: bool | None,
    mask: Array | None,
    **own: Initializer,
) -> Array:
    """The output of a layer with running statistics, which it updates in training.

    Args:
        layer: The layer, within its `__call__`.
        function: A function of `jaxnorm.functional` with running statistics.
        x: The input.
        use_running_average: Whether to take the running statistics, unless the layer's field says so.
        mask: As for the function.
        **own: Initializers of the parameters that the layer has besides `scale` and `bias`.

    Returns:
        The output, of x's shape.
    """
    shape = feature_shape(x, layer.axis, f"{function.__name__}'s axis")
    dtype = jnp.float32 if layer.force_float32_reductions else layer.param_dtype
    starts = {"mean": jnp.zeros, "var": jnp.ones}
    variables = {name: layer.variable("batch_stats", name, start, shape, dtype) for name, start in starts.items()}
    running = {name: variable.value for name, variable in variables.items()}
    train = not nn.merge_param("use_running_average", layer.use_running_average, use_running_average)
    scale, bias = scale_and_bias(layer, shape)
    parameters = {name: layer.param(name, init, shape, layer.param_dtype) for name, init in own.items()}
    settings = arguments_of(layer, function)
    y, running = function(x, scale, bias, running, train=train, mask=mask, **parameters, **settings)
    if train and not layer.is_initializing():
        for name, variable in variables.items():
            variable.value = running[name]
    return y
