"""Compare a run of the benchmark with an earlier one.

A line is **slower** if two things hold. The ranges of its ratios, from the smallest to the largest of the rounds, do
not overlap, and all of the new ones are worse. And the medians differ by more than a tenth of the earlier one. So a
line whose rounds differ much needs a larger change to be called slower, and a change below a tenth never is. Ratios are
compared and not seconds: what else the machine did, and what machine it is, changes both contenders.

Lines are the same if area, name (which has the sizes), baseline and ours are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.bench.measure import Line
from vireid.data.errors import BadInput
from vireid.data.stored import as_json, read_json
from vireid.training.run import Surroundings

CHANGE = 0.1
NAMES = ("area", "name", "baseline", "ours")
NUMBERS = ("ratio", "ratio_min", "ratio_max")

Key = tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """What is different from an earlier run.

    Attributes:
        slower: one sentence for each line that became slower.
        notes: sentences on what the comparison does not see: another machine, other versions, lines of one run only.
        lines: how many lines both runs have.
    """

    slower: tuple[str, ...]
    notes: tuple[str, ...]
    lines: int


def read(file: Path) -> list[dict[str, Any]]:
    """Read what `vireid bench --json` wrote.

    Raises:
        BadInput: it cannot be read, or it is something else.
    """
    found = read_json(file)
    if not isinstance(found, list) or not all(_is_line(one) for one in found):
        raise BadInput(f"{file} is not what vireid bench --json writes: a list of objects with {', '.join(NAMES)}, …")
    return found


def _is_line(one: Any) -> bool:
    if not isinstance(one, dict) or not all(isinstance(one.get(name), str) for name in NAMES):
        return False
    numbers = [one.get(name) for name in NUMBERS]
    return (
        all(isinstance(number, (int, float)) and math.isfinite(number) and number > 0 for number in numbers)
        and one.get("better") in ("larger", "smaller")
        and all(isinstance(one.get(name, {}), dict) for name in ("machine", "versions"))
    )


def compare(earlier: Sequence[Mapping[str, Any]], lines: Iterable[Line], around: Surroundings) -> Compared:
    """Compare the lines of this run with those of an earlier one.

    Args:
        earlier: what `read` gave.
        lines: what was measured now.
        around: machine and versions of this run.
    """
    before = {_key(one): one for one in earlier}
    now = {_key(vars(one)): one for one in lines}
    both = [key for key in now if key in before]
    slower = tuple(said for key in both if (said := _slower(before[key], now[key])))
    notes = _notes(earlier, around)
    if new := len(now) - len(both):
        notes.append(f"{new} of {len(now)} lines are not in the earlier run, or have other sizes there")
    areas = {one.area for one in now.values()}
    if gone := [key for key in before if key not in now and key[0] in areas]:
        notes.append(f"{len(gone)} lines of the earlier run are not in this one, such as {': '.join(gone[0][:2])}")
    return Compared(slower, tuple(notes), len(both))


def _key(line: Mapping[str, Any]) -> Key:
    return tuple(str(line[name]) for name in NAMES)


def _slower(before: Mapping[str, Any], now: Line) -> str | None:
    """A sentence, if a line is slower by the rule of this module."""
    low, high = min(now.ratios), max(now.ratios)
    apart = high < before["ratio_min"] if now.larger else low > before["ratio_max"]
    if not apart or abs(now.ratio - before["ratio"]) <= CHANGE * before["ratio"]:
        return None
    ranges = f"{before['ratio_min']:.2f}–{before['ratio_max']:.2f}", f"{low:.2f}–{high:.2f}"
    return f"slower: {now.area}, {now.name}: ratio {before['ratio']:.2f} ({ranges[0]}) → {now.ratio:.2f} ({ranges[1]})"


def _notes(earlier: Sequence[Mapping[str, Any]], around: Surroundings) -> list[str]:
    """What is different about the machine and the versions. The lines of a file are of one run."""
    machine, versions = (earlier[0].get(name, {}) for name in ("machine", "versions")) if earlier else ({}, {})
    here = as_json(around)
    notes = []
    if other := [name for name, value in here["hardware"].items() if machine.get(name) != value]:
        told = ", ".join(f"{name} {machine.get(name)} → {here['hardware'][name]}" for name in other)
        notes.append(f"another machine: {told}")
    if other := [name for name in {**versions, **here["versions"]} if versions.get(name) != here["versions"].get(name)]:
        told = ", ".join(f"{name} {versions.get(name)} → {here['versions'].get(name)}" for name in other)
        notes.append(f"other versions: {told}")
    return notes
