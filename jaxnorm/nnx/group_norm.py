"""Group normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax.typing import Axes

from jaxnorm.functional import group_norm
from jaxnorm.functional.fields import document_as
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(group_norm)
    num_groups: int | None = dataclasses.field(default=32, kw_only=False)
    group_size: int | None = dataclasses.field(default=None, kw_only=False)
    reduction_axes: Axes | None = None
    use_fast_variance: bool = True

    def __post_init__(self, *arguments: Any) -> None:
        """Checks the groups, and makes the parameters."""
        count_groups(self.num_features, self.num_groups, self.group_size)
        super().__post_init__(*arguments)
