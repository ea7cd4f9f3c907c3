"""Iterative normalization."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Array, Dtype

from jaxnorm.functional import iter_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.iter_norm import identities, whitened_together
from jaxnorm.norms.norm_layer import RunningLayer


@document_as(iter_norm)
class IterNorm(RunningLayer):
    """`jaxnorm.functional.iter_norm` as a module of flax.linen, with the parameters `scale` and `bias`. The running
    `mean` and `cov` are the collection `batch_stats`.

    Examples:
        >>> import jax
        >>> from jaxnorm import IterNorm
        >>> x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3))
        >>> y, variables = IterNorm(use_running_average=False).init_with_output(jax.random.key(1), x)
        >>> y.shape, sorted(variables["batch_stats"])
        ((8, 4, 4, 3), ['cov', 'mean'])
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(iter_norm)
    group_size: int = 64
    num_iterations: int = 5

    @nn.nowrap
    def starts(self) -> dict[str, Callable[..., Array]]:
        def identity(shape: tuple[int, ...], dtype: Dtype) -> Array:
            (channels,) = shape
            return identities(channels, whitened_together(channels, self.group_size), dtype)

        return {"mean": jnp.zeros, "cov": identity}
