"""The report of an evaluation: the numbers, and everything that they depend on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.mixed import CALIBRATED, MIXED
from vireid.data.protocol import LAYOUTS, default_protocols, protocol_names
from vireid.data.stored import as_json, from_values

TITLES = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "rank20": "Rank-20", "map": "mAP", "minp": "mINP"}
"""Metric → how it is written in full. Every other list of metrics is made from this one."""
METRICS = tuple(TITLES)
SHORT = {name: title.replace("Rank-", "R") for name, title in TITLES.items()}
"""Metric → column heading where there is little room."""


MISSING = "–"


@dataclass(frozen=True)
class Alarms:
    """How often a search shows a striking picture although the query's person is not in the gallery.

    For each query, all pictures of its person are taken out of the gallery. Strangers at a picture are modalities
    searched × pictures searched in its modality × false match rate of its cosine. All shares are percentages.

    Attributes:
        strangers: the limit: a query is a false alarm if at most so many strangers are expected at one of its pictures.
        share: measured, of the queries of all trials.
        lower, upper: its 95 % interval, from drawing trials and query people again, 1,000 times.
        expected: 100·(1 − exp(−strangers)). The share is at most this if the false match rates are right and pictures
            of strangers reach a cosine independently of each other.
    """

    strangers: float
    share: float
    lower: float
    upper: float
    expected: float


@dataclass(frozen=True)
class Report:
    """One protocol's result, with exactly the fields of its JSON.

    Attributes:
        protocol: the protocol's name.
        rank1, rank5, rank10, rank20: CMC in percent 0–100, mean over trials.
        map: mean average precision in percent, mean over trials.
        minp: mean inverse negative penalty in percent, mean over trials.
        trials: for each draw the same six metrics and its own `valid_queries`, `queries`, `gallery`.
        std: for each metric the population standard deviation over trials, in percentage points (what `numpy.std`
            gives); 0 when there is one trial. It measures how much the draw changes the number, not how much a
            second training changes it.
        valid_queries: queries with a true match left in the gallery; only these count. This number and the two below
            are those of the first trial.
        queries: all queries.
        gallery: gallery pictures.
        embedding: which feature was compared.
        flip: whether the mirrored picture's feature was added.
        rerank: `none`, or the re-ranking that was applied.
        seed: of the run that trained the model, where known.
        warnings: sentences a reader needs before comparing.
        distance: `cosine` or `euclidean`.
        cmc: `identity` or `image`, see `vireid.data.protocol.Protocol`.
        chance_rank1: the expected rank1 of a random ranking, in percent.
        own_modality: where both modalities are in the gallery, how many of the first ten pictures have the modality of
            the query, in percent, mean over queries and trials; otherwise None, and not in the JSON.
        alarms: where ratios are compared, false alarms for people who are not in the gallery; otherwise None, and not
            in the JSON.
    """

    protocol: str
    rank1: float
    rank5: float
    rank10: float
    rank20: float
    map: float
    minp: float
    trials: tuple[Mapping[str, int | float], ...]
    std: Mapping[str, float]
    valid_queries: int
    queries: int
    gallery: int
    embedding: str = "given"
    flip: bool = False
    rerank: str = "none"
    seed: int | None = None
    warnings: tuple[str, ...] = ()
    distance: str = "cosine"
    cmc: str = "identity"
    chance_rank1: float = math.nan
    own_modality: float | None = None
    alarms: tuple[Alarms, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; numbers that are not known are None, as JSON has no NaN."""
        found = as_json(self)
        return {name: value for name, value in found.items() if value is not None or name not in _MIXED_ONLY}

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any], where: str = "a report's JSON") -> Report:
        """The report that `to_json` wrote, from its values or their text.

        Raises:
            BadInput: it is no JSON object, or a field is missing, unknown or of a wrong type.
        """
        if isinstance(text, str):
            try:
                text = json.loads(text)
            except json.JSONDecodeError as error:
                raise BadInput(f"{where} cannot be read: {error}") from None
        if not isinstance(text, Mapping):
            raise BadInput(f"{where} is one object, not {type(text).__name__}")
        known = text.get("chance_rank1", 0.0) is not None
        found = from_values(cls, text if known else {**text, "chance_rank1": 0.0}, where)
        return found if known else replace(found, chance_rank1=math.nan)


_MIXED_ONLY = ("own_modality", "alarms")


def with_counts(report: Report, identity: np.ndarray, modality: np.ndarray) -> Report:
    """The report with a warning if its layout was published with another number of test pictures or identities.

    Args:
        report: a report about these pictures.
        identity: N integers, of all test pictures.
        modality: N integers, 0 visible or 1 infrared.
    """
    from vireid.datasets import unlike_published  # imports numba, which takes a while

    layout = report.protocol.partition("/")[0]
    warning = unlike_published(layout, identity, modality) if layout in LAYOUTS else None
    return replace(report, warnings=(*report.warnings, warning)) if warning else report


def expanded(names: Sequence[str]) -> list[str]:
    """The protocols that names stand for.

    The name of a layout stands for the layout's usual ones, and LAYOUT/mixed for those of a gallery of both modalities.

    >>> expanded(["regdb", "llcm/v2i", "regdb/i2v"])
    ['regdb/v2i', 'regdb/i2v', 'llcm/v2i']
    >>> expanded(["regdb/mixed"])
    ['regdb/mixed/i2v', 'regdb/mixed/i2v@calibrated', 'regdb/mixed/v2i', 'regdb/mixed/v2i@calibrated']
    """
    return list(dict.fromkeys(protocol for name in names for protocol in _named(name)))


def _named(name: str) -> list[str]:
    """The protocols that a name stands for. Any other name stands for itself, and is checked where it is used."""
    layout, _, rest = name.partition("/")
    try:
        if rest == MIXED:
            return [one for one in protocol_names(layout) if one.startswith(f"{name}/")] or [name]
        return default_protocols(name) or [name]
    except BadInput:
        return [name]


def incomparable(reports: Sequence[Report]) -> list[str]:
    """Warnings about reports of the same task that must not be compared.

    Reports on different layouts, directions or shots need no warning. Reports of the same task need one if they follow
    different conventions or were measured in different ways, because papers print such numbers in one column.
    """
    found = []
    for question, together in _by_question(reports).items():
        # AGW's draw is the usual one, and a calibrated protocol has the trials of the plain one.
        names = sorted({report.protocol.removesuffix("@agw").removesuffix(CALIBRATED) for report in together})
        if len(names) > 1:
            found.append(f"{' and '.join(names)} are different conventions: do not compare their numbers")
        for name, words in (
            ("rerank", "re-ranking"),
            ("flip", "flipped pictures"),
            ("distance", "distance"),
            ("embedding", "embedding"),
        ):
            values = sorted({str(getattr(report, name)) for report in together})
            if len(values) > 1:
                found.append(f"{question}: reports differ in {words} ({', '.join(values)})")
    return found


def draw_differences(reports: Sequence[Report]) -> list[str]:
    """How much SYSU-MM01's two draws differ, in percentage points, wherever both were measured."""
    agw = {report.protocol.removesuffix("@agw"): report for report in reports}
    found = []
    for report in reports:
        question, _, draw = report.protocol.partition("@")
        if draw == "official" and question in agw:
            other = agw[question]
            names = {short: name for name, short in SHORT.items() if name != "rank5"}
            numbers = [f"{short} {getattr(report, n) - getattr(other, n):+.2f}" for short, n in names.items()]
            found.append(f"{question}: official permutation minus AGW's draw: {', '.join(numbers)}")
    return found


def table(reports: Report | Sequence[Report], titles: Sequence[str] = ()) -> str:
    """The reports as lines of text: mean ± standard deviation over trials in percent, then the warnings.

    >>> print(table([]))
    no reports

    Args:
        reports: one report, or several.
        titles: the first cell of each line; if empty, the protocol with what is not plain about the report.
    """
    reports = [reports] if isinstance(reports, Report) else list(reports)
    if not reports:
        return "no reports"
    lines = [["protocol", *SHORT.values(), "chance R1", "queries", "gallery", "trials"]]
    for report, title in zip(reports, titles or heads(reports), strict=True):
        many = len(report.trials) > 1
        cells = [f"{getattr(report, name):.2f}" + (f" ± {report.std[name]:.2f}" if many else "") for name in METRICS]
        asked = f"{report.valid_queries}"
        if report.valid_queries != report.queries:
            asked += f" of {report.queries}"
        chance = "" if math.isnan(report.chance_rank1) else f"{report.chance_rank1:.2f}"
        lines.append([title, *cells, chance, asked, str(report.gallery), str(len(report.trials))])
    text = _aligned(lines)
    if besides := of_mixed_galleries(reports, titles or heads(reports)):
        text += ["", *_aligned(besides), f"{mixed_legend(besides)}.", ""]
    text += [f"warning: {warning}" for warning in warnings(reports)]
    return "\n".join(text)


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text, in columns; the first one holds words."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def of_mixed_galleries(reports: Sequence[Report], titles: Sequence[str]) -> list[tuple[str, ...]]:
    """What reports of a gallery of both modalities say besides: headings, and a line for each. Empty without any.

    Args:
        reports: reports, also of other protocols, which are left out.
        titles: the first cell of each line.
    """
    found = [pair for pair in zip(reports, titles, strict=True) if pair[0].own_modality is not None]
    limits = {one.strangers: one.expected for report, _ in found for one in report.alarms or ()}
    head = [f"alarms ≤ {limit:g} (predicted ≤ {expected:.1f})" for limit, expected in limits.items()]
    lines = []
    for report, title in found:
        alarms = {one.strangers: f"{one.share:.1f} ({one.lower:.1f} to {one.upper:.1f})" for one in report.alarms or ()}
        lines.append((title, f"{report.own_modality:.1f}", *(alarms.get(limit, MISSING) for limit in limits)))
    return [("both modalities in one gallery", "own modality in the first 10", *head), *lines] if lines else []


def mixed_legend(lines: Sequence[Sequence[str]]) -> str:
    """What the headings of `of_mixed_galleries` mean, without a full stop."""
    if len(lines[0]) == 2:  # nothing but the shares of the first ten
        return "In percent"
    return (
        "In percent. Alarms: the queries that show a picture at which at most so many strangers are expected, after "
        "all pictures of their person were taken out of the gallery, with a 95 % interval"
    )


def warnings(reports: Sequence[Report]) -> list[str]:
    """What a reader has to know before comparing: each sentence once."""
    own = (f"{report.protocol}: {warning}" for report in reports for warning in report.warnings)
    return list(dict.fromkeys([*incomparable(reports), *own]))


def heads(reports: Sequence[Report]) -> list[str]:
    """The protocol of each report, with what is not plain about it."""
    return [_title(report) for report in reports]


def _title(report: Report) -> str:
    marks = [
        "flip" if report.flip else "",
        report.rerank if report.rerank != "none" else "",
        report.distance if report.distance != "cosine" else "",
    ]
    shown = ", ".join(mark for mark in marks if mark)
    return f"{report.protocol} ({shown})" if shown else report.protocol


def _by_question(reports: Sequence[Report]) -> dict[str, list[Report]]:
    groups: dict[str, list[Report]] = {}
    for report in reports:
        groups.setdefault(report.protocol.split("@")[0], []).append(report)
    return groups
