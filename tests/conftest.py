"""Settings of every test: several CPU devices, so that sharded code is tested on one machine, and bounded memory."""

import ctypes
import gc
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MOST_MEMORY = 700_000_000  # bytes that a worker may hold between two tests

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
signal.signal(signal.SIGINT, signal.default_int_handler)  # the background of a shell ignores it, and so would children
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    """The drivers first, which take longest: a worker takes whole modules, so that what tests share is made once."""
    items.sort(key=lambda item: item.path.parent != HERE)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Drops compiled programs once a worker holds too much, so that the suite runs on a machine with 8 GB."""
    yield
    if resident_memory() > MOST_MEMORY:
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        gc.collect()
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)


def resident_memory():
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
