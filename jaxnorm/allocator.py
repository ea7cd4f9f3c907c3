"""A setting of the C library's allocator that spares a training step on CPU a fifth of its time."""

import ctypes
import os
import platform
import threading

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of mallopt in <malloc.h>


def keep_freed_memory() -> bool:
    """Tells the C library to keep what is freed for the next allocation. For entry points; before jax is loaded.

    XLA asks for a step's activations anew at every step. By default glibc takes blocks of that size from the kernel and
    gives them back at once, and the kernel clears every page again. Kept, memory stays at its highest mark until the
    process ends.

    Returns:
        Whether it did: not where the C library is another one, nor where the user has settings of the same kind in
        the environment (``MALLOC_...``, ``GLIBC_TUNABLES``), nor where there are other threads already.
    """
    theirs = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] != "glibc" or theirs or threading.active_count() > 1:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Large blocks from the heap, the heap never cut, and one heap for all threads: those of others have a size limit.
    return all(mallopt(*setting) for setting in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)))
