"""Memory in large pages, and kept between steps, which spares a training step on CPU a quarter of its time."""

import contextlib
import ctypes
import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
_STARTED = "JAXNORM_RESTARTED"  # the number of the process that has done it
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, in <malloc.h>
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_large_pages() -> None:
    """Starts this program anew, once, with the C library asking the kernel for pages of 2 MB. For entry points.

    XLA asks for a step's activations anew at every step, and the kernel gives them page by page, each one cleared. In
    pages of 4 kB that is a fifth of a step of the study's network. The C library reads its settings only when a program
    starts, so the process replaces itself: same number, same arguments, same files.

    Nothing happens where the C library is not glibc, where the kernel gives large pages always or never, where the user
    has set `GLIBC_TUNABLES`, under a debugger or pytest, once there are other threads, or where the program was typed
    or came by a pipe, which does not give it twice.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    if os.environ.get(_STARTED) == str(os.getpid()):  # a program with privileges is started without tunables
        return
    if _is_debugged() or "pytest" in sys.modules or threading.active_count() > 1 or not _comes_twice():
        return
    try:
        if "[madvise]" not in _KERNEL.read_text():
            return
    except OSError:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    environment = {**os.environ, TUNABLES: LARGE_PAGES, _STARTED: str(os.getpid())}
    with contextlib.suppress(OSError):  # without large pages, then
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _comes_twice() -> bool:
    """Whether Python finds the program once more: in a file, or on its command line after ``-c``."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if hasattr(sys, "ps1"):
        return False
    return os.path.isfile(file) if file else sys.argv[:1] == ["-c"]  # noqa: PTH113


def _is_debugged() -> bool:
    monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on
    return sys.gettrace() is not None or bool(monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID))


def keep_freed_memory() -> None:
    """From now on the C library keeps what is freed, for the next step. For entry points, once all is compiled.

    XLA's block for a step's activations is larger than the 32 MB up to which glibc would keep it by itself. Nothing
    happens unless this program was restarted with large pages: all threads then share one heap, which such blocks need.
    """
    _set(mmap_max=0, trim_threshold=-1)


def release_freed_memory() -> None:
    """The C library returns large blocks to the kernel again, and all that it has kept."""
    if _set(mmap_max=65536, trim_threshold=128 * 1024):  # what glibc begins with
        ctypes.CDLL(None).malloc_trim(0)


def _set(*, mmap_max: int, trim_threshold: int) -> bool:
    ours = os.environ.get(TUNABLES) == LARGE_PAGES
    if ours:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, mmap_max)
        mallopt(_TRIM_THRESHOLD, trim_threshold)
    return ours
