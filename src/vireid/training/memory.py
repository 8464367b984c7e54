"""Memory: keep large freed blocks of the CPU for later use, and say what to do when that of a GPU is full."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from vireid.data.errors import BadInput

# Constants of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors, until it ends.

    By default glibc returns every large block to the system when it is freed, and maps the next one page by page. A
    training step allocates and frees the same hundreds of megabytes each time. On two cores this took a quarter of
    WRIM-Net's step. The process then keeps the most memory that it ever needed. This is only about the memory of the
    CPU: torch itself keeps that of a GPU.

    Returns:
        True if it was done; False if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * 2**20}
        return min(libc.mallopt(name, value) for name, value in settings.items()) == 1
    return False


@contextlib.contextmanager
def advice_on_full_memory(choices: str) -> Iterator[None]:
    """Turn torch's error about full memory into a sentence with what the user can change.

    Args:
        choices: what needs less memory.

    Raises:
        BadInput: the memory of the GPU is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(f"the memory of the GPU is full; these need less of it: {choices}") from error
