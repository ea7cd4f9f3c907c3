"""Instance-layer normalization."""

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import instance_layer_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(instance_layer_norm)
class InstanceLayerNorm(nn.Module):
    """`jaxnorm.functional.instance_layer_norm` as a module of flax.linen, with the parameters `scale`, `bias` and
    `gate`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: instance norm.

    Examples:
        >>> import jax
        >>> from jaxnorm import InstanceLayerNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = InstanceLayerNorm().init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["gate"].shape
        ((2, 8, 8, 3), (3,))
    """

    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    gate_init: Initializer = initializers.ones
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The output, of x's shape.
        """
        shape = jnp.shape(x)[-1:]
        scale, bias = scale_and_bias(self, shape)
        gate = self.param("gate", self.gate_init, shape, self.param_dtype)
        arguments = arguments_of(self, instance_layer_norm)
        return instance_layer_norm(x, scale, bias, gate=gate, mask=mask, **arguments)
