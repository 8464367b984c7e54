"""Compile a loop over numbers with numba.

This module imports numba, which takes about half a second. So modules that many commands import do not import it at
their beginning, but where they need it.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile a function with numba. If a cache folder is writable, later processes read the compiled code from it."""
    # nogil allows several Python threads to share the work. Two threads must not use numba's own thread pool at a time.
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache folder: compile once in each process
        return njit(**options)(function)
