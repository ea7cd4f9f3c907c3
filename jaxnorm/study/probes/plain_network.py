"""A deep plain network, for which mean-field theory says how gradients grow."""

import math
from typing import Any

import flax.linen as nn
import jax

from jaxnorm.conv.convolution import Conv
from jaxnorm.study.models.resnet import ConvBuilder, NormBuilder, Weights, initializers
from jaxnorm.study.probes.layers import Layer

LAYER = "layer"
"""How the names of the hidden layers begin."""
_BATCH_NORMS = ("flax_bn", "bn", "bin", "bin_frozen", "brn")
"""Norms that are the same function as batch norm at initialization."""


class PlainNetwork(nn.Module):
    """logits = dense(mean over H,W of x_L), x_l = relu(norm(conv(x_{l-1}))): no shortcut, every convolution 1x1.

    Each pixel passes through the same dense network, so that pixels are the independent samples of the theory.

    Attributes:
        norm: builds each normalization layer, as in `ResNet`; None leaves normalization out.
        conv: builds each convolution.
        depth: hidden layers, L.
        num_filters: channels of each.
        num_classes: number of logits.
        weights: initial ones, see `jaxnorm.study.models.resnet.initializers`.
    """

    norm: NormBuilder | None = None
    conv: ConvBuilder = Conv
    depth: int = 30
    num_filters: int = 256
    num_classes: int = 10
    weights: Weights = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the network.

        Args:
            x: (N, H, W, C).
            train: Passed to the norms alone.

        Returns:
            Logits, (N, num_classes).
        """
        activation = getattr(self.norm, "activation", None)
        build: Any = self.norm if activation is None else activation
        for number in range(1, self.depth + 1):
            kernel_init, bias_init = initializers(self.weights, x.shape[-1])
            fields: dict[str, Any] = dict(kernel_init=kernel_init, bias_init=bias_init, name=f"{LAYER}{number}")
            x = self.conv(self.num_filters, (1, 1), strides=(1, 1), padding=0, dtype=None, **fields)(x)
            if build is not None:
                x = build(train=train, axis_name=None, dtype=None, name=f"norm{number}")(x)
            x = nn.relu(x) if activation is None else x
        kernel_init, bias_init = initializers(self.weights, x.shape[-1])
        return nn.Dense(self.num_classes, kernel_init=kernel_init, bias_init=bias_init, name="head")(x.mean((1, 2)))


def growth(layers: dict[str, Layer]) -> float:
    """By how much the gradient grows from a hidden layer of a `PlainNetwork` to the one below, in the geometric mean.

    Args:
        layers: of the network, by name, see `probe_layers`.

    Returns:
        (|dL/dy_1| / |dL/dy_L|)^(1/(L-1)) of the outputs y of the convolutions; nan where a gradient is zero.
    """
    gradients = [layer.gradient for name, layer in layers.items() if name.startswith(LAYER)]
    if not gradients[0] > 0 or not gradients[-1] > 0:
        return float("nan")
    return math.exp(math.log(gradients[0] / gradients[-1]) / (len(gradients) - 1))


def predicted_growth(norm: str, weights: Weights) -> float | None:
    """What mean-field theory says of `growth`, in the limit of many channels and samples.

    A ReLU halves the square of a gradient. A layer multiplies it by the variance of its weights times their number,
    which is 2 for He's initialization and 1/3 for PyTorch's. A norm divides it by the variance of what it normalizes:
    for layer norm the layer's factor times the mean square of its input, 1/2; for batch norm times the variance of its
    input over the batch, 1/2 - 1/(2 pi).

    Args:
        norm: its id in `jaxnorm.NORMS`.
        weights: the initial ones; only without normalization they matter.

    Returns:
        sqrt(pi / (pi - 1)) = 1.211 for batch norm and what equals it at initialization, 1 for layer and RMS norm, 1
        (He) or sqrt(1/6) = 0.408 without normalization; None for any other norm.

    References:
        Yang et al. 2019, arXiv 1902.08129, for batch norm.

    Examples:
        >>> round(predicted_growth("bn", "torch"), 3), predicted_growth("ln", "torch"), predicted_growth("gn", "torch")
        (1.211, 1.0, None)
    """
    if norm in _BATCH_NORMS:
        return math.sqrt(math.pi / (math.pi - 1))
    if norm in ("ln", "rms"):
        return 1.0
    if norm == "none":
        return 1.0 if weights == "he" else math.sqrt(1 / 6)
    return None
