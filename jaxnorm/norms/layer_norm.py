"""Layer normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax.typing import Axes, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import layer_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(layer_norm)
class LayerNorm(MaskedLayer):
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(layer_norm)
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
