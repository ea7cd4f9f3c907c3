"""Settings of every test: several CPU devices, so that sharded code is tested on one machine."""

import os
from pathlib import Path

HERE = Path(__file__).parent

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("GLIBC_TUNABLES", "")  # or a driver called in this process would start the tests anew


def pytest_collection_modifyitems(items):
    """The drivers first, which take longest: a worker takes whole modules, so that what tests share is made once."""
    items.sort(key=lambda item: item.path.parent != HERE)
