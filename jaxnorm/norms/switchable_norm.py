"""Switchable normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import switchable_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.variables import normalize_batch


@document_as(switchable_norm)
class SwitchableNorm(nn.Module):
    """`jaxnorm.functional.switchable_norm` as a module of flax.linen, with the parameters `scale`, `bias`, and
    `mean_weights` and `var_weights`, three numbers each, which start equal. The running `mean` and `var` are the
    collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import SwitchableNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = SwitchableNorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["mean_weights"].shape
        ((8, 4, 4, 3), (3,))
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
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            use_running_average: Whether to take the running statistics, unless the field says so.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The output, of x's shape.
        """
        weights = (initializers.ones, (3,))
        return normalize_batch(
            self, switchable_norm, x, use_running_average, mask, mean_weights=weights, var_weights=weights
        )
