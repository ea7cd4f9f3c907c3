"""Global response normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import global_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(global_response_norm)
class GlobalResponseNorm(nn.Module):
    """`jaxnorm.functional.global_response_norm` as a module of flax.linen, with the parameters `scale` and `bias`,
    which start at zero: the output is the input.

    Attributes:
        scale_init: Initializer of `scale`, by default zeros.

    Examples:
        >>> import jax
        >>> from jaxnorm import GlobalResponseNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = GlobalResponseNorm().init_with_output(jax.random.key(1), x)
        >>> bool((y == x).all())
        True
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.zeros
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
        parameters = scale_and_bias(self, jnp.shape(x)[-1:])
        return global_response_norm(x, *parameters, mask=mask, **arguments_of(self, global_response_norm))
