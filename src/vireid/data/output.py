"""The program's output when it cannot be written: the disk is full, or a reader such as `head` closed the pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the quota is used up, or a file is larger than the system allows."""


def complain(sentence: str, code: int) -> int:
    """Print one sentence on standard error, if anybody can still read it, and return the exit code."""
    with contextlib.suppress(OSError):
        print(f"vireid: {sentence}", file=sys.stderr, flush=True)
    return code


def finish(code: int) -> int:
    """Write out what was printed, and return the exit code: this one, or that of `failed`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return failed(error, code)
    return code


def failed(error: OSError, code: int = 0) -> int:
    """The exit code after an output could not be written.

    Args:
        error: what was raised.
        code: the exit code if a reader closed the pipe, which is no mistake.

    Returns:
        `code`, or 2 with one sentence if the disk is full.

    Raises:
        OSError: the error itself, if it means neither of the two.
    """
    closed = isinstance(error, BrokenPipeError) and _reader_gone()
    if not closed and error.errno not in FULL:
        raise error
    # Python writes its buffer once more when it exits. Without this, that would fail again and print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code if closed else complain(f"cannot write {error.filename or 'the output'}: {error.strerror}", 2)


def _reader_gone() -> bool:
    """Whether nobody reads standard output or standard error any more. Other broken pipes are mistakes of ours."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
