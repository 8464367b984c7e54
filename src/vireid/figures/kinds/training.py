"""How a training went: each term of the objective, the learning rates and the validation results, epoch by epoch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vireid.data.settings import settings
from vireid.evaluation.report import TITLES
from vireid.figures.drawing import DASHES, MARKERS, Figure, Look, canvas, wrapped
from vireid.figures.kinds import DoesNotApply
from vireid.figures.measured import Metric
from vireid.figures.subject import Subject

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""What is shown in a panel → epochs and values."""
RATE = "learning rate"
TICKS = 5  # ticks of a logarithmic axis, at most
POINTS = 12  # a line of so many points or fewer has markers


@settings
class Choices:
    """What can be chosen."""

    validation: tuple[Metric, ...] = ("rank1", "map")
    """ours: the metrics of the validation, a panel each."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure with the curves of all runs."""
    runs = joined({one.name: curves(one.run.epochs(), choices.validation) for one in subjects})
    if not any(runs.values()):
        raise DoesNotApply("no epoch of these runs is finished")
    rates = [panel for lines in runs.values() for panel in lines if panel.startswith(RATE)]
    chosen = {one.name: one.run.facts.validation for one in subjects}
    on = dict.fromkeys(facts.note for facts in chosen.values() if facts is not None)
    said = [one.says(protocol=False) for one in subjects]
    caption = "The terms of the objective and their sum, means of each epoch, and the learning rates (logarithmic)."
    return [
        training(runs, logarithmic=rates, caption=" ".join([caption, *(f"Validation: {note}." for note in on), *said]))
    ]


def curves(epochs: Sequence[Mapping[str, Any]], validation: Sequence[str] = ("rank1", "map")) -> Curves:
    """The lines of a run's log: every term, their sum if there are several, every learning rate, and the validation.

    Args:
        epochs: what `vireid.training.run.Run.epochs` gives.
        validation: which metrics of the validation.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for line in epochs:
        measured = line.get("validation", {})
        values = {
            **line["terms"],
            **({"sum of terms": line["total"]} if len(line["terms"]) > 1 else {}),
            **{f"{RATE}, {name}": value for name, value in line["lr"].items()},
            **{f"validation {TITLES[name]}, %": measured[name] for name in validation if name in measured},
        }
        for name, value in values.items():
            found.setdefault(name, []).append((line["epoch"] + 1, float(value)))
    return {
        name: (np.array([x for x, _ in points]), np.array([y for _, y in points])) for name, points in found.items()
    }


def joined(runs: Mapping[str, Curves]) -> dict[str, Curves]:
    """The curves with one panel `learning rate` where every run has the same rate for all of its parameters."""
    rates = {run: [curve for name, curve in lines.items() if name.startswith(RATE)] for run, lines in runs.items()}
    if not all(np.array_equal(first, other) for each in rates.values() for first in each[:1] for other in each):
        return dict(runs)
    made: dict[str, Curves] = {}
    for run, lines in runs.items():
        kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, curve in lines.items():
            kept.setdefault(RATE if name.startswith(RATE) else name, curve)
        made[run] = kept
    return made


def training(runs: Mapping[str, Curves], *, logarithmic: Collection[str] = (), caption: str = "") -> Figure:
    """Curves of one or several trainings; a panel for each quantity, a line for each run.

    Args:
        runs: name of a run → its curves: title of the panel → epochs and values, both of one length.
        logarithmic: the panels with a logarithmic axis; their values are positive.
        caption: the caption.
    """
    panels = list(dict.fromkeys(name for lines in runs.values() for name in lines))
    numbers = {run: {name: {"epoch": x, "value": y} for name, (x, y) in lines.items()} for run, lines in runs.items()}

    def draw(look: Look) -> Any:
        rows = -(-len(panels) // (2 if look.width == "column" else 4))
        columns = -(-len(panels) // rows)
        below = sum(0.16 + 0.12 * name.count("\n") for name in wrapped(runs, look)) if len(runs) > 1 else 0
        height = 1.2 * rows + 0.2 + below
        made, axes = canvas(look, height, nrows=rows, ncols=columns, squeeze=False, sharex=True)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        handles: dict[str, Any] = {}
        for place, (panel, axis) in enumerate(zip(panels, axes.flat, strict=False)):
            for number, (run, lines) in enumerate(runs.items()):
                if panel in lines:
                    handles.setdefault(run, _draw_line(axis, *lines[panel], look, number))
            _scale(axis, [lines[panel][1] for lines in runs.values() if panel in lines], log=panel in logarithmic)
            axis.set_title(panel)
            if place + columns >= len(panels):  # nothing stands below this panel
                axis.xaxis.set_tick_params(labelbottom=True)
                axis.set_xlabel("epoch")
        if len(runs) > 1:
            made.legend(list(handles.values()), wrapped(handles, look), loc="outside lower center")
        return made

    return Figure("training", caption, numbers, draw)


def _draw_line(axis: Any, x: np.ndarray, y: np.ndarray, look: Look, number: int) -> Any:
    marker = MARKERS[number % len(MARKERS)] if len(x) <= POINTS else None
    (line,) = axis.plot(x, y, DASHES[number % len(DASHES)], color=look.colour(number), marker=marker)
    return line


def _scale(axis: Any, lines: Sequence[np.ndarray], *, log: bool) -> None:
    """Few ticks with plain numbers: whole epochs, and no factor or offset at the end of an axis.

    A logarithmic axis has its ticks where a line stays for some epochs, as a rate does between two milestones; if there
    is no such place, or there are many, at the lowest and the highest value.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.7g}")
    ends = sorted({min(line.min() for line in lines), max(line.max() for line in lines)})
    if log and len(ends) > 1:
        stays = {float(f"{y:.6g}") for line in lines for y, after in pairwise(line) if np.isclose(y, after)}
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}".replace("e-0", "e-"))
        axis.yaxis.set_major_locator(FixedLocator(sorted(stays) if 0 < len(stays) <= TICKS else ends))
