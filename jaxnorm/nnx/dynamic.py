"""Layers in place of a normalization: dynamic tanh and dynamic erf."""

import dataclasses
from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, ClassVar

from flax import nnx
from flax.typing import Axes
from jax.nn import initializers

from jaxnorm.functional import dynamic_erf, dynamic_tanh
from jaxnorm.functional.fields import document_as
from jaxnorm.nnx.norm_layer import AffineLayer


@document_as(dynamic_tanh)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class DynamicTanh(AffineLayer):
    """`jaxnorm.functional.dynamic_tanh` as a module of flax.nnx, with the parameters `scale`, `bias` and the number
    `alpha`.

    Attributes:
        alpha_init: Start of `alpha`.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.DynamicTanh(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 3)))
        >>> y.shape, float(layer.alpha[...])
        ((2, 3), 0.5)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(dynamic_tanh)
    feature_axes: Axes = -1
    alpha_init: InitVar[float] = 0.5

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        *others, alpha_init = arguments
        super().__post_init__(rngs, *others)
        self.alpha = self.parameter(rngs, initializers.constant(alpha_init), None, ())

    def own_parameters(self) -> dict[str, Any]:
        return {"alpha": self.alpha[...]}


@document_as(dynamic_erf)
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class DynamicErf(DynamicTanh):
    """`jaxnorm.functional.dynamic_erf` as a module of flax.nnx, with the parameters `scale`, `bias` and the numbers
    `alpha` and `shift`.

    Attributes:
        alpha_init: Start of `alpha`; `shift` starts at 0.

    Examples:
        >>> import jax
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.DynamicErf(3, rngs=Rngs(0))
        >>> y = layer(jax.random.normal(jax.random.key(0), (2, 3)))
        >>> y.shape, float(layer.shift[...])
        ((2, 3), 0.0)
    """

    _function: ClassVar[Callable[..., Any]] = staticmethod(dynamic_erf)

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        super().__post_init__(rngs, *arguments)
        self.shift = self.parameter(rngs, initializers.zeros, None, ())

    def own_parameters(self) -> dict[str, Any]:
        return {**super().own_parameters(), "shift": self.shift[...]}
