"""Batch normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import batch_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import BatchLayer


@document_as(batch_norm)
class BatchNorm(BatchLayer):
    """`jaxnorm.functional.batch_norm` as a module of flax.linen, with the parameters `scale` and `bias`. The running
    `mean` and `var` are the collection `batch_stats`.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import BatchNorm
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> layer = BatchNorm(use_running_average=False, momentum=0.9)
        >>> variables = layer.init(jax.random.key(0), x)
        >>> y, updates = layer.apply(variables, x, mutable=["batch_stats"])
        >>> print(*(f"{value:.3f}" for value in [*y[:, 0], *updates["batch_stats"]["mean"]]))
        -1.342 -0.447 0.447 1.342 0.300 0.400
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_norm)
    use_running_average: bool | None = None
    axis: int = -1
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
    ghost_batch_size: int | None = None
