"""Iterative normalization."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import iter_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.iter_norm import identities, whitened_together
from jaxnorm.norms.variables import normalize_batch


@document_as(iter_norm)
class IterNorm(nn.Module):
    """`jaxnorm.functional.iter_norm` as a module of flax.linen, with the parameters `scale` and `bias`. The running
    `mean` and `cov` are the collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import IterNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = IterNorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, sorted(variables["batch_stats"])
        ((8, 4, 4, 3), ['cov', 'mean'])
    """

    use_running_average: bool | None = None
    group_size: int = 64
    num_iterations: int = 5
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

        def identity(shape: tuple[int, ...], dtype: Dtype) -> Array:
            (channels,) = shape
            return identities(channels, whitened_together(channels, self.group_size), dtype)

        return normalize_batch(self, iter_norm, x, use_running_average, mask, {"mean": jnp.zeros, "cov": identity})
