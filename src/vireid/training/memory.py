"""Large blocks of memory on the CPU, kept instead of given back."""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let this process reuse the memory that large tensors leave, until it ends.

    glibc gives every large block back to the system when it is freed, and the next one is mapped in again page by page.
    A training step frees and takes the same hundreds of megabytes over and over; a quarter of WRIM-Net's step on two
    cores went there. The price is that the process holds what it once needed. Only the CPU's memory is concerned:
    torch keeps a GPU's by itself.

    Returns:
        Whether it was done: False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
        return min(libc.mallopt(name, value) for name, value in settings.items()) == 1
    return False
