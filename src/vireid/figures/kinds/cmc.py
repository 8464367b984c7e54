"""CMC and precision–recall curves of several runs, with a band over trials or over seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Interval

from vireid.data.settings import settings
from vireid.evaluation.curves import curves
from vireid.evaluation.report import SHORT
from vireid.figures.drawing import DASHES, MARKERS, MILLIMETRE, Figure, Look, canvas
from vireid.figures.subject import Subject

Band = Literal["range", "std", "none"]
Panel = Literal["cmc", "precision"]
PANELS: tuple[Panel, ...] = ("cmc", "precision")
Lines = tuple[np.ndarray, np.ndarray]
"""L×K CMC and L×B precision, both in percent: L curves, whose mean is drawn with a band around it."""
TOLD = (1, 5, 10, 20)
"""The ranks whose values stand in the legend."""

BANDS = {
    "range": "Lines are means, bands go from the lowest to the highest of",
    "std": "Lines are means, bands are one population standard deviation to both sides, over",
    "none": "Lines are means over",
}


@settings
class Choices:
    """What can be chosen."""

    panels: Literal["both", "cmc", "precision"] = "both"
    """ours: the curves to draw; `precision` is precision over recall."""
    ranks: Annotated[int, Interval(ge=5, le=1000)] = 20
    """ours: the last rank of the CMC; reports end at 20 as well."""
    band: Band = "range"
    """ours: around the mean of several seeds or trials: from the lowest to the highest, one standard deviation (`std`,
    that of the population, as in reports) to both sides, or nothing."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure with the curves of all runs. Runs that differ in the seed or the fold only are one line."""
    panels: tuple[Panel, ...] = PANELS if choices.panels == "both" else (choices.panels,)
    drawn: dict[str, Lines] = {}
    averaged = []
    for name, members in grouped(subjects):
        found = [curves(one.evaluation, choices.ranks) for one in members]
        if len(members) > 1:  # each run is one curve, the mean over its trials
            first, second = (np.stack([lines.mean(axis=0) for lines in part]) for part in zip(*found, strict=True))
            drawn[name] = first, second
            averaged.append(f"{name}: {len(members)} runs")
        else:
            drawn[name] = found[0]
            trials = len(members[0].trials)
            averaged += [f"{name}: {trials} trials"] if trials > 1 else []
    told = [_says(panel, subjects[0].rules.cmc) for panel in panels]
    if averaged:
        told.append(f"{BANDS[choices.band]} {', '.join(averaged)}.")
    caption = " ".join([*told, *(one.says() for one in subjects)])
    return [cmc(drawn, panels=panels, band=choices.band, caption=caption)]


def _says(panel: Panel, counted: str) -> str:
    if panel == "precision":
        return "Precision over recall, without interpolation, averaged over queries: the area under it is mAP."
    ranks = "identities, each at its nearest picture" if counted == "identity" else "pictures"
    return f"CMC: share of queries with a true match at a rank or before; ranks count {ranks}."


def grouped(subjects: Sequence[Subject]) -> list[tuple[str, list[Subject]]]:
    """The runs in groups that differ in the seed or the fold only, each with a name, in the order in which they come.

    A run that is alone keeps its name. Several are called by the name that all of them were given, or else by their
    recipe and the fields in which they differ from other groups.
    """
    from vireid.experiments.grouping import differing, fields_of, label

    together: dict[tuple[Any, ...], list[Subject]] = {}
    for one in subjects:
        data = one.run.facts.data
        # The pictures of a fold are its own, so they cannot tell data sets with folds apart.
        pictures = data.fingerprint if data.fold is None else data.root
        together.setdefault((one.run.facts.recipe, one.run.settings, one.model.epochs, pictures), []).append(one)
    firsts = [members[0].run.facts for members in together.values()]
    found: dict[str, list[Subject]] = {}
    for members in together.values():
        facts = members[0].run.facts
        own, names = fields_of(facts.config), list(dict.fromkeys(one.name for one in members))
        paths = differing([other.config for other in firsts if other.recipe == facts.recipe])
        told = label({path: own[path] for path in paths if path in own})
        name = names[0] if len(names) == 1 else ": ".join(part for part in (facts.name, told) if part)
        found[name if name not in found else f"{name}, {members[0].run.path}"] = members
    return list(found.items())


def cmc(
    runs: Mapping[str, Lines],
    *,
    panels: Sequence[Panel] = PANELS,
    band: Band = "range",
    caption: str = "",
) -> Figure:
    """CMC and precision over recall; a line for each name, and its values beside it.

    Args:
        runs: name → L×K CMC at ranks 1 to K and L×B precision in B equal steps of recall from 0 to 1, all in percent,
            such as `vireid.evaluation.curves.curves` gives. The L curves are averaged: trials or seeds.
        panels: what to draw.
        band: around the mean of several curves, see `Choices`.
        caption: the caption.
    """
    numbers = {
        name: {**{panel: _spread(lines[_PLACE[panel]], band) for panel in panels}, **_values(lines, panels)}
        for name, lines in runs.items()
    }

    def draw(look: Look) -> Any:
        beside, across = (len(panels), 2) if look.width == "page" else (1, 1)
        height = 50 * (len(panels) // beside) + 7 * -(-len(runs) // across)
        made, axes = canvas(look, height * MILLIMETRE, nrows=len(panels) // beside, ncols=beside, squeeze=False)
        for panel, axis in zip(panels, axes.flat, strict=True):
            for number, (name, values) in enumerate(numbers.items()):
                _line(axis, panel, values[panel], _label(name, values), number, look)
            _finish(axis, panel)
        handles = axes.flat[0].get_legend_handles_labels()
        made.legend(*handles, loc="outside lower left", ncols=across, handlelength=3.2)
        return made

    return Figure("cmc", caption, numbers, draw)


_PLACE: dict[str, int] = {"cmc": 0, "precision": 1}
_AXES = {"cmc": ("rank", "CMC, %"), "precision": ("recall, %", "precision, %")}


def _spread(curves: np.ndarray, band: Band) -> dict[str, np.ndarray]:
    """The mean of L×K curves and, where there are several, the ends of the band."""
    # The mean of each column, laid out in one piece, is summed as `numpy.mean` sums the values of a report.
    columns = np.ascontiguousarray(np.atleast_2d(curves).T)
    mean = columns.mean(axis=1)
    if columns.shape[1] == 1 or band == "none":
        return {"mean": mean}
    if band == "range":
        return {"mean": mean, "low": columns.min(axis=1), "high": columns.max(axis=1)}
    return {"mean": mean, "low": mean - columns.std(axis=1), "high": mean + columns.std(axis=1)}


def _values(lines: Lines, panels: Sequence[Panel]) -> dict[str, float]:
    """Rank-k and mAP, in percent."""
    found: dict[str, float] = {}
    if "cmc" in panels:
        mean = _spread(lines[0], "none")["mean"]
        found |= {f"rank{k}": float(mean[k - 1]) for k in TOLD if k <= len(mean)}
    if "precision" in panels:
        found["map"] = float(np.mean(lines[1]))
    return found


def _label(name: str, values: Mapping[str, Any]) -> str:
    """The name of a line, and its values below."""
    told = [f"{SHORT[metric]} {values[metric]:.1f}" for metric in SHORT if metric in values]
    return "\n".join([*textwrap.wrap(name, 54), " · ".join(told)])


def _line(axis: Any, panel: Panel, values: Mapping[str, np.ndarray], label: str, number: int, look: Look) -> None:
    """One run's line, with its band. Markers stand at the ranks that reports have, and at every fifth of recall."""
    mean, colour = values["mean"], look.colour(number)
    if panel == "cmc":
        x = np.arange(1, len(mean) + 1)
        marks = [k - 1 for k in TOLD if k <= len(mean)]
    else:
        x = (np.arange(len(mean)) + 0.5) * 100 / len(mean)
        marks = list(range(len(mean) // 10, len(mean), max(1, len(mean) // 5)))
    dash, marker = DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)]
    axis.plot(x, mean, dash, marker=marker, markevery=marks, color=colour, label=label)
    if "low" in values:
        axis.fill_between(x, values["low"], values["high"], color=colour, alpha=0.2, linewidth=0)


def _finish(axis: Any, panel: Panel) -> None:
    """Labels and limits."""
    axis.set(xlabel=_AXES[panel][0], ylabel=_AXES[panel][1], ylim=(0, 103))
    if panel == "cmc":
        ranks = len(axis.lines[0].get_xdata())
        axis.set_xticks([k for k in (*TOLD, 50, 100, 200, 500, 1000) if k <= ranks])
    else:
        axis.set_xlim(0, 100)
