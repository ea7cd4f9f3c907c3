"""Training throughput on an accelerator: python benchmarks/throughput.py

Epochs through the study's own `train_steps` on noise of CIFAR-10's shape, by variant, batch size and steps in one call:
as it is ("jaxnorm"), with CUDA graphs for loops, in float32 throughout, with sums in any order; beside plain Flax and
PyTorch; and several processes side by side on one device, with NVIDIA's MPS and without. Each contender is a process
with flags of its own, which compiles its programs in threads. Products and convolutions are in TF32 on NVIDIA's
devices, as the frameworks have it, except in "float32". Times are of the steps alone. Then the time of each kernel of
one call, from JAX's profiler.

Without --all it measures bn, flax_bn and gn at 128 and 8.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import timing
from benchmarks.side_by_side import GRAPHS, Contender, Program, SideBySide, best_way, multi_process_service
from jaxnorm.files import cache_folder
from jaxnorm.study.config import DEFAULT_NORMS

NORMS = (*DEFAULT_NORMS, "bin_frozen")
ANY_ORDER = "--xla_gpu_exclude_nondeterministic_ops=false"
MOST_STEPS = 312
FRAMEWORKS = ("jaxnorm", "flax", "torch")
SIDE_BY_SIDE = (1, 2, 3, 4, 6)


def jax_call(program: Program, *, plain: bool, num_images: int, dtype: str | None, tiny: bool) -> Callable[[], Any]:
    """A compiled call of `train_steps`, which goes on where the last one stopped."""
    import jax

    from benchmarks import flax_study
    from benchmarks.workload import random_images
    from jaxnorm import NORMS as REGISTERED
    from jaxnorm import ResNet14
    from jaxnorm.study.training.images import on_device
    from jaxnorm.study.training.optimizer import make_optimizer
    from jaxnorm.study.training.state import create_state
    from jaxnorm.study.training.step import epoch_order, train_steps

    norm, batch_size, num_steps = program
    dataset = random_images(num_images, 8)
    images = on_device(dataset.train, dataset)
    model = flax_study.resnet(norm) if plain else ResNet14(norm=REGISTERED[norm], dtype=dtype)
    if tiny:
        model = model.clone(num_blocks=1, num_filters=4)
    state = create_state(model, make_optimizer(0.1, 10.0, 100, num_images // batch_size), 0, dataset.image_shape)
    order = epoch_order(0, 1, num_images)
    compiled = train_steps.lower(state, images, order, batch_size=batch_size, num_steps=num_steps).compile()
    jax.block_until_ready(order)

    def call() -> Any:
        nonlocal state
        state, latest = compiled(state, images, order)
        return latest

    return call


def torch_call(program: Program) -> Callable[[], None]:
    """So many steps of PyTorch, eager, on one prepared batch, in TF32 where there is; returns when they are done."""
    import torch

    from benchmarks import torch_study

    norm, batch_size, num_steps = program
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_study.ResNet(torch_study.NORMS[norm]).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    image = torch.randn(batch_size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    label = torch.randint(0, 10, (batch_size,), device=device)

    def call() -> None:
        for _ in range(num_steps):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(image), label).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def answerer(framework: str, num_images: int, dtype: str | None, tiny: bool) -> Callable[[Any], dict[str, Any]]:
    """How a contender's process answers: it prepares programs, measures one, or profiles one."""
    calls: dict[Program, Callable[[], Any]] = {}

    def prepare(program: Program) -> str | None:
        try:
            if framework == "torch":
                calls[program] = torch_call(program)
            else:
                plain = framework == "flax"
                calls[program] = jax_call(program, plain=plain, num_images=num_images, dtype=dtype, tiny=tiny)
        except Exception as error:  # the others are measured all the same
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return None

    def seconds_of(call: Callable[[], Any], rounds: int, seconds: float) -> list[float]:
        run = timing.clock(call) if framework != "torch" else _host_clock(call)
        run(1)
        once = run(1)
        count = max(1, round(seconds / max(once, 1e-6)))
        return [run(count) / count for _ in range(rounds)]

    def answer(request: Any) -> dict[str, Any]:
        kind, *values = request
        if kind == "prepare":
            started = time.perf_counter()
            programs = [tuple(program) for program in values[0]]
            with ThreadPoolExecutor(1 if framework == "torch" else os.cpu_count()) as pool:
                errors = dict(zip(map(str, programs), pool.map(prepare, programs), strict=True))
            return {"seconds": time.perf_counter() - started, "errors": {k: v for k, v in errors.items() if v}}
        if kind == "profile":
            return profile(calls[tuple(values[0])])
        program, rounds, seconds = values
        return {"seconds": seconds_of(calls[tuple(program)], rounds, seconds)}

    return answer


def _host_clock(call: Callable[[], Any]) -> timing.Clock:
    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - started

    return run


def profile(call: Callable[[], Any]) -> dict[str, Any]:
    """Time and number of launches of each kernel in one call, the longest first."""
    import jax

    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with jax.profiler.trace(folder):
            jax.block_until_ready(call())
        seconds = time.perf_counter() - started
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
        kernels: dict[str, list[float]] = {}
        for plane in data.planes:
            if not plane.name.startswith("/device:"):
                continue
            for line in plane.lines:
                if line.name.startswith("Stream") or "Ops" in line.name:
                    for event in line.events:
                        entry = kernels.setdefault(event.name, [0.0, 0])
                        entry[0] += event.duration_ns / 1e9
                        entry[1] += 1
    longest = sorted(kernels.items(), key=lambda item: -item[1][0])
    return {
        "seconds": seconds,
        "device_seconds": sum(entry[0] for entry in kernels.values()),
        "launches": sum(entry[1] for entry in kernels.values()),
        "kernels": [{"name": name[:120], "seconds": entry[0], "launches": entry[1]} for name, entry in longest[:60]],
    }


def prepare(contenders: list[Contender]) -> None:
    """Starts the contenders' processes and compiles their programs, all at once."""
    with ThreadPoolExecutor(len(contenders)) as pool:
        for contender, answer in zip(contenders, pool.map(Contender.prepare, contenders), strict=True):
            contender.prepared = answer


def measure(contenders: list[Contender], rounds: int, seconds: float, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measures every program of contenders that are prepared; hands each result on at once."""
    for contender in contenders:
        errors = contender.prepared.get("errors", {})
        for program in contender.programs:
            norm, batch_size, num_steps = program
            entry: dict[str, Any] = {
                "contender": contender.name,
                "environment": contender.environment,
                "norm": norm,
                "batch_size": batch_size,
                "steps_per_call": num_steps,
                "compiled_seconds": contender.prepared.get("seconds"),
            }
            error = contender.prepared.get("error") or errors.get(str(program))
            if error is None:
                found = contender.worker.ask(["measure", program, rounds, seconds])
                error = found.get("error")
            if error is None:
                entry["seconds_per_call"] = found["seconds"]
                entry["images_per_second"] = batch_size * num_steps / min(found["seconds"])
            keep({**entry, "error": error})


def contenders_of(args: argparse.Namespace, common: list[str]) -> tuple[list[Contender], list[Contender]]:
    """Whom `run` compares, each with its programs: those that decide how a study trains, and the others."""
    epoch = {size: min(args.num_images // size, MOST_STEPS) for size in args.batch_sizes}
    norms = NORMS if args.all else args.norms
    whole = [(norm, size, epoch[size]) for size in args.batch_sizes for norm in norms]
    first = [program for program in whole if program[0] == norms[0]]
    shorter = [(norm, size, steps) for norm, size, most in first for steps in (1, 100) if steps < most]
    deciding = [Contender("jaxnorm", "jaxnorm", [*whole, *shorter], common)]
    others = []
    graphs = {"XLA_FLAGS": GRAPHS} if args.gpu else {}
    if args.gpu:
        deciding.append(Contender("graphs", "jaxnorm", whole, common, graphs))
        highest = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", **graphs}
        others.append(Contender("float32", "jaxnorm", first, common, highest))
        others.append(Contender("any order", "jaxnorm", first, common, {"XLA_FLAGS": f"{GRAPHS} {ANY_ORDER}"}))
    others.append(Contender("flax", "flax", first, common, graphs))
    if args.torch:
        programs = [(norm, size, 20) for norm, size, _ in whole if norm != "bin_frozen"]
        others.append(Contender("torch", "torch", programs, common))
    if args.all:
        others.append(Contender("bfloat16", "jaxnorm", whole, [*common, "--dtype", "bfloat16"], graphs))
    return deciding, others


def ways(args: argparse.Namespace, program: Program, common: list[str], service: dict[str, str] | None) -> list[Any]:
    """The ways to train side by side: (CUDA graphs, MPS, processes)."""
    found = [(False, False, {})]
    if args.gpu:
        found = [(True, False, {"XLA_FLAGS": GRAPHS})]
        if service:
            found += [(True, True, {"XLA_FLAGS": GRAPHS, **service}), (False, True, service)]
    most = max(args.jobs)
    return [(graphs, mps, SideBySide(program, most, common, environment)) for graphs, mps, environment in found]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures all; keeps each result as soon as it is there."""
    results: dict[str, Any] = {"programs": [], "jobs": [], "profile": None, "best": None}

    def keep(entry: dict[str, Any]) -> None:
        results["programs"].append(entry)
        rate = f"{entry['images_per_second']:,.0f} images/s" if entry["error"] is None else entry["error"]
        what = f"{entry['contender']} {entry['norm']} batch {entry['batch_size']}"
        print(f"{what}, {entry['steps_per_call']} steps a call: {rate}", flush=True)
        results["best"] = best_way(results)
        timing.keep(args.json, results=results)

    common = ["--num-images", str(args.num_images), *(["--tiny"] if args.tiny else [])]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        service = stack.enter_context(multi_process_service(Path(folder))) if args.mps else None
        # First what decides how a study trains best, then the comparisons.
        deciding, others = contenders_of(args, common)
        longest = max(deciding[0].programs, key=lambda program: program[1] * program[2])
        together = ways(args, longest, common, service)
        prepare(deciding)
        measure(deciding, args.rounds, args.seconds, keep)
        with ThreadPoolExecutor(len(together)) as pool:
            problems = list(pool.map(SideBySide.prepare, [each for _, _, each in together]))
        for (graphs, mps, each), problem in zip(together, problems, strict=True):
            for number in args.jobs:
                found = {"jobs": number, "images_per_second": 0.0, "error": problem}
                if problem is None:
                    found = each.measure(number, args.seconds)
                results["jobs"].append({**found, "mps": mps, "graphs": graphs})
                how = f"{number} jobs{' with graphs' if graphs else ''}{' with MPS' if mps else ''}"
                print(f"{how}: {found['images_per_second']:,.0f} images/s {found['error'] or ''}", flush=True)
                results["best"] = best_way(results)
                timing.keep(args.json, results=results)
            each.close()
        print(f"best: {results['best']}", flush=True)
        prepare(others)
        measure(others, args.rounds, args.seconds, keep)
        shortest = min(deciding[0].programs, key=lambda program: (-program[1], program[2]))
        results["profile"] = deciding[0].worker.ask(["profile", shortest])
        timing.keep(args.json, results=results)
        for contender in (*deciding, *others):
            contender.worker.close()
    return results


def main() -> None:
    parser = timing.parser(__doc__, rounds=3, seconds=0.5)
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=["bn", "flax_bn", "gn"], metavar="NORM")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128, 8])
    parser.add_argument("--num-images", type=int, default=40_000, help="in an epoch (default: 40000)")
    parser.add_argument("--jobs", nargs="+", type=int, default=list(SIDE_BY_SIDE), help="processes side by side")
    parser.add_argument("--mps", action="store_true", help="also with NVIDIA's MPS, which is started and ended here")
    parser.add_argument("--all", action="store_true", help="all variants, and bfloat16")
    parser.add_argument("--tiny", action="store_true", help="a network of 8 layers and 4 channels, for a rehearsal")
    parser.add_argument("--worker", choices=FRAMEWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        if args.worker != "torch":
            from jaxnorm.study.training.devices import use_compilation_cache

            use_compilation_cache(cache_folder() / "programs")
        timing.serve(answerer(args.worker, args.num_images, args.dtype, args.tiny))
        return
    if args.end_with_parent:
        timing.end_with_parent()
    import importlib.util

    args.torch = not args.tiny and importlib.util.find_spec("torch") is not None
    args.gpu = (
        subprocess.run(
            [sys.executable, "-c", "import jax, sys; sys.exit(jax.default_backend() != 'gpu')"], check=False
        ).returncode
        == 0
    )
    run(args)


if __name__ == "__main__":
    main()
