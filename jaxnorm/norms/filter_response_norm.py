"""Filter response normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import filter_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(filter_response_norm)
class FilterResponseNorm(MaskedLayer):
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(filter_response_norm)
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

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        if self.use_threshold:
            own["threshold"] = self.param("threshold", self.threshold_init, shape, self.param_dtype)
        if self.train_epsilon:
            learned = self.param("learned_epsilon", initializers.constant(1e-4), shape, self.param_dtype)
            own["epsilon"] = self.epsilon + jnp.abs(learned)
        return own
