"""Signals while runs train."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnorm.study.runs.signals import SIGNALS, StopRequest, heeded

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_a_request_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.signal is None
        for _ in range(2):  # what a terminal and `timeout` send twice at once is one request
            signal.raise_signal(number)
        wait_for(lambda: stop.signal is not None)
    assert (stop.signal, stop.exit_code) == (number, 128 + number)
    assert signal.getsignal(number) == before


def test_what_ends_a_program_without_ctrl_c_is_among_them():
    assert {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1} < set(SIGNALS)


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_signal_that_is_ignored_remains_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with StopRequest() as stop:
            assert signal.SIGHUP not in heeded()
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
            wait_for(lambda: stop.is_set)
        assert stop.signal == signal.SIGUSR1
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


DEEP = """
import ctypes
from jaxnorm.study.runs.signals import StopRequest
with StopRequest():
    print('entered', flush=True)
    libc = ctypes.CDLL(None)
    for _ in range(60): libc.usleep(1_000_000)  # as a compilation: outside of Python
"""


def test_a_second_signal_ends_the_process_though_it_is_deep_in_other_work():
    options = dict(env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", DEEP], **options) as process:
        assert process.stdout.readline() == "entered\n"
        process.send_signal(signal.SIGUSR1)
        line = process.stderr.readline() or process.stderr.readline()
        while "once more ends at once" not in line:
            line = process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGUSR1)  # the system may repeat it
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


SAVING = """
import sys
from pathlib import Path
from jaxnorm.study.cli import entry
from jaxnorm.study.runs.progress import StudyConsole, say
from jaxnorm.study.runs.signals import StopRequest

def main():
    console = StudyConsole()
    with StopRequest() as stop:
        say(console, "entered")
        while not stop.is_set:
            say(console, "training")
    say(console, "saved")
    Path(sys.argv[1]).write_text("saved")
    return stop.exit_code

entry.run(main)
"""


def test_a_terminal_that_is_closed_does_not_keep_a_run_from_saving(tmp_path):
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n" + SAVING,
            tmp_path / "out",
        ],
        env=ENVIRONMENT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        assert b"entered" in os.read(terminal, 100)
        os.close(terminal)
        assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert (tmp_path / "out").read_text() == "saved"
