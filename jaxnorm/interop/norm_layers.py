"""Variables of norm layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxnorm.errors import UserError
from jaxnorm.interop.tensors import torch_ready
from jaxnorm.norms import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm

BATCH_NORMS = (BatchNorm, nn.BatchNorm)
INSTANCE_NORMS = (InstanceNorm, nn.InstanceNorm)
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, LayerNorm, nn.LayerNorm, GroupNorm, nn.GroupNorm)


def torch_names(layer: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """The names in PyTorch of a norm layer's variables.

    Args:
        layer: A norm layer.

    Returns:
        For each variable, by collection and name: all names that `norm_from_torch` accepts. `norm_to_torch` writes the
        first, which is PyTorch's own. For `BatchInstanceNorm`, which PyTorch does not have, it is that of the original
        paper's code, whose layer consists of a `batchnorm` and an `instancenorm`.

    Raises:
        UserError: If PyTorch has no such layer.
    """
    if not isinstance(layer, NORMS):
        raise UserError(
            f"PyTorch has a counterpart for {', '.join(sorted({cls.__name__ for cls in NORMS}))} and ResNet, but "
            f"not for {type(layer).__name__}; give one of those"
        )
    names: dict[tuple[str, str], tuple[str, ...]] = {}
    if layer.use_scale:
        names["params", "scale"] = ("weight", "gamma")
    if layer.use_bias:
        names["params", "bias"] = ("bias", "beta")
    if isinstance(layer, BatchInstanceNorm):
        names["params", "gate"] = ("rho", "gate")
    if isinstance(layer, BATCH_NORMS):
        names["batch_stats", "mean"] = ("running_mean", "runningmean")
        names["batch_stats", "var"] = ("running_var", "runningvar")
    if isinstance(layer, BatchInstanceNorm):
        for path, (name, other) in names.items():
            nested = [f"batchnorm.{each}" for each in (other, name)] if path[0] == "batch_stats" else []
            names[path] = (*nested, *((name, other) if path[1] == "gate" else (other, name)))
    return names


def norm_from_torch(
    layer: Any, arrays: Mapping[str, np.ndarray], channels_first: bool, prefix: str
) -> dict[str, dict[str, np.ndarray]]:
    """`from_torch` for a norm layer.

    Args:
        layer: A norm layer.
        arrays: The state dict.
        channels_first: See `from_torch`.
        prefix: Of the layer's names in error messages.

    Returns:
        Flax variables.

    Raises:
        UserError: If the state dict does not fit.
    """
    names = torch_names(layer)
    fix = "give such a layer's state dict, or set use_scale and use_bias as there"
    flat: dict[tuple[str, str], np.ndarray] = {}
    used = set()
    for path, accepted in names.items():
        name = next((name for name in accepted if name in arrays), None)
        if name is None:
            raise UserError(
                f"the state dict must hold {prefix}{accepted[0]} for {type(layer).__name__}, but holds "
                f"{', '.join(sorted(arrays)) or 'nothing'}; {fix}"
            )
        used.add(name)
        flat[path] = np.moveaxis(arrays[name], 0, -1) if channels_first else arrays[name]
    for name in arrays:
        if name in used or _is_unused(layer, name):
            continue
        if name.startswith("running"):
            fix = "a layer with track_running_stats evaluates with running statistics, which this layer never does"
        raise UserError(
            f"the state dict must hold nothing but the variables of {type(layer).__name__}, but holds {prefix}{name}; "
            f"{fix}"
        )
    shapes = {array.shape for array in flat.values()}
    if len(shapes) > 1:
        raise UserError(
            f"the arrays of {prefix.rstrip('.') or type(layer).__name__} must have one shape, but have "
            f"{', '.join(map(str, sorted(shapes)))}; check the state dict"
        )
    return traverse_util.unflatten_dict(flat)


def norm_to_torch(
    layer: Any, variables: Mapping[str, Any], channels_first: bool, num_batches_tracked: int
) -> dict[str, np.ndarray]:
    """`to_torch` for a norm layer.

    Args:
        layer: A norm layer.
        variables: Flax variables.
        channels_first: See `from_torch`.
        num_batches_tracked: See `to_torch`.

    Returns:
        The state dict.

    Raises:
        UserError: If the variables are not those of the layer.
    """
    names = torch_names(layer)
    flat = traverse_util.flatten_dict(dict(variables))
    if set(flat) != set(names):
        raise UserError(
            f"the variables must be those of {type(layer).__name__}, {_joined(names)}, but are {_joined(flat)}; "
            "give what its init or apply returned"
        )
    state_dict = {
        accepted[0]: torch_ready(np.moveaxis(flat[path], -1, 0) if channels_first else flat[path])
        for path, accepted in names.items()
    }
    if isinstance(layer, BatchInstanceNorm):  # whose instance norm has running statistics that it never uses
        shape = state_dict["batchnorm.runningmean"]
        state_dict |= {"instancenorm.runningmean": np.zeros_like(shape), "instancenorm.runningvar": np.ones_like(shape)}
    elif isinstance(layer, BATCH_NORMS):
        state_dict["num_batches_tracked"] = np.array(num_batches_tracked)
    return state_dict


def _is_unused(layer: Any, name: str) -> bool:
    """Whether no evaluation of the layer in PyTorch reads the array."""
    if isinstance(layer, BatchInstanceNorm):
        return name.startswith("instancenorm.") or name.removeprefix("batchnorm.") == "num_batches_tracked"
    # The original paper's instance norm has running statistics that it never uses. PyTorch's evaluates with them.
    unused = ("runningmean", "runningvar") if isinstance(layer, INSTANCE_NORMS) else ()
    return name in ("num_batches_tracked", *unused)


def _joined(paths: Any) -> str:
    return ", ".join(sorted("/".join(path) for path in paths)) or "none"
