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
filelock, jinja2, safetensors and pandas.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import archive, timing
from benchmarks.side_by_side import GRAPHS, best_way, multi_process_service
from jaxnorm import files
from jaxnorm.errors import UserError
from jaxnorm.study.cli import entry
from jaxnorm.study.config import DEFAULT_NORMS
from jaxnorm.study.planned import read_plan

NORMS = (*DEFAULT_NORMS, "bin_frozen")
RECIPE: dict[str, Any] = dict(dataset="cifar10", batch_size=128, num_epochs=100)
ROOT = Path(__file__).resolve().parents[1]
TEXT = {"encoding": "utf-8", "errors": "replace"}
SHARES = {"correctness": 0.2, "programs": 0.15, "speed": 0.25}
"""Parts of the whole time that these may take at most; the study has the rest."""
SECONDS_TO_END = 10.0
"""Kept free for the runs to save and for the archives."""
SECONDS_BETWEEN_ARCHIVES = 15.0
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
    parser.add_argument("--platform", choices=("cuda", "cpu"), default="cuda", help="where to train (default: cuda)")
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
    """The time that is left.

    Args:
        minutes: until everything has ended.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._end = time.monotonic() + self._seconds - SECONDS_TO_END

    @property
    def left(self) -> float:
        """Seconds, at least 1."""
        return max(self._end - time.monotonic(), 1.0)

    def share(self, part: str) -> float:
        """Seconds that one of `SHARES` may take."""
        return min(SHARES[part] * self._seconds, self.left)


def add_flags(flags: str) -> None:
    """Adds compiler flags for this process's children."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def describe_machine(args: argparse.Namespace) -> None:
    """Writes what is there. What was measured on another machine does not count here.

    Raises:
        UserError: if there is no device of the platform that is wanted.
    """
    driver = None
    with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, check=False, timeout=20, **TEXT).stdout.strip()
    program = "from benchmarks import timing; import json; print(json.dumps(timing.machine()))"
    command = [sys.executable, "-c", program]
    try:
        found = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, timeout=120, **TEXT)
    except subprocess.TimeoutExpired:
        raise UserError("JAX must find a device within 120 s, but is still looking; see --platform") from None
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1:]
        raise UserError(f"JAX must find a device, but does not ({' '.join(reason)}); see --platform")
    machine = json.loads(found.stdout.splitlines()[-1])
    platform = str(machine["platform"])
    if platform != {"cuda": "gpu", "cpu": "cpu"}[args.platform]:
        raise UserError(
            f"the device must be a GPU, but JAX finds a {platform}; for a rehearsal give --rehearse --platform cpu"
        )
    before = files.read_json(args.out / "machine.json") or machine
    if any(before.get(name) != machine[name] for name in ("devices", "jax")):
        print("Another device or version than in the archives: correctness and speed are measured again", flush=True)
        for name in ("correctness.json", "speed.json"):
            (args.out / name).unlink(missing_ok=True)
    files.write_json(
        args.out / "machine.json", {**machine, "driver": driver, "environment": dict(relevant(os.environ))}
    )
    print(f"Machine: {machine['devices']}, jax {machine['jax']}, {driver or machine['processor']}", flush=True)


def relevant(environment: Any) -> list[tuple[str, str]]:
    """The variables that JAX and XLA read."""
    known = ("JAX_", "JAXNORM_", "XLA_", "NVIDIA_TF32")
    return sorted((name, value) for name, value in environment.items() if name.startswith(known))


def measure(script: str, out: Path, arguments: list[str], seconds: float) -> None:
    """Runs a benchmark beside this file for so long at most; what it has written until then remains."""
    process = timing.child(script, "--json", str(out), *arguments)
    try:
        ended = f"exit code {process.wait(timeout=seconds)}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {seconds:.0f} s"
    finally:
        end(process)
    print(f"{script}: {ended}", flush=True)
    files.write_json(out, {**(files.read_json(out) or {}), "ended": ended})


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process: it has a moment to end others."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_measured(out: Path) -> bool:
    """Whether a benchmark has ended or had its time, in this call or in an earlier one."""
    ended = str((files.read_json(out) or {}).get("ended"))
    return ended == "exit code 0" or ended.startswith("stopped")


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
        "import sys; from benchmarks import timing; timing.end_with_parent();"
        "from benchmarks.workload import random_images; from jaxnorm import Config, train;"
        "from jaxnorm.files import cache_folder; from jaxnorm.study.training.devices import use_compilation_cache;"
        "use_compilation_cache(cache_folder() / 'programs');"
        f"config = Config(norm=sys.argv[1], stop_after_epoch=1, **{RECIPE});"
        "train(config, random_images(40_000, 10_000, 10_000))"
    )
    started, limit = time.monotonic(), clock.share("programs")
    commands = [[sys.executable, "-c", program, norm] for norm in args.norms]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    try:
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(started + limit - time.monotonic(), 0))
    finally:
        for process in processes:
            process.kill()
    codes = [process.wait() for process in processes]
    print(f"Programs: compiled in {time.monotonic() - started:.0f} s, exit codes {codes}", flush=True)
    if not any(codes):
        files.write_text(done, "")


def train_study(args: argparse.Namespace, clock: Clock, jobs: int) -> int:
    """Trains as many runs as end in time, and returns the exit code of the grid."""
    from jaxnorm.study.config import Config
    from jaxnorm.study.data import load_dataset
    from jaxnorm.study.invocation import command
    from jaxnorm.study.runs import plan
    from jaxnorm.study.runs.jobs import examine_elsewhere, train_side_by_side
    from jaxnorm.study.runs.lock import held
    from jaxnorm.study.runs.progress import StudyConsole, say
    from jaxnorm.study.runs.study import Execution, steps_left, unfinished
    from jaxnorm.study.runs.workdir import Workdir

    preset, recipe = ("quick", {**RECIPE, "dataset": "digits", "num_epochs": 2}) if args.rehearse else ("study", RECIPE)
    configs = [Config(norm=norm, seed=seed, **recipe) for seed in range(args.seeds) for norm in args.norms]
    workdir = Workdir(args.out / "runs", study="compare_norms")
    set_up = functools.partial(load_dataset, recipe["dataset"], data_dir=args.data_dir, progress=False)
    console = StudyConsole()
    with held(workdir.path):
        workdir.check(configs)
        dataset = set_up()
        ahead = threading.Thread(target=compile_ahead, args=(args, clock, ""), daemon=True)
        ahead.start()
        machine = examine_elsewhere(jobs, set_up)
        for note in workdir.check_surroundings(configs, machine.surroundings):
            say(console, f"Note: {note}")
        todo = steps_left(unfinished(configs, workdir), dataset, workdir)
        plan.announce(configs, todo, dataset, machine, workdir.path, console, jobs=jobs)
        planned = workdir.planned(read_plan(Path(preset), workdir.study), demanded=False)
        workdir.describe(configs, preset=preset, command=command(), planned=planned)
        ahead.join()
        execution = Execution(1, checkpoint_every_seconds=SECONDS_BETWEEN_ARCHIVES, seconds=clock.left)
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
            try:
                archive.pack(self._out)
            except OSError as error:  # the next time may be better, and the runs are in their folders
                print(f"warning: the archives cannot be written ({error})", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Writes them a last time."""
        self._ended.set()
        self.join()
        for path in archive.pack(self._out):
            print(f"Archive: {path}, {path.stat().st_size / 1e6:.1f} MB", flush=True)


def missing_data(args: argparse.Namespace) -> str:
    """What is missing of the data, in words; empty where all is there.

    Raises:
        UserError: if some is missing, and it was not said that the study may be left out then.
    """
    if args.rehearse:
        return ""
    from jaxnorm.study.data import packed
    from jaxnorm.study.data.binary import CIFAR10
    from jaxnorm.study.data.cifar import data_folder, find

    folder = data_folder(args.data_dir)
    source = find(folder, CIFAR10, progress=False)
    missing = packed.missing_files(folder) if source is not None and source.path == folder / packed.LABELS else []
    if source is not None and not missing:
        return ""
    problem = f"{', '.join(missing)} missing" if missing else "no CIFAR-10"
    if not args.wait_for_data:
        raise UserError(
            f"--data-dir must hold CIFAR-10, but {folder} has {problem}; copy it there, or give --wait-for-data to "
            "measure without the study"
        )
    return f"{problem} in {folder}"


def main() -> int:
    """Does what the time allows, and returns the exit code."""
    args = options()
    for flag, value in (("minutes", args.minutes), ("seeds", args.seeds), ("jobs", args.jobs)):
        if value is not None and value <= 0:
            raise UserError(f"--{flag} must be positive, but is {value:g}; for example --{flag} 10")
    if args.rehearse:
        args.norms = [norm for norm in args.norms if norm in ("none", "bn")] or ["none", "bn"]
    clock = Clock(args.minutes)
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    missing_data(args)
    if archive.unpack(args.out):
        print(f"Going on from the archives in {args.out}", flush=True)
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = args.precision
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["JAX_PLATFORMS"] = "cpu" if args.platform == "cpu" else "cuda,cpu"
    if args.platform == "cuda":
        os.environ["JAXNORM_KERNELS"] = "off"  # they are for a CPU, and compiling them takes time
    describe_machine(args)
    if args.platform == "cuda":
        add_flags("--xla_gpu_exclude_nondeterministic_ops=true")
    correctness, speed = args.out / "correctness.json", args.out / "speed.json"
    if not is_measured(correctness):
        arguments = [*REHEARSED["correctness"]] if args.rehearse else []
        measure("correctness.py", correctness, arguments, clock.share("correctness"))
        archive.pack(args.out)
    if not is_measured(speed):
        # Before anything else uses the device: algorithms are chosen by their times. CUDA graphs are most likely best.
        compile_ahead(args, clock, GRAPHS)
        arguments = [*REHEARSED["throughput"]] if args.rehearse else []
        arguments += [flag for flag, given in (("--mps", args.mps), ("--all", args.speed)) if given]
        measure("throughput.py", speed, arguments, clock.left if missing_data(args) else clock.share("speed"))
        archive.pack(args.out)
    checked = (files.read_json(correctness) or {}).get("results") or {}
    failed = [entry for entry in (checked.get("norms") or {}).values() if not entry["passed"]]
    if failed or not is_measured(correctness):
        print(f"Correctness: a check failed, see {correctness}; the study is left out", flush=True)
        return 1
    if missing := missing_data(args):  # asked again: it may have arrived
        print(f"Data: {missing}; the study is left to a later call", flush=True)
        return 0
    return study(args, clock)


def study(args: argparse.Namespace, clock: Clock) -> int:
    """Trains in the way that the speed test found best."""
    measured = (files.read_json(args.out / "speed.json") or {}).get("results") or {"programs": [], "jobs": []}
    archivist = Archivist(args.out)
    archivist.start()
    with contextlib.ExitStack() as stack:
        stack.callback(archivist.end)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        service = stack.enter_context(multi_process_service(Path(folder))) if args.mps else None
        ways = [entry for entry in measured["jobs"] if service or not entry["mps"]]
        best = best_way({**measured, "jobs": ways})
        add_flags(best["xla_flags"])
        if service and best["mps"]:
            os.environ.update(service)
        code = train_study(args, clock, args.jobs or best["jobs"])
    return 0 if code == 143 else code  # the time is over, and all is saved


if __name__ == "__main__":
    entry.run(main)
