"""Global response normalization."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

from flax.typing import Initializer
from jax.nn import initializers

from jaxnorm.functional import global_response_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.norm_layer import NormLayer


@document_as(global_response_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class GlobalResponseNorm(NormLayer):
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(global_response_norm)
    scale_init: InitVar[Initializer] = initializers.zeros
