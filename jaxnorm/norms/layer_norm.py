"""Layer normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import layer_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.inputs import feature_shape
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(layer_norm)
class LayerNorm(nn.Module):
    """`jaxnorm.functional.layer_norm` as a module of flax.linen, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import LayerNorm
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
        """Normalizes an array.

        Args:
            x: Any shape that has the axes.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        shape = feature_shape(x, self.feature_axes, "layer_norm's feature_axes")
        return layer_norm(x, *scale_and_bias(self, shape), mask=mask, **arguments_of(self, layer_norm))
