"""What the training loop adds to its bare step: python benchmarks/epoch.py

One epoch through the real loop, with shuffling, crop and flip, sums of metrics and checkpoints, beside as many calls of
the bare compiled step on one prepared batch, in turn within one process. Evaluation, quantiles and the checkpoint are
lines of their own. Images are random, of CIFAR-10's shape. About two minutes on two CPU cores.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxnorm.study.allocator import restart_with_large_pages

if __name__ == "__main__":
    restart_with_large_pages()  # as the drivers do, before jax starts its threads

import jaxnorm  # noqa: F401  (before jax, for the flag that one jaxlib needs)

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxnorm.study.config import Config
from jaxnorm.study.data.dataset import Dataset, Split
from jaxnorm.study.runs.checkpoints import Checkpoints
from jaxnorm.study.training.evaluation import evaluate
from jaxnorm.study.training.features import feature_quantiles
from jaxnorm.study.training.loop import initial_state, on_device
from jaxnorm.study.training.step import epoch_order, train_step, train_steps


def random_images(num_train: int, num_validation: int) -> Dataset:
    """Noise of CIFAR-10's shape."""
    draw = np.random.default_rng(0)

    def split(count: int) -> Split:
        image = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
        return Split(image=image, label=draw.integers(0, 10, count).astype(np.int32))

    return Dataset(
        name="cifar10",
        description="noise",
        source="a random generator",
        fingerprint="0" * 64,
        train=split(num_train),
        validation=split(num_validation),
        test=split(8),
        mean=(0.5, 0.5, 0.5),
        pad=4,
        flip=True,
        class_names=tuple("0123456789"),
    )


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None, help="also write everything there")
    args = parser.parse_args()

    dataset = random_images(args.batch_size * args.steps, 2000)
    config = Config(norm=args.norm, batch_size=args.batch_size, dataset="cifar10")
    images, validation = on_device(dataset.train, dataset), on_device(dataset.validation, dataset)
    state = initial_state(config, dataset)
    order = epoch_order(0, 1, len(dataset.train))
    image, label = images.batch(0, args.batch_size), images.label[: args.batch_size]
    bare = jax.jit(train_step, donate_argnums=0)

    def bare_steps() -> Any:
        nonlocal state
        for _ in range(args.steps):
            state, _ = bare(state, image, label)
        return state.params

    def loop_steps() -> Any:
        nonlocal state
        latest = jnp.full((), -1)
        for _ in range(args.steps):
            previous = latest
            state, latest = train_steps(state, images, order, batch_size=args.batch_size)
            int(previous)  # as the loop does
        return state.params

    for call in (bare_steps, loop_steps):
        call()
    times = [(seconds(bare_steps), seconds(loop_steps)) for _ in range(args.rounds)]
    own, loop = (statistics.median(column) / args.steps for column in zip(*times, strict=True))
    ratios = sorted(b / a for a, b in times)
    logits, pooled = evaluate(state.model, state.variables, validation)
    evaluation = seconds(lambda: evaluate(state.model, state.variables, validation)[0])
    quantiles = seconds(lambda: feature_quantiles(pooled, config.quantiles))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder) / "checkpoints")
        checkpoints.save(1, state.numbers, 0.0)
        saving = seconds(lambda: checkpoints.save(2, state.numbers, 0.0))
    device = jax.devices()[0].device_kind
    table = Table(title=f"{args.norm}, batch {args.batch_size}, jax {jax.__version__}, {device}", title_justify="left")
    table.add_column("what")
    table.add_column("time", justify="right")
    table.add_row("bare step", f"{1e3 * own:.1f} ms")
    table.add_row("step of the loop (order, crop and flip, sums, wait for the last but one)", f"{1e3 * loop:.1f} ms")
    spread = f"{100 * (ratios[0] - 1):+.1f} to {100 * (ratios[-1] - 1):+.1f}"
    table.add_row("the loop over the bare step", f"{100 * (statistics.median(ratios) - 1):+.1f} % ({spread})")
    table.add_row("evaluation of 10,000 images", f"{evaluation * 10_000 / len(logits):.2f} s")
    table.add_row("quantiles of their pooled features", f"{quantiles:.3f} s")
    table.add_row("a checkpoint (written at most each 50 times as long)", f"{saving:.2f} s")
    Console(width=110).print(table)
    if args.json:
        found = dict(bare=own, loop=loop, ratios=ratios, evaluation=evaluation, quantiles=quantiles, checkpoint=saving)
        args.json.write_text(json.dumps({**found, **vars(args), "json": str(args.json)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
