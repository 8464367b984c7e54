"""Progress of long work, for a person: lines of text, and bars with the time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Progress(Protocol):
    """The interface that long work reports its progress to."""

    def say(self, text: str) -> None:
        """Show one line of text."""
        ...

    def bar(self, title: str) -> AbstractContextManager[Advance]:
        """Show a bar during a `with` block. The block gets a function to call with (done, total)."""
        ...


class Quiet:
    """Shows nothing. The default for Python users."""

    def say(self, text: str) -> None:
        """Do nothing."""

    @contextlib.contextmanager
    def bar(self, title: str) -> Iterator[Advance]:
        """No bar."""
        yield lambda done, total: None


class Terminal:
    """Lines and bars on standard error. Where that is not a terminal, a line for every tenth of the work."""

    def __init__(self) -> None:
        self._display: Any = None  # one for all bars: the bar of a validation stands below that of the training

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self, title: str) -> Iterator[Advance]:
        """A bar with counts and time left. It disappears when the block ends."""
        if self._display is not None:
            with self._task(title) as advance:
                yield advance
        elif sys.stderr.isatty():
            with _display() as self._display, self._task(title) as advance:
                try:
                    yield advance
                finally:
                    self._display = None
        else:
            yield _lines(title)

    @contextlib.contextmanager
    def _task(self, title: str) -> Iterator[Advance]:
        display = self._display
        task = display.add_task(title, total=None)
        try:
            yield lambda done, total: display.update(task, completed=done, total=total)
        finally:
            display.remove_task(task)


def _display() -> Any:
    from rich import progress
    from rich.console import Console

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    time_left = progress.TimeRemainingColumn()
    return progress.Progress(*columns, time_left, console=Console(stderr=True), transient=True)


def _lines(title: str) -> Advance:
    """Prints a line whenever another tenth of the work is done."""
    shown = -1

    def advance(done: int, total: int) -> None:
        nonlocal shown
        tenths = 10 * done // max(total, 1)
        if tenths > shown:
            shown = tenths
            print(f"{title}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return advance
