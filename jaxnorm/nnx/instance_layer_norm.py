"""Instance-layer normalization."""

import dataclasses
from dataclasses import InitVar
from typing import Any

from flax import nnx
from flax.typing import Array, Initializer
from jax.nn import initializers

from jaxnorm.functional import instance_layer_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.nnx.norm_layer import AffineLayer, Metadata


@document_as(instance_layer_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class InstanceLayerNorm(AffineLayer):
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

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The output, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        fields = fields_of(self, instance_layer_norm)
        return instance_layer_norm(x, scale, bias, gate=self.gate[...], mask=mask, **fields)
