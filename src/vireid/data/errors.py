"""The exception for mistakes that the user can correct."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """An input of the user cannot be used.

    The message is one sentence. It names the input and, if there are choices, the choices. The command line prints it
    without a traceback and exits with code 2. Any other exception is a mistake of this package and exits with code 1.
    """


def unknown(kind: str, given: str, choices: Iterable[str]) -> BadInput:
    """An exception that says that `given` is not one of `choices`, and which choice is the most similar.

    >>> str(unknown("layout", "sysu", ["sysu-mm01", "regdb"]))
    "unknown layout 'sysu'; did you mean 'sysu-mm01'? Choices: sysu-mm01, regdb"
    """
    choices = list(choices)
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? Choices: " if close else "choices: "
    return BadInput(f"unknown {kind} '{given}'; {hint}{', '.join(choices) or '(none)'}")
