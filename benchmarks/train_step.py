"""Images per second of one training step: ours, plain flax and PyTorch, in turn: python benchmarks/train_step.py

Each contender lives in a process of its own, so that flags and thread pools of one reach no other, and waits while
another is measured. Round by round all take their turn; a ratio is the median over rounds of ours / theirs in the same
round, its spread the quartiles. The step is forward, backward and SGD on one prepared batch, float32, NHWC (PyTorch:
eager, channels_last, and compiled where that works). All seven variants at both batch sizes take about half an hour on
two CPU cores; --norms bn --batch-sizes 128 a minute and a half.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import roofline  # noqa: E402
from jaxnorm.study.allocator import (  # noqa: E402
    keep_freed_memory,
    release_freed_memory,
    restart_with_large_pages,
)

CONTENDERS = ("jaxnorm", "flax", "torch", "torch compiled")
NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")
WARM_UP = 5.0  # seconds: the first steps of all contenders wait for memory
Step = Callable[[int], float]


def jax_step(norm: str, batch_size: int, plain: bool) -> Step:
    """Seconds of so many steps of the study's own train_step; `plain` with flax's convolution and norms."""
    import flax.linen as nn
    import jax

    from jaxnorm import NORMS as OURS
    from jaxnorm.study.models import resnet
    from jaxnorm.study.training.optimizer import make_optimizer
    from jaxnorm.study.training.step import create_state, train_step

    build: Any = OURS[norm]
    if plain:
        resnet.Conv = nn.Conv  # type: ignore[misc, assignment]
        build = flax_norm(norm)
    state = create_state(resnet.ResNet14(norm=build), make_optimizer(0.1, 10.0, 10, 312), 0, (32, 32, 3))
    image = jax.random.normal(jax.random.key(0), (batch_size, 32, 32, 3))
    label = jax.random.randint(jax.random.key(1), (batch_size,), 0, 10)
    compiled = jax.jit(train_step, donate_argnums=0).lower(state, image, label).compile()

    def run(steps: int) -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(steps):
            state, loss = compiled(state, image, label)
        jax.block_until_ready((state, loss))
        return time.perf_counter() - started

    return run


def flax_norm(norm: str) -> Any:
    """The variant as a flax user builds it."""
    import flax.linen as nn

    from benchmarks.norm_layers import FlaxBatchInstanceNorm
    from jaxnorm.study.registry import Identity

    def build(*, train: bool, axis_name: Any, dtype: Any, name: str) -> nn.Module:  # noqa: ARG001
        match norm:
            case "none":
                return Identity(name=name)
            case "bin":
                return FlaxBatchInstanceNorm(not train, name=name)
            case "in":
                return nn.InstanceNorm(name=name)
            case "ln":
                return nn.LayerNorm(reduction_axes=(1, 2, 3), name=name)
            case "gn":
                return nn.GroupNorm(num_groups=None, group_size=4, name=name)
            case _:
                return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)

    return build


def torch_step(norm: str, batch_size: int, compiled: bool) -> Step:
    """Seconds of so many steps in PyTorch."""
    import torch

    from benchmarks import torch_study

    model = torch_study.ResNet(torch_study.NORMS[norm]).to(memory_format=torch.channels_last).train()
    network = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    image = torch.randn(batch_size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, 10, (batch_size,))

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(image), label).backward()
            optimizer.step()
        return time.perf_counter() - started

    run(1)
    return run


def work(contender: str) -> None:
    """Serves measurements: a line of JSON in, a line of JSON out."""
    steps: dict[tuple[str, int], Step] = {}
    for line in sys.stdin:
        norm, batch_size, count = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if (norm, batch_size) not in steps:
                started = time.perf_counter()
                make = jax_step if contender in ("jaxnorm", "flax") else torch_step
                steps.clear()
                release_freed_memory()
                steps[norm, batch_size] = make(norm, batch_size, contender in ("flax", "torch compiled"))
                keep_freed_memory()  # as the drivers do; in other contenders' processes it does nothing
                answer["prepared"] = time.perf_counter() - started
            steps[norm, batch_size](1)  # after the others' turns
            answer["seconds"] = steps[norm, batch_size](count)
        except Exception as error:
            answer["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(json.dumps(answer), flush=True)


class Worker:
    """A contender's process."""

    def __init__(self, contender: str) -> None:
        self.contender = contender
        command = [sys.executable, __file__, "--worker", contender]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def measure(self, norm: str, batch_size: int, steps: int) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps([norm, batch_size, steps]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def compare(workers: list[Worker], norm: str, batch_size: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Images/s of each contender and ours / theirs, measured in turn."""
    counts: dict[str, int] = {}
    found: dict[str, dict[str, Any]] = {}
    for worker in workers:
        first = worker.measure(norm, batch_size, 2)
        found[worker.contender] = first
        if "error" not in first:
            once = worker.measure(norm, batch_size, 3)["seconds"] / 3
            counts[worker.contender] = max(1, round(seconds / once))
            worker.measure(norm, batch_size, max(1, round(WARM_UP / once)))
    rates: dict[str, list[float]] = {name: [] for name in counts}
    active = [worker for worker in workers if worker.contender in counts]
    for turn in range(rounds):
        for worker in active if turn % 2 else active[::-1]:
            count = counts[worker.contender]
            taken = worker.measure(norm, batch_size, count)["seconds"]
            rates[worker.contender].append(batch_size * count / taken)
    result: dict[str, Any] = {"norm": norm, "batch_size": batch_size, "contenders": {}}
    for name in found:
        entry = {"prepared_seconds": found[name].get("prepared"), "error": found[name].get("error")}
        if name in rates:
            ratios = [ours / theirs for ours, theirs in zip(rates["jaxnorm"], rates[name], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if rounds > 1 else [ratios[0]] * 3
            entry |= {"images_per_second": statistics.median(rates[name]), "ours_over_this": [low, middle, high]}
        result["contenders"][name] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS), metavar="NORM")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 8])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["jaxnorm", "flax", "torch"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--json", type=Path, default=None, help="also write everything there")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "jaxnorm":
            restart_with_large_pages()  # as the drivers do
        work(args.worker)
        return

    from rich.console import Console
    from rich.table import Table

    import jaxnorm  # noqa: F401  (before jax, for the flag that one jaxlib needs)

    contenders = list(dict.fromkeys(["jaxnorm", *args.contenders]))
    if importlib.util.find_spec("torch") is None:
        contenders = [name for name in contenders if not name.startswith("torch")]
        print("PyTorch is not installed, so ours is compared with flax alone: pip install torch")
    import jax

    flops, bandwidth = roofline.peak_flops(), roofline.peak_bytes()
    roof = 1 / max(roofline.step_flops() / flops, roofline.step_bytes() / bandwidth)
    title = (
        f"Training step, images/s; jax {jax.__version__}, Python {platform.python_version()}, "
        f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores; matrix product {flops / 1e9:.0f} "
        f"GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s: room for {roof:.0f} images/s at one pass an operation"
    )
    table = Table(title=title, title_justify="left")
    for heading in (
        "variant",
        "batch",
        *contenders,
        *(f"ours / {name}" for name in contenders[1:]),
        "of roof",
        "ready [s]",
    ):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    workers = [Worker(name) for name in contenders]
    results = []
    for batch_size in args.batch_sizes:
        for norm in args.norms:
            result = compare(workers, norm, batch_size, args.rounds, args.seconds)
            results.append(result)
            cells = result["contenders"]
            ours = cells["jaxnorm"]
            rate = ours.get("images_per_second")
            row = [norm, str(batch_size)]
            row += [
                f"{cells[name]['images_per_second']:.0f}" if "images_per_second" in cells[name] else "failed"
                for name in contenders
            ]
            for name in contenders[1:]:
                low, middle, high = cells[name].get("ours_over_this", [float("nan")] * 3)
                row.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
            row += [f"{100 * rate / roof:.0f} %" if rate else "", f"{ours['prepared_seconds']:.1f}"]
            table.add_row(*row)
            print(f"{norm} at batch {batch_size} measured", file=sys.stderr)
    for worker in workers:
        worker.close()
    Console(width=120).print(table)
    if args.json:
        surroundings = {
            "title": title,
            "peak_flops": flops,
            "peak_bytes": bandwidth,
            "roof": roof,
            "rounds": args.rounds,
            "command": " ".join(sys.argv),
        }
        args.json.write_text(json.dumps({**surroundings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
