"""Switchable normalization."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax import nnx
from jax.nn import initializers

from jaxnorm.functional import switchable_norm
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(switchable_norm)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class SwitchableNorm(RunningLayer):
    """`jaxnorm.functional.switchable_norm` as a module of flax.nnx, with the parameters `scale`, `bias`, and
    `mean_weights` and `var_weights`, three numbers each, which start equal. The running `mean` and `var` are of
    type `nnx.BatchStat`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.SwitchableNorm(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.mean_weights.shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(switchable_norm)
    use_fast_variance: bool = True

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters and the running statistics."""
        super().__post_init__(rngs, *arguments)
        self.mean_weights = self.parameter(rngs, initializers.ones, None, (3,))
        self.var_weights = self.parameter(rngs, initializers.ones, None, (3,))

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {name: getattr(self, name)[...] for name in ("mean_weights", "var_weights")}
