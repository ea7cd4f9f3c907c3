"""Batch-group normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxnorm.functional import batch_group_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import RunningLayer


@document_as(batch_group_norm)
class BatchGroupNorm(RunningLayer):
    """`jaxnorm.functional.batch_group_norm` as a module of flax.linen, with the parameters `scale` and `bias`. The
    running `mean` and `var` are the collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import BatchGroupNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = BatchGroupNorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, sorted(variables["batch_stats"])
        ((8, 4, 4, 3), ['mean', 'var'])
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_group_norm)
    num_groups: int | None = None
    group_size: int | None = 1
    ghost_batch_size: int | None = None
    own_weight: float = 0.0
    use_fast_variance: bool = True
