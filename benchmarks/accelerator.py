"""The study on a borrowed accelerator, within a few minutes: python benchmarks/accelerator.py --minutes 10 --out DIR

In this order, each within its own share of the time, and everything written as it goes:

1. what is there: device, driver, versions (DIR/machine.json);
2. correctness: loss and gradients against float64, a resumed run against one that was not stopped (correctness.json);
3. speed: images per second by batch size, steps in one call and number of processes side by side (speed.json);
4. the study: CIFAR-10, 100 epochs, eight variants at seed 0, then at seed 1 and so on (DIR/runs), in the way that was
   the fastest. Its products and convolutions are in TF32 where the device has it (--precision default): that is what
   the frameworks do, and three times as fast on an H200. Sums are in a fixed order, so that a run repeats bit for bit.

DIR/result.tar (and result-2.tar, ... of at most 16 MB each) hold all of it. With these archives in DIR the same command
goes on, on this machine or on another one of its kind. Then `python -m jaxnorm publish DIR/runs results/NAME`.

Installs nothing. Needs jax, flax, optax, orbax-checkpoint, chex, numpy, scipy, scikit-learn, matplotlib, rich, pillow,
filelock, jinja2 and pandas.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import archive, timing
from benchmarks.throughput import GRAPHS, multi_process_service
from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.cli import entry

NORMS = ("flax_bn", "none", "bn", "in", "bin", "ln", "gn", "bin_frozen")
RECIPE: dict[str, Any] = dict(dataset="cifar10", batch_size=128, num_epochs=100)
ROOT = Path(__file__).resolve().parents[1]
CORRECTNESS_SHARE, SPEED_SHARE = 0.35, 0.6  # of the time that is left when they begin
SECONDS_TO_END = 8.0  # to stop the runs, and to write the archives
SECONDS_BETWEEN_ARCHIVES = 10.0
REHEARSED = {
    "correctness": ("--norms", "none", "bn", "--tiny"),
    "throughput": (
        *("--norms", "bn", "--batch-sizes", "32", "--num-images", "64", "--tiny"),
        *("--jobs", "1", "2", "--rounds", "1", "--seconds", "0.1"),
    ),
}


def options() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="after which everything has ended and is written")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, or of archives to go on from")
    parser.add_argument("--data-dir", type=Path, help="folder of CIFAR-10; its packed files may be there, too")
    parser.add_argument("--wait-for-data", action="store_true", help="leave the study out while parts of the data miss")
    parser.add_argument("--platform", choices=("cpu", "cuda", "tpu"), help="instead of the best device there is")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=list(NORMS), metavar="NORM", help="of the study")
    parser.add_argument("--seeds", type=int, default=10, help="of the study, as far as time allows (default: 10)")
    parser.add_argument(
        "--precision", choices=("default", "highest"), default="default", help="of the study's products"
    )
    parser.add_argument("--jobs", type=int, help="runs side by side, instead of what the speed test finds best")
    parser.add_argument("--mps", action="store_true", help="try NVIDIA's MPS for them, which is started and ended here")
    parser.add_argument("--speed", action="store_true", help="measure all variants, and bfloat16")
    parser.add_argument("--rehearse", action="store_true", help="the same on two variants of the digits, for a CPU")
    return parser.parse_args()


class Clock:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes - SECONDS_TO_END

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()


def add_flags(flags: str) -> None:
    """Adds compiler flags for this process's children."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def describe_machine(out: Path) -> None:
    """Writes what is there."""
    driver = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    program = "from benchmarks import timing; import json; print(json.dumps(timing.machine()))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1:]
        raise UserError(f"JAX must find a device, but does not ({' '.join(reason)}); see --platform")
    machine = json.loads(found.stdout.splitlines()[-1])
    files.write_json(out / "machine.json", {**machine, "driver": driver, "environment": dict(relevant(os.environ))})
    print(f"Machine: {machine['devices']}, jax {machine['jax']}, {driver or machine['processor']}", flush=True)


def relevant(environment: Any) -> list[tuple[str, str]]:
    """The variables that JAX and XLA read."""
    known = ("JAX_", "JAXNORM_", "XLA_", "NVIDIA_TF32")
    return sorted((name, value) for name, value in environment.items() if name.startswith(known))


def measure(script: str, out: Path, arguments: list[str], seconds: float) -> None:
    """Runs a benchmark beside this file for so long at most; what it has written until then remains."""
    process = timing.child(script, "--json", str(out), *arguments)
    try:
        ended = f"exit code {process.wait(timeout=max(seconds, 1))}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {seconds:.0f} s"
    finally:
        process.kill()
        process.wait()
    print(f"{script}: {ended}", flush=True)
    files.write_json(out, {**(files.read_json(out) or {}), "ended": ended})


def is_measured(out: Path) -> bool:
    """Whether a benchmark has had its time, in this call or in an earlier one that was not cut off."""
    return "ended" in (files.read_json(out) or {})


def compile_ahead(args: argparse.Namespace, clock: Clock, flags: str) -> None:
    """Fills the cache of programs, once: every variant trains an epoch on noise, each in a process of its own."""
    if args.platform == "cpu":  # JAX keeps no programs there
        return
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    key = [files.read_json(args.out / "machine.json"), environment["XLA_FLAGS"], args.norms]
    done = files.cache_folder() / "programs" / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    if done.exists():
        return
    program = (
        "import sys; from benchmarks.workload import random_images; from jaxnorm import Config, train;"
        "from jaxnorm.files import cache_folder; from jaxnorm.study.training.devices import use_compilation_cache;"
        "use_compilation_cache(cache_folder() / 'programs');"
        f"config = Config(norm=sys.argv[1], stop_after_epoch=1, **{RECIPE});"
        "train(config, random_images(40_000, 10_000, 10_000))"
    )
    started, limit = time.monotonic(), max(clock.left / 2, 1)
    commands = [[sys.executable, "-c", program, norm] for norm in args.norms]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(started + limit - time.monotonic(), 0))
        process.kill()
    codes = [process.wait() for process in processes]
    print(f"Programs: compiled in {time.monotonic() - started:.0f} s, exit codes {codes}", flush=True)
    if not any(codes):
        files.write_text(done, "")


def load(dataset: str, data_dir: Path | None) -> Any:
    """The data, in this process and in each worker."""
    from jaxnorm.study.data import load_dataset

    return load_dataset(dataset, data_dir=data_dir, progress=False)


def train_study(args: argparse.Namespace, clock: Clock, jobs: int) -> int:
    """Trains as many runs as end in time, and returns the exit code of the grid."""
    from jaxnorm.study.config import Config
    from jaxnorm.study.runs import plan
    from jaxnorm.study.runs.jobs import examine_elsewhere, train_side_by_side
    from jaxnorm.study.runs.lock import held
    from jaxnorm.study.runs.progress import StudyConsole, say
    from jaxnorm.study.runs.provenance import command
    from jaxnorm.study.runs.study import Execution, unfinished
    from jaxnorm.study.runs.workdir import Workdir

    preset, recipe = ("quick", {**RECIPE, "dataset": "digits", "num_epochs": 2}) if args.rehearse else ("study", RECIPE)
    configs = [Config(norm=norm, seed=seed, **recipe) for seed in range(args.seeds) for norm in args.norms]
    workdir = Workdir(args.out / "runs", study="compare_norms")
    set_up = functools.partial(load, recipe["dataset"], args.data_dir)
    console = StudyConsole()
    with held(workdir.path):
        workdir.check(configs)
        dataset = set_up()
        ahead = threading.Thread(target=compile_ahead, args=(args, clock, ""))
        ahead.start()
        machine = examine_elsewhere(jobs, set_up)
        for note in workdir.check_surroundings(configs, machine.surroundings):
            say(console, f"Note: {note}")
        todo = unfinished(configs, workdir)
        plan.announce(configs, todo, dataset, machine, workdir.path, console, jobs=jobs)
        workdir.describe(configs, preset=preset, command=command())
        ahead.join()
        execution = Execution(num_devices=1, seconds=clock.left)
        return train_side_by_side(
            configs, dataset, workdir, console, execution, jobs=jobs, machine=machine, set_up=set_up
        )


class Archivist(threading.Thread):
    """Writes the archives again and again while runs train."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._out, self._ended = out, threading.Event()

    def run(self) -> None:
        """Until it is ended."""
        while not self._ended.wait(SECONDS_BETWEEN_ARCHIVES):
            archive.pack(self._out)

    def end(self) -> None:
        """Writes them a last time."""
        self._ended.set()
        self.join()
        for path in archive.pack(self._out):
            print(f"Archive: {path}, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def check_data(args: argparse.Namespace) -> bool:
    """Whether all data is there.

    Raises:
        UserError: if some is missing, and it was not said that the study may be left out then.
    """
    if args.rehearse:
        return True
    from jaxnorm.study.data import packed
    from jaxnorm.study.data.cifar10 import OFFICIAL, data_folder, find

    folder = data_folder(args.data_dir)
    missing = packed.missing_files(folder)
    if missing and len(missing) <= len(packed.PARTS):
        problem = f"{', '.join(missing)} missing"
    elif find(folder, OFFICIAL, progress=False) is None:
        problem = "no CIFAR-10"
    else:
        return True
    if not args.wait_for_data:
        raise UserError(
            f"--data-dir must hold CIFAR-10, but {folder} has {problem}; copy it there, or give --wait-for-data to "
            "measure without the study"
        )
    print(f"Data: {problem} in {folder}; the study has to wait", flush=True)
    return False


def main() -> int:
    """Does what the time allows, and returns the exit code."""
    args = options()
    if args.minutes <= 0:
        raise UserError(f"--minutes must be positive, but is {args.minutes:g}; for example --minutes 10")
    if args.rehearse:
        args.norms = [norm for norm in args.norms if norm in ("none", "bn")] or ["none", "bn"]
    clock = Clock(args.minutes)
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    has_data = check_data(args)
    if archive.unpack(args.out):
        print(f"Going on from the archives in {args.out}", flush=True)
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = args.precision
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if args.platform:
        os.environ["JAX_PLATFORMS"] = args.platform
    if args.platform != "cpu" and shutil.which("nvidia-smi"):
        add_flags("--xla_gpu_exclude_nondeterministic_ops=true")
    if args.platform != "cpu":
        os.environ["JAXNORM_KERNELS"] = "off"  # they are for a CPU, and compiling them takes time
    describe_machine(args.out)
    correctness, speed = args.out / "correctness.json", args.out / "speed.json"
    if not is_measured(correctness):
        arguments = [*REHEARSED["correctness"]] if args.rehearse else []
        measure("correctness.py", correctness, arguments, CORRECTNESS_SHARE * clock.left)
        archive.pack(args.out)
    if not is_measured(speed):
        arguments = [*REHEARSED["throughput"]] if args.rehearse else []
        arguments += [flag for flag, given in (("--mps", args.mps), ("--all", args.speed)) if given]
        # Before anything else uses the device: algorithms are chosen by their times. CUDA graphs are most likely best.
        compile_ahead(args, clock, GRAPHS)
        share = SPEED_SHARE if has_data else 1.0
        measure("throughput.py", speed, arguments, share * clock.left)
        archive.pack(args.out)
    best = ((files.read_json(speed) or {}).get("results") or {}).get("best") or {}
    add_flags(best.get("xla_flags", ""))
    if not has_data:
        compile_ahead(args, clock, "")
        archive.pack(args.out)
        return 0
    archivist = Archivist(args.out)
    archivist.start()
    try:
        return study(args, clock, best)
    finally:
        archivist.end()


def study(args: argparse.Namespace, clock: Clock, best: dict[str, Any]) -> int:
    """Trains in the way that the speed test found best."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        service = stack.enter_context(multi_process_service(Path(folder))) if args.mps else None
        if service and best.get("mps"):
            os.environ.update(service)
        code = train_study(args, clock, args.jobs or best.get("jobs", 1))
    return 0 if code == 143 else code  # the time is over, and all is saved


if __name__ == "__main__":
    entry.run(main)
