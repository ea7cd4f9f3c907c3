"""Group normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import group_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.variables import arguments_of, scale_and_bias


@document_as(group_norm)
class GroupNorm(nn.Module):
    """`jaxnorm.functional.group_norm` as a module of flax.linen, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> from jaxnorm import GroupNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> y, variables = GroupNorm(num_groups=None, group_size=2).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 6), (6,))
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    reduction_axes: Axes | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        shape = jnp.shape(x)[-1:]
        return group_norm(x, *scale_and_bias(self, shape), mask=mask, **arguments_of(self, group_norm))
