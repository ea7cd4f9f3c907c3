"""Normalization layers for Flax that can be trusted, and a study of what normalization does to training.

Public names are loaded when first used, so that importing the package costs nothing:

    >>> from jaxnorm import BatchInstanceNorm, ResNet14, NORMS
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxnorm.jaxlib_guard import guard

guard()

if TYPE_CHECKING:
    from jaxnorm.config import DEFAULT_NORMS as DEFAULT_NORMS
    from jaxnorm.config import PRESETS as PRESETS
    from jaxnorm.config import Config as Config
    from jaxnorm.errors import UserError as UserError
    from jaxnorm.models.convolution import Conv as Conv
    from jaxnorm.models.resnet import ResNet as ResNet
    from jaxnorm.models.resnet import ResNet14 as ResNet14
    from jaxnorm.norms.layers import BatchInstanceNorm as BatchInstanceNorm
    from jaxnorm.norms.layers import BatchNorm as BatchNorm
    from jaxnorm.norms.layers import GroupNorm as GroupNorm
    from jaxnorm.norms.layers import InstanceNorm as InstanceNorm
    from jaxnorm.norms.layers import LayerNorm as LayerNorm
    from jaxnorm.norms.registry import NORMS as NORMS
    from jaxnorm.norms.registry import make_norm as make_norm
    from jaxnorm.norms.registry import register_norm as register_norm
    from jaxnorm.training.loop import train as train

__version__ = "0.1.0"

_HOMES = {
    "DEFAULT_NORMS": "jaxnorm.config",
    "PRESETS": "jaxnorm.config",
    "Config": "jaxnorm.config",
    "UserError": "jaxnorm.errors",
    "Conv": "jaxnorm.models.convolution",
    "ResNet": "jaxnorm.models.resnet",
    "ResNet14": "jaxnorm.models.resnet",
    "BatchInstanceNorm": "jaxnorm.norms.layers",
    "BatchNorm": "jaxnorm.norms.layers",
    "GroupNorm": "jaxnorm.norms.layers",
    "InstanceNorm": "jaxnorm.norms.layers",
    "LayerNorm": "jaxnorm.norms.layers",
    "NORMS": "jaxnorm.norms.registry",
    "make_norm": "jaxnorm.norms.registry",
    "register_norm": "jaxnorm.norms.registry",
    "train": "jaxnorm.training.loop",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
