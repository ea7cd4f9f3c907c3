"""Batch-instance normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

from flax import linen as nn
from flax.typing import Initializer
from jax.nn import initializers

from jaxnorm.functional import batch_instance_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.batch_norm import BatchNorm


@document_as(batch_instance_norm)
class BatchInstanceNorm(BatchNorm):
    """`jaxnorm.functional.batch_instance_norm` as a module of flax.linen, with the parameters `scale`, `bias` and
    `gate`. The running `mean` and `var` are the collection `batch_stats`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: batch norm.

    Examples:
        >>> import jax
        >>> from jaxnorm import BatchInstanceNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> layer = BatchInstanceNorm(use_running_average=False)
        >>> y, variables = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape, variables["params"]["gate"].shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_instance_norm)
    train_gate: bool = True
    gate_init: Initializer = initializers.ones

    @nn.nowrap
    def own_parameters(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"gate": self.param("gate", self.gate_init, shape, self.param_dtype)}
