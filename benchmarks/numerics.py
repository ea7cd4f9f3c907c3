"""Largest output error against float64, by mean and layer, beside flax and PyTorch: python benchmarks/numerics.py

Input is float32 with standard deviation 1 around each mean; what rounding to float32 does to it is not counted. The
first table compares batch norms, the others give every layer. About half a minute.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jaxnorm as ours  # before jax, for the flag that one jaxlib needs

# isort: split
import jax
import numpy as np
from flax import linen as nn

from benchmarks import timing

MEANS = (0.0, 1.0, 10.0, 1e2, 1e3, 1e4, 1e5)
EPSILON = 1e-5
LAYERS: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
    "BatchNorm": (dict(use_running_average=False), (0, 1, 2), 1),
    "InstanceNorm": ({}, (1, 2), 1),
    "LayerNorm": ({}, (3,), 1),
    "LayerNorm (H,W,C)": (dict(reduction_axes=(1, 2, 3)), (1, 2, 3), 1),
    "GroupNorm": (dict(num_groups=None, group_size=4), (1, 2), 4),
}
"""Fields of each layer, the axes it reduces and, for group norm, how many channels together."""
Layer = Callable[[np.ndarray], np.ndarray]


def normalized(x: np.ndarray, axes: tuple[int, ...], group_size: int = 1) -> np.ndarray:
    """(x - mean) / sqrt(var + epsilon) in float64."""
    shape = x.shape
    values = x.astype(np.float64)
    if group_size > 1:
        values, axes = values.reshape(*shape[:-1], -1, group_size), (*axes, len(shape))
    values = values - values.mean(axes, keepdims=True)
    values -= values.mean(axes, keepdims=True)  # what rounding left of the mean
    return (values / np.sqrt((values**2).mean(axes, keepdims=True) + EPSILON)).reshape(shape)


def jax_layer(layer: nn.Module) -> Layer:
    """A layer on NHWC arrays, with its initial variables."""
    run = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x)[0])
    return lambda x: np.asarray(run(x))


def build(module: Any, name: str, **fields: Any) -> Layer:
    """The layer of a library in JAX."""
    return jax_layer(getattr(module, name.split(" ")[0])(epsilon=EPSILON, **LAYERS[name][0], **fields))


def torch_layer(name: str, channels: int) -> Layer:
    """PyTorch's layer on NHWC arrays."""
    import torch

    layers = {
        "BatchNorm": torch.nn.BatchNorm2d(channels, eps=EPSILON),
        "InstanceNorm": torch.nn.InstanceNorm2d(channels, eps=EPSILON),
        "LayerNorm (H,W,C)": torch.nn.GroupNorm(1, channels, eps=EPSILON),
        "GroupNorm": torch.nn.GroupNorm(channels // 4, channels, eps=EPSILON),
    }
    if name == "LayerNorm":
        return lambda x: torch.nn.functional.layer_norm(torch.tensor(x), (channels,), eps=EPSILON).numpy()
    layer = layers[name]
    return lambda x: layer(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()


def compare(title: str, layers: dict[str, Layer], expected: Layer, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Prints and returns each layer's largest error by mean."""
    found: list[dict[str, Any]] = []
    for mean in MEANS:
        x = (np.random.default_rng(0).normal(size=shape) + mean).astype(np.float32)
        wanted = expected(x)
        errors = {name: float(np.abs(layer(x) - wanted).max()) for name, layer in layers.items()}
        found.append({"layer": title, "mean": mean, "largest_error": errors})
    rows = [[f"{row['mean']:g}", *(f"{error:.1e}" for error in row["largest_error"].values())] for row in found]
    timing.show(f"{title}: largest error", ("mean", *layers), rows)
    return found


def main() -> None:
    parser = timing.parser(__doc__)
    parser.add_argument("--shape", type=int, nargs=4, default=(128, 32, 32, 16), metavar=("N", "H", "W", "C"))
    args = parser.parse_args()
    shape = tuple(args.shape)
    has_torch = importlib.util.find_spec("torch") is not None

    print(f"Shape {shape}, float32; {timing.described()}")
    results = []
    for name, (_, axes, group_size) in LAYERS.items():
        layers = {}
        for label, module in (("jaxnorm", ours), ("flax", nn)):
            layers[label] = build(module, name)
            if name == "BatchNorm":
                layers[f"{label}, two passes"] = build(module, name, use_fast_variance=False)
        if has_torch:
            layers["PyTorch"] = torch_layer(name, shape[-1])
        results += compare(name, layers, lambda x, how=(axes, group_size): normalized(x, *how), shape)
    mixture = ours.BatchInstanceNorm(False, epsilon=EPSILON, gate_init=nn.initializers.constant(0.5))
    results += compare(
        "BatchInstanceNorm, gate 0.5",  # which no other library has
        {"jaxnorm": jax_layer(mixture)},
        lambda x: 0.5 * normalized(x, (0, 1, 2)) + 0.5 * normalized(x, (1, 2)),
        shape,
    )
    timing.keep(args.json, shape=shape, results=results)


if __name__ == "__main__":
    main()
