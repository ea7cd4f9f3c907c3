"""Settings of every test: several CPU devices, so that sharded code is tested on one machine, bounded memory, and
programs that are compiled in a fifth of the time, because most tests run theirs once.

`make test-optimized` runs the numerics again with programs compiled as a user's are.
"""

import ctypes
import gc
import importlib.metadata
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MOST_MEMORY = 700_000_000  # bytes that a worker may hold between two tests

FLAGS = ["--xla_force_host_platform_device_count=8"]
if not os.environ.get("JAXNORM_TEST_OPTIMIZED"):
    FLAGS += ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know it
        FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
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


@pytest.fixture
def registry():
    """The registered norms. After the test all that is registered is that of before, in the same order."""
    from jaxnorm import DATASETS, MODELS, NORMS  # not above: JAX reads its settings when it is imported

    before = [(known, dict(known)) for known in (NORMS, DATASETS, MODELS)]
    yield NORMS
    for known, entries in before:
        known.clear()
        known.update(entries)


def resident_memory():
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
