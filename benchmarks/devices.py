"""What sharing a batch costs, by number of devices: python benchmarks/devices.py

One training step at a fixed batch size over 1, 2, 4 and 8 devices, a process for each count, in turn. On a CPU the
devices are forced ones that share its cores: the time then shows what cutting and joining costs, not what more devices
gain. Beside it the bytes that the compiled step exchanges, read off its program. About five minutes on two CPU cores.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

BYTES = {"f32": 4, "s32": 4, "bf16": 2, "pred": 1, "u8": 1, "f64": 8, "s64": 8, "u32": 4}
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


def exchanged(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program's text."""
    found: dict[str, int] = {}
    program = re.sub(r"/\*.*?\*/", "", program)
    for shapes, kind in re.findall(rf"= (\(?[^=]*?\)?) ({COLLECTIVES})(?:-start)?\(", program):
        for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = 1
            for side in filter(None, sides.split(",")):
                count *= int(side)
            found[kind] = found.get(kind, 0) + count * BYTES.get(dtype, 4)
    return found


def worker(norm: str, batch_size: int, count: int, rounds: int, replicas: int | None) -> None:
    """Measures rounds of steps on `count` devices, each when asked by a line, and prints JSON lines."""
    import dataclasses

    import jax
    from epoch import random_images

    from jaxnorm.study.config import Config
    from jaxnorm.study.training.loop import initial_state, on_device
    from jaxnorm.study.training.parallel import devices_for
    from jaxnorm.study.training.step import epoch_order, train_steps

    config = Config(norm=norm, dataset="cifar10", batch_size=batch_size, num_epochs=100)
    if replicas:
        config = dataclasses.replace(config, bn_statistics="replica", num_replicas=replicas)
    dataset = random_images(8 * batch_size, 8)
    devices = devices_for(config, count)
    images = on_device(dataset.train, dataset, devices)
    state, order = devices.replicate((initial_state(config, dataset), epoch_order(0, 1, len(dataset.train))))
    step = train_steps.lower(state, images, order, batch_size=batch_size).compile()
    for _ in range(2):
        state, done = step(state, images, order)
    jax.block_until_ready(done)
    print(json.dumps(exchanged(step.as_text())), flush=True)
    for _ in range(rounds):
        input()
        started = time.perf_counter()
        for _ in range(3):
            state, done = step(state, images, order)
        jax.block_until_ready(done)
        print(json.dumps((time.perf_counter() - started) / 3), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of devices")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--replicas", type=int, help="take batch statistics by replica, as many as this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.norm, args.batch_size, args.worker, args.rounds, args.replicas)
        return

    started = []
    for count in args.counts:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
        own = [item for item in sys.argv[1:] if not item.startswith("--json")]
        started.append(
            subprocess.Popen(
                [sys.executable, __file__, *own, "--worker", str(count)],
                env={**os.environ, "XLA_FLAGS": flags},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
        )
    bytes_by_count = [json.loads(process.stdout.readline()) for process in started]
    times: list[list[float]] = [[] for _ in started]
    for _ in range(args.rounds):
        for process, own_times in zip(started, times, strict=True):
            process.stdin.write("\n")
            own_times.append(json.loads(process.stdout.readline()))
    for process in started:
        process.communicate()

    table = Table(title=f"{args.norm}, batch {args.batch_size}: one step by number of devices", title_justify="left")
    for heading in ("devices", "ms", "over one device", "bytes exchanged"):
        table.add_column(heading, justify="right")
    results = []
    for count, own_times, found in zip(args.counts, times, bytes_by_count, strict=True):
        ratio = statistics.median(a / b for a, b in zip(own_times, times[0], strict=True))
        middle = statistics.median(own_times)
        results.append({"devices": count, "seconds": middle, "ratio": ratio, "bytes": found})
        words = ", ".join(f"{kind} {number:,}" for kind, number in sorted(found.items())) or "none"
        table.add_row(str(count), f"{1e3 * middle:.0f}", f"{ratio:.2f}", words)
    Console(width=110).print(table)
    if args.json:
        args.json.write_text(json.dumps({"command": " ".join(sys.argv), "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
