"""Batch-instance normalization."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

from flax import nnx
from flax.typing import Initializer
from jax.nn import initializers

from jaxnorm.functional import batch_instance_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.batch_norm import BatchNorm
from jaxnorm.nnx.norm_layer import Metadata


@document_as(batch_instance_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class BatchInstanceNorm(BatchNorm):
    """`jaxnorm.functional.batch_instance_norm` as a module of flax.nnx, with the parameters `scale`, `bias` and `gate`.
    The running `mean` and `var` are of type `nnx.BatchStat`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: batch norm.
        gate_metadata: Metadata of the variable `gate`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.BatchInstanceNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.gate.shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_instance_norm)
    train_gate: bool = True
    gate_init: InitVar[Initializer] = initializers.ones
    gate_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters and the running statistics."""
        *others, gate_init, gate_metadata = arguments
        super().__post_init__(rngs, *others)
        self.gate = self.parameter(rngs, gate_init, gate_metadata)

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {"gate": self.gate[...]}
