"""Instance-layer normalization."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

from flax import nnx
from flax.typing import Initializer
from jax.nn import initializers

from jaxnorm.functional import instance_layer_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.norm_layer import MaskedLayer, Metadata


@document_as(instance_layer_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class InstanceLayerNorm(MaskedLayer):
    """`jaxnorm.functional.instance_layer_norm` as a module of flax.nnx, with the parameters `scale`, `bias` and
    `gate`.

    Attributes:
        gate_init: Initializer of `gate`, by default ones: instance norm.
        gate_metadata: Metadata of the variable `gate`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.InstanceLayerNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 3)))
        >>> y.shape, layer.gate.shape
        ((2, 8, 8, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(instance_layer_norm)
    epsilon: float = 1e-5
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    gate_init: InitVar[Initializer] = initializers.ones
    gate_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        *others, gate_init, gate_metadata = arguments
        super().__post_init__(rngs, *others)
        self.gate = self.parameter(rngs, gate_init, gate_metadata)

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {"gate": self.gate[...]}
