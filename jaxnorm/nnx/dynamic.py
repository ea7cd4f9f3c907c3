"""Layers in place of a normalization: dynamic tanh and dynamic erf."""

import dataclasses
from dataclasses import InitVar
from typing import Any

from flax import nnx
from flax.typing import Array, Axes
from jax.nn import initializers

from jaxnorm.functional import dynamic_erf, dynamic_tanh
from jaxnorm.functional.fields import document_as, fields_of
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

    feature_axes: Axes = -1
    alpha_init: InitVar[float] = 0.5

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        *others, alpha_init = arguments
        super().__post_init__(rngs, *others)
        self.alpha = self.parameter(rngs, initializers.constant(alpha_init), None, ())

    def __call__(self, x: Array) -> Array:
        """Computes the output.

        Args:
            x: Any shape that has the axes.

        Returns:
            The output, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        return dynamic_tanh(x, scale, bias, alpha=self.alpha[...], **fields_of(self, dynamic_tanh))


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

    def __post_init__(self, rngs: nnx.Rngs, *arguments: Any) -> None:
        """Makes the parameters."""
        super().__post_init__(rngs, *arguments)
        self.shift = self.parameter(rngs, initializers.zeros, None, ())

    def __call__(self, x: Array) -> Array:
        """Computes the output.

        Args:
            x: Any shape that has the axes.

        Returns:
            The output, of x's shape.
        """
        x, scale, bias = self.arrays(x)
        alpha, shift = self.alpha[...], self.shift[...]
        return dynamic_erf(x, scale, bias, alpha=alpha, shift=shift, **fields_of(self, dynamic_erf))
