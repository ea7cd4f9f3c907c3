"""What the training loop adds to its bare step: python benchmarks/epoch.py

One epoch through the real loop, with shuffling, crop and flip, and sums of metrics, beside as many calls of the bare
compiled step on one prepared batch, in turn within one process. Evaluation, quantiles and a checkpoint are lines of
their own. Images are random, of CIFAR-10's shape. About two minutes on two CPU cores.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing
from jaxnorm.study.allocator import share_one_heap


def contenders(args: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    """The calls that are measured: an epoch of bare steps and of the loop's, and what follows an epoch."""
    import jax
    import jax.numpy as jnp

    from benchmarks.workload import random_images
    from jaxnorm.study.config import Config
    from jaxnorm.study.runs.checkpoints import Checkpoints
    from jaxnorm.study.training.evaluation import evaluate
    from jaxnorm.study.training.features import feature_quantiles
    from jaxnorm.study.training.images import on_device
    from jaxnorm.study.training.state import initial_state
    from jaxnorm.study.training.step import epoch_order, train_step, train_steps

    dataset = random_images(args.batch_size * args.steps, 2000)
    config = Config(norm=args.norm, batch_size=args.batch_size, dataset="cifar10")
    images, validation = on_device(dataset.train, dataset), on_device(dataset.validation, dataset)
    state = initial_state(config, dataset)
    order = epoch_order(0, 1, len(dataset.train))
    image, label = images.batch(0, args.batch_size), images.label[: args.batch_size]
    step = jax.jit(train_step, donate_argnums=0)
    checkpoints, saved = Checkpoints(folder / "checkpoints"), 0

    def bare() -> Any:
        nonlocal state
        for _ in range(args.steps):
            state, _ = step(state, image, label)
        return state.params

    def loop() -> Any:
        nonlocal state
        latest = jnp.full((), -1)
        for _ in range(args.steps):
            previous = latest
            state, latest = train_steps(state, images, order, batch_size=args.batch_size)
            int(previous)  # as the loop does
        return state.params

    def save() -> None:
        nonlocal saved
        saved += 1
        checkpoints.save(saved, state.saved, 0.0)

    bare()
    pooled = evaluate(state.model, state.variables, validation)[1]
    return {
        "bare": bare,
        "loop": loop,
        "evaluation": lambda: evaluate(state.model, state.variables, validation)[0],
        "quantiles": functools.partial(feature_quantiles, pooled, config.quantiles),
        "checkpoint": save,
    }


def main() -> None:
    parser = timing.parser(__doc__, rounds=5)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    args = parser.parse_args()
    share_one_heap()  # as the drivers do

    with tempfile.TemporaryDirectory() as folder:
        clocks = {name: timing.clock(call) for name, call in contenders(args, Path(folder)).items()}
        taken = timing.in_turn({name: clocks.pop(name) for name in ("bare", "loop")}, rounds=args.rounds)
        taken |= timing.in_turn(clocks, rounds=args.rounds)
    middle = {name: timing.quartiles(own)[1] for name, own in taken.items()}
    added = [100 * (ratio - 1) for ratio in timing.over(taken["loop"], taken["bare"])]
    rows = [
        ("bare step", f"{1e3 * middle['bare'] / args.steps:.1f} ms"),
        (
            "step of the loop (order, crop and flip, sums, wait for the last but one)",
            f"{1e3 * middle['loop'] / args.steps:.1f} ms",
        ),
        ("the loop over the bare step", f"{added[1]:+.1f} % ({added[0]:+.1f} to {added[2]:+.1f})"),
        ("evaluation of 10,000 images", f"{5 * middle['evaluation']:.2f} s"),
        ("quantiles of 2,000 images' pooled features", f"{middle['quantiles']:.3f} s"),
        ("a checkpoint (written at most each 50 times as long)", f"{middle['checkpoint']:.2f} s"),
    ]
    timing.show(f"{args.norm}, batch {args.batch_size}; {timing.described()}", ("what", "time"), rows)
    found = dict(norm=args.norm, batch_size=args.batch_size, steps=args.steps)
    timing.keep(args.json, **found, seconds=middle, seconds_by_round=taken)


if __name__ == "__main__":
    main()
