"""Processes that train side by side on one device, and which way of training is the fastest."""

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import timing

GRAPHS = "--xla_gpu_enable_command_buffer=+WHILE,+CONVOLUTION --xla_gpu_graph_min_graph_size=1"
"""CUDA graphs for loops and convolutions, which XLA leaves out by default."""
LEAST_GAIN = 1.1
"""Processes side by side must be this many times as fast as one after the other to be used."""
Program = tuple[str, int, int]
"""Variant, batch size, steps in one call."""


class Contender:
    """A framework under some flags, and the programs that it is measured with.

    Args:
        name: for tables.
        framework: one of `FRAMEWORKS`.
        programs: what it is measured with.
        arguments: flags of its process.
        environment: variables of its process; compiler flags are added to those of this process.
    """

    def __init__(
        self,
        name: str,
        framework: str,
        programs: list[Program],
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.programs = name, programs
        own = {"JAX_DEFAULT_MATMUL_PRECISION": "default", **(environment or {})}
        self.environment = {**own, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {own.get('XLA_FLAGS', '')}".strip()}
        self.prepared: dict[str, Any] = {}
        self._command = ("--worker", framework, *arguments)

    @functools.cached_property
    def worker(self) -> timing.Worker:
        """Its process, which starts when it is first asked."""
        return timing.Worker(*self._command, environment=self.environment)

    def prepare(self) -> dict[str, Any]:
        """Compiles its programs; the seconds that this takes, and errors by program."""
        return self.worker.ask(["prepare", self.programs])


class SideBySide:
    """Processes that train on one device at the same time.

    Args:
        program: what each of them runs.
        most: number of processes.
        arguments: flags of a worker.
        environment: variables of a worker; with MPS, those of its service too.
    """

    def __init__(self, program: Program, most: int, arguments: list[str], environment: dict[str, str]) -> None:
        part = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.8 / most:.3f}"}
        self._program = program
        self._own = [
            Contender(f"job {job}", "jaxnorm", [program], arguments, {**environment, **part}) for job in range(most)
        ]

    def prepare(self) -> str | None:
        """Compiles in all processes at once; returns what is wrong, if something is."""
        with ThreadPoolExecutor(len(self._own)) as pool:
            answers = list(pool.map(Contender.prepare, self._own))
        return next((a.get("error") or str(a["errors"]) for a in answers if a.get("error") or a.get("errors")), None)

    def measure(self, number: int, seconds: float) -> dict[str, Any]:
        """Images per second of `number` processes, all together."""
        with ThreadPoolExecutor(number) as pool:
            ask = ["measure", self._program, 1, seconds]
            answers = list(pool.map(lambda each: each.worker.ask(ask), self._own[:number]))
        errors = [answer["error"] for answer in answers if "error" in answer]
        _, batch_size, num_steps = self._program
        rate = 0.0 if errors else sum(batch_size * num_steps / answer["seconds"][0] for answer in answers)
        return {"jobs": number, "images_per_second": rate, "error": next(iter(errors), None)}

    def close(self) -> None:
        """Ends the processes."""
        for each in self._own:
            each.worker.close()


@contextlib.contextmanager
def multi_process_service(folder: Path) -> Iterator[dict[str, str] | None]:
    """NVIDIA's MPS for the processes that get its variables: their kernels then run at the same time. None without."""
    if shutil.which("nvidia-cuda-mps-control") is None:
        yield None
        return
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}
    for place in variables.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **variables}
    control = functools.partial(subprocess.run, env=environment, capture_output=True, check=False, timeout=20)
    started = control(["nvidia-cuda-mps-control", "-d"])
    try:
        yield variables if started.returncode == 0 else None
    finally:
        control(["nvidia-cuda-mps-control"], input=b"quit\n")


def best_way(results: dict[str, Any]) -> dict[str, Any]:
    """Flags, number of jobs and whether MPS, with which a study trains the fastest on this device."""
    rates = {
        (entry["contender"], entry["norm"], entry["batch_size"], entry["steps_per_call"]): entry["images_per_second"]
        for entry in results["programs"]
        if entry.get("images_per_second")
    }

    def fastest(contender: str) -> float:
        return max(
            (r for (name, norm, size, _), r in rates.items() if (name, norm, size) == (contender, "bn", 128)), default=0
        )

    graphs = fastest("graphs") > 1.03 * fastest("jaxnorm")
    alone = max((entry["images_per_second"] for entry in results["jobs"] if entry["jobs"] == 1), default=0.0)
    most = max((entry["images_per_second"] for entry in results["jobs"]), default=0.0)
    # Of nearly equal ways the one with the fewest runs at a time: each of them ends sooner.
    best = min(
        (entry for entry in results["jobs"] if entry["images_per_second"] > 0.95 * most),
        key=lambda entry: (entry["jobs"], -entry["images_per_second"]),
        default=None,
    )
    if best is None or most < LEAST_GAIN * alone:
        rate = max(map(fastest, ("graphs", "jaxnorm")))
        best = {"jobs": 1, "mps": False, "graphs": graphs, "images_per_second": rate}
    return {
        "xla_flags": GRAPHS if best["graphs"] else "",
        "jobs": best["jobs"],
        "mps": best["mps"],
        "images_per_second": best["images_per_second"],
    }
