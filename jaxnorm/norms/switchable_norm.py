"""Switchable normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

from flax import linen as nn
from jax.nn import initializers

from jaxnorm.functional import switchable_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import RunningLayer


@document_as(switchable_norm)
class SwitchableNorm(RunningLayer):
    """`jaxnorm.functional.switchable_norm` as a module of flax.linen, with the parameters `scale`, `bias`, and
    `mean_weights` and `var_weights`, three numbers each, which start equal. The running `mean` and `var` are the
    collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import SwitchableNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = SwitchableNorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, variables["params"]["mean_weights"].shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(switchable_norm)
    use_fast_variance: bool = True

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:  # noqa: ARG002
        names = ("mean_weights", "var_weights")
        return {name: self.param(name, initializers.ones, (3,), self.param_dtype) for name in names}
