"""Batch renormalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax.typing import Axes

from jaxnorm.functional import batch_renorm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(batch_renorm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class BatchRenorm(RunningLayer):
    """`jaxnorm.functional.batch_renorm` as a module of flax.nnx, with the parameters `scale` and `bias`. The
    running `mean` and `var` are of type `nnx.BatchStat`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.BatchRenorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.mean.shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_renorm)
    axis: Axes = -1
    r_max: float = 3.0
    d_max: float = 5.0
    use_fast_variance: bool = True
