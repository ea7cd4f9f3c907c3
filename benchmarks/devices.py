"""What sharing a batch costs, by number of devices: python benchmarks/devices.py

One training step at a fixed batch size over 1, 2, 4 and 8 devices, a process for each count, in turn. On a CPU the
devices are forced ones that share its cores: the time then shows what cutting and joining costs, not what more devices
gain. Beside it the bytes that the compiled step exchanges, read off its program. About five minutes on two CPU cores.
"""

import argparse
import dataclasses
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing

BYTES = {"f32": 4, "s32": 4, "bf16": 2, "pred": 1, "u8": 1, "f64": 8, "s64": 8, "u32": 4}
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def exchanged(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program's text."""
    found: dict[str, int] = {}
    program = re.sub(r"/\*.*?\*/", "", program)
    for shapes, kind in re.findall(rf"= (\(?[^=]*?\)?) ({COLLECTIVES})(?:-start)?\(", program):
        for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = math.prod(int(side) for side in sides.split(",") if side)
            found[kind] = found.get(kind, 0) + count * BYTES.get(dtype, 4)
    return found


def prepared(args: argparse.Namespace) -> tuple[timing.Clock, dict[str, int]]:
    """The clock of a step on so many devices as this worker has, and the bytes it exchanges."""
    from benchmarks.workload import random_images
    from jaxnorm.study.config import Config
    from jaxnorm.study.training.devices import devices_for
    from jaxnorm.study.training.images import on_device
    from jaxnorm.study.training.state import initial_state
    from jaxnorm.study.training.step import epoch_order, train_steps

    config = Config(norm=args.norm, dataset="cifar10", batch_size=args.batch_size, num_epochs=100)
    if args.replicas:
        config = dataclasses.replace(config, bn_statistics="replica", num_replicas=args.replicas)
    dataset = random_images(8 * args.batch_size, 8)
    devices = devices_for(config, args.worker)
    images = on_device(dataset.train, dataset, devices)
    state, order = devices.replicate((initial_state(config, dataset), epoch_order(0, 1, len(dataset.train))))
    step = train_steps.lower(state, images, order, batch_size=args.batch_size).compile()

    def call() -> Any:
        nonlocal state
        state, done = step(state, images, order)
        return done

    return timing.clock(call), exchanged(step.as_text())


def main() -> None:
    parser = timing.parser(__doc__, rounds=7, seconds=0.5)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of devices")
    parser.add_argument("--replicas", type=int, help="take batch statistics by replica, as many as this")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        run, found = prepared(args)
        timing.serve(lambda count: {"seconds": run(count)} if count else {"bytes": found})
        return

    own = ["--norm", args.norm, "--batch-size", str(args.batch_size)]
    own += ["--replicas", str(args.replicas)] if args.replicas else []
    workers = {}
    for count in args.counts:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
        workers[count] = timing.Worker(*own, "--worker", str(count), environment={"XLA_FLAGS": flags})
    sizes = {count: worker.ask(0)["bytes"] for count, worker in workers.items()}
    clocks = {str(count): (lambda steps, ask=worker.ask: ask(steps)["seconds"]) for count, worker in workers.items()}
    taken = timing.in_turn(clocks, rounds=args.rounds, seconds=args.seconds)
    for worker in workers.values():
        worker.close()

    rows, results = [], []
    first = taken[str(args.counts[0])]
    for count, found in sizes.items():
        times = taken[str(count)]
        ratio, middle = timing.over(times, first), timing.quartiles(times)[1]
        results.append({"devices": count, "seconds": middle, "ratio": ratio, "bytes": found, "seconds_by_round": times})
        words = ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.items())) or "none"
        rows.append([str(count), f"{1e3 * middle:.0f}", timing.spread(ratio), words])
    headings = ("devices", "ms", f"over {args.counts[0]}", "bytes exchanged")
    timing.show(
        f"{args.norm}, batch {args.batch_size}, a step by number of devices; {timing.described()}", headings, rows
    )
    timing.keep(args.json, norm=args.norm, batch_size=args.batch_size, replicas=args.replicas, results=results)


if __name__ == "__main__":
    main()
