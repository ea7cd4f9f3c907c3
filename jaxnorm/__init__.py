"""Normalization layers for Flax that can be trusted, and a study of what normalization does to training.

Public names are loaded when first used, so that importing the package costs nothing:

    >>> from jaxnorm import BatchInstanceNorm, ResNet14, NORMS
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxnorm.jaxlib_guard import guard

guard()

if TYPE_CHECKING:
    from jaxnorm.conv.convolution import Conv as Conv
    from jaxnorm.errors import UserError as UserError
    from jaxnorm.norms import BatchInstanceNorm as BatchInstanceNorm
    from jaxnorm.norms import BatchNorm as BatchNorm
    from jaxnorm.norms import GroupNorm as GroupNorm
    from jaxnorm.norms import InstanceNorm as InstanceNorm
    from jaxnorm.norms import LayerNorm as LayerNorm
    from jaxnorm.study.config import DEFAULT_NORMS as DEFAULT_NORMS
    from jaxnorm.study.config import PRESETS as PRESETS
    from jaxnorm.study.config import Config as Config
    from jaxnorm.study.models.resnet import ResNet as ResNet
    from jaxnorm.study.models.resnet import ResNet14 as ResNet14
    from jaxnorm.study.registry import NORMS as NORMS
    from jaxnorm.study.registry import make_norm as make_norm
    from jaxnorm.study.registry import register_norm as register_norm
    from jaxnorm.study.training.run import train as train

__version__ = "0.1.0"

_HOMES = {
    "DEFAULT_NORMS": "jaxnorm.study.config",
    "PRESETS": "jaxnorm.study.config",
    "Config": "jaxnorm.study.config",
    "UserError": "jaxnorm.errors",
    "Conv": "jaxnorm.conv.convolution",
    "ResNet": "jaxnorm.study.models.resnet",
    "ResNet14": "jaxnorm.study.models.resnet",
    "BatchInstanceNorm": "jaxnorm.norms",
    "BatchNorm": "jaxnorm.norms",
    "GroupNorm": "jaxnorm.norms",
    "InstanceNorm": "jaxnorm.norms",
    "LayerNorm": "jaxnorm.norms",
    "NORMS": "jaxnorm.study.registry",
    "make_norm": "jaxnorm.study.registry",
    "register_norm": "jaxnorm.study.registry",
    "train": "jaxnorm.study.training.run",
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
