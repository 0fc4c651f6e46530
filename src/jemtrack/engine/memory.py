"""Memory that a training frees and takes again in every step, which is slow to get anew."""

import ctypes
import platform

# Of mallopt(3): what is free at the heap's end is given back above the first, and what is larger
# than the second is given back whenever it is freed.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
_KEPT = 2**31 - 1
_LARGEST_KEPT = 2**30


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to its peak, for what it needs next.

    By itself, glibc gives an activation's memory back when it is freed, and the system fills every
    page of it with zeros when it is taken again, in every step of a training on a CPU. With other
    C libraries, nothing is changed.
    """
    set_thresholds(_KEPT, _LARGEST_KEPT)


def set_thresholds(trim: int, mmap: int) -> None:
    """Choose both thresholds, in bytes, where the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(TRIM_THRESHOLD, trim)
        libc.mallopt(MMAP_THRESHOLD, mmap)
