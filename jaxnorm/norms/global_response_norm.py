"""Global response normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import global_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(global_response_norm)
class GlobalResponseNorm(MaskedLayer):
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(global_response_norm)
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
