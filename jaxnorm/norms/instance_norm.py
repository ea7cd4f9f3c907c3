"""Instance normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.typing import Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import instance_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(instance_norm)
class InstanceNorm(MaskedLayer):
    """`jaxnorm.functional.instance_norm` as a module of flax.linen, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> from jaxnorm import InstanceNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = InstanceNorm().init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["scale"].shape
        ((2, 8, 8, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(instance_norm)
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    feature_axes: Axes = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
