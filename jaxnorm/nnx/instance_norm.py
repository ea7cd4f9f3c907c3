"""Instance normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax.typing import Axes

from jaxnorm.functional import instance_norm
from jaxnorm.functional.fields import document_as
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(instance_norm)
    feature_axes: Axes = -1
    use_fast_variance: bool = True
