"""How values of a gallery are written for people, in terminals and on contact sheets."""

from __future__ import annotations

import re

_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""A name or a path on one line: characters that move the cursor or turn the direction become a question mark.

    >>> plain("day1/\x1b[2J.jpg")
    'day1/?[2J.jpg'
    """
    return _HIDDEN.sub("?", text)


def count_text(expected: float) -> str:
    """A number of expected strangers.

    >>> count_text(0.412), count_text(0.0003), count_text(1234.5)
    ('0.41', '< 0.01', '1,234')
    """
    if expected < 0.01:
        return "< 0.01"
    return f"{expected:.2g}" if expected < 99.5 else f"{expected:,.0f}"


def percent(share: float) -> str:
    """A share.

    >>> percent(0.2), percent(0.004), percent(0.996), percent(1)
    ('20 %', '0.4 %', '99.6 %', '100 %')
    """
    return f"{100 * share:.1f} %" if 0 < share < 0.01 or 0.99 < share < 1 else f"{100 * share:.0f} %"
