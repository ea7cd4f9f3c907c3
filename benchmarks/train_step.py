"""Images per second of one training step: ours, plain flax and PyTorch, in turn: python benchmarks/train_step.py

Each contender has a process of its own, so that its flags and threads reach no other, and waits while another is
measured. A ratio is the median over rounds of ours / theirs in the same round, its spread the quartiles. The step is
forward, backward and SGD on one prepared batch, float32, NHWC (PyTorch: eager, channels_last, and compiled where that
works). All seven variants at both batch sizes take about half an hour on two CPU cores; --norms bn --batch-sizes 128 a
minute and a half.
"""

import argparse
import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import roofline, timing
from jaxnorm.study.allocator import keep_freed_memory, release_freed_memory, share_one_heap

CONTENDERS = ("jaxnorm", "flax", "torch", "torch compiled")
NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn")
WARM_UP = 5.0  # seconds: the first steps of all contenders wait for memory


def jax_step(norm: str, batch_size: int, plain: bool) -> timing.Clock:
    """The study's own step; `plain` with Flax's convolutions and norms."""
    from benchmarks import flax_study, workload
    from jaxnorm import NORMS as OURS
    from jaxnorm import ResNet14

    model = flax_study.resnet(norm) if plain else ResNet14(norm=OURS[norm])
    return timing.clock(workload.bare_step(model, batch_size)[0])


def torch_step(norm: str, batch_size: int, compiled: bool) -> timing.Clock:
    """The same step in PyTorch."""
    import torch

    from benchmarks import torch_study

    model = torch_study.ResNet(torch_study.NORMS[norm]).to(memory_format=torch.channels_last).train()
    network = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    image = torch.randn(batch_size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, 10, (batch_size,))

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(image), label).backward()
            optimizer.step()
        return time.perf_counter() - started

    run(1)  # compiles
    return run


def answerer(contender: str) -> Callable[[Any], dict[str, Any]]:
    """How a contender's process answers: it prepares a [norm, batch size], or measures so many steps of it."""
    make = {
        "jaxnorm": functools.partial(jax_step, plain=False),
        "flax": functools.partial(jax_step, plain=True),
        "torch": functools.partial(torch_step, compiled=False),
        "torch compiled": functools.partial(torch_step, compiled=True),
    }[contender]
    run: timing.Clock | None = None

    def answer(request: Any) -> dict[str, Any]:
        nonlocal run
        if isinstance(request, list):
            started = time.perf_counter()
            run = None
            release_freed_memory()
            run = make(*request)
            keep_freed_memory()  # as the drivers do; in other contenders' processes it does nothing
            prepared = time.perf_counter() - started
            run(1)  # a contender that cannot take a step fails here
            return {"prepared": prepared}
        assert run is not None
        run(1)  # after the others' turns
        return {"seconds": run(request)}

    return answer


def compare(workers: dict[str, timing.Worker], norm: str, batch_size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Images/s of each contender and ours / theirs."""
    prepared = {name: worker.ask([norm, batch_size]) for name, worker in workers.items()}

    def clock(name: str) -> timing.Clock:
        return lambda count: workers[name].ask(count)["seconds"]

    able = {name: clock(name) for name in workers if "error" not in prepared[name]}
    taken = timing.in_turn(able, rounds=args.rounds, seconds=args.seconds, warm_up=WARM_UP)
    contenders: dict[str, Any] = {}
    for name in workers:
        entry = {"prepared_seconds": prepared[name].get("prepared"), "error": prepared[name].get("error")}
        if name in able:
            rates = [batch_size / seconds for seconds in taken[name]]
            entry["images_per_second"] = timing.quartiles(rates)[1]
            entry["images_per_second_by_round"] = rates
        if name in able and "jaxnorm" in able:
            entry["ours_over_this"] = timing.over(taken[name], taken["jaxnorm"])
        contenders[name] = entry
    return {"norm": norm, "batch_size": batch_size, "contenders": contenders}


def row_of(result: dict[str, Any], roof: float) -> list[str]:
    """A result as the table shows it."""
    contenders = result["contenders"]
    rates = {name: entry.get("images_per_second") for name, entry in contenders.items()}
    return [
        result["norm"],
        str(result["batch_size"]),
        *(f"{rate:.0f}" if rate else "failed" for rate in rates.values()),
        *(
            timing.spread(entry["ours_over_this"]) if "ours_over_this" in entry else ""
            for name, entry in contenders.items()
            if name != "jaxnorm"
        ),
        f"{100 * rates['jaxnorm'] / roof:.0f} %" if rates["jaxnorm"] else "",
        f"{contenders['jaxnorm']['prepared_seconds']:.1f}" if rates["jaxnorm"] else "",
    ]


def main() -> None:
    parser = timing.parser(__doc__, rounds=9, seconds=1.0)
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS), metavar="NORM")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 8])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["jaxnorm", "flax", "torch"])
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker == "jaxnorm":
            share_one_heap()  # as the drivers do
        timing.serve(answerer(args.worker))
        return

    names = list(dict.fromkeys(["jaxnorm", *args.contenders]))
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if not name.startswith("torch")]
        print("PyTorch is not installed, so ours is compared with flax alone: pip install torch")
    flops, bandwidth = roofline.peak_flops(), roofline.peak_bytes()
    roof = 1 / max(roofline.step_flops() / flops, roofline.step_bytes() / bandwidth)
    title = (
        f"Training step, images/s; {timing.described()}; matrix product {flops / 1e9:.0f} GFLOP/s, memory "
        f"{bandwidth / 1e9:.1f} GB/s: at most {roof:.0f} images/s at one pass an operation"
    )
    workers = {name: timing.Worker("--worker", name) for name in names}
    results = []
    for batch_size in args.batch_sizes:
        for norm in args.norms:
            results.append(compare(workers, norm, batch_size, args))
            print(f"{norm} at batch {batch_size} measured", file=sys.stderr)
    for worker in workers.values():
        worker.close()
    headings = ["variant", "batch", *names, *(f"ours / {name}" for name in names[1:]), "of roof", "ready [s]"]
    timing.show(title, headings, [row_of(result, roof) for result in results])
    surroundings = dict(title=title, peak_flops=flops, peak_bytes=bandwidth, roof=roof, rounds=args.rounds)
    timing.keep(args.json, **surroundings, results=results)


if __name__ == "__main__":
    main()
