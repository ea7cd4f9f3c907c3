"""Filter response normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import filter_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(filter_response_norm)
class FilterResponseNorm(nn.Module):
    """`jaxnorm.functional.filter_response_norm` as a module of flax.linen, with the parameters `scale`, `bias` and
    `threshold`.

    Attributes:
        use_threshold: Whether the layer has a `threshold`, and so includes the activation.
        threshold_init: Initializer of `threshold`, by default zeros.
        train_epsilon: Whether the layer has a parameter `learned_epsilon`, from 1e-4, of which the absolute value is
            added to `epsilon`. Inputs with a single position need it.

    Examples:
        >>> import jax
        >>> from jaxnorm import FilterResponseNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = FilterResponseNorm().init_with_output(jax.random.key(1), x)
        >>> bool(y.min() >= 0), sorted(variables["params"])
        (True, ['bias', 'scale', 'threshold'])
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    use_threshold: bool = True
    threshold_init: Initializer = initializers.zeros
    train_epsilon: bool = False
    axis_name: str | None = None
    axis_index_groups: Any = None
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
        arguments = arguments_of(self, filter_response_norm)
        if self.train_epsilon:
            own = self.param("learned_epsilon", initializers.constant(1e-4), shape, self.param_dtype)
            arguments["epsilon"] = self.epsilon + jnp.abs(own)
        scale, bias = scale_and_bias(self, shape)
        threshold = (
            self.param("threshold", self.threshold_init, shape, self.param_dtype) if self.use_threshold else None
        )
        return filter_response_norm(x, scale, bias, threshold, mask=mask, **arguments)
