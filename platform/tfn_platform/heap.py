"""What a process does with memory that it has freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 30
LARGEST_ON_HEAP = 32 << 20
"""The most that glibc takes for this setting."""


def keep_freed_memory() -> None:
    """Keep up to a gigabyte of freed memory for the next allocation; glibc on Linux only.

    A network frees the same arrays after each batch that the next one asks for again. Given back to
    the system they come as new pages, each to be mapped and cleared: for a small network a fifth of
    its time on a CPU. What a process holds at its peak stays as it was.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not there in musl
        mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
