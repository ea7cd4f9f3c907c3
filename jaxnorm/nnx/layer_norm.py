"""Layer normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax.typing import Axes

from jaxnorm.functional import layer_norm
from jaxnorm.functional.fields import document_as
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

    _function: ClassVar[Callable[..., Any]] = staticmethod(layer_norm)
    reduction_axes: Axes = -1
    feature_axes: Axes = -1
    use_fast_variance: bool = True
