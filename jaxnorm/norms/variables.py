"""The variables of a linen layer: parameters and running statistics."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
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
        if "axis_name" in fields:
            fields |= {"axis_name": None}
        if "ghost_batch_size" in fields:
            fields |= {"ghost_batch_size": None}
        if "_checked" in inspect.signature(function).parameters:
            fields |= {"_checked": False}
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
    starts: Mapping[str, Callable[..., Array]] = MappingProxyType({"mean": jnp.zeros, "var": jnp.ones}),
    **own: Initializer | tuple[Initializer, tuple[int, ...]],
) -> Array:
    """The output of a layer with running statistics, which it updates in training.

    Args:
        layer: The layer, within its `__call__`.
        function: A function of `jaxnorm.functional` with running statistics.
        x: The input.
        use_running_average: Whether to take the running statistics, unless the layer's field says so.
        mask: As for the function.
        starts: The running statistics by name, each as a function of shape and dtype.
        **own: Initializers of the parameters that the layer has besides `scale` and `bias`, with a shape where it is
            not that of the channels.

    Returns:
        The output, of x's shape.
    """
    shape = feature_shape(x, getattr(layer, "axis", -1), f"{function.__name__}'s axis")
    dtype = jnp.float32 if layer.force_float32_reductions else layer.param_dtype
    variables = {name: layer.variable("batch_stats", name, start, shape, dtype) for name, start in starts.items()}
    running = {name: variable.value for name, variable in variables.items()}
    train = not nn.merge_param("use_running_average", layer.use_running_average, use_running_average)
    scale, bias = scale_and_bias(layer, shape)
    inits = {name: init if isinstance(init, tuple) else (init, shape) for name, init in own.items()}
    parameters = {name: layer.param(name, *init, layer.param_dtype) for name, init in inits.items()}
    settings = arguments_of(layer, function)
    y, running = function(x, scale, bias, running, train=train, mask=mask, **parameters, **settings)
    if train and not layer.is_initializing():
        for name, variable in variables.items():
            variable.value = running[name]
    return y
