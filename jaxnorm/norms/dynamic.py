"""Layers in place of a normalization: dynamic tanh and dynamic erf."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import dynamic_erf, dynamic_tanh
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import AffineLayer


@document_as(dynamic_tanh)
class DynamicTanh(AffineLayer):
    """`jaxnorm.functional.dynamic_tanh` as a module of flax.linen, with the parameters `scale`, `bias` and the number
    `alpha`.

    Attributes:
        alpha_init: Start of `alpha`.

    Examples:
        >>> import jax
        >>> from jaxnorm import DynamicTanh
        >>> x = jax.random.normal(jax.random.key(0), (2, 3))
        >>> y, variables = DynamicTanh().init_with_output(jax.random.key(1), x)
        >>> y.shape, float(variables["params"]["alpha"])
        ((2, 3), 0.5)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(dynamic_tanh)
    alpha_init: float = 0.5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        return {"alpha": self.param("alpha", initializers.constant(self.alpha_init), (), self.param_dtype)}


@document_as(dynamic_erf)
class DynamicErf(DynamicTanh):
    """`jaxnorm.functional.dynamic_erf` as a module of flax.linen, with the parameters `scale`, `bias` and the numbers
    `alpha` and `shift`.

    Attributes:
        alpha_init: Start of `alpha`; `shift` starts at 0.

    Examples:
        >>> import jax
        >>> from jaxnorm import DynamicErf
        >>> x = jax.random.normal(jax.random.key(0), (2, 3))
        >>> y, variables = DynamicErf().init_with_output(jax.random.key(1), x)
        >>> y.shape, float(variables["params"]["shift"])
        ((2, 3), 0.0)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(dynamic_erf)

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        shift = self.param("shift", initializers.zeros, (), self.param_dtype)
        return {**super().own_parameters(shape), "shift": shift}
