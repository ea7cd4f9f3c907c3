"""What all benchmarks share: contenders measured in turn, quartiles over rounds, and raw results kept as JSON.

The speed of a shared machine drifts by 15 % and more within minutes. So the contenders take turns, round by round, a
ratio compares two times of the same round, and tables show the median and the quartiles over rounds. With `--json`
every time of every round is kept, beside the command, the machine and the versions.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxnorm import files

RESULTS = Path(__file__).resolve().parent / "results"
Clock = Callable[[int], float]
"""Seconds that so many calls of a contender take."""

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share an accelerator's memory


def parser(
    description: str | None, *, rounds: int | None = None, seconds: float | None = None
) -> argparse.ArgumentParser:
    """The flags that benchmarks share: --json, and --rounds and --seconds where there is a default for them."""
    own = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        words = f"measurements of each contender (default: {rounds})"
        own.add_argument("--rounds", type=int, default=rounds, help=words)
    if seconds is not None:
        own.add_argument("--seconds", type=float, default=seconds, help=f"of each measurement (default: {seconds})")
    default = RESULTS / f"{Path(sys.argv[0]).stem}.json"
    place = default.relative_to(RESULTS.parents[1])
    words = f"also write raw results there; without FILE to {place}"
    own.add_argument("--json", type=Path, nargs="?", const=default, metavar="FILE", help=words)
    own.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    return own


def child(script: str, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    """Starts a benchmark as a process that ends soon after this one, however this one ends.

    Args:
        script: name of a file beside this one; it calls `end_with_parent` if its flag says so.
        arguments: its flags.
        options: as `subprocess.Popen` takes them.
    """
    command = [sys.executable, str(Path(__file__).with_name(script)), "--end-with-parent", *arguments]
    return subprocess.Popen(command, **options)


def end_with_parent() -> None:
    """Ends this process soon after its parent, and lets SIGTERM end it by an exception, so that it can clean up."""
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=wait, daemon=True).start()


def clock(call: Callable[[], Any]) -> Clock:
    """The clock of a JAX call: ends when the last call's arrays are ready."""
    import jax

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            latest = call()
        jax.block_until_ready(latest)
        return time.perf_counter() - started

    return run


def in_turn(
    contenders: Mapping[str, Clock], *, rounds: int, seconds: float = 0.0, warm_up: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of one call of each contender, round by round; every other round goes in reverse order.

    Args:
        contenders: their clocks, by name.
        rounds: how often each is measured.
        seconds: of one measurement, about; it has at least one call.
        warm_up: seconds of calls that are not measured, before the first round.
    """
    counts = dict.fromkeys(contenders, 1)
    for name, run in contenders.items():
        run(1)
        if seconds or warm_up:
            once = run(3) / 3
            counts[name] = max(1, round(seconds / once))
            run(max(1, round(warm_up / once)))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            taken[name].append(contenders[name](counts[name]) / counts[name])
    return taken


def quartiles(values: Iterable[float]) -> list[float]:
    """The lower quartile, the median and the upper quartile."""
    values = list(values)
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def over(some: Iterable[float], others: Iterable[float]) -> list[float]:
    """Quartiles of the ratio within each round."""
    return quartiles(one / other for one, other in zip(some, others, strict=True))


def spread(ratio: Sequence[float]) -> str:
    """Quartiles as a table shows them: median (lower to upper)."""
    low, middle, high = ratio
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def machine() -> dict[str, Any]:
    """Processor, devices and versions."""
    import jax

    from jaxnorm.conv.library import processor
    from jaxnorm.study.runs.provenance import cores

    return {
        "processor": processor().get("model name") or platform.machine(),
        "cores": len(cores()),
        "platform": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax")},
    }


def described() -> str:
    """The machine in a table's title."""
    found = machine()
    devices = f"{len(found['devices'])} x {found['devices'][0]}"
    return f"jax {found['jax']}, Python {found['python']}, {devices}, {found['processor']}, {found['cores']} cores"


def show(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table under its title; the first column is text, all others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    console.print(title, highlight=False)
    console.print(table)


def keep(path: Path | None, **content: Any) -> None:
    """Writes results with the command and the machine, where `--json` asks for it."""
    if path is not None:
        command = " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        found = {"command": command, "machine": machine(), **content}
        files.write_json(path, found)


class Worker:
    """A contender in a process of its own: its flags and threads reach no other, and it waits while others work.

    Args:
        arguments: the flags with which the running script starts once more; there it calls `serve`.
        environment: variables that it has besides ours.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, sys.argv[0], *arguments]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, encoding="utf-8", **pipes)

    def ask(self, request: Any) -> dict[str, Any]:
        """The answer to a request, both of them JSON values; ``{"error": ...}`` if there is none."""
        ended = {"error": "the process ended"}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except OSError:
            return ended
        return json.loads(answer) if answer else ended

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._process.communicate()


def serve(answer: Callable[[Any], dict[str, Any]]) -> None:
    """Answers a `Worker`'s requests until there are no more; what fails is an answer, too."""
    end_with_parent()
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:
            found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:200]}
        print(json.dumps(found), flush=True)
