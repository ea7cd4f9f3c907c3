"""Instance normalization."""

import dataclasses

from flax.typing import Array, Axes

from jaxnorm.functional import instance_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.nnx.norm_layer import NormLayer


@document_as(instance_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class InstanceNorm(NormLayer):
    """`jaxnorm.functional.instance_norm` as a module of flax.nnx, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.InstanceNorm(3, rngs=Rngs(0))
        >>> layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """

    feature_axes: Axes = -1

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        return instance_norm(x, scale, bias, mask=mask, **fields_of(self, instance_norm))
