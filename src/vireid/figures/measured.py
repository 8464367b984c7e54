"""What the reports of runs say, for figures of numbers: means over seeds with error bars. No pictures are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vireid.data.errors import BadInput
from vireid.data.protocol import protocol_names
from vireid.evaluation.report import TITLES
from vireid.experiments.grouping import Group, groups
from vireid.experiments.measurement import measurements
from vireid.experiments.rows import Found, Ours, protocol_of
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

Metric = Literal["rank1", "rank5", "rank10", "rank20", "map", "minp"]
Bars = Literal["interval", "std"]
IN_WORDS: Mapping[Bars, str] = {
    "interval": "the 95 % interval of the mean over seeds (Student's t)",
    "std": "the standard deviation over seeds (over folds if there are several)",
}


@dataclass(frozen=True)
class Point:
    """A result at a place on the horizontal axis.

    Attributes:
        value: the place.
        metrics: metric → percent.
        bars: metric → how far the error bar reaches up and down, in percentage points; no bar where it is missing.
    """

    value: float
    metrics: Mapping[str, float]
    bars: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, value: float, ours: Ours, bars: Bars) -> Point:
        """The mean over seeds and folds, with the chosen error bars; one run has none."""
        return cls(value, dict(ours.metrics), dict(ours.interval if bars == "interval" else ours.std))


def measured(subjects: Sequence[Subject]) -> list[Group]:
    """What the runs' reports say by one protocol, in groups that differ in seed and fold only.

    Only plain measurements count: of a network that was trained to its last epoch, without flip or re-ranking. The
    protocol is the one that was asked for; otherwise the one that most runs were measured by, and of several the one
    that is listed first.

    Raises:
        DoesNotApply: there is no such measurement.
    """
    found = [(one.run, report) for one in subjects for report in _plain(one)]
    asked = next((one.where.protocol for one in subjects if one.where), None)
    name = asked.removesuffix("@agw") if asked else _most_used(found)
    of_protocol = [(run, one) for run, one in found if protocol_of(one) == name]
    if not of_protocol:
        by = f" by {name}" if name else ""
        raise DoesNotApply(
            f"no run was measured{by} with its last checkpoint, without flip and re-ranking: vireid test"
        )
    return groups(of_protocol)


def _plain(subject: Subject) -> list:
    try:
        return [one for one in measurements(subject.run) if one.plain]
    except BadInput as error:
        raise DoesNotApply(str(error)) from error


def _most_used(found: Iterable[Found]) -> str:
    counts: dict[str, int] = {}
    for _, one in found:
        counts[protocol_of(one)] = counts.get(protocol_of(one), 0) + 1
    listed = protocol_names()
    order = {name: listed.index(name) if name in listed else len(listed) for name in counts}
    return min(counts, key=lambda name: (-counts[name], order[name], name), default="")


def says(measured: Sequence[Ours], bars: Bars, roots: Iterable[str] = ()) -> str:
    """The sentences of a caption about protocol, data, seeds and error bars; `roots` are the folders of the data."""
    generated = any(one.generated for one in measured)
    kind = "generated pictures, not real ones" if generated else "pictures of the data set"
    protocols = " and ".join(dict.fromkeys(one.protocol for one in measured))
    extents = "; ".join(dict.fromkeys(one.extent for one in measured))
    drawn = any(one.interval if bars == "interval" else one.std for one in measured)
    around = f"Error bars: {IN_WORDS[bars]}." if drawn else "One run each, so there are no error bars."
    data = ", ".join([*dict.fromkeys(roots), kind])
    return f"Protocol {protocols}, last checkpoint. Each point: {extents}. {around} Data: {data}."


def titles(metrics: Iterable[str]) -> str:
    """Metrics in words.

    >>> titles(["rank1", "map", "minp"])
    'Rank-1, mAP and mINP'
    """
    *first, last = [TITLES[name] for name in metrics]
    return f"{', '.join(first)} and {last}" if first else last
