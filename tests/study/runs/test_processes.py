"""What several processes do when they part; tests/durability has them for real."""

import os
import signal

import jax
import pytest

from jaxnorm.errors import ProcessLost
from jaxnorm.study import command_line
from jaxnorm.study.config import Config
from jaxnorm.study.runs import processes

CONFIG = Config(norm="gn")


class Left(BaseException):
    """Instead of the end of this process."""


@pytest.fixture
def several(monkeypatch):
    """This process taken for one of several."""

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)


def test_a_crash_is_everybodys_or_ends_the_run(several, monkeypatch):
    error = RuntimeError("a connection, of all words")
    monkeypatch.setattr(processes, "all_reach", lambda place: place == "crash of gn-seed0")
    processes.check_all_crashed(CONFIG, error)
    monkeypatch.setattr(processes, "all_reach", lambda place: False)
    with pytest.raises(ProcessLost, match="gn-seed0 has crashed in process 0 alone .RuntimeError: a conn") as caught:
        processes.check_all_crashed(CONFIG, error)
    processes.raise_if_lost(caught.value)  # said already, and not by another process
    with pytest.raises(ProcessLost, match="another process of this run is gone .a connection"):
        processes.raise_if_lost(error)


def test_alone_everybody_is_here():
    processes.check_all_crashed(CONFIG, RuntimeError())


def interrupted():
    raise KeyboardInterrupt


def terminated():
    signal.raise_signal(signal.SIGTERM)


def lost():
    raise ProcessLost("another process of this run is gone (somewhere)")


def faulty():
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    "main, code, words",
    [
        (interrupted, 130, "interrupted\n"),
        (terminated, 143, "terminated\n"),
        (lost, 1, "error: another process of this run is gone (somewhere); start all of them again"),
        (faulty, 1, "RuntimeError: a fault of ours\n"),
    ],
)
def test_one_of_several_leaves_without_waiting_for_the_others(several, capsys, main, code, words):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Left) as left:
            command_line.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.args == (code,)
    assert words in capsys.readouterr().err
