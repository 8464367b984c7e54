"""The one exception that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence that names the thing and, where there are any, the choices. The command line prints
    it without a traceback and exits with code 2; anything else that escapes is our own mistake and exits with 1.
    """


def unknown(kind: str, given: str, choices: Iterable[str]) -> BadInput:
    """Say that `given` is not one of `choices`, and which one was probably meant.

    >>> str(unknown("layout", "sysu", ["sysu-mm01", "regdb"]))
    "unknown layout 'sysu'; did you mean 'sysu-mm01'? Choices: sysu-mm01, regdb"
    """
    choices = list(choices)
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? Choices: " if close else "choices: "
    return BadInput(f"unknown {kind} '{given}'; {hint}{', '.join(choices) or '(none)'}")
