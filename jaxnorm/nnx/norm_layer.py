"""What all layers have: fields and the parameters `scale` and `bias`."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import InitVar
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from flax.typing import Array, Dtype, Initializer, PromoteDtypeFn
from jax.nn import initializers

from jaxnorm.functional.fields import at_call, document, fields_of

Metadata = Mapping[str, Any] | None


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class AffineLayer(nnx.Module):
    """A layer with the parameters `scale` and `bias`. A subclass names its function and adds fields."""

    _function: ClassVar[Callable[..., Any]]
    num_features: int = dataclasses.field(kw_only=False)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    promote_dtype: PromoteDtypeFn | None = None
    rngs: InitVar[nnx.Rngs]
    bias_init: InitVar[Initializer] = initializers.zeros
    scale_init: InitVar[Initializer] = initializers.ones
    bias_metadata: InitVar[Metadata] = None
    scale_metadata: InitVar[Metadata] = None

    def __post_init__(
        self,
        rngs: nnx.Rngs,
        bias_init: Initializer,
        scale_init: Initializer,
        bias_metadata: Metadata,
        scale_metadata: Metadata,
    ) -> None:
        """Makes the parameters; a dataclass calls it with those arguments that are no fields."""
        absent: Any = nnx.data(None)
        self.scale = self.parameter(rngs, scale_init, scale_metadata) if self.use_scale else absent
        self.bias = self.parameter(rngs, bias_init, bias_metadata) if self.use_bias else absent

    def parameter(
        self, rngs: nnx.Rngs, init: Initializer, metadata: Metadata, shape: tuple[int, ...] | None = None
    ) -> nnx.Param[Array]:
        """A new parameter.

        Args:
            rngs: Random keys.
            init: Its initializer.
            metadata: Of the variable, or None.
            shape: Of the value; None for a value of each feature.

        Returns:
            The variable.
        """
        value = init(rngs.params(), (self.num_features,) if shape is None else shape, self.param_dtype)
        return nnx.Param(value, **(metadata or {}))

    def arrays(self, *given: Array, scale: Array | None, bias: Array | None) -> tuple[Any, ...]:
        """Arrays as the computation takes them, after `promote_dtype` if there is one.

        Args:
            *given: The input, and running statistics.
            scale: That of the call.
            bias: That of the call.

        Returns:
            The given arrays, `scale` and `bias` of the layer or of the call; None for what neither has.
        """
        arrays = (*given, self.affine("scale", scale), self.affine("bias", bias))
        return arrays if self.promote_dtype is None else self.promote_dtype(arrays, dtype=self.dtype)

    def affine(self, name: str, value: Array | None) -> Array | None:
        """`scale` or `bias` of the layer or of the call.

        Args:
            name: Which.
            value: That of the call.

        Returns:
            The array, or None.
        """
        variable = getattr(self, name)
        value = at_call(self._function, name, value, variable is not None)
        return value if variable is None else variable[...]

    def settings(self) -> dict[str, Any]:
        """The other arguments of the function: fields, and other parameters.

        Returns:
            The values by name.
        """
        return {**fields_of(self, self._function), **self.own_parameters()}

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {}

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
        x, scale, bias = self.arrays(x, scale=scale, bias=bias)
        return self._function(x, scale, bias, **self.settings())


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class MaskedLayer(AffineLayer):
    """A layer whose function takes a mask."""

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
        x, scale, bias = self.arrays(x, scale=scale, bias=bias)
        return self._function(x, scale, bias, mask=mask, **self.settings())


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class NormLayer(MaskedLayer):
    """A layer with statistics."""

    epsilon: float = 1e-6
    axis_name: str | None = None
    axis_index_groups: Any = None
    force_float32_reductions: bool = True
