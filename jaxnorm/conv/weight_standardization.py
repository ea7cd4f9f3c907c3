"""Convolutions whose kernels are standardized."""

from typing import Any

from flax.typing import Array
from jax.nn import initializers

from jaxnorm.conv.convolution import Conv
from jaxnorm.functional import standardize_and_scale_weights, standardize_weights


class WeightStandardizedConv(Conv):
    """y = x * (W - E[W]) / (std(W) + epsilon) + bias: a convolution whose kernel is standardized.

    `Conv` with the kernel of `jaxnorm.functional.standardize_weights`. The variables are those of `Conv`: the kernel is
    stored as it is trained.

    Attributes:
        epsilon: Added to the standard deviation, or to the biased variance.
        unbiased: Whether to follow the paper; False follows timm, whose epsilon is 1e-6.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import WeightStandardizedConv
        >>> layer = WeightStandardizedConv(8, (3, 3), padding="VALID")
        >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 9, 9, 3)))
        >>> bool(abs(y).max() < 1e-4), variables["params"]["kernel"].shape
        (True, (3, 3, 3, 8))
    """

    epsilon: float = 1e-5
    unbiased: bool = True

    def param(self, name: str, *arguments: Any, **settings: Any) -> Any:
        """A parameter; the kernel as the convolution takes it.

        Args:
            name: As in `flax.linen.Module.param`.
            *arguments: As in `flax.linen.Module.param`.
            **settings: As in `flax.linen.Module.param`.

        Returns:
            The value.
        """
        value = super().param(name, *arguments, **settings)
        return standardize_weights(value, epsilon=self.epsilon, unbiased=self.unbiased) if name == "kernel" else value


class ScaledWeightStandardizedConv(Conv):
    """y = x * gain (W - E[W]) / sqrt(max(n Var[W], epsilon)) + bias: a convolution that needs no normalization.

    `Conv` with the kernel of `jaxnorm.functional.standardize_and_scale_weights` and the parameter `gain`.

    Attributes:
        epsilon: The least n Var[W].
        use_gain: Whether the layer has a `gain`, one number for each output channel, from 1.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxnorm import ScaledWeightStandardizedConv
        >>> layer = ScaledWeightStandardizedConv(8, (3, 3))
        >>> sorted(layer.init(jax.random.key(0), jnp.ones((2, 9, 9, 3)))["params"])
        ['bias', 'gain', 'kernel']
    """

    epsilon: float = 1e-4
    use_gain: bool = True

    def param(self, name: str, *arguments: Any, **settings: Any) -> Any:
        """A parameter; the kernel as the convolution takes it.

        Args:
            name: As in `flax.linen.Module.param`.
            *arguments: As in `flax.linen.Module.param`.
            **settings: As in `flax.linen.Module.param`.

        Returns:
            The value.
        """
        value = super().param(name, *arguments, **settings)
        if name != "kernel":
            return value
        gain: Array | None = None
        if self.use_gain:
            gain = super().param("gain", initializers.ones, (self.features,), self.param_dtype)
        return standardize_and_scale_weights(value, gain, epsilon=self.epsilon)
