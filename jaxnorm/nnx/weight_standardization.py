"""Convolutions whose kernels are standardized."""

import copy
from typing import Any

from flax import nnx
from flax.typing import Array
from jax.nn import initializers

from jaxnorm.conv.convolution import convolve
from jaxnorm.functional import standardize_and_scale_weights, standardize_weights


class WeightStandardizedConv(nnx.Conv):
    """y = x * (W - E[W]) / (std(W) + epsilon) + bias: a convolution whose kernel is standardized.

    `flax.nnx.Conv` with the kernel of `jaxnorm.functional.standardize_weights`, and fast on CPU as `jaxnorm.Conv`. The
    kernel is stored as it is trained.

    Args:
        *arguments: As in `flax.nnx.Conv`.
        epsilon: Added to the standard deviation, or to the biased variance.
        unbiased: Whether to follow the paper; False follows timm, whose epsilon is 1e-6.
        **settings: As in `flax.nnx.Conv`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.WeightStandardizedConv(3, 8, (3, 3), padding="VALID", rngs=Rngs(0))
        >>> bool(abs(layer(jnp.ones((2, 9, 9, 3)))).max() < 1e-4)
        True
    """

    def __init__(self, *arguments: Any, epsilon: float = 1e-5, unbiased: bool = True, **settings: Any) -> None:
        super().__init__(*arguments, **{"conv_general_dilated": convolve, **settings})
        self.epsilon, self.unbiased = epsilon, unbiased

    def __call__(self, inputs: Array, *arguments: Any, **settings: Any) -> Array:
        """The convolution.

        Args:
            inputs: As in `flax.nnx.Conv`.
            *arguments: As in `flax.nnx.Conv`.
            **settings: As in `flax.nnx.Conv`.

        Returns:
            The output.
        """
        kernel = standardize_weights(self.kernel[...], epsilon=self.epsilon, unbiased=self.unbiased)
        return nnx.Conv.__call__(_with_kernel(self, kernel), inputs, *arguments, **settings)


class ScaledWeightStandardizedConv(nnx.Conv):
    """y = x * gain (W - E[W]) / sqrt(max(n Var[W], epsilon)) + bias: a convolution that needs no normalization.

    `flax.nnx.Conv` with the kernel of `jaxnorm.functional.standardize_and_scale_weights` and the parameter `gain`, and
    fast on CPU as `jaxnorm.Conv`.

    Args:
        *arguments: As in `flax.nnx.Conv`.
        epsilon: The least n Var[W].
        use_gain: Whether the layer has a `gain`, one number for each output channel, from 1.
        rngs: Random keys of flax.nnx.
        **settings: As in `flax.nnx.Conv`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax.nnx import Rngs
        >>> from jaxnorm import nnx
        >>> layer = nnx.ScaledWeightStandardizedConv(3, 8, (3, 3), rngs=Rngs(0))
        >>> layer(jnp.ones((2, 9, 9, 3))).shape, layer.gain.shape
        ((2, 9, 9, 8), (8,))
    """

    def __init__(
        self, *arguments: Any, epsilon: float = 1e-4, use_gain: bool = True, rngs: nnx.Rngs, **settings: Any
    ) -> None:
        super().__init__(*arguments, rngs=rngs, **{"conv_general_dilated": convolve, **settings})
        self.epsilon = epsilon
        self.gain: Any = nnx.data(None)
        if use_gain:
            self.gain = nnx.Param(initializers.ones(rngs.params(), (self.out_features,), self.param_dtype))

    def __call__(self, inputs: Array, *arguments: Any, **settings: Any) -> Array:
        """The convolution.

        Args:
            inputs: As in `flax.nnx.Conv`.
            *arguments: As in `flax.nnx.Conv`.
            **settings: As in `flax.nnx.Conv`.

        Returns:
            The output.
        """
        gain = None if self.gain is None else self.gain[...]
        kernel = standardize_and_scale_weights(self.kernel[...], gain, epsilon=self.epsilon)
        return nnx.Conv.__call__(_with_kernel(self, kernel), inputs, *arguments, **settings)


def _with_kernel(layer: nnx.Conv, kernel: Array) -> nnx.Conv:
    """A copy of the layer, for one call, that has another kernel."""
    other = copy.copy(layer)
    other.kernel = nnx.Param(kernel)
    return other
