"""How a program ends: exit code and one line."""

import os
import signal

import jax
import pytest

from jaxnorm.errors import ProcessLost, UserError
from jaxnorm.study.cli import entry
from jaxnorm.study.runs.signals import SIGNALS


class Left(BaseException):
    """Instead of the end of this process."""


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted():
    raise KeyboardInterrupt


def terminated():
    signal.raise_signal(signal.SIGTERM)


def hung_up():
    signal.raise_signal(signal.SIGHUP)


def lost():
    raise ProcessLost("another process of this run is gone (somewhere)")


def faulty():
    raise RuntimeError("a fault of ours")


def mistaken():
    raise UserError("two\nlines")


def incomplete():
    import no_such_package.part  # noqa: F401


@pytest.mark.parametrize(
    "main, code, words",
    [
        (lambda: 3, 3, ""),
        (mistaken, 2, "error: two lines\n"),
        (
            incomplete,
            2,
            'error: the study needs no_such_package, which is not installed; pip install "jaxnorm[study]"\n',
        ),
        (interrupted, 130, "interrupted\n"),
        (terminated, 143, "terminated\n"),
        (hung_up, 129, "terminated\n"),
    ],
)
def test_a_program_ends_with_a_code_and_at_most_one_line(capsys, main, code, words):
    with pytest.raises(SystemExit) as left:
        entry.run(main)
    assert left.value.code == code
    assert capsys.readouterr().err == words


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(RuntimeError):
        entry.run(faulty)


@pytest.mark.parametrize(
    "main, code, words",
    [
        (interrupted, 130, "interrupted\n"),
        (hung_up, 129, "terminated\n"),
        (lost, 1, "error: another process of this run is gone (somewhere); start all of them again"),
        (faulty, 1, "RuntimeError: a fault of ours\n"),
    ],
)
def test_one_of_several_ends_without_waiting_for_the_others(monkeypatch, capsys, main, code, words):
    def leave(code):
        raise Left(code)

    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Left) as left:
        entry.run(main)
    assert left.value.args == (code,)
    assert words in capsys.readouterr().err
