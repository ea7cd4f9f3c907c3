"""What a log says of runs as they go."""

import io
import re

import pytest
from rich.console import Console

from jaxnorm.study import clock
from jaxnorm.study.config import Config
from jaxnorm.study.runs.progress import Display, StudyConsole, say_page

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


def test_the_time_left_follows_the_recent_pace(console, now):
    """Once other work has left the machine, an hour at a tenth of the pace is forgotten within minutes."""
    with Display(console, {FIRST: 10_000}) as display:
        display.begin(FIRST, 1000)
        for step in range(1, 361):
            now[0] += 10
            display.stepped(FIRST, step)
        for step in range(361, 1001):
            now[0] += 1
            display.stepped(FIRST, step)
        display.epoch(FIRST, ROW)
    assert 9000 / 3600 <= hours(lines(console)[-1]) < 1.5 * 9000 / 3600


def hours(line):
    left = re.search(r"(?:(\d+) h )?(\d+) min(?: \d+ s)? left", line)
    return int(left[1] or 0) + int(left[2]) / 60


def test_a_log_says_early_how_much_is_left(console, now):
    with Display(console, {FIRST: 1000}) as display:
        display.begin(FIRST, 100)
        for step in range(1, 30):
            now[0] += 3
            display.stepped(FIRST, step)
    (line,) = (line for line in lines(console) if "left" in line)
    assert 0.8 < hours(line) < 0.85


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_asks_the_stream_and_not_the_environment(monkeypatch, now, is_terminal):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    console = StudyConsole(file=Stream(is_terminal), width=100)
    with Display(console, {FIRST: 1000}) as display:
        display.begin(FIRST, 100)
        for step in range(1, 1001):
            now[0] += 1
            display.stepped(FIRST, step)
        display.end(FIRST, "test accuracy 99 %")
    said = console.file.getvalue()
    assert (said.count("\x1b") > 5) == is_terminal
    assert is_terminal or len(said) < 300


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_path_of_a_page_is_a_link_in_a_terminal_alone(monkeypatch, tmp_path, is_terminal):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    page = tmp_path / "a [b] c" / "report.html"
    console = StudyConsole(file=Stream(is_terminal), width=20)
    say_page(console, page)
    said = console.file.getvalue()
    assert (page.as_uri() in said) == is_terminal
    assert re.sub(r"\x1b]8;[^\x1b]*\x1b\\", "", said) == f"Report: {page}\n"
