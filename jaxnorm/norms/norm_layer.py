"""What all layers do: they make their variables and call their function."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional.fields import at_call, document, fields_of
from jaxnorm.functional.inputs import feature_shape


class NormLayer(nn.Module):
    """A layer with parameters. A subclass names its function, has fields and its `__call__`."""

    _function: ClassVar[Callable[..., Any]]

    @nn.nowrap
    def arguments(self, x: Array, **given: Array | None) -> dict[str, Any]:
        """The arguments of the function: parameters, and fields.

        Args:
            x: The input.
            **given: `scale` and `bias` of the call.

        Returns:
            The values by name. During `init` there need not be several values, parts of a batch or a mapped axis.
        """
        shape = self.parameter_shape(x)
        arguments: dict[str, Any] = {}
        for name, value in given.items():
            owned = getattr(self, f"use_{name}")
            arguments[name] = at_call(self._function, name, value, owned)
            if owned:
                arguments[name] = self.param(name, self.initializer(name), shape, self.param_dtype)
        fields = fields_of(self, self._function)
        if self.is_initializing():
            fields |= {name: None for name in ("axis_name", "ghost_batch_size") if name in fields}
            if "_checked" in inspect.signature(self._function).parameters:
                fields["_checked"] = False
        return {**arguments, **fields, **self.own_parameters(shape)}

    @nn.nowrap
    def initializer(self, name: str) -> Initializer:
        """The initializer of a parameter.

        Args:
            name: `scale` or `bias`.

        Returns:
            The field.
        """
        init: Initializer = getattr(self, f"{name}_init")
        return init

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Args:
            shape: Of a parameter with a value for each feature.

        Returns:
            The values by name.
        """
        return {}

    @nn.nowrap
    def parameter_shape(self, x: Array) -> tuple[int, ...]:
        """The shape of `scale` and `bias`.

        Args:
            x: The input.

        Returns:
            The lengths of the feature axes.
        """
        field = "axis" if hasattr(self, "axis") else "feature_axes"
        return feature_shape(x, getattr(self, field, -1), f"{self._function.__name__}'s {field}")


class AffineLayer(NormLayer):
    """A layer with the parameters `scale` and `bias`."""

    @nn.compact
    def __call__(self, x: Array, *, scale: Array | None = None, bias: Array | None = None) -> Array:
        """Computes the output.

        Args:
            x: The input.
            scale: In place of the parameter, which the layer must not have; of the feature axes' shape, or with a value
                for each sample, (N, C).
            bias: As `scale`.

        Returns:
            The output, of x's shape.
        """
        return self._function(x, **self.arguments(x, scale=scale, bias=bias))


class MaskedLayer(NormLayer):
    """A layer whose function takes a mask."""

    @nn.compact
    def __call__(
        self, x: Array, *, mask: Array | None = None, scale: Array | None = None, bias: Array | None = None
    ) -> Array:
        """Normalizes an array.

        Args:
            x: The input.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.
            scale: In place of the parameter, which the layer must not have; of the feature axes' shape, or with a value
                for each sample, (N, C).
            bias: As `scale`.

        Returns:
            The output, of x's shape.
        """
        return self._function(x, mask=mask, **self.arguments(x, scale=scale, bias=bias))


class BatchLayer(NormLayer):
    """A layer with running statistics."""

    @nn.compact
    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        scale: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Normalizes an array, and updates the running statistics in training.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics, unless the field says so.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.
            scale: In place of the parameter, which the layer must not have; of the feature axes' shape, or with a value
                for each sample, (N, C).
            bias: As `scale`.

        Returns:
            The output, of x's shape.
        """
        shape, dtype = self.parameter_shape(x), jnp.float32 if self.force_float32_reductions else self.param_dtype
        variables = {
            name: self.variable("batch_stats", name, start, shape, dtype) for name, start in self.starts().items()
        }
        train = not nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        arguments = self.arguments(x, scale=scale, bias=bias)
        running = {name: variable.value for name, variable in variables.items()}
        y, running = self._function(x, running=running, train=train, mask=mask, **arguments)
        if train and not self.is_initializing():
            for name, variable in variables.items():
                variable.value = running[name]
        return y

    @nn.nowrap
    def starts(self) -> dict[str, Callable[..., Array]]:
        """The running statistics by name, each as a function of shape and dtype.

        Returns:
            `mean` from zeros and `var` from ones.
        """
        return {"mean": jnp.zeros, "var": jnp.ones}


@document
class RunningLayer(BatchLayer):
    """A layer with running statistics and the fields that these have.

    Attributes:
        momentum: Weight of the old running value.
    """

    use_running_average: bool | None = None
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
    force_float32_reductions: bool = True
