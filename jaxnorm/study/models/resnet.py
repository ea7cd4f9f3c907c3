"""The study's residual network for small images: 6n+2 layers, three stages of n blocks."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnorm.conv.convolution import Conv

Weights = Literal["torch", "he"]


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for weights and biases of convolutions and dense layers."""

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        # Drawn flat: XLA compiles the generator for four axes ten times more slowly than for one.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


class NormBuilder(Protocol):
    """Builds one normalization layer: a Flax module that is applied to an NHWC array. Must be hashable."""

    def __call__(self, *, train: bool, axis_name: str | None, dtype: Any, name: str) -> nn.Module:
        """The layer for training (`train=True`) or for evaluation, named `name` in its parent."""
        ...


def he_normal(fan_in: int) -> nn.initializers.Initializer:
    """N(0, 2/fan_in): keeps the variance of activations through ReLUs (He et al. 2015, arXiv 1502.01852)."""

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape) * (2 / fan_in) ** 0.5

    return init


def initializers(weights: Weights, fan_in: int) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
    """Initializers of a layer's weights and bias: "torch", as the study had them, or "he", with biases of zero."""
    if weights == "torch":
        return uniform(fan_in), uniform(fan_in)
    return he_normal(fan_in), nn.initializers.zeros


def conv(
    features: int,
    kernel_size: int,
    strides: int,
    in_features: int,
    *,
    weights: Weights = "torch",
    dtype: Any = None,
    name: str | None = None,
) -> Conv:
    """A convolution as the study has it: one pixel of padding on every side of a 3x3, none at a 1x1, with a bias."""
    kernel_init, bias_init = initializers(weights, kernel_size**2 * in_features)
    return Conv(
        features,
        (kernel_size, kernel_size),
        strides=(strides, strides),
        padding=kernel_size // 2,
        dtype=dtype,
        kernel_init=kernel_init,
        bias_init=bias_init,
        name=name,
    )


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)); the shortcut is 1x1 conv and norm where the shape changes.

    Shapes: (N, H, W, C) to (N, H/strides, W/strides, num_filters).
    """

    num_filters: int
    strides: int = 1
    norm: NormBuilder | None = None
    weights: Weights = "torch"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block; `train` reaches the norms alone."""
        norm = functools.partial(_norm, self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        layer = functools.partial(conv, weights=self.weights, dtype=self.dtype)
        in_features = x.shape[-1]
        shortcut = x
        y = layer(self.num_filters, 3, self.strides, in_features, name="conv1")(x)
        y = nn.relu(norm(y, name="norm1"))
        y = layer(self.num_filters, 3, 1, self.num_filters, name="conv2")(y)
        y = norm(y, name="norm2")
        if self.strides != 1 or in_features != self.num_filters:
            shortcut = layer(self.num_filters, 1, self.strides, in_features, name="conv_proj")(x)
            shortcut = norm(shortcut, name="norm_proj")
        return nn.relu(y + shortcut)


class ResNet(nn.Module):
    """Residual network of 6n+2 layers: logits = dense(mean over H,W of relu(... blocks(relu(norm(conv(x)))))).

    A 3x3 stem, three stages of `num_blocks` blocks with `num_filters`, twice and four times as many channels, stride 2
    at the entry of the second and third, global average pooling, one dense layer. Every convolution has a bias, 3x3
    ones are padded by one pixel on every side, weights and biases start uniform in +-1/sqrt(fan_in), as the study
    "Normalizations in Deep Learning" trained it. The initial weights of equally named layers depend on the key alone,
    so all variants of one seed start alike.

    Attributes:
        num_blocks: blocks per stage, n; 2 gives 14 layers.
        norm: builds each normalization layer, for example ``NORMS["gn"]``; None leaves normalization out.
        num_classes: number of logits.
        num_filters: channels of the first stage.
        weights: initial ones, "torch" or "he" for N(0, 2/fan_in) and biases of zero.
        axis_name: mapped axis over which the norms combine their statistics, or None.
        dtype: of the computation; None infers it from the input and parameters (float32).

    Shapes: (N, H, W, C) to (N, num_classes). The pooled features, (N, 4 * num_filters), are sown as
    ``intermediates/pooled``.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2.

    Example:
        >>> import jax
        >>> from jaxnorm import NORMS, ResNet
        >>> model = ResNet(num_blocks=2, norm=NORMS["gn"])
        >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)), train=False)
        >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        175818
    """

    num_blocks: int = 2
    norm: NormBuilder | None = None
    num_classes: int = 10
    num_filters: int = 16
    weights: Weights = "torch"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Logits of a batch of images, (N, H, W, C) with the data's mean subtracted."""
        x = conv(self.num_filters, 3, 1, x.shape[-1], weights=self.weights, dtype=self.dtype, name="stem_conv")(x)
        x = _norm(self.norm, x, train=train, axis_name=self.axis_name, dtype=self.dtype, name="stem_norm")
        x = nn.relu(x)
        for stage in range(3):
            for block in range(self.num_blocks):
                x = Block(
                    num_filters=self.num_filters * 2**stage,
                    strides=2 if stage > 0 and block == 0 else 1,
                    norm=self.norm,
                    weights=self.weights,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train=train)
        x = x.mean(axis=(1, 2))
        self.sow("intermediates", "pooled", x)
        kernel_init, bias_init = initializers(self.weights, x.shape[-1])
        return nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=kernel_init, bias_init=bias_init, name="head")(
            x
        )


class ResNet14(ResNet):
    """The study's network: `ResNet` with two blocks a stage, 14 layers.

    Example:
        >>> import jax
        >>> from jaxnorm import NORMS, ResNet14
        >>> model = ResNet14(norm=NORMS["bn"])
        >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)), train=False)
        >>> sorted(variables)
        ['batch_stats', 'params']
    """

    num_blocks: int = 2


def _norm(
    build: NormBuilder | None, x: jax.Array, *, train: bool, axis_name: str | None, dtype: Any, name: str
) -> jax.Array:
    return x if build is None else build(train=train, axis_name=axis_name, dtype=dtype, name=name)(x)
