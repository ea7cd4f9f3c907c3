"""Time of each layer's forward and backward pass beside flax.linen's, in one process: python benchmarks/norm_layers.py

Both layers take turns, round by round, and the ratio is the median over rounds of ours / flax's in the same round, so
that whatever else the machine does falls on both. Flax has no batch-instance norm: its batch norm and instance norm,
mixed by the same gate, stand in. Takes about two minutes on two CPU cores."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
from flax import linen as nn
from rich.console import Console
from rich.table import Table

from jaxnorm import norms as ours

SHAPES = ((128, 32, 32, 16), (128, 8, 8, 64), (8, 32, 32, 16))
WIDE = (16, 512, 768)
"""Sixteen texts of 512 tokens: where a layer norm over the last axis is mostly met."""


class FlaxBatchInstanceNorm(nn.Module):
    """What a flax user would write: both of flax's layers, mixed by the gate."""

    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.param("gate", nn.initializers.ones, x.shape[-1:])
        batch = nn.BatchNorm(self.use_running_average, use_scale=False, use_bias=False)(x)
        instance = nn.InstanceNorm(use_scale=False, use_bias=False)(x)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        return scale * (gate * batch + (1 - gate) * instance) + self.param("bias", nn.initializers.zeros, x.shape[-1:])


PAIRS: dict[str, tuple[nn.Module, nn.Module]] = {
    "BatchNorm": (ours.BatchNorm(False), nn.BatchNorm(False)),
    "InstanceNorm": (ours.InstanceNorm(), nn.InstanceNorm()),
    "LayerNorm": (ours.LayerNorm(), nn.LayerNorm()),
    "LayerNorm (H,W,C)": (ours.LayerNorm(reduction_axes=(1, 2, 3)), nn.LayerNorm(reduction_axes=(1, 2, 3))),
    "GroupNorm": (
        ours.GroupNorm(num_groups=None, group_size=4),
        nn.GroupNorm(num_groups=None, group_size=4),
    ),
    "BatchInstanceNorm": (ours.BatchInstanceNorm(False), FlaxBatchInstanceNorm(False)),
    "BatchNorm, evaluation": (ours.BatchNorm(True), nn.BatchNorm(True)),
}


def forward_backward(layer: nn.Module, x: jax.Array) -> Callable[[], Any]:
    """A compiled call that returns output, new statistics and the gradients with respect to parameters and input."""
    variables = dict(layer.init(jax.random.key(0), x))
    params = variables.pop("params")
    cotangent = jax.random.normal(jax.random.key(2), x.shape, x.dtype)

    def run(params: Any, variables: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        def apply(params: Any, x: jax.Array) -> Any:
            return layer.apply({"params": params, **variables}, x, mutable=["batch_stats"])

        y, pullback, updates = jax.vjp(apply, params, x, has_aux=True)
        return y, updates, pullback(cotangent)

    compiled = jax.jit(run).lower(params, variables, x, cotangent).compile()
    return lambda: jax.block_until_ready(compiled(params, variables, x, cotangent))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(pair: tuple[nn.Module, nn.Module], shape: tuple[int, ...], rounds: int) -> tuple[float, float, float]:
    """Medians in milliseconds of ours and of flax's, and the median ratio."""
    x = jax.random.normal(jax.random.key(1), shape) + 1
    mine, theirs = (forward_backward(layer, x) for layer in pair)
    for call in (mine, theirs, mine, theirs):
        call()
    times: list[tuple[float, float]] = []
    for turn in range(rounds):
        if turn % 2:
            times.append((seconds(mine), seconds(theirs)))
        else:
            times.append((seconds(theirs), seconds(mine))[::-1])  # type: ignore[arg-type]
    own, flax = (statistics.median(column) for column in zip(*times, strict=True))
    return own * 1e3, flax * 1e3, statistics.median(a / b for a, b in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="measurements of each layer (default: 200)")
    parser.add_argument("--layers", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="LAYER")
    args = parser.parse_args()

    device = jax.devices()[0]
    table = Table(title=f"Forward + backward, jax {jax.__version__}, {device.device_kind}", title_justify="left")
    for heading in ("layer", "shape", "ours [ms]", "flax [ms]", "ours / flax"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for name in args.layers:
        for shape in (*SHAPES, WIDE) if name == "LayerNorm" else SHAPES:
            own, flax, ratio = compare(PAIRS[name], shape, args.rounds)
            table.add_row(name, "x".join(map(str, shape)), f"{own:.2f}", f"{flax:.2f}", f"{ratio:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    jnp.zeros(())  # start the backend before the first measurement
    main()
