"""Evolving normalization-activation layers: EvoNorm-B0 and EvoNorm-S0."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype, Initializer
from jax.nn import initializers

from jaxnorm.functional import evo_norm_b0, evo_norm_s0
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import MaskedLayer, RunningLayer


@document_as(evo_norm_b0)
class EvoNormB0(RunningLayer):
    """`jaxnorm.functional.evo_norm_b0` as a module of flax.linen, with the parameters `scale`, `bias` and `slope`. The
    running `var` is the collection `batch_stats`.

    Attributes:
        use_slope: Whether the layer has a `slope`, and so includes the activation.
        slope_init: Initializer of `slope` (v1), by default ones.

    Examples:
        >>> import jax
        >>> from jaxnorm import EvoNormB0
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = EvoNormB0(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, list(variables["batch_stats"])
        ((8, 4, 4, 3), ['var'])
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(evo_norm_b0)
    use_slope: bool = True
    slope_init: Initializer = initializers.ones
    use_fast_variance: bool = True

    @nn.nowrap
    def starts(self) -> dict[str, Callable[..., Array]]:
        return {"var": jnp.ones}

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"slope": self.param("slope", self.slope_init, shape, self.param_dtype)} if self.use_slope else {}


@document_as(evo_norm_s0)
class EvoNormS0(MaskedLayer):
    """`jaxnorm.functional.evo_norm_s0` as a module of flax.linen, with the parameters `scale`, `bias` and `slope`.

    Attributes:
        use_slope: Whether the layer has a `slope`, and so includes the activation.
        slope_init: Initializer of `slope` (v1), by default ones.

    Examples:
        >>> import jax
        >>> from jaxnorm import EvoNormS0
        >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 6))
        >>> y, variables = EvoNormS0(num_groups=3).init_with_output(jax.random.key(1), x)
        >>> y.shape, sorted(variables["params"])
        ((2, 8, 8, 6), ['bias', 'scale', 'slope'])
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(evo_norm_s0)
    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = initializers.zeros
    scale_init: Initializer = initializers.ones
    use_slope: bool = True
    slope_init: Initializer = initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"slope": self.param("slope", self.slope_init, shape, self.param_dtype)} if self.use_slope else {}
