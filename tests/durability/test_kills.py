"""Real processes, really killed: what is left goes on to the numbers of a run that never was."""

import itertools
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxnorm.study.config import DEFAULT_NORMS
from tests.drivers import content, drive, environment, path_of

pytestmark = pytest.mark.durability

GRID = ["--norms", *DEFAULT_NORMS, "--batch-size", "64", "--num-epochs", "4", "--workdir", "w"]
KILLS = 20


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """All seven variants, trained without any disturbance."""
    tmp_path = tmp_path_factory.mktemp("unbroken")
    finished = drive("compare_norms", tmp_path, *GRID, timeout=590)
    assert finished.returncode in (0, 3), finished.stderr
    return tmp_path / "w"


def started(tmp_path, *more):
    command = [sys.executable, "-u", str(path_of("compare_norms")), *GRID, *more]
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_training(process):
    """Until the run that is not finished yet has begun; its lines so far."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "compiling" in line:
            break
    return lines


def assert_equal(found, expected):
    """Metrics, results, tables, predictions and final checkpoints of two workdirs are the same to the last bit."""
    for norm in DEFAULT_NORMS:
        run = f"{norm}-seed0"
        (rows, result), (unbroken_rows, unbroken_result) = content(found, run), content(expected, run)
        assert rows == unbroken_rows
        assert {**result, "seconds": 0} == {**unbroken_result, "seconds": 0}
        ours, theirs = (np.load(folder / run / "predictions.npz", allow_pickle=False) for folder in (found, expected))
        for name in theirs.files:
            np.testing.assert_array_equal(ours[name], theirs[name])
        for key, value in arrays_of(expected / run).items():
            np.testing.assert_array_equal(arrays_of(found / run)[key], value, err_msg=key)
    assert (found / "summary.csv").read_bytes() == (expected / "summary.csv").read_bytes()


def arrays_of(run):
    """Parameters, statistics, optimiser state and sums of a run's last checkpoint."""
    import orbax.checkpoint as ocp

    last = max((run / "checkpoints").glob("step_*"))
    return ocp.PyTreeCheckpointer().restore(last.absolute() / "arrays")


def test_twenty_kills_at_random_moments_lose_nothing(tmp_path, unbroken, report):
    draw = random.Random(0)
    inside_saves = 0
    for turn in range(KILLS):
        # Every other time with a save after each step, so that many kills fall inside one.
        with started(tmp_path, "--checkpoint-every-seconds", "0.3" if turn % 2 else "0") as process:
            wait_for_training(process)
            time.sleep(draw.uniform(0, 20))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        inside_saves += bool(list((tmp_path / "w").glob("*/checkpoints/.step_*.part")))
    finished = drive("compare_norms", tmp_path, *GRID, timeout=590)
    assert finished.returncode in (0, 3), finished.stderr
    assert_equal(tmp_path / "w", unbroken)
    report(f"kill -9 at random moments, {inside_saves} inside a save, seven variants", KILLS, "nothing")


def test_every_variant_is_stopped_and_goes_on(tmp_path, unbroken, report):
    draw = random.Random(0)
    stops = []
    for number in itertools.islice(itertools.cycle([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]), 8):
        with started(tmp_path) as process:
            wait_for_training(process)
            time.sleep(draw.uniform(8, 20))
            process.send_signal(number)
            output, errors = process.communicate(timeout=200)
        if process.returncode in (0, 3):
            break
        assert process.returncode == 128 + number, errors
        assert re.search(r"To go on: python \S*compare_norms.py", output)
        stops.append(number.name)
    assert stops
    assert drive("compare_norms", tmp_path, *GRID, timeout=590).returncode in (0, 3)
    assert_equal(tmp_path / "w", unbroken)
    report(f"{', '.join(dict.fromkeys(stops))}: saved, gone on", len(stops), "nothing")


def test_a_second_ctrl_c_ends_at_once(tmp_path, report):
    with started(tmp_path, "--num-epochs", "400") as process:
        wait_for_training(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.8)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)  # its 400 epochs would take minutes
    assert process.returncode == 130
    report("second Ctrl-C", 1, "what was not saved, as asked")


def test_one_writer_and_a_dead_one_s_lock(tmp_path, report):
    with started(tmp_path) as process:
        wait_for_training(process)
        second = drive("compare_norms", tmp_path, *GRID, timeout=60)
        assert second.returncode == 2
        assert f"but process {process.pid} on " in second.stderr
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with started(tmp_path) as process:
        assert any("compiling" in line for line in wait_for_training(process))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=200)
    report("second writer refused, a dead one's lock taken over", 2, "nothing")
