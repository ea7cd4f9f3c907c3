"""The names of the ResNet's layers in PyTorch: in the original paper's code, in torchvision and in similar code."""

from typing import Any

from jaxnorm.interop import TorchLayer
from jaxnorm.study.registry import Identity

STAGES = (("blocks_A", "layer1", "stage1"), ("blocks_B", "layer2", "stage2"), ("blocks_C", "layer3", "stage3"))


def of_resnet(network: Any) -> list[TorchLayer]:
    """All layers of a network, in the order of the forward pass.

    Args:
        network: A `ResNet`.

    Returns:
        Paths, names and shapes. The first name is that of the original paper's code.

    Examples:
        >>> from jaxnorm import ResNet14
        >>> layer = of_resnet(ResNet14())[-1]
        >>> layer.path, layer.names, layer.shape
        (('head',), ('fc', 'linear'), (64, 10))
    """
    norm = None if network.norm is None else network.norm(train=False, axis_name=None, dtype=None, name=None)
    layers: list[TorchLayer] = []

    def add(path: tuple[str, ...], names: list[str], shape: tuple[int | None, ...]) -> None:
        layers.append(TorchLayer(path, tuple(names), shape))

    def add_norm(path: tuple[str, ...], names: list[str], channels: int) -> None:
        if norm is not None and not isinstance(norm, Identity):
            layers.append(TorchLayer(path, tuple(names), (channels,), norm))

    channels = network.num_filters
    add(("stem_conv",), ["conv1"], (3, 3, None, channels))
    add_norm(("stem_norm",), ["bn1", "norm1"], channels)
    for stage, names in enumerate(STAGES):
        features = network.num_filters * 2**stage
        for block in range(network.num_blocks):
            path = f"stage{stage + 1}_block{block + 1}"
            prefixes = [f"{name}.{block}" for name in names]
            for number in (1, 2):
                shape = (3, 3, channels if number == 1 else features, features)
                add((path, f"conv{number}"), [f"{prefix}.conv{number}" for prefix in prefixes], shape)
                norm_names = [f"{prefix}.{kind}{number}" for kind in ("bn", "norm") for prefix in prefixes]
                add_norm((path, f"norm{number}"), norm_names, features)
            if channels != features:
                shortcuts = [f"{prefix}.{kind}" for kind in ("shortcut", "downsample") for prefix in prefixes]
                add((path, "conv_proj"), [f"{name}.0" for name in shortcuts], (1, 1, channels, features))
                add_norm((path, "norm_proj"), [f"{name}.1" for name in shortcuts], features)
            channels = features
    add(("head",), ["fc", "linear"], (channels, network.num_classes))
    return layers
