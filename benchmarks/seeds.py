"""What training several seeds at once gains, by the way it is done: python benchmarks/seeds.py

One training step of N seeds, each way in turn within one process, round by round: one seed after the other, each a
dispatch of its own ("in turn"); on one device by vmap, by copies of the network in one program, or by a scan; and
spread over the devices, where there are several, each way within a device that holds several. A ratio is the median
over rounds of a way's time over that of "in turn" in the same round, its spread the quartiles: below 1 it gains. Images
are random.

    python benchmarks/seeds.py                                      # about a minute and a half on two CPU cores
    python benchmarks/seeds.py --devices 2                          # CPU devices are forced; they share the cores
    python benchmarks/seeds.py --seeds 8 --batch-sizes 8 128 --steps-per-call 100 --ways all    # an accelerator

A convolution within a loop crawls on CPU, so leave "scan" and --steps-per-call out there.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WAYS = ("vmap", "unroll", "scan")
Steps = Callable[[int], float]


def contender(norm: str, batch_size: int, seeds: int, count: int, way: str | None, num_steps: int) -> Steps:
    """Seconds of so many calls of `num_steps` steps of all seeds: in a team, or in turn where `way` is None."""
    import jax

    from benchmarks.epoch import random_images
    from jaxnorm.study.config import Config
    from jaxnorm.study.training.loop import initial_state, on_device
    from jaxnorm.study.training.parallel import Devices
    from jaxnorm.study.training.step import epoch_order, train_steps
    from jaxnorm.study.training.team import Team, team_for

    dataset = random_images(8 * batch_size, 8)
    configs = [
        Config(norm=norm, dataset="cifar10", batch_size=batch_size, num_epochs=100, seed=seed) for seed in range(seeds)
    ]
    states = [initial_state(config, dataset) for config in configs]
    orders = [epoch_order(config.seed, 1, len(dataset.train)) for config in configs]
    devices: Any = Devices() if way is None else team_for(seeds, count=count, way=way)  # type: ignore[arg-type]
    assert way is None or isinstance(devices, Team)
    images = on_device(dataset.train, dataset, devices)
    # Programs of their own: each is asked for one state, or for the stacked one.
    pairs = list(zip(states, orders, strict=True)) if way is None else [(devices.stack(states), devices.stack(orders))]
    step = train_steps.lower(*pairs[0][:1], images, pairs[0][1], batch_size=batch_size, num_steps=num_steps).compile()

    def run(calls: int) -> float:
        nonlocal pairs
        started = time.perf_counter()
        for _ in range(calls):
            called = [(step(state, images, order), order) for state, order in pairs]
            pairs = [(state, order) for (state, _), order in called]
        jax.block_until_ready([state.step for state, _ in pairs])
        return time.perf_counter() - started

    return run


def measure(ways: dict[str, Steps], rounds: int, seconds: float, num_steps: int) -> dict[str, dict[str, Any]]:
    """Seconds of a step of all seeds by way, and its ratio to "in turn": quartiles over rounds."""
    calls, times = {}, {name: [] for name in ways}  # type: ignore[var-annotated]
    for name, run in ways.items():
        run(1)
        calls[name] = max(1, round(seconds / run(1)))
    for turn in range(rounds):
        for name in list(ways) if turn % 2 else list(ways)[::-1]:
            times[name].append(ways[name](calls[name]) / calls[name] / num_steps)
    found = {}
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, times["in turn"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
        found[name] = {"seconds": statistics.median(own), "over_in_turn": quartiles}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", default="bn")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32])
    parser.add_argument("--seeds", type=int, default=2, help="how many train at once")
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, "all"), default=["vmap", "unroll"], help="on one device")
    parser.add_argument("--steps-per-call", type=int, default=1)
    parser.add_argument("--devices", type=int, help="at most; on CPU so many are forced")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--json", type=Path, help="also write everything there")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2")
    if args.devices:
        forced = f"--xla_force_host_platform_device_count={args.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip()

    import jaxnorm  # noqa: F401  (before jax, for the flag that one jaxlib needs)

    # isort: split
    import jax
    from rich.console import Console
    from rich.table import Table

    count = min(args.devices or len(jax.devices()), len(jax.devices()), args.seeds)
    ways = WAYS if "all" in args.ways else tuple(dict.fromkeys(args.ways))
    places: dict[str, tuple[int, str | None]] = {
        "in turn": (1, None),
        **{f"one device, {way}": (1, way) for way in ways},
    }
    if count > 1:
        alone = -(-args.seeds // count) == 1  # within a device of one seed all ways are the same
        label = f"{count} devices"
        places |= {label if alone else f"{label}, {way}": (count, way) for way in (ways[:1] if alone else ways)}
    title = (
        f"{args.norm}, one step of {args.seeds} seeds, {args.steps_per_call} a call; jax {jax.__version__}, Python "
        f"{platform.python_version()}, {len(jax.devices())} x {jax.devices()[0].device_kind}"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("batch", "way", "ms", "over in turn", "ready [s]"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    results = []
    for batch_size in args.batch_sizes:
        made, ready = {}, {}
        for name, (devices, way) in places.items():
            started = time.perf_counter()
            made[name] = contender(args.norm, batch_size, args.seeds, devices, way, args.steps_per_call)
            ready[name] = time.perf_counter() - started
            print(f"batch {batch_size}, {name}: ready", file=sys.stderr)
        for name, found in measure(made, args.rounds, args.seconds, args.steps_per_call).items():
            low, middle, high = found["over_in_turn"]
            results.append({"batch_size": batch_size, "way": name, "ready_seconds": ready[name], **found})
            ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
            table.add_row(str(batch_size), name, f"{1e3 * found['seconds']:.1f}", ratio, f"{ready[name]:.1f}")
    Console(width=110).print(table)
    if args.json:
        surroundings = {"title": title, "seeds": args.seeds, "rounds": args.rounds, "command": " ".join(sys.argv)}
        args.json.write_text(json.dumps({**surroundings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
