"""A grid of runs: what is left of it and what its exit code is. The drivers' tests train one for real."""

import signal

import pytest
from rich.console import Console

from jaxnorm import files
from jaxnorm.study.config import Config
from jaxnorm.study.runs.directory import RunDirectory
from jaxnorm.study.runs.signals import StopRequest
from jaxnorm.study.runs.study import Execution, outcome, steps_left, train_grid, unfinished
from jaxnorm.study.runs.workdir import Workdir

GRID = [Config(norm=norm, num_epochs=2, batch_size=107) for norm in ("bn", "gn", "ln")]


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "w", study="compare_norms")


def test_what_is_left_and_how_many_steps(workdir, begin, digits):
    begin(workdir, GRID[0], status="complete", epoch=2)
    begin(workdir, GRID[1])
    (workdir.directory(GRID[1]).path / "checkpoints" / "step_00000004").mkdir(parents=True)
    left = unfinished(GRID, workdir)
    assert left == GRID[1:]
    assert steps_left(left, digits, workdir) == {GRID[1]: 16, GRID[2]: 20}


@pytest.mark.parametrize(
    "statuses, code",
    [
        (("complete", "complete", "complete"), 0),
        (("complete", "crashed", "diverged"), 1),
        (("complete", "complete", "diverged"), 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst_run(workdir, begin, statuses, code):
    for config, status in zip(GRID, statuses, strict=True):
        begin(workdir, config, status=status, epoch=2)
    assert outcome(GRID, workdir) == code


def test_twice_as_many_runs_are_read_twice_as_often(workdir, begin, digits, monkeypatch):
    """No run is looked at again after each of the others."""
    grid = [Config(norm="gn", seed=seed, num_epochs=1) for seed in range(8)]
    begin(workdir, *grid, status="complete", epoch=1)
    monkeypatch.setattr(RunDirectory, "is_finished", False)  # so that all are trained
    monkeypatch.setattr("jaxnorm.study.runs.study.train_run", lambda *_: None)
    read, opened = files.read_bytes, []
    monkeypatch.setattr(files, "read_bytes", lambda path, *most: (opened.append(path), read(path, *most))[1])
    counts = []
    for configs in (grid[:4], grid):
        opened.clear()
        train_grid(configs, digits, workdir, Console(quiet=True), Execution())
        counts.append(len(opened))
    assert 0 < counts[1] <= 2 * counts[0]


def test_a_signal_counts_where_it_left_runs_unfinished(workdir, begin):
    stop = StopRequest()
    stop.signal = signal.SIGINT
    begin(workdir, *GRID, status="complete", epoch=2)
    assert outcome(GRID, workdir, stop) == 0
    begin(workdir, GRID[0], status="complete", epoch=1)
    assert outcome(GRID, workdir, stop) == 130
