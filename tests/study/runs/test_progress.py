"""What a log says of runs as they go."""

import io
import re

import pytest
from rich.console import Console

from jaxnorm.study import clock
from jaxnorm.study.config import Config
from jaxnorm.study.runs.progress import Display

FIRST, SECOND = (Config(norm="bn", seed=seed, batch_size=8, num_epochs=10) for seed in (0, 1))
ROW = dict(epoch=3, train_loss=0.25, train_accuracy=0.5, val_loss=0.75, val_accuracy=0.6, seconds=3.0)


@pytest.fixture
def now(monkeypatch):
    """The time, which stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(clock, "seconds", lambda: now[0])
    return now


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def lines(console):
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("jobs, left", [(1, 18), (2, 9)])
def test_the_time_left_is_that_of_all_runs_shared_by_the_jobs(console, now, jobs, left):
    with Display(console, {FIRST: 10, SECOND: 10}, jobs) as display:
        display.begin(FIRST, 1)
        for step in (1, 2, 3):
            now[0] += 1
            display.stepped(FIRST, step)
        display.epoch(FIRST, ROW)
    run, line = lines(console)[-1].split(": ", 1)
    assert run == FIRST.name
    numbers = [float(number) for number in re.findall(r"[\d.]+", line)]
    assert numbers == [3, 10, 0.25, 50, 0.75, 60, 3, left]


def test_runs_at_the_same_time_are_told_apart(console, now):
    with Display(console, {FIRST: 10, SECOND: 10}, 2) as display:
        display.begin(FIRST, 1)
        display.begin(SECOND, 1)
        display.resume(FIRST, 4)
        display.note(SECOND, "something")
        display.stepped(SECOND, 1)
        display.stepped(FIRST, 5)
        display.end(SECOND, "over")
        display.end(FIRST, "over, too")
    said = [line.split(": ", 1) for line in lines(console)]
    assert [run for run, _ in said] == [each.name for each in (FIRST, SECOND, FIRST, SECOND, SECOND, FIRST)]
    assert "4" in said[2][1]
    assert [words for _, words in said[3:]] == ["something", "over", "over, too"]
