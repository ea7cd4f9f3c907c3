"""The time in which a process could run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import time
from jaxnorm.study import clock
ours, all_time = clock.seconds(), time.monotonic()
print('begun', flush=True)
input()
print(clock.seconds() - ours, time.monotonic() - all_time)
"""


def test_a_suspended_process_does_not_age():
    options = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, **options) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        ours, all_time = map(float, process.communicate("\n", timeout=30)[0].split())
    assert 2.5 < all_time - ours < 3.5
