"""Batch renormalization."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxnorm.functional import batch_renorm
from jaxnorm.functional.fields import document_as
from jaxnorm.norms.norm_layer import RunningLayer


@document_as(batch_renorm)
class BatchRenorm(RunningLayer):
    """`jaxnorm.functional.batch_renorm` as a module of flax.linen, with the parameters `scale` and `bias`. The running
    `mean` and `var` are the collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import BatchRenorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = BatchRenorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, sorted(variables["batch_stats"])
        ((8, 4, 4, 3), ['mean', 'var'])
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(batch_renorm)
    r_max: float = 3.0
    d_max: float = 5.0
    axis: int = -1
    use_fast_variance: bool = True
