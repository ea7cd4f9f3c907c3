"""Layers in place of a normalization: dynamic tanh and dynamic erf."""

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import dynamic_erf, dynamic_tanh
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.inputs import feature_shape
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(dynamic_tanh)
class DynamicTanh(nn.Module):
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

    alpha_init: float = 0.5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Computes the output.

        Args:
            x: Any shape that has the axes.

        Returns:
            The output, of x's shape.
        """
        scale, bias = scale_and_bias(self, feature_shape(x, self.feature_axes, "dynamic_tanh's feature_axes"))
        alpha = self.param("alpha", initializers.constant(self.alpha_init), (), self.param_dtype)
        return dynamic_tanh(x, scale, bias, alpha=alpha, **arguments_of(self, dynamic_tanh))


@document_as(dynamic_erf)
class DynamicErf(nn.Module):
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

    alpha_init: float = 0.5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Computes the output.

        Args:
            x: Any shape that has the axes.

        Returns:
            The output, of x's shape.
        """
        scale, bias = scale_and_bias(self, feature_shape(x, self.feature_axes, "dynamic_erf's feature_axes"))
        alpha = self.param("alpha", initializers.constant(self.alpha_init), (), self.param_dtype)
        shift = self.param("shift", initializers.zeros, (), self.param_dtype)
        return dynamic_erf(x, scale, bias, alpha=alpha, shift=shift, **arguments_of(self, dynamic_erf))
