"""Variables of whole networks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flax import linen as nn
from flax import traverse_util

from jaxnorm.errors import UserError
from jaxnorm.interop.norm_layers import norm_from_torch, norm_to_torch, torch_names
from jaxnorm.interop.tensors import torch_ready

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TorchLayer:
    """One layer of a network, and its names in PyTorch.

    Attributes:
        path: Names of the modules in Flax, from the outermost.
        names: Prefixes of the layer's keys in a state dict. `from_torch` accepts all; `to_torch` writes the first.
        shape: Shape of the kernel in Flax, (H, W, in, out) or (in, out); of a norm layer, (channels,). None in place
            of a length accepts any.
        norm: The norm layer; None for a convolution or a dense layer with bias.

    Examples:
        >>> TorchLayer(("head",), ("fc", "linear"), (64, 10)).names[0]
        'fc'
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    shape: tuple[int | None, ...]
    norm: nn.Module | None = None


@runtime_checkable
class TorchNetwork(Protocol):
    """A Flax module that knows the names of its layers in PyTorch."""

    def torch_layers(self) -> Sequence[TorchLayer]:
        """All layers that have variables.

        Returns:
            The layers, in any order.
        """
        ...


def network_from_torch(network: TorchNetwork, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`from_torch` for a network.

    Args:
        network: It names its layers.
        arrays: The state dict.

    Returns:
        Flax variables.

    Raises:
        UserError: If the state dict does not fit.
    """
    layers = network.torch_layers()
    arrays_of: dict[Path, dict[str, np.ndarray]] = {layer.path: {} for layer in layers}
    by_name = {name: layer.path for layer in layers for name in layer.names}
    for key, value in arrays.items():
        name = next((name for name in by_name if key.startswith(f"{name}.")), None)
        if name is None:
            raise UserError(
                f"a state dict for this {type(network).__name__} must hold nothing but layers such as "
                f"{layers[0].names[0]} and {layers[-1].names[0]}, but holds {key!r}; rename the key, or construct the "
                "network as it was in PyTorch"
            )
        arrays_of[by_name[name]][key.removeprefix(f"{name}.")] = value
    flat: dict[Path, np.ndarray] = {}
    for layer in layers:
        found, name = arrays_of[layer.path], layer.names[0]
        if not found:
            raise UserError(
                f"the state dict must hold {name}, here {'/'.join(layer.path)}, but does not; give the state dict of "
                f"such a {type(network).__name__}"
            )
        if layer.norm is None:
            variables = {"params": _kernel_and_bias(found, name)}
        else:
            variables = norm_from_torch(layer.norm, found, True, f"{name}.")
        for (collection, leaf), value in traverse_util.flatten_dict(variables).items():
            flat[collection, *layer.path, leaf] = value
            _check_shape(layer, leaf, value)
    return traverse_util.unflatten_dict(flat)


def network_to_torch(
    network: TorchNetwork, variables: Mapping[str, Any], num_batches_tracked: int
) -> dict[str, np.ndarray]:
    """`to_torch` for a network.

    Args:
        network: It names its layers.
        variables: Flax variables.
        num_batches_tracked: See `to_torch`.

    Returns:
        The state dict.

    Raises:
        UserError: If the variables are not those of the network.
    """
    flat = traverse_util.flatten_dict(
        {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    )
    layers = network.torch_layers()
    expected = {(collection, *layer.path, leaf) for layer in layers for collection, leaf in _leaves(layer)}
    for path in sorted(expected ^ flat.keys()):
        raise UserError(
            f"the variables must be those of the network, but {'lack' if path in expected else 'hold'} "
            f"{'/'.join(path)}; give what its init or a training returned"
        )
    state_dict: dict[str, np.ndarray] = {}
    for layer in layers:
        found: dict[str, dict[str, Any]] = {}
        for collection, leaf in _leaves(layer):
            value = found.setdefault(collection, {})[leaf] = flat[collection, *layer.path, leaf]
            _check_shape(layer, leaf, value)
        if layer.norm is None:
            kernel, bias = found["params"]["kernel"], found["params"]["bias"]
            arrays = {"weight": np.moveaxis(kernel, (-1, -2), (0, 1)), "bias": bias}
            arrays = {name: torch_ready(array) for name, array in arrays.items()}
        else:
            arrays = norm_to_torch(layer.norm, found, True, num_batches_tracked)
        state_dict |= {f"{layer.names[0]}.{name}": array for name, array in arrays.items()}
    return state_dict


def _leaves(layer: TorchLayer) -> list[tuple[str, str]]:
    return [("params", "kernel"), ("params", "bias")] if layer.norm is None else list(torch_names(layer.norm))


def _kernel_and_bias(found: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    if set(found) != {"weight", "bias"} or found["weight"].ndim < 2:
        raise UserError(
            f"{name} must have a weight of 2 or more axes and a bias, but has "
            f"{', '.join(f'{key} {value.shape}' for key, value in found.items())}; check the state dict"
        )
    return {"kernel": np.moveaxis(found["weight"], (0, 1), (-1, -2)), "bias": found["bias"]}


def _check_shape(layer: TorchLayer, leaf: str, array: np.ndarray) -> None:
    expected = layer.shape if leaf == "kernel" else layer.shape[-1:]
    if len(array.shape) != len(expected) or any(
        length not in (None, found) for length, found in zip(expected, array.shape, strict=True)
    ):
        wanted = f"({', '.join('any' if length is None else str(length) for length in expected)})"
        raise UserError(
            f"{'/'.join((*layer.path, leaf))} must have shape {wanted}, but has {array.shape}; construct the network "
            "as it was in PyTorch"
        )
