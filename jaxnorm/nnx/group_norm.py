"""Group normalization."""

import dataclasses
from typing import Any

from flax.typing import Array, Axes

from jaxnorm.functional import group_norm
from jaxnorm.functional.fields import document_as, fields_of
from jaxnorm.functional.group import count_groups
from jaxnorm.nnx.norm_layer import NormLayer


@document_as(group_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class GroupNorm(NormLayer):
    """`jaxnorm.functional.group_norm` as a module of flax.nnx, with the parameters `scale` and `bias`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.GroupNorm(6, num_groups=None, group_size=2, rngs=Rngs(0))
        >>> layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 6))).shape
        (2, 8, 8, 6)
    """

    num_groups: int | None = dataclasses.field(default=32, kw_only=False)
    group_size: int | None = dataclasses.field(default=None, kw_only=False)
    reduction_axes: Axes | None = None

    def __post_init__(self, *arguments: Any) -> None:
        """Checks the groups, and makes the parameters."""
        count_groups(self.num_features, self.num_groups, self.group_size)
        super().__post_init__(*arguments)

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """Normalizes an array.

        Args:
            x: Shape (N, ..., C).
            mask: Booleans, broadcastable to x; False excludes a value from the statistics.

        Returns:
            The normalized array, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        return group_norm(x, scale, bias, mask=mask, **fields_of(self, group_norm))
