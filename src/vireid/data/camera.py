"""Cameras as people write them: `3`, `c3`, `cam3`, or names such as `entrance`."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(?:c|cam|camera)?[ _-]?([0-9]{1,9})", re.IGNORECASE)


def camera_numbers(words: Sequence[str]) -> tuple[list[int], list[str]]:
    """The number of each camera, and a note if names had to be numbered.

    If all words are numbers, such as `3`, `c3` or `cam3`, each camera keeps its own number. Otherwise all of them are
    names, and are numbered in sorted order from 0. Then `cam3` and `3` are the same name. The same names get the same
    numbers on every machine.

    >>> camera_numbers(["cam3", "1"])
    ([3, 1], [])
    >>> camera_numbers(["yard", "entrance", "yard"])
    ([1, 0, 1], ['2 camera names were numbered in sorted order: 0 entrance, 1 yard'])
    """
    found = [_NUMBER.fullmatch(word.strip()) for word in words]
    if all(found):
        return [int(match[1]) for match in found if match], []
    names = [str(int(match[1])) if match else word.strip() for word, match in zip(words, found, strict=True)]
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    shown = ", ".join(f"{number} {name[:40]}" for name, number in list(order.items())[:9])
    more = " …" if len(order) > 9 else ""
    note = f"{len(order)} camera names were numbered in sorted order: {shown}{more}"
    return [order[name] for name in names], [note]
