"""Runs side by side whose parent is killed, and a worker killed at random moments."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.drivers import content, drive, start, wait_for_line

pytestmark = pytest.mark.durability
GRID = ["--norms", "none", "gn", "--seeds", 0, 1, "--batch-size", 256, "--num-epochs", 6, "--workdir", "w", "--jobs", 2]
RUNS = [f"{norm}-seed{seed}" for norm in ("none", "gn") for seed in (0, 1)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("unbroken")
    finished = drive("compare_norms", tmp_path, *GRID, timeout=590)
    assert finished.returncode == 0, finished.stderr
    return tmp_path / "w"


def assert_equal(found, expected):
    for run in RUNS:
        (rows, result), (unbroken_rows, unbroken_result) = content(found, run), content(expected, run)
        assert rows == unbroken_rows
        assert {**result, "seconds": 0} == {**unbroken_result, "seconds": 0}
        ours, theirs = (np.load(folder / run / "predictions.npz", allow_pickle=False) for folder in (found, expected))
        np.testing.assert_array_equal(ours["logits"], theirs["logits"])


def children_of(process):
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(number):
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_no_worker_outlives_the_process_that_holds_the_lock(tmp_path, unbroken, report):
    draw, orphans = random.Random(0), 0
    for _ in range(4):
        with start("compare_norms", tmp_path, *GRID, "--checkpoint-every-seconds", "0.3") as process:
            wait_for_line(process, "compiling")
            time.sleep(draw.uniform(5, 20))
            children = children_of(process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        orphans += len(children)
        until = time.monotonic() + 5
        while any(map(is_alive, children)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not [child for child in children if is_alive(child)]
    finished = drive("compare_norms", tmp_path, *GRID, timeout=590)
    assert finished.returncode == 0, finished.stderr
    assert_equal(tmp_path / "w", unbroken)
    report("kill -9 of the parent of two jobs", 4, "nothing")


def test_workers_killed_at_random_moments_lose_nothing(tmp_path, unbroken, report):
    draw, kills = random.Random(1), 0
    with start("compare_norms", tmp_path, *GRID, "--checkpoint-every-seconds", "0") as process:
        wait_for_line(process, "compiling")
        while process.poll() is None:
            time.sleep(draw.uniform(4, 12))
            for child in children_of(process)[-1:]:
                os.kill(child, signal.SIGKILL)
                kills += 1
        output, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "crashed: ProcessLost" in output
    finished = drive("compare_norms", tmp_path, *GRID, timeout=590)
    assert finished.returncode == 0, finished.stderr
    assert_equal(tmp_path / "w", unbroken)
    report("kill -9 of a worker", kills, "nothing")
