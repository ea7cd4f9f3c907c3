"""Evolving normalization-activation layers: EvoNorm-B0 and EvoNorm-S0."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from flax.typing import Array, Initializer
from jax.nn import initializers

from jaxnorm.functional import evo_norm_b0, evo_norm_s0
from jaxnorm.functional.fields import document_as
from jaxnorm.functional.group import count_groups
from jaxnorm.nnx.norm_layer import Metadata, NormLayer
from jaxnorm.nnx.running_layer import RunningLayer


@document_as(evo_norm_b0)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class EvoNormB0(RunningLayer):
    """`jaxnorm.functional.evo_norm_b0` as a module of flax.nnx, with the parameters `scale`, `bias` and `slope`.
    The running `var` is of type `nnx.BatchStat`.

    Attributes:
        use_slope: Whether the layer has a `slope`, and so includes the activation.
        slope_init: Initializer of `slope` (v1), by default ones.
        slope_metadata: Metadata of the variable `slope`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.EvoNormB0(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (8, 4, 4, 3)))
        >>> y.shape, layer.var.shape
        ((8, 4, 4, 3), (3,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(evo_norm_b0)
    use_fast_variance: bool = True
    use_slope: bool = True
    slope_init: InitVar[Initializer] = initializers.ones
    slope_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        *others, slope_init, slope_metadata = arguments
        super().__post_init__(rngs, *others)
        absent: Any = nnx.data(None)
        self.slope = self.parameter(rngs, slope_init, slope_metadata) if self.use_slope else absent

    def starts(self) -> dict[str, Callable[..., Array]]:
        """The running statistics by name, each as a function of shape and dtype.

        Returns:
            `var` from ones.
        """
        return {"var": jnp.ones}

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {} if self.slope is None else {"slope": self.slope[...]}


@document_as(evo_norm_s0)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class EvoNormS0(NormLayer):
    """`jaxnorm.functional.evo_norm_s0` as a module of flax.nnx, with the parameters `scale`, `bias` and `slope`.

    Attributes:
        use_slope: Whether the layer has a `slope`, and so includes the activation.
        slope_init: Initializer of `slope` (v1), by default ones.
        slope_metadata: Metadata of the variable `slope`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.EvoNormS0(6, num_groups=3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 8, 8, 6)))
        >>> y.shape, layer.slope.shape
        ((2, 8, 8, 6), (6,))
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(evo_norm_s0)
    num_groups: int | None = dataclasses.field(default=32, kw_only=False)
    group_size: int | None = dataclasses.field(default=None, kw_only=False)
    epsilon: float = 1e-5
    use_fast_variance: bool = True
    use_slope: bool = True
    slope_init: InitVar[Initializer] = initializers.ones
    slope_metadata: InitVar[Metadata] = None

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Checks the groups, and makes the parameters."""
        *others, slope_init, slope_metadata = arguments
        count_groups(self.num_features, self.num_groups, self.group_size, "evo_norm_s0")
        super().__post_init__(rngs, *others)
        absent: Any = nnx.data(None)
        self.slope = self.parameter(rngs, slope_init, slope_metadata) if self.use_slope else absent

    def own_parameters(self) -> dict[str, Any]:
        """The arguments of the function that are parameters besides `scale` and `bias`.

        Returns:
            The values by name.
        """
        return {} if self.slope is None else {"slope": self.slope[...]}
