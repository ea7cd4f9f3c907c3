"""Instance-layer normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import instance_layer_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer


@document_as(instance_layer_norm)
class InstanceLayerNorm(MaskedLayer):
    """`jaxnorm.functional.instance_layer_norm` as a module of flax.linen, with the parameters `scale`, `bias` and
    `gate`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: instance norm.

    Examples:
        >>> import jax
        >>> from jaxnorm import InstanceLayerNorm
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> y, variables = InstanceLayerNorm().init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["gate"].shape
        ((2, 8, 8, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(instance_layer_norm)
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    gate_init: Initializer = initializers.ones
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"gate": self.param("gate", self.gate_init, shape, self.param_dtype)}
