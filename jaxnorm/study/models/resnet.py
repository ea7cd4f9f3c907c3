"""The residual network of the original paper, for small images: 6n+2 layers, three stages of n blocks."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxnorm.conv.convolution import Conv
from jaxnorm.interop import TorchLayer
from jaxnorm.study.models import torch_layers

Weights = Literal["torch", "he"]


class NormBuilder(Protocol):
    """Builds one normalization layer: a Flax module that is applied to an NHWC array. Must be hashable.

    Its attribute `activation`, if it has one that is not None, builds a layer that takes the place of norm and ReLU.
    """

    def __call__(self, *, train: bool, axis_name: str | None, dtype: Any, name: str) -> nn.Module:
        """Builds the layer.

        Args:
            train: True in training, False in evaluation.
            axis_name: Mapped axis over which to combine statistics, or None.
            dtype: Dtype of the computation, or None.
            name: The layer's name in its parent.

        Returns:
            The layer.
        """
        ...


class ConvBuilder(Protocol):
    """Builds one convolution: `nn.Conv`, or what takes the same arguments. Must be hashable."""

    def __call__(
        self,
        features: int,
        kernel_size: tuple[int, int],
        *,
        strides: tuple[int, int],
        padding: int,
        dtype: Any,
        kernel_init: nn.initializers.Initializer,
        bias_init: nn.initializers.Initializer,
        name: str,
    ) -> nn.Module:
        """Builds the layer.

        Args:
            features: Output channels.
            kernel_size: Height and width.
            strides: Along height and width.
            padding: Pixels on every side.
            dtype: Dtype of the computation, or None.
            kernel_init: Initializer of the weights.
            bias_init: Initializer of the bias.
            name: The layer's name in its parent.

        Returns:
            The layer, a Flax module that is applied to an NHWC array.
        """
        ...


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for weights and biases of convolutions and dense layers.

    Args:
        fan_in: inputs of one output.

    Returns:
        The initializer.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        # Drawn flat: XLA compiles the generator for four axes ten times more slowly than for one.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def he_normal(fan_in: int) -> nn.initializers.Initializer:
    """N(0, 2/fan_in): keeps the variance of activations through ReLUs (He et al. 2015, arXiv 1502.01852).

    Args:
        fan_in: inputs of one output.

    Returns:
        The initializer.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape) * (2 / fan_in) ** 0.5

    return init


def initializers(weights: Weights, fan_in: int) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
    """Initializers of a layer's weights and bias.

    Args:
        weights: "torch", as in the original paper, or "he", with biases of zero.
        fan_in: inputs of one output.

    Returns:
        The two initializers.
    """
    if weights == "torch":
        return uniform(fan_in), uniform(fan_in)
    return he_normal(fan_in), nn.initializers.zeros


def _conv(
    build: ConvBuilder, x: jax.Array, features: int, kernel_size: int, strides: int, *, weights: Weights, **fields: Any
) -> jax.Array:
    """A convolution of the original paper: one pixel of padding on every side of a 3x3, none at a 1x1, with a bias."""
    kernel_init, bias_init = initializers(weights, kernel_size**2 * x.shape[-1])
    layer = build(
        features,
        (kernel_size, kernel_size),
        strides=(strides, strides),
        padding=kernel_size // 2,
        kernel_init=kernel_init,
        bias_init=bias_init,
        **fields,
    )
    return layer(x)


def _norm(
    build: NormBuilder | None, x: jax.Array, activation: Callable[[jax.Array], jax.Array] | None = None, **fields: Any
) -> jax.Array:
    """The normalized input; with an `activation` that as well, unless the layer takes its place."""
    included = getattr(build, "activation", None)
    if activation is not None and included is not None:
        return _norm(included, x, **fields)
    y = x if build is None else build(**fields)(x)
    return y if activation is None else activation(y)


class Block(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)); the shortcut is 1x1 conv and norm where the shape changes.

    Attributes:
        num_filters: output channels.
        strides: of the first convolution and the shortcut.
        norm: builds each normalization layer; None leaves normalization out.
        conv: builds each convolution.
        weights: initial ones, see `initializers`.
        activation: in place of relu.
        axis_name: mapped axis over which the norms combine their statistics, or None.
        dtype: of the computation; None infers it from the input and parameters.
    """

    num_filters: int
    strides: int = 1
    norm: NormBuilder | None = None
    conv: ConvBuilder = Conv
    weights: Weights = "torch"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block.

        Args:
            x: (N, H, W, C).
            train: Passed to the norms alone.

        Returns:
            (N, H/strides, W/strides, num_filters).
        """
        norm = functools.partial(_norm, self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        conv = functools.partial(_conv, self.conv, weights=self.weights, dtype=self.dtype)
        y = conv(x, self.num_filters, 3, self.strides, name="conv1")
        y = norm(y, self.activation, name="norm1")
        y = conv(y, self.num_filters, 3, 1, name="conv2")
        y = norm(y, name="norm2")
        shortcut = x
        if self.strides != 1 or x.shape[-1] != self.num_filters:
            shortcut = conv(x, self.num_filters, 1, self.strides, name="conv_proj")
            shortcut = norm(shortcut, name="norm_proj")
        return self.activation(y + shortcut)


class ResNet(nn.Module):
    """Residual network of 6n+2 layers: logits = dense(mean over H,W of relu(... blocks(relu(norm(conv(x)))))).

    A 3x3 stem, three stages of `num_blocks` blocks with `num_filters`, twice and four times as many channels, stride 2
    at the entry of the second and third, global average pooling, one dense layer. Every convolution has a bias, and
    3x3 ones are padded by one pixel on every side, as in the original paper "Normalizations in Deep Learning". The
    initial weights of layers of the same name depend on the key alone, so all variants of one seed start alike.

    Attributes:
        num_blocks: blocks per stage, n; 2 gives 14 layers.
        norm: builds each normalization layer, for example ``NORMS["gn"]``; None leaves normalization out.
        conv: builds each convolution: `jaxnorm.Conv`, `nn.Conv`, or what takes the same arguments.
        num_classes: number of logits.
        num_filters: channels of the first stage.
        weights: initial ones: "torch" for all uniform within 1/sqrt(fan_in), "he" for N(0, 2/fan_in) and biases of 0.
        activation: in place of relu, such as `nn.silu`, whose gradient has no jump.
        axis_name: mapped axis over which the norms combine their statistics, or None.
        dtype: of the computation; None infers it from the input and parameters (float32).

    References:
        He et al. 2016, arXiv 1512.03385, section 4.2.

    Examples:
        >>> import jax
        >>> from jaxnorm import NORMS, ResNet
        >>> model = ResNet(num_blocks=2, norm=NORMS["gn"])
        >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)), train=False)
        >>> sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        175818
    """

    num_blocks: int = 2
    norm: NormBuilder | None = None
    conv: ConvBuilder = Conv
    num_classes: int = 10
    num_filters: int = 16
    weights: Weights = "torch"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the network. The pooled features, (N, 4 * num_filters), are sown as ``intermediates/pooled``.

        Args:
            x: Images, (N, H, W, C), with the data's mean subtracted.
            train: Passed to the norms alone.

        Returns:
            Logits, (N, num_classes).
        """
        x = _conv(self.conv, x, self.num_filters, 3, 1, weights=self.weights, dtype=self.dtype, name="stem_conv")
        fields: dict[str, Any] = dict(train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = _norm(self.norm, x, self.activation, **fields, name="stem_norm")
        for stage in range(3):
            for block in range(self.num_blocks):
                x = Block(
                    num_filters=self.num_filters * 2**stage,
                    strides=2 if stage > 0 and block == 0 else 1,
                    norm=self.norm,
                    conv=self.conv,
                    weights=self.weights,
                    activation=self.activation,
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

    @nn.nowrap  # or Flax would take the norm that it builds for a submodule
    def torch_layers(self) -> list[TorchLayer]:
        """All layers and their names in PyTorch, for `jaxnorm.interop`.

        Returns:
            The layers, in the order of the forward pass.
        """
        return torch_layers.of_resnet(self)


class ResNet14(ResNet):
    """The network of the original paper: `ResNet` with two blocks a stage, 14 layers; attributes as there.

    Attributes:
        num_blocks: blocks per stage.

    Examples:
        >>> import jax
        >>> from jaxnorm import NORMS, ResNet14
        >>> model = ResNet14(norm=NORMS["bn"])
        >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 3)), train=False)
        >>> sorted(variables)
        ['batch_stats', 'params']
    """

    num_blocks: int = 2
