"""Ctrl-C and SIGTERM while runs train."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnorm.study.runs.signals import StopRequest


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_a_request_and_the_handlers_come_back(number, code):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.signal is None
        for _ in range(2):  # what a terminal and `timeout` send twice at once is one request
            signal.raise_signal(number)
        wait_for(lambda: stop.signal is not None)
    assert (stop.signal, stop.exit_code) == (number, code)
    assert signal.getsignal(number) == before


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_second_signal_ends_the_process_though_it_is_deep_in_other_work():
    program = (
        "import ctypes\n"
        "from jaxnorm.study.runs.signals import StopRequest\n"
        "with StopRequest():\n"
        "    print('entered', flush=True)\n"
        "    libc = ctypes.CDLL(None)\n"
        "    for _ in range(60): libc.usleep(1_000_000)\n"  # as a compilation: outside of Python
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    options = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", program], **options) as process:
        assert process.stdout.readline() == "entered\n"
        process.send_signal(signal.SIGINT)
        line = process.stderr.readline() or process.stderr.readline()
        while "once more ends at once" not in line:
            line = process.stderr.readline()
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
