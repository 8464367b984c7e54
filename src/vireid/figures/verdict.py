"""The first part of the page: which group of runs is better, whether that is certain, and in what the groups differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vireid.evaluation.queries import BY_QUERY
from vireid.evaluation.report import TITLES
from vireid.experiments.grouping import Group, differing, fields_of, shown
from vireid.experiments.standing import Standing
from vireid.figures import charts
from vireid.figures.tables import MISSING
from vireid.training.run import Run

LEGEND = (
    "In brackets: 95 % interval, from a bootstrap over the test people (all groups are asked the same queries in the "
    "same trials) and over the seeds of each group. Certain: the interval of the difference leaves out 0. "
    "The probability is that of the first group being really better",
    "Where a group has fewer than three seeds, the interval says little or nothing about what another training would "
    "change, so the order is certain for these trainings only. Each line is a comparison of its own: with many groups, "
    "one of them can look certain by chance",
)


def verdict(protocol: str, found: Sequence[Standing]) -> dict[str, Any]:
    """The table of a protocol, a sentence that says the same, and a chart; values for the page."""
    drawn = {
        one.group.label: {
            TITLES[name]: (one.group.ours.metrics[name], *one.intervals[name]) for name in BY_QUERY if one.intervals
        }
        for one in found
    }
    drawn = {label: values for label, values in drawn.items() if values}
    return {
        "protocol": protocol,
        "sentence": sentence(found),
        "rows": [_row(place, one) for place, one in enumerate(found, 1)],
        "chart": charts.intervals(drawn, x="percent, with 95 % interval") if drawn else "",
        "compared": any(one.behind for one in found),
        "several": len(found) > 1,
    }


def sentence(found: Sequence[Standing]) -> str:
    """What the table says, in words: which group is first, and what is certain about that."""
    if not found:
        return ""
    first, *others = found
    ours = first.group.ours
    numbers = ", ".join(f"{TITLES[name]} {ours.metrics[name]:.2f} %" for name in BY_QUERY)
    if not others:
        return f"{first.group.label}: {numbers}. There is no other group to compare with."
    told = [f"{first.group.label} is first by mAP ({numbers})."]
    by_verdict: dict[str, list[str]] = {}
    for one in others:
        by_verdict.setdefault(one.verdict("map"), []).append(one.group.label)
    if names := by_verdict.get("certain"):
        told.append(f"It is certain that its mAP is higher than that of {_all(names)}.")
    if names := by_verdict.get("certain for these trainings"):
        told.append(f"For these trainings, it is certain that its mAP is higher than that of {_all(names)}.")
    if names := by_verdict.get("not certain"):
        told.append(f"It is not certain that its mAP is higher than that of {_all(names)}.")
    if names := by_verdict.get(""):
        told.append(f"Not compared: {_all(names)}.")
    return " ".join(told)


def _all(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{'; '.join(names[:-1])} and {names[-1]}"


def _row(place: int, one: Standing) -> dict[str, Any]:
    ours = one.group.ours
    return {
        "place": place,
        "name": one.group.label,
        "extent": ours.extent,
        "first": place == 1,
        "reason": one.reason,
        "cells": [_cell(one, name) for name in BY_QUERY],
    }


def _cell(one: Standing, metric: str) -> dict[str, str]:
    around = one.intervals.get(metric)
    behind = one.behind.get(metric)
    return {
        "value": f"{one.group.ours.metrics[metric]:.2f}",
        "interval": f"[{around[0]:.2f}, {around[1]:.2f}]" if around else "",
        "behind": _signed(behind.difference) if behind else "",
        "behind_interval": f"[{_signed(behind.low)}, {_signed(behind.high)}]" if behind else "",
        "verdict": one.verdict(metric),
        "probability": _percent(behind.probability) if behind else "",
    }


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _percent(probability: float) -> str:
    """A probability from a limited number of draws, in words that do not promise more.

    >>> _percent(0.7149), _percent(1.0), _percent(0.0003)
    ('71 %', 'over 99 %', 'under 1 %')
    """
    if probability > 0.99:
        return "over 99 %"
    return "under 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"


# --- in what the groups differ ----------------------------------------------------------------------------------------


def configurations(groups: Iterable[Group]) -> dict[str, Any] | None:
    """The fields in which groups differ, as a table: a line for each field, a column for each group.

    Args:
        groups: of all protocols; of groups with one name, the first one is taken.

    Returns:
        The names of the groups, the lines of what all groups have, and the lines of fields that only some recipes have;
        None where there is only one group.
    """
    told = list({group.label: group for group in groups}.values())
    if len(told) < 2:
        return None
    first = [group.found[0] for group in told]
    circumstances = _unequal([_circumstances(run) | {"measured with": _how(one.marks)} for run, one in first])
    fields = [fields_of(run.facts.config) for run, _ in first]
    paths = differing([run.facts.config for run, _ in first])
    lines = {path: [shown(own[path]) if path in own else MISSING for own in fields] for path in paths}
    # What belongs to one recipe only is no difference in a setting. It stands below the others.
    shared = {path: cells for path, cells in lines.items() if all(path in own for own in fields)}
    inside = {path: cells for path, cells in lines.items() if path not in shared and _root_shared(path, fields)}
    rest = {path: cells for path, cells in lines.items() if path not in shared and path not in inside}
    return {
        "names": [group.label for group in told],
        "lines": list((circumstances | shared | inside).items()),
        "some": list(rest.items()),
    }


def _root_shared(path: str, fields: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all groups have the part that a field belongs to, such as `erasing` of `erasing.p`."""
    root = path.partition(".")[0]
    return all(root in own for own in fields)


def _circumstances(run: Run) -> dict[str, str]:
    facts = run.facts
    return {
        "recipe": facts.recipe,
        "row": facts.row or MISSING,
        "training pictures": f"{facts.data.layout}, fingerprint {facts.data.fingerprint}",
        "git commit": facts.git_commit or "installed package",
        "hardware": facts.hardware.words,
    }


def _how(marks: Sequence[str]) -> str:
    return ", ".join(marks) or "nothing beyond the plain measurement"


def _unequal(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    lines = {name: [column[name] for column in columns] for name in columns[0]}
    return {name: cells for name, cells in lines.items() if len(set(cells)) > 1}
