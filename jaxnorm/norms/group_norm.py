"""Group normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.typing import Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import group_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(group_norm)
class GroupNorm(MaskedLayer):
    """`jaxnorm.functional.group_norm` as a module of flax.linen, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> from jaxnorm import GroupNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> y, variables = GroupNorm(num_groups=None, group_size=2).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 6), (6,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(group_norm)
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
