"""The result of a protocol in pieces, group beside group: by camera of the query, by person, and the worst queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.evaluation.breakdown import Breakdown
from vireid.evaluation.queries import Queries
from vireid.experiments.grouping import Group
from vireid.experiments.measurement import queries_of
from vireid.experiments.standing import Standing
from vireid.figures import charts
from vireid.figures.tables import MISSING

PEOPLE = 8  # with the lowest mAP, in the table
QUERIES = 10  # with the lowest average precision, in the table

Result = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of Q queries: average precision and Rank-1 in percent, rank of the first true match; means over trials and seeds."""


def pieces(
    protocol: str, ordered: Sequence[Standing], thumbnail: Callable[[Path], str | None]
) -> dict[str, Any] | None:
    """The pieces of a protocol, values for the page; None where no group has results of queries.

    The groups that ask the same queries as the first one with results are shown beside it.

    Args:
        protocol: its name.
        ordered: from `vireid.experiments.standing.standings`.
        thumbnail: a file's picture as a data address, or None.
    """
    first: Queries | None = None
    results: dict[str, Result] = {}
    root = ""
    for group in (one.group for one in ordered):
        kept = _kept(group)
        if not kept or (first is not None and not _same(first, kept[0])):
            continue
        if first is None:
            first, root = kept[0], group.found[0][1].measured.root
        own = [one for one in kept if _same(first, one)]
        results[group.label] = tuple(  # type: ignore[assignment]
            np.mean(values, axis=0)
            for values in (
                [one.means("map") for one in own],
                [one.means("rank1") for one in own],
                [one.ranks() for one in own],
            )
        )
    if first is None:
        return None
    return {
        "protocol": protocol,
        "names": list(results),
        "cameras": by_camera(first, results),
        **by_person(first, results),
        "queries": worst_queries(first, results, lambda path: thumbnail(Path(root) / path)),
    }


def _kept(group: Group) -> list[Queries]:
    """The results of the queries of a group's runs of its first fold; runs without them are left out."""
    fold = group.found[0][0].facts.data.fold
    found = []
    for run, one in group.found:
        if run.facts.data.fold != fold:
            continue
        try:
            own = queries_of(run, one)
        except BadInput:
            continue  # the table of the order says it
        found += [own] if own is not None else []
    return found


def _same(first: Queries, other: Queries) -> bool:
    return np.array_equal(first.path, other.path) and np.array_equal(first.trials, other.trials)


def by_camera(first: Queries, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """A line for each camera of queries: how many count, then mAP and Rank-1 of each group."""
    found = []
    for number in np.unique(first.camera):
        chosen = (first.camera == number) & (first.first > 0).any(axis=0)
        if chosen.any():
            cells = [(f"{ap[chosen].mean():.2f}", f"{hit[chosen].mean():.2f}") for ap, hit, _ in results.values()]
            found.append({"camera": int(number), "queries": int(chosen.sum()), "cells": cells})
    return found


def by_person(first: Queries, results: Mapping[str, Result]) -> dict[str, Any]:
    """The people of the lowest mAP (mean of all groups), and each group's mAP over the share of people."""
    counting = (first.first > 0).any(axis=0)
    people = np.unique(first.identity[counting])
    members = [np.flatnonzero(counting & (first.identity == person)) for person in people]
    values = np.array([[ap[own].mean() for own in members] for ap, _, _ in results.values()])  # groups × people
    order = np.argsort(values.mean(axis=0), kind="stable")
    share = np.linspace(0.0, 100.0, len(people))
    curves = {
        name: list(zip(share.tolist(), np.sort(own).tolist(), strict=True))
        for name, own in zip(results, values, strict=True)
    }

    def line(place: int) -> dict[str, Any]:
        cells = [f"{value:.2f}" for value in values[:, place]]
        return {"person": int(people[place]), "queries": len(members[place]), "cells": cells}

    worst, best = order[:PEOPLE], order[PEOPLE:][-2:][::-1]
    return {
        "people": len(people),
        "worst_people": [line(place) for place in worst],
        "best_people": [line(place) for place in best],
        "people_chart": charts.lines(
            curves,
            x="people, lowest mAP first, %",
            y="mAP of a person, %",
            y_range=(0, 100),
            ticks_x=(0, 25, 50, 75, 100),
        ),
    }


def worst_queries(
    first: Queries, results: Mapping[str, Result], thumbnail: Callable[[str], str | None]
) -> list[dict[str, Any]]:
    """The queries of the lowest average precision (mean of all groups), with the rank of the first true match."""
    mean = np.mean([ap for ap, _, _ in results.values()], axis=0)
    order = np.argsort(mean, kind="stable")  # queries that do not count are NaN and come last
    return [
        {
            "path": str(first.path[q]),
            "picture": thumbnail(str(first.path[q])),
            "person": int(first.identity[q]),
            "camera": int(first.camera[q]),
            "cells": [(f"{ap[q]:.2f}", f"{rank[q]:.1f}") for ap, _, rank in results.values()],
        }
        for q in order[:QUERIES]
        if np.isfinite(mean[q])
    ]


def camera_pairs(breakdown: Breakdown) -> dict[str, Any]:
    """The mAP of each pair of cameras as a table: a line for each query camera, a column for each gallery camera.

    Each cell has its text, and a shade from 0 to 10 that says the same.
    """
    columns = sorted({pair.gallery_camera for pair in breakdown.pairs})
    pairs = {(pair.query_camera, pair.gallery_camera): pair for pair in breakdown.pairs}
    lines = []
    for camera in sorted({pair.query_camera for pair in breakdown.pairs}):
        cells = []
        for other in columns:
            pair = pairs.get((camera, other))
            value = None if pair is None else pair.map
            cells.append((MISSING, 0) if value is None else (f"{value:.1f}", round(value / 10)))
        lines.append({"camera": camera, "cells": cells})
    return {"columns": columns, "lines": lines}
