"""Time of each layer's forward and backward pass beside flax.linen's, in one process: python benchmarks/norm_layers.py

Both layers take turns, round by round, and the ratio is the median over rounds of ours / flax's in the same round, so
that whatever else the machine does falls on both. Flax has no batch-instance norm: its batch norm and instance norm,
mixed by the same gate, take its place. About two minutes on two CPU cores.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jaxnorm as ours  # before jax, for the flag that one jaxlib needs

# isort: split
import jax
from flax import linen as nn

from benchmarks import flax_study, timing

SHAPES = ((128, 32, 32, 16), (128, 8, 8, 64), (8, 32, 32, 16))
WIDE = (16, 512, 768)
"""Sixteen texts of 512 tokens: the usual place of a layer norm over the last axis."""
PAIRS: dict[str, tuple[nn.Module, nn.Module]] = {
    "BatchNorm": (ours.BatchNorm(False), nn.BatchNorm(False)),
    "InstanceNorm": (ours.InstanceNorm(), nn.InstanceNorm()),
    "LayerNorm": (ours.LayerNorm(), nn.LayerNorm()),
    "LayerNorm (H,W,C)": (ours.LayerNorm(reduction_axes=(1, 2, 3)), nn.LayerNorm(reduction_axes=(1, 2, 3))),
    "GroupNorm": (
        ours.GroupNorm(num_groups=None, group_size=4),
        nn.GroupNorm(num_groups=None, group_size=4),
    ),
    "BatchInstanceNorm": (ours.BatchInstanceNorm(False), flax_study.BatchInstanceNorm(False)),
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
    return lambda: compiled(params, variables, x, cotangent)


def main() -> None:
    parser = timing.parser(__doc__, rounds=200)
    parser.add_argument("--layers", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="LAYER")
    args = parser.parse_args()

    rows, results = [], []
    for name in args.layers:
        for shape in (*SHAPES, WIDE) if name == "LayerNorm" else SHAPES:
            x = jax.random.normal(jax.random.key(1), shape) + 1
            mine, theirs = (timing.clock(forward_backward(layer, x)) for layer in PAIRS[name])
            taken = timing.in_turn({"jaxnorm": mine, "flax": theirs}, rounds=args.rounds)
            ratio = timing.over(taken["jaxnorm"], taken["flax"])
            results.append({"layer": name, "shape": shape, "ours_over_flax": ratio, "seconds_by_round": taken})
            middle = [f"{1e3 * timing.quartiles(own)[1]:.2f}" for own in taken.values()]
            rows.append([name, "x".join(map(str, shape)), *middle, timing.spread(ratio)])
    headings = ("layer", "shape", "ours [ms]", "flax [ms]", "ours / flax")
    timing.show(f"Forward + backward; {timing.described()}", headings, rows)
    timing.keep(args.json, results=results)


if __name__ == "__main__":
    main()
