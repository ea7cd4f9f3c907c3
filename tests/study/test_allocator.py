"""Freed memory is kept between steps and returned between runs, seen as page faults and resident memory."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PROGRAM = """
import ctypes, resource, threading
from jaxnorm.study.allocator import keep_freed_memory, release_freed_memory, share_one_heap

share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 64 * 2**20  # more than glibc keeps by itself

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    def steps():
        for _ in range(4):
            block = libc.malloc(SIZE)
            libc.memset(block, 1, SIZE)
            libc.free(block)

    thread = threading.Thread(target=steps)  # XLA works in threads of its own
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

returned = faults()
keep_freed_memory()
faults()
kept, held = faults(), resident()
release_freed_memory()
print(returned, kept, held - resident())
"""


def measure(**settings):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": str(ROOT), **settings}
    finished = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return map(int, finished.stdout.split())


def test_memory_is_kept_from_step_to_step_and_returned():
    returned, kept, given_back = measure()
    assert returned > 1000
    assert kept < returned / 100
    assert given_back > 60 * 2**20


@pytest.mark.parametrize("setting", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX"])
def test_the_user_s_settings_remain(setting):
    returned, kept, _ = measure(**{setting: "" if setting == "GLIBC_TUNABLES" else "2"})
    assert kept > returned / 2
