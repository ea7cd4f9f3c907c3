"""Batch normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax.typing import Axes

from jaxnorm.functional import batch_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(batch_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class BatchNorm(RunningLayer):
    """`jaxnorm.functional.batch_norm` as a module of flax.nnx, with the parameters `scale` and `bias`. The running
    `mean` and `var` are of type `nnx.BatchStat`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> x = jnp.arange(8.0).reshape(4, 2)
        >>> layer = nnx.BatchNorm(2, momentum=0.9, rngs=Rngs(0))
        >>> y = layer(x)
        >>> print(*(f"{value:.3f}" for value in [*y[:, 0], *layer.mean[...]]))
        -1.342 -0.447 0.447 1.342 0.300 0.400
        >>> layer.eval()
        >>> y = layer(x)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_norm)
    axis: Axes = -1
    ghost_batch_size: int | None = None
    use_fast_variance: bool = True
