"""Memory on CPU: what a training step frees is kept for the next one, in large pages.

XLA requests the memory of a step's activations anew at every step. glibc returns blocks of that size to the kernel,
which clears each page again: 35,000 page faults and a sixth of the processor time of a step at batch 128.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of mallopt, in <malloc.h>
_MADV_HUGEPAGE = 14
_LARGE_PAGE = 2 << 20
_RESERVED = 1 << 30

_shares_one_heap = False


def share_one_heap() -> None:
    """Makes all threads that start from now on share one heap, which `keep_freed_memory` needs.

    An entry point calls this before it loads JAX. Nothing happens where the C library is not glibc, or where the user
    has set it through the environment (`GLIBC_TUNABLES` or a variable that begins with `MALLOC_`).
    """
    global _shares_one_heap
    is_set = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not is_set:
        _shares_one_heap = bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, 1))


def keep_freed_memory() -> None:
    """Makes the C library keep what is freed from now on, and take it from large pages where the kernel allows that.

    A run calls this once its programs are compiled. Nothing happens unless `share_one_heap` was called.
    """
    if _shares_one_heap:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too
        library.mallopt(_TRIM_THRESHOLD, -1)
        _use_large_pages(library)


def release_freed_memory() -> None:
    """Returns to the kernel what was kept, and large blocks from now on as soon as they are freed."""
    if _shares_one_heap:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 65536)  # glibc's defaults
        library.mallopt(_TRIM_THRESHOLD, 128 << 10)
        library.malloc_trim(0)


def _use_large_pages(library: ctypes.CDLL) -> None:
    """Extends the heap by a block that occupies no memory until it is used, and then does so in large pages."""
    library.malloc.restype = ctypes.c_void_p
    block = library.malloc(ctypes.c_size_t(_RESERVED))
    if block is None:  # the process may not have so much address space
        return
    first = -(-block // _LARGE_PAGE) * _LARGE_PAGE
    length = (block + _RESERVED - first) // _LARGE_PAGE * _LARGE_PAGE
    # A kernel without large pages refuses this; the block is then made of small ones.
    library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    library.free(ctypes.c_void_p(block))
