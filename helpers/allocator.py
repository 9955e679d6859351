"""How the C library treats the memory of tensors that a training step no longer needs. Needs no torch."""

import ctypes
import sys

# https://man7.org/linux/man-pages/man3/mallopt.3.html
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30  # bytes


def keep_freed_memory() -> bool:
    """Lets the next step have the memory of the last one, on Linux with the GNU C library; elsewhere does nothing.

    By default that library returns large blocks to the system, and every step gets them back as new pages, which the
    system has to fill with zeros first: up to thousands a step, and some of its time (tests/test_allocator.py
    measures both). Up to KEPT free bytes stay with the process until it ends. GPUs have their own allocator, which
    keeps what was freed anyway.

    Returns:
        Whether the library was there and agreed.
    """
    if sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    blocks = mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, 1 << 25)  # an older one takes no more
    return bool(blocks and mallopt(M_TRIM_THRESHOLD, KEPT))
