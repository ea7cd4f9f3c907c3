"""Batch-group normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from jaxnorm.functional import batch_group_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(batch_group_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class BatchGroupNorm(RunningLayer):
    """`jaxnorm.functional.batch_group_norm` as a module of flax.nnx, with the parameters `scale` and `bias`. The
    running `mean` and `var` are of type `nnx.BatchStat`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.BatchGroupNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.mean.shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_group_norm)
    num_groups: int | None = None
    group_size: int | None = 1
    ghost_batch_size: int | None = None
    own_weight: float = 0.0
    use_fast_variance: bool = True
