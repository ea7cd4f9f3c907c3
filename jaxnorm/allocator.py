"""Memory in large pages, which spares a training step on CPU a sixth of its time."""

import os
import platform
import sys
import threading
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_large_pages() -> None:
    """Starts this program anew, once, with the C library asking the kernel for pages of 2 MB. For entry points.

    XLA asks for a step's activations anew at every step, and the kernel gives them page by page, each one cleared. In
    pages of 4 kB that is a fifth of a step of the study's network. The C library reads its settings only when a program
    starts, so the process replaces itself: same number, same arguments, same files.

    Nothing happens where the C library is not glibc, where the kernel gives large pages always or never, where the user
    has set `GLIBC_TUNABLES`, under a debugger, or once there are other threads.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    if sys.gettrace() is not None or threading.active_count() > 1:
        return
    try:
        if "[madvise]" not in _KERNEL.read_text():
            return
    except OSError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, TUNABLES: LARGE_PAGES})
