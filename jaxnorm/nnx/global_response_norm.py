"""Global response normalization."""

import dataclasses
from dataclasses import InitVar
from typing import Any

from flax.typing import Array, Initializer
from jax.nn import initializers

from jaxnorm.functional import global_response_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.nnx.norm_layer import AffineLayer


@document_as(global_response_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class GlobalResponseNorm(AffineLayer):
    """`jaxnorm.functional.global_response_norm` as a module of flax.nnx, with the parameters `scale` and `bias`,
    which start at zero: the output is the input.

    Attributes:
        scale_init: Initializer of `scale`, by default zeros.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.GlobalResponseNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 3)))
        >>> y.shape, float(layer.scale[0])
        ((2, 8, 8, 3), 0.0)
    """

    epsilon: float = 1e-6
    axis_name: str | None = None
    axis_index_groups: Any = None
    force_float32_reductions: bool = True
    scale_init: InitVar[Initializer] = initializers.zeros

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The output, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        return global_response_norm(x, scale, bias, mask=mask, **fields_of(self, global_response_norm))
