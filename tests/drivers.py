"""The drivers as a person runs them: real processes, or the same code in this one where jax is loaded already."""

import atexit
import csv
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Large batches: few steps, and the program is compiled quickly.
FAST = ["--batch-size", "256", "--num-epochs", "2"]
CACHE = tempfile.mkdtemp()  # kernels are built once
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)


def path_of(driver):
    return ROOT / "experiments" / f"{driver}.py"


def environment(tmp_path):
    """Variables of a process with another home, one device, and programs that are compiled as the tests' are."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    flags = " ".join(flag for flag in clean["XLA_FLAGS"].split() if "device_count" not in flag)
    return {**clean, "XLA_FLAGS": flags, "HOME": str(tmp_path), "XDG_CACHE_HOME": CACHE, "COLUMNS": "100"}


def drive(driver, tmp_path, *arguments, timeout=900):
    """Runs a driver in an empty folder; its standard output and error are no terminal."""
    return subprocess.run(
        [sys.executable, str(path_of(driver)), *map(str, arguments)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def start(driver, tmp_path, *arguments):
    """Starts a driver in an empty folder; for a `with` statement."""
    return subprocess.Popen(
        [sys.executable, "-u", str(path_of(driver)), *map(str, arguments)],
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_line(process, words):
    """Reads a started driver's output up to the first line that contains `words`, and returns what it has read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"{words!r} is not in {lines}")


STARTED: list[subprocess.Popen] = []
"""Processes that train together; a test that fails may leave them."""


def start_together(places, *arguments):
    """Starts the comparison in a process for each of `places`, a folder each; they share their devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = []
    for number, place in enumerate(places):
        place.mkdir(exist_ok=True)
        together = ["--coordinator", address, "--num-processes", len(places), "--process-id", number]
        started.append(
            subprocess.Popen(
                [sys.executable, "-u", str(path_of("compare_norms")), *map(str, [*arguments, *together])],
                cwd=place,
                env=environment(place),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    STARTED.extend(started)
    return started


def compare_together(places, *arguments, timeout=900):
    """Runs them to their end: a finished process for each, as from `drive`."""
    started = start_together(places, *arguments)
    ended = [process.communicate(timeout=timeout) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *said)
        for process, said in zip(started, ended, strict=True)
    ]


def driver_here(driver, tmp_path, monkeypatch, capsys):
    """A function that runs a driver in this process, in a new folder: its exit code, standard error, what is left."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(path_of(driver)), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(path_of(driver)), run_name="__main__")
        return left.value.code, capsys.readouterr().err, [path.name for path in folder.iterdir()]

    return run


def content(workdir, run):
    folder = workdir / run
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**row, "seconds": 0} for row in rows], json.loads((folder / "result.json").read_text())


def summary(workdir):
    with (workdir / "summary.csv").open() as file:
        return list(csv.DictReader(file))
