"""Normalization layers for Flax that can be trusted, and a study of what normalization does to training.

The library (the norm layers, for flax.linen here and for flax.nnx in `jaxnorm.nnx`, their functions in
`jaxnorm.functional`, `Conv` and `jaxnorm.interop`) needs jax and flax only. The study (`train`, `NORMS`,
`ResNet14`, ...) needs the packages of ``pip install "jaxnorm[study]"``; without them its names raise an `ImportError`
that says so. ``from jaxnorm import *`` imports the library's names only.

Public names are loaded when they are first used, so that ``import jaxnorm`` is fast.

Examples:
    >>> from jaxnorm import BatchNorm
    >>> BatchNorm().momentum
    0.99
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from jaxnorm.jaxlib_guard import guard

guard()

# For type checkers. tests/test_packaging.py compares these names with the two tables below.
if TYPE_CHECKING:
    from jaxnorm import functional as functional
    from jaxnorm import interop as interop
    from jaxnorm import nnx as nnx
    from jaxnorm.conv.convolution import Conv as Conv
    from jaxnorm.conv.weight_standardization import ScaledWeightStandardizedConv as ScaledWeightStandardizedConv
    from jaxnorm.conv.weight_standardization import WeightStandardizedConv as WeightStandardizedConv
    from jaxnorm.errors import UserError as UserError
    from jaxnorm.norms import BatchGroupNorm as BatchGroupNorm
    from jaxnorm.norms import BatchInstanceNorm as BatchInstanceNorm
    from jaxnorm.norms import BatchNorm as BatchNorm
    from jaxnorm.norms import BatchRenorm as BatchRenorm
    from jaxnorm.norms import DynamicErf as DynamicErf
    from jaxnorm.norms import DynamicTanh as DynamicTanh
    from jaxnorm.norms import EvoNormB0 as EvoNormB0
    from jaxnorm.norms import EvoNormS0 as EvoNormS0
    from jaxnorm.norms import FilterResponseNorm as FilterResponseNorm
    from jaxnorm.norms import GlobalResponseNorm as GlobalResponseNorm
    from jaxnorm.norms import GroupNorm as GroupNorm
    from jaxnorm.norms import InstanceLayerNorm as InstanceLayerNorm
    from jaxnorm.norms import InstanceNorm as InstanceNorm
    from jaxnorm.norms import IterNorm as IterNorm
    from jaxnorm.norms import LayerNorm as LayerNorm
    from jaxnorm.norms import RMSNorm as RMSNorm
    from jaxnorm.norms import SwitchableNorm as SwitchableNorm
    from jaxnorm.study.cli.from_python import compare as compare
    from jaxnorm.study.config import DEFAULT_NORMS as DEFAULT_NORMS
    from jaxnorm.study.config import PRESETS as PRESETS
    from jaxnorm.study.config import Config as Config
    from jaxnorm.study.data import DATASETS as DATASETS
    from jaxnorm.study.data import load_dataset as load_dataset
    from jaxnorm.study.data import register_dataset as register_dataset
    from jaxnorm.study.data.arrays import dataset_from_arrays as dataset_from_arrays
    from jaxnorm.study.data.folder import dataset_from_folder as dataset_from_folder
    from jaxnorm.study.models.registry import MODELS as MODELS
    from jaxnorm.study.models.registry import register_model as register_model
    from jaxnorm.study.models.resnet import ResNet as ResNet
    from jaxnorm.study.models.resnet import ResNet14 as ResNet14
    from jaxnorm.study.registry import NORMS as NORMS
    from jaxnorm.study.registry import make_norm as make_norm
    from jaxnorm.study.registry import register_norm as register_norm
    from jaxnorm.study.report.folders import read_study as read_study
    from jaxnorm.study.runs.trained import load_run as load_run
    from jaxnorm.study.training.run import train as train
    from jaxnorm.tools.batch_statistics import recompute_statistics as recompute_statistics
    from jaxnorm.tools.folding import fold_batch_norm as fold_batch_norm
    from jaxnorm.tools.norm_table import inspect_norms as inspect_norms

__version__ = "0.1.0"

_LIBRARY = {
    "jaxnorm.conv.convolution": ("Conv",),
    "jaxnorm.conv.weight_standardization": ("ScaledWeightStandardizedConv", "WeightStandardizedConv"),
    "jaxnorm.errors": ("UserError",),
    "jaxnorm.tools.batch_statistics": ("recompute_statistics",),
    "jaxnorm.tools.folding": ("fold_batch_norm",),
    "jaxnorm.tools.norm_table": ("inspect_norms",),
    "jaxnorm.norms": (
        "BatchGroupNorm",
        "BatchInstanceNorm",
        "BatchNorm",
        "BatchRenorm",
        "DynamicErf",
        "DynamicTanh",
        "EvoNormB0",
        "EvoNormS0",
        "FilterResponseNorm",
        "GlobalResponseNorm",
        "GroupNorm",
        "InstanceLayerNorm",
        "InstanceNorm",
        "IterNorm",
        "LayerNorm",
        "RMSNorm",
        "SwitchableNorm",
    ),
}
_STUDY = {
    "jaxnorm.study.config": ("DEFAULT_NORMS", "PRESETS", "Config"),
    "jaxnorm.study.cli.from_python": ("compare",),
    "jaxnorm.study.data": ("DATASETS", "load_dataset", "register_dataset"),
    "jaxnorm.study.data.arrays": ("dataset_from_arrays",),
    "jaxnorm.study.data.folder": ("dataset_from_folder",),
    "jaxnorm.study.models.registry": ("MODELS", "register_model"),
    "jaxnorm.study.models.resnet": ("ResNet", "ResNet14"),
    "jaxnorm.study.registry": ("NORMS", "make_norm", "register_norm"),
    "jaxnorm.study.report.folders": ("read_study",),
    "jaxnorm.study.runs.trained": ("load_run",),
    "jaxnorm.study.training.run": ("train",),
}
_MODULE_OF = {name: module for module, names in {**_LIBRARY, **_STUDY}.items() for name in names}
_MODULES = ("functional", "interop", "nnx")  # not in __all__: a star import would hide flax's nnx
_STUDY_PACKAGES = ("jinja2", "matplotlib", "pandas", "sklearn", "tyro")  # some that jax and flax do not install

__all__ = ["__version__", *sorted(name for names in _LIBRARY.values() for name in names)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxnorm.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULE_OF[name]
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if module in _LIBRARY or (error.name or "").startswith("jaxnorm"):
            raise
        raise ImportError(
            f"jaxnorm.{name} needs the packages of the study, but {error.name} is missing; "
            'run: pip install "jaxnorm[study]"',
            name=error.name,
        ) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # help() and inspect load every name of this list, so it must not contain what cannot be loaded.
    complete = all(importlib.util.find_spec(package) for package in _STUDY_PACKAGES)
    return sorted({*globals(), *_MODULES, *(_MODULE_OF if complete else __all__)})
