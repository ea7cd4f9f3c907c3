"""Weights from PyTorch into our layers and the study's network, and back. PyTorch itself is not imported.

    from_torch(layer_or_network, module.state_dict())       -> Flax variables
    to_torch(layer_or_network, variables)                   -> arrays by PyTorch's names

Variables of flax.linen's layers need no conversion: names, shapes and meaning are the same.

What PyTorch does differently:

- **Layout.** Images are (N, C, H, W) there and (N, H, W, C) here. Kernels (out, in, H, W) become (H, W, in, out), dense
  weights (out, in) become (in, out), the parameters of a `LayerNorm` over (C, H, W) become (H, W, C).
- **Momentum** is the weight of the NEW value there and of the OLD one here: 0.1 there is ``momentum=0.9`` here.
- **Running variance.** PyTorch normalizes with the biased variance but averages the unbiased one, each batch's times
  n / (n - 1), where n is the number of values per channel in a training batch. `from_torch` keeps the number, so that
  evaluation gives the same outputs; `biased_variance` and `unbiased_variance` convert it exactly, for a training that
  is to go on as if it had begun here or there.
- **Epsilon** is 1e-5 in all layers there; here it is 1e-5 in `BatchNorm` and 1e-6 elsewhere, as in Flax. It is no
  variable: give it to the layer.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxnorm.errors import UserError
from jaxnorm.norms import BatchInstanceNorm, BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from jaxnorm.study.models.resnet import ResNet
from jaxnorm.study.registry import Identity

BATCH_NORMS = (BatchNorm, nn.BatchNorm)
NORM_LAYERS = (*BATCH_NORMS, InstanceNorm, nn.InstanceNorm, LayerNorm, nn.LayerNorm, GroupNorm, nn.GroupNorm)

# PyTorch's names, and those of the study's own layers.
SCALE, BIAS, MEAN, VAR = (
    ("weight", "gamma"),
    ("bias", "beta"),
    ("running_mean", "runningmean"),
    ("running_var", "runningvar"),
)
GATE = ("rho", "gate")
# Ours: in the study, in torchvision's networks, and in other ones of this family.
STAGES = {"A": 1, "B": 2, "C": 3}
LAYERS = {
    "conv1": "conv1",
    "bn1": "norm1",
    "norm1": "norm1",
    "conv2": "conv2",
    "bn2": "norm2",
    "norm2": "norm2",
    "shortcut.0": "conv_proj",
    "downsample.0": "conv_proj",
    "shortcut.1": "norm_proj",
    "downsample.1": "norm_proj",
}
TOP = {"conv1": "stem_conv", "bn1": "stem_norm", "norm1": "stem_norm", "fc": "head", "linear": "head"}


def from_torch(module: nn.Module, state_dict: Mapping[str, Any], *, channels_first: bool = True) -> dict[str, Any]:
    """Flax variables of `module` with the numbers of a PyTorch state dict.

    Args:
        module: one of our norm layers or of flax.linen's, or a `ResNet`, constructed as it will be used.
        state_dict: of BatchNorm2d, InstanceNorm2d, GroupNorm or LayerNorm (or their 1-D and 3-D kin), or of the
            study's network: tensors on any device, or arrays. The network's layers may be called ``blocks_A.0.conv1``
            and ``shortcut.0`` as in the study's code, or ``layer1.0.conv1`` and ``downsample.0`` as in torchvision; its
            norms may be PyTorch's or the study's own (``gamma``, ``runningmean``, ``rho``).
        channels_first: whether a `LayerNorm` over several axes has the channels first, as (C, H, W).

    Returns:
        ``{"params": ...}`` and, with running statistics, ``"batch_stats"``; NumPy arrays, float32 where PyTorch has
        bfloat16. Evaluation with them gives PyTorch's outputs.

    Raises:
        UserError: naming the first key that is missing, unexpected or of another shape.

    Example:
        >>> names = ("weight", "bias", "running_mean", "running_var")
        >>> variables = from_torch(BatchNorm(use_running_average=True), {name: np.ones(3) for name in names})
        >>> variables["batch_stats"]["var"]
        array([1., 1., 1.])
    """
    arrays = {name: _array(value) for name, value in state_dict.items()}
    if isinstance(module, ResNet):
        return _network_from_torch(module, arrays)
    return _layer_from_torch(module, arrays, channels_first, "")


def to_torch(
    module: nn.Module, variables: Mapping[str, Any], *, channels_first: bool = True, num_batches_tracked: int = 0
) -> dict[str, np.ndarray]:
    """The numbers of Flax variables by PyTorch's names; the inverse of `from_torch`.

    Args:
        module: the layer or `ResNet` that the variables belong to.
        variables: ``{"params": ...}`` and, with running statistics, ``"batch_stats"``.
        channels_first: as for `from_torch`.
        num_batches_tracked: what a BatchNorm2d is told to have seen; only its ``momentum=None`` looks at it.

    Returns:
        Arrays for ``module.load_state_dict({name: torch.from_numpy(array) ...})``. A network's keys are those of the
        study's code, with the names of PyTorch's layers for its norms; a `BatchInstanceNorm`, which PyTorch lacks, has
        the study's names.

    Raises:
        UserError: if the variables are not those of `module`.

    Example:
        >>> variables = {"params": {"scale": np.ones(3), "bias": np.zeros(3)}}
        >>> sorted(to_torch(GroupNorm(num_groups=1), variables))
        ['bias', 'weight']
    """
    if isinstance(module, ResNet):
        return _network_to_torch(module, variables, num_batches_tracked)
    return _layer_to_torch(module, variables, channels_first, num_batches_tracked)


def biased_variance(
    running_var: Any, values_per_channel: int, *, momentum: float = 0.1, num_batches_tracked: int
) -> np.ndarray:
    """The running variance that ours would hold where PyTorch holds `running_var`: r + (v - r) * (n - 1) / n.

    n is `values_per_channel` in every batch of the training, and r = (1 - momentum)^num_batches_tracked the weight that
    is still on the initial variance of 1, which is neither biased nor unbiased.

    Args:
        running_var: PyTorch's, any shape.
        values_per_channel: N * H * W of a training batch; at least 2.
        momentum: PyTorch's, the weight of the new value.
        num_batches_tracked: as in the state dict.

    Raises:
        UserError: if `values_per_channel` is below 2.

    Example:
        >>> float(biased_variance(2.0, 5, num_batches_tracked=1000))
        1.6
    """
    return _rescaled(running_var, values_per_channel, momentum, num_batches_tracked, inverse=False)


def unbiased_variance(
    running_var: Any, values_per_channel: int, *, momentum: float = 0.1, num_batches_tracked: int
) -> np.ndarray:
    """The running variance that PyTorch would hold where ours is `running_var`; the inverse of `biased_variance`.

    Example:
        >>> float(unbiased_variance(1.6, 5, num_batches_tracked=1000))
        2.0
    """
    return _rescaled(running_var, values_per_channel, momentum, num_batches_tracked, inverse=True)


def _rescaled(
    running_var: Any, values_per_channel: int, momentum: float, num_batches_tracked: int, *, inverse: bool
) -> np.ndarray:
    if values_per_channel < 2:
        raise UserError(
            f"an unbiased variance takes at least 2 values per channel, but there is {values_per_channel}; "
            "give N * H * W of a training batch"
        )
    factor = (values_per_channel - 1) / values_per_channel
    initial = (1 - momentum) ** int(num_batches_tracked)
    return initial + (_array(running_var) - initial) * (1 / factor if inverse else factor)


def _layer_from_torch(layer: Any, arrays: Mapping[str, np.ndarray], channels_first: bool, where: str) -> dict[str, Any]:
    _check_layer(layer)
    # The study's batch-instance norm holds a batch norm and an instance norm; the latter's buffers are never used.
    nested = isinstance(layer, BatchInstanceNorm)
    left = {name.removeprefix("batchnorm.") if nested else name: value for name, value in arrays.items()}
    unused = ["num_batches_tracked"]
    if isinstance(layer, InstanceNorm | nn.InstanceNorm):
        # Nor are those of the study's instance norm alone; PyTorch's own evaluates with them, which ours cannot.
        unused += ["runningmean", "runningvar"]
    left = {
        name: value
        for name, value in left.items()
        if name not in unused and not (nested and name.startswith("instancenorm."))
    }

    def take(names: tuple[str, ...]) -> np.ndarray:
        for name in names:
            if name in left:
                return left.pop(name)
        raise UserError(
            f"the state dict must hold {where}{names[0]} for {type(layer).__name__}, but holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}; give such a layer's, or set use_scale and use_bias as there"
        )

    params: dict[str, np.ndarray] = {}
    if layer.use_scale:
        params["scale"] = _channels_last(take(SCALE), channels_first)
    if layer.use_bias:
        params["bias"] = _channels_last(take(BIAS), channels_first)
    if isinstance(layer, BatchInstanceNorm):
        params["gate"] = take(GATE)
    variables: dict[str, Any] = {"params": params} if params else {}
    if isinstance(layer, BATCH_NORMS):
        variables["batch_stats"] = {"mean": take(MEAN), "var": take(VAR)}
    for name in left:
        running = name in (*MEAN, *VAR)
        raise UserError(
            f"the state dict must hold nothing but what {type(layer).__name__} has, but holds {where}{name}; "
            + (
                "a layer with track_running_stats evaluates with running statistics, which this one never does"
                if running
                else "give such a layer's, or set use_scale and use_bias as there"
            )
        )
    shapes = {leaf.shape for leaf in jax.tree.leaves(variables)}
    if len(shapes) > 1:
        raise UserError(
            f"the arrays of {where.rstrip('.') or type(layer).__name__} must have one shape, but have "
            f"{', '.join(map(str, sorted(shapes)))}; check the state dict"
        )
    return variables


def _layer_to_torch(
    layer: Any, variables: Mapping[str, Any], channels_first: bool, num_batches_tracked: int
) -> dict[str, np.ndarray]:
    _check_layer(layer)
    study_s = isinstance(layer, BatchInstanceNorm)
    spelled = int(study_s)
    names = {}
    if layer.use_scale:
        names["params", "scale"] = SCALE[spelled]
    if layer.use_bias:
        names["params", "bias"] = BIAS[spelled]
    if study_s:
        names["params", "gate"] = "rho"
    if isinstance(layer, BATCH_NORMS):
        prefix = "batchnorm." if study_s else ""
        names["batch_stats", "mean"] = prefix + MEAN[spelled]
        names["batch_stats", "var"] = prefix + VAR[spelled]
    flat = traverse_util.flatten_dict(dict(variables))
    if set(flat) != set(names):
        raise UserError(
            f"the variables must be those of {type(layer).__name__}, {_paths(names)}, but are {_paths(flat)}; "
            "give what its init or apply returned"
        )
    # Copies, since torch.from_numpy wants arrays that may be written to.
    state_dict = {names[path]: np.array(_channels_first(_wide(flat[path]), channels_first)) for path in names}
    if isinstance(layer, BATCH_NORMS):
        if study_s:
            for name in ("runningmean", "runningvar"):
                state_dict[f"instancenorm.{name}"] = np.full_like(state_dict[f"batchnorm.{name}"], name == "runningvar")
        else:
            state_dict["num_batches_tracked"] = np.array(num_batches_tracked)
    return state_dict


def _network_from_torch(network: ResNet, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for name, value in arrays.items():
        layer, key = _ours(name)
        grouped.setdefault(layer, {})[key] = value
    norm = _norm_of(network)
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for layer, found in grouped.items():
        if "norm" in layer.rpartition("/")[2]:
            if norm is None:
                raise UserError(
                    f"the network has no normalization, but the state dict holds {layer}; give ResNet its norm"
                )
            variables = _layer_from_torch(norm, found, True, f"{layer}.")
        else:
            variables = {"params": _weights(found, layer)}
        for (collection, leaf), value in traverse_util.flatten_dict(variables).items():
            flat[collection, *layer.split("/"), leaf] = value
    expected = _shapes(network, flat)
    for path in sorted(expected.keys() | flat.keys()):
        if path not in flat:
            raise UserError(
                f"the state dict must hold {_theirs(path[1:-1])}, here {'/'.join(path)}, but does not; give that of "
                "such a network"
            )
        wanted = expected.get(path, "(no such layer)")
        if wanted != flat[path].shape:
            raise UserError(
                f"{'/'.join(path)} must have shape {wanted}, but has {flat[path].shape}; "
                "give ResNet the num_blocks, num_filters and num_classes of the state dict"
            )
    return traverse_util.unflatten_dict(flat)


def _network_to_torch(network: ResNet, variables: Mapping[str, Any], num_batches_tracked: int) -> dict[str, np.ndarray]:
    norm = _norm_of(network)
    layers: dict[tuple[str, ...], dict[str, Any]] = {}
    flat = traverse_util.flatten_dict(
        {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    )
    expected = _shapes(network, flat)
    for path in sorted(expected.keys() ^ flat.keys()):
        raise UserError(
            f"the variables must be those of the network, but {'lack' if path in expected else 'hold'} "
            f"{'/'.join(path)}; give what its init or a training returned"
        )
    for (collection, *layer, leaf), value in flat.items():
        layers.setdefault(tuple(layer), {}).setdefault(collection, {})[leaf] = value
    state_dict: dict[str, np.ndarray] = {}
    for layer, found in layers.items():
        if "norm" in layer[-1]:
            arrays = _layer_to_torch(norm, found, True, num_batches_tracked)
        else:
            kernel = _wide(found["params"]["kernel"])
            weight = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
            arrays = {"weight": np.array(weight), "bias": np.array(_wide(found["params"]["bias"]))}
        state_dict |= {f"{_theirs(layer)}.{name}": array for name, array in arrays.items()}
    return state_dict


def _norm_of(network: ResNet) -> Any:
    """The network's norm layer, None where it has none."""
    if network.norm is None:
        return None
    layer = network.norm(train=False, axis_name=None, dtype=None, name=None)  # type: ignore[arg-type]
    if isinstance(layer, Identity):
        return None
    _check_layer(layer)
    return layer


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, NORM_LAYERS):
        raise UserError(
            f"PyTorch has a counterpart for {', '.join(sorted({cls.__name__ for cls in NORM_LAYERS}))} and ResNet, but "
            f"not for {type(layer).__name__}; give one of those"
        )


def _shapes(network: ResNet, flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[tuple[str, ...], tuple[int, ...]]:
    kernel = flat.get(("params", "stem_conv", "kernel"))
    channels = 3 if kernel is None else kernel.shape[2]
    image = jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32)
    found = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(found).items()}


def _ours(name: str) -> tuple[str, str]:
    """Our layer and the key in it: ("stage1_block1/conv1", "weight") for "blocks_A.0.conv1.weight"."""
    found = re.fullmatch(r"(?:blocks_([ABC])|(?:layer|stage)([123]))\.(\d+)\.(.+)", name)
    top, layers = "", TOP
    rest = name
    if found:
        letter, digit, block, rest = found.groups()
        top, layers = f"stage{digit or STAGES[letter]}_block{int(block) + 1}/", LAYERS
    for theirs, ours in layers.items():
        if rest.startswith(f"{theirs}."):
            return top + ours, rest.removeprefix(f"{theirs}.")
    raise UserError(
        f"the state dict must name its layers as the study does (blocks_A.0.conv1.weight) or as torchvision "
        f"(layer1.0.conv1.weight), but holds {name!r}; rename the key"
    )


def _theirs(layer: tuple[str, ...]) -> str:
    if len(layer) == 1:
        return next(theirs for theirs, ours in TOP.items() if ours == layer[0])
    stage, block = re.fullmatch(r"stage(\d)_block(\d+)", layer[0]).groups()  # type: ignore[union-attr]
    letter = next(letter for letter, number in STAGES.items() if number == int(stage))
    return f"blocks_{letter}.{int(block) - 1}.{next(name for name, ours in LAYERS.items() if ours == layer[1])}"


def _weights(found: dict[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    if set(found) != {"weight", "bias"} or found["weight"].ndim not in (2, 4):
        raise UserError(
            f"{layer} must have a weight of 2 or 4 axes and a bias, but has "
            f"{', '.join(f'{name} {value.shape}' for name, value in found.items())}; check the state dict"
        )
    weight = found["weight"]
    return {"kernel": weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0), "bias": found["bias"]}


def _channels_last(array: np.ndarray, channels_first: bool) -> np.ndarray:
    return np.moveaxis(array, 0, -1) if channels_first else array


def _channels_first(array: np.ndarray, channels_first: bool) -> np.ndarray:
    return np.moveaxis(array, -1, 0) if channels_first else array


def _array(value: Any) -> np.ndarray:
    """A tensor or an array as NumPy's own."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has no bfloat16
    # A copy: PyTorch goes on writing to its own.
    return np.asarray(value).copy()


def _wide(value: Any) -> np.ndarray:
    """An array as NumPy's own, float32 for bfloat16, which torch.from_numpy does not take."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _paths(paths: Any) -> str:
    return ", ".join(sorted("/".join(path) for path in paths)) or "none"
