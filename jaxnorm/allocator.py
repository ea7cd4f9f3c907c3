"""Memory in large pages, which spares a training step on CPU a sixth of its time."""

import os
import platform
import sys
import threading
from pathlib import Path
from typing import Any

TUNABLES = "GLIBC_TUNABLES"
LARGE_PAGES = "glibc.malloc.hugetlb=1"
_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_large_pages() -> None:
    """Starts this program anew, once, with the C library asking the kernel for pages of 2 MB. For entry points.

    XLA asks for a step's activations anew at every step, and the kernel gives them page by page, each one cleared. In
    pages of 4 kB that is a fifth of a step of the study's network. The C library reads its settings only when a program
    starts, so the process replaces itself: same number, same arguments, same files.

    Nothing happens where the C library is not glibc, where the kernel gives large pages always or never, where the user
    has set `GLIBC_TUNABLES`, under a debugger, once there are other threads, or where the program was typed or came by
    standard input, which does not give it twice.
    """
    if TUNABLES in os.environ or platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    if _is_debugged() or threading.active_count() > 1 or sys.argv[:1] in ([], [""], ["-"]):
        return
    try:
        if "[madvise]" not in _KERNEL.read_text():
            return
    except OSError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, TUNABLES: LARGE_PAGES})


def _is_debugged() -> bool:
    monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on
    return sys.gettrace() is not None or bool(monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID))
