"""Largest output error against float64, by mean and layer, beside flax and PyTorch: python benchmarks/numerics.py

Input is float32 with standard deviation 1 around each mean; what rounding to float32 does to it is not counted. The
first table compares batch norms, the second gives every layer at every mean. Takes about half a minute.
"""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console
from rich.table import Table

from jaxnorm import norms as ours

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


def expected(x: np.ndarray, axes: tuple[int, ...], group_size: int = 1) -> np.ndarray:
    """(x - mean) / sqrt(var + epsilon) in float64."""
    shape = x.shape
    values = x.astype(np.float64)
    if group_size > 1:
        values, axes = values.reshape(*shape[:-1], -1, group_size), (*axes, len(shape))
    values = values - values.mean(axes, keepdims=True)
    values -= values.mean(axes, keepdims=True)  # what rounding left of the mean
    return (values / np.sqrt((values**2).mean(axes, keepdims=True) + EPSILON)).reshape(shape)


def build(module: Any, name: str, **fields: Any) -> Layer:
    layer = getattr(module, name.split(" ")[0])(epsilon=EPSILON, **LAYERS[name][0], **fields)
    run = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x)[0])
    return lambda x: np.asarray(run(x))


def torch_layer(name: str, channels: int) -> Layer | None:
    """PyTorch's layer on NHWC arrays, where PyTorch is installed and has one."""
    if importlib.util.find_spec("torch") is None:
        return None
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


def print_table(console: Console, title: str, columns: dict[str, tuple[str, Layer | None]], shape: Any) -> None:
    """Rows: means. Columns: (layer, implementation) and their largest error."""
    table = Table(title=title, title_justify="left")
    table.add_column("mean", justify="right")
    for heading in columns:
        table.add_column(heading, justify="right")
    for mean in MEANS:
        x = (np.random.default_rng(0).normal(size=shape) + mean).astype(np.float32)
        errors = []
        for name, layer in columns.values():
            error = None if layer is None else np.abs(layer(x) - expected(x, *LAYERS[name][1:])).max()
            errors.append("-" if error is None else f"{error:.1e}")
        table.add_row(f"{mean:g}", *errors)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=4, default=(128, 32, 32, 16), metavar=("N", "H", "W", "C"))
    shape = tuple(parser.parse_args().shape)

    console = Console(width=110)
    device = jax.devices()[0]
    console.print(f"Shape {shape}, float32, jax {jax.__version__}, {device.device_kind}")
    print_table(
        console,
        "Batch norm: largest error",
        {
            "jaxnorm": ("BatchNorm", build(ours, "BatchNorm")),
            "jaxnorm, two passes": ("BatchNorm", build(ours, "BatchNorm", use_fast_variance=False)),
            "flax": ("BatchNorm", build(nn, "BatchNorm")),
            "flax, two passes": ("BatchNorm", build(nn, "BatchNorm", use_fast_variance=False)),
            "PyTorch": ("BatchNorm", torch_layer("BatchNorm", shape[-1])),
        },
        shape,
    )
    for name in LAYERS:
        if name != "BatchNorm":
            print_table(
                console,
                f"{name}: largest error",
                {
                    "jaxnorm": (name, build(ours, name)),
                    "flax": (name, build(nn, name)),
                    "PyTorch": (name, torch_layer(name, shape[-1])),
                },
                shape,
            )
    print_mixture(console, shape)


def print_mixture(console: Console, shape: Any) -> None:
    """Batch-instance norm at gate 0.5, which no peer has."""
    layer = ours.BatchInstanceNorm(False, epsilon=EPSILON, gate_init=nn.initializers.constant(0.5))
    run = jax.jit(lambda x: layer.init_with_output(jax.random.key(0), x)[0])
    table = Table("mean", "jaxnorm", title="BatchInstanceNorm, gate 0.5: largest error", title_justify="left")
    for mean in MEANS:
        x = (np.random.default_rng(0).normal(size=shape) + mean).astype(np.float32)
        wanted = 0.5 * expected(x, (0, 1, 2)) + 0.5 * expected(x, (1, 2))
        table.add_row(f"{mean:g}", f"{np.abs(np.asarray(run(jnp.asarray(x))) - wanted).max():.1e}")
    console.print(table)


if __name__ == "__main__":
    main()
