"""Iterative normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from flax.typing import Array, Dtype

from jaxnorm.functional import iter_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.iter_norm import identities, whitened_together
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(iter_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class IterNorm(RunningLayer):
    """`jaxnorm.functional.iter_norm` as a module of flax.nnx, with the parameters `scale` and `bias`. The
    running `mean` and `cov` are of type `nnx.BatchStat`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.IterNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.cov.shape
        ((8, 4, 4, 3), (1, 3, 3))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(iter_norm)
    group_size: int = 64
    num_iterations: int = 5

    def __post_init__(self, *arguments: Any) -> None:
        """Makes the parameters and the running statistics."""
        super().__post_init__(*arguments)
        self.cov: nnx.BatchStat[Array]  # for type checkers

    def starts(self) -> dict[str, Callable[..., Array]]:
        """The running statistics by name, each as a function of shape and dtype.

        Returns:
            `mean` from zeros and `cov` from identity matrices.
        """

        def identity(shape: tuple[int, ...], dtype: Dtype) -> Array:
            (channels,) = shape
            return identities(channels, whitened_together(channels, self.group_size), dtype)

        return {"mean": jnp.zeros, "cov": identity}
