"""Runs side by side: what each has of the machine, and one study in real processes."""

import functools
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxnorm import Config
from jaxnorm.errors import UserError
from jaxnorm.study.data import load_dataset
from jaxnorm.study.runs.jobs import train_side_by_side
from jaxnorm.study.runs.plan import Machine
from jaxnorm.study.runs.shares import shares
from jaxnorm.study.runs.study import Execution
from jaxnorm.study.runs.workdir import Workdir
from tests.drivers import content, drive, start, wait_for_line

GRID = ["--norms", "none", "--seeds", 0, 1, 2, 3, "--batch-size", 256, "--num-epochs", 3, "--workdir", "w"]
RUNS = [f"none-seed{seed}" for seed in range(4)]
needs_cores = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not assign cores")


def gpus(count):
    return Machine({"device": {"platform": "gpu"}}, count, 1e-4, None)


@needs_cores
@pytest.mark.parametrize(
    "cores, jobs, expected", [(4, 2, [(0, 1), (2, 3)]), (5, 2, [(0, 1), (2, 3)]), (2, 3, [(0,), (1,), (0,)])]
)
def test_all_workers_have_equally_many_cores(monkeypatch, cores, jobs, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert [share.cores for share in shares(jobs)] == expected


def test_gpus_are_given_out_in_turn_and_their_memory_is_divided(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    assert [share.environment for share in shares(2, gpus(4))] == [{"CUDA_VISIBLE_DEVICES": name} for name in "01"]
    shared = [share.environment for share in shares(3, gpus(2))]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shared] == ["0", "1", "0"]
    assert {each["XLA_PYTHON_CLIENT_MEM_FRACTION"] for each in shared} == {"0.450"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")
    assert [share.environment for share in shares(3, gpus(2))] == [
        {"CUDA_VISIBLE_DEVICES": name} for name in ("5", "GPU-8932", "5")
    ]


@pytest.mark.parametrize("names", [None, ""])
def test_a_single_gpu_has_a_name_where_the_user_names_none(monkeypatch, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if names is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares(2, gpus(1))] == ["0", "0"]


def test_a_worker_that_does_not_find_its_gpu_does_not_train_on_the_cpu(tmp_path):
    dataset = load_dataset("digits")
    machine = Machine({"device": {"platform": "gpu", "cores": 2}}, 1, 1e-4, None)
    workdir = Workdir(tmp_path, study="compare_norms")
    arguments = ([Config(norm="none")], dataset, workdir, Console(quiet=True), Execution())
    with pytest.raises(UserError, match="each of the jobs must find a gpu, but one finds a cpu only"):
        train_side_by_side(*arguments, jobs=1, machine=machine, set_up=functools.partial(load_dataset, "digits"))
    assert not list(tmp_path.iterdir())


def test_other_accelerators_are_refused():
    with pytest.raises(UserError, match="the devices are tpus"):
        shares(2, Machine({"device": {"platform": "tpu"}}, 4, 1e-4, None))


def workers_of(process):
    """Numbers of the worker processes of a driver."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.durability
@needs_cores
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists a process's children")
def test_a_study_that_is_stopped_and_loses_a_worker_ends_with_the_files_of_one_job(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    one = tmp_path / "one"
    one.mkdir()
    os.sched_setaffinity(0, cores[: max(len(cores) // 2, 1)])  # the driver that this thread starts has the same cores
    try:
        finished = drive("compare_norms", one, *GRID)
    finally:
        os.sched_setaffinity(0, cores)
    assert finished.returncode == 0, finished.stderr

    jobs = [*GRID, "--jobs", 2, "--checkpoint-every-seconds", 1]
    with start("compare_norms", tmp_path, *jobs) as process:
        wait_for_line(process, "epoch 1/3")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert len(re.findall("^none-seed[01]: stopped and saved$", output, re.M)) == 2, output
    assert "To go on: python " in output
    assert "Traceback" not in errors

    with start("compare_norms", tmp_path, *jobs) as process:
        said = wait_for_line(process, "epoch 2/3")
        assert any("going on after step" in line for line in said)
        os.kill(workers_of(process)[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    crashed = re.findall("^(none-seed.): crashed: .*SIGKILL", output, re.M)
    statuses = {run: json.loads((tmp_path / "w" / run / "result.json").read_text())["status"] for run in RUNS}
    assert [run for run, status in statuses.items() if status == "crashed"] == crashed
    assert sorted(statuses.values()) == ["complete"] * 3 + ["crashed"]

    finished = drive("compare_norms", tmp_path, *jobs, timeout=600)
    assert finished.returncode == 0, finished.stderr
    for run in RUNS:
        (rows, result), (expected_rows, expected) = (content(place / "w", run) for place in (tmp_path, one))
        assert rows == expected_rows
        assert {**result, "seconds": 0} == {**expected, "seconds": 0}
        ours, theirs = (np.load(place / "w" / run / "predictions.npz") for place in (tmp_path, one))
        np.testing.assert_array_equal(ours["logits"], theirs["logits"])
    assert not list((tmp_path / "w").glob("*/crash.txt"))
