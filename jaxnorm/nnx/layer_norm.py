"""Layer normalization."""

import dataclasses

from flax.typing import Array, Axes

from jaxnorm.functional import layer_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.nnx.norm_layer import NormLayer


@document_as(layer_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class LayerNorm(NormLayer):
    """`jaxnorm.functional.layer_norm` as a module of flax.nnx, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.LayerNorm(4, rngs=Rngs(0))
        >>> y = layer(jnp.asarray([[1.0, 2.0, 3.0, 4.0]]))
        >>> print(*(f"{value:.3f}" for value in y[0]))
        -1.342 -0.447 0.447 1.342
    """

    reduction_axes: Axes = -1
    feature_axes: Axes = -1

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Any shape that has the axes.
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        return layer_norm(x, scale, bias, mask=mask, **fields_of(self, layer_norm))
