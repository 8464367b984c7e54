"""What a picture costs against how well it is found: parameters or multiply-accumulates, over runs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np

from vireid.data.settings import settings
from vireid.evaluation.report import TITLES
from vireid.experiments.cost import counts
from vireid.experiments.grouping import Group
from vireid.figures.drawing import MARKERS, Figure, Look, canvas
from vireid.figures.measured import Bars, Metric, Point, measured, says, titles
from vireid.figures.subject import Subject
from vireid.model import configuration

Count = Literal["parameters_path", "parameters_stored", "macs_path"]
UNITS: Mapping[Count, tuple[str, float]] = {
    "parameters_path": ("parameters of one path, million", 1e6),
    "parameters_stored": ("stored parameters, million", 1e6),
    "macs_path": ("multiply-accumulates of one picture, billion", 1e9),
}
"""Count of `vireid.networks.cost.Cost` → what the axis is called, and how many make one of its units."""
WRAPPED = 26  # characters of a line of a label
FAR = 8  # typographic points between a point and its label; beyond, a thin line joins them


@settings
class Choices:
    """What can be chosen."""

    of: Count = "parameters_path"
    """ours: `parameters_path` or `macs_path` of one modality's path, or `parameters_stored` of a checkpoint."""
    metrics: tuple[Metric, ...] = ("map",)
    """ours: which metrics, a panel each."""
    bars: Bars = "interval"
    """ours: error bars, `interval` (95 % of the mean over seeds) or `std` (over seeds; over folds if several)."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure, with a point for each configuration. The counts are of pictures of the run's own size."""
    groups = measured(subjects)
    points = {}
    for name, group in zip(names(groups, subjects), groups, strict=True):
        recipe, config = configuration(group.found[0][0])
        found = counts(recipe, config, config.training.size)
        points[name] = Point.of(found[choices.of] / UNITS[choices.of][1], group.ours, choices.bars)
    label = UNITS[choices.of][0]
    sizes = {str(configuration(group.found[0][0])[1].training.size) for group in groups}
    what = (
        f"{titles(choices.metrics)} against {label.partition(',')[0]}, without the classifier, at {', '.join(sizes)}."
    )
    roots = [run.facts.data.root for group in groups for run, _ in group.found]
    said = says([group.ours for group in groups], choices.bars, roots)
    return [cost(points, x=label, metrics=choices.metrics, caption=f"{what} {said}")]


def names(groups: Sequence[Group], subjects: Sequence[Subject]) -> list[str]:
    """What the groups are called: as their only run; a group of several seeds by its recipe and row if that is enough.

    If two would have one name, all have their full labels, which name every field in which they differ.
    """
    called = {one.run.path: one.name for one in subjects}
    found = []
    for group in groups:
        own = {called[run.path] for run, _ in group.found}
        rows = {run.facts.name for run, _ in group.found}
        found.append(next(iter(own if len(own) == 1 else rows)) if 1 in (len(own), len(rows)) else group.label)
    return found if len(set(found)) == len(found) else [group.label for group in groups]


def cost(
    points: Mapping[str, Point], *, x: str, metrics: Sequence[str] = ("map",), name: str = "cost", caption: str = ""
) -> Figure:
    """Results against a cost: a panel for each metric, a labelled point for each network.

    Args:
        points: name of a network → its cost, results in percent and error bars.
        x: what is counted, with its unit.
        metrics: names of metrics, as in the points.
        name, caption: of the figure.
    """
    numbers = {"x": x, "points": {label: vars(point) for label, point in points.items()}}

    def draw(look: Look) -> Any:
        side_by_side = look.width == "page" and len(metrics) > 1
        rows, columns = (-(-len(metrics) // 2), 2) if side_by_side else (len(metrics), 1)
        made, axes = canvas(look, 2.3 * rows, nrows=rows, ncols=columns, squeeze=False)
        for axis in axes.flat[len(metrics) :]:
            axis.remove()
        for metric, axis in zip(metrics, axes.flat, strict=False):
            for number, point in enumerate(points.values()):
                _draw_point(axis, point, metric, look, number)
            axis.margins(0.12, 0.15)
            axis.set_xlabel(x)
            axis.set_ylabel(f"{TITLES.get(metric, metric)}, %")
        made.draw_without_rendering()  # gives the axes their places, which the labels need
        for metric, axis in zip(metrics, axes.flat, strict=False):
            _label(axis, points, metric, look)
        return made

    return Figure(name, caption, numbers, draw)


def _draw_point(axis: Any, point: Point, metric: str, look: Look, number: int) -> None:
    axis.errorbar(
        [point.value],
        [point.metrics[metric]],
        yerr=[point.bars[metric]] if metric in point.bars else None,
        color=look.colour(number),
        marker=MARKERS[number % len(MARKERS)],
        markersize=4.5,
        linestyle="none",
        capsize=1.5,
        elinewidth=0.7,
    )


def _label(axis: Any, points: Mapping[str, Point], metric: str, look: Look) -> None:
    """Write the name of each point near it, where it covers no other name, point or error bar."""
    axis.autoscale(False)  # the lines to labels must not move what was placed
    pixel = axis.figure.dpi / 72  # pixels of a typographic point
    frame = np.array(axis.get_window_extent().extents)
    taken = [_covered(axis, point, metric, 4 * pixel) for point in points.values()]
    back = axis.transData.inverted().transform
    for number, (name, point) in enumerate(points.items()):
        text = axis.text(0, 0, textwrap.fill(name, WRAPPED), fontsize=6.5, linespacing=1.0, va="bottom")
        size = text.get_window_extent()
        at = axis.transData.transform((point.value, point.metrics[metric]))
        corner = place(at, (size.width, size.height), taken, frame, step=3 * pixel)
        text.set_position(back(corner))
        box = np.array([*corner, corner[0] + size.width, corner[1] + size.height])
        taken.append(box)
        nearest = np.clip(at, box[:2], box[2:])
        if np.hypot(*(nearest - at)) > FAR * pixel:
            axis.plot(*np.transpose([back(at), back(nearest)]), color=look.colour(number), linewidth=0.5, zorder=1)


def _covered(axis: Any, point: Point, metric: str, around: float) -> np.ndarray:
    """The box of a point with its error bar, in pixels: left, bottom, right, top."""
    middle, bar = point.metrics[metric], point.bars.get(metric, 0.0)
    low, high = (axis.transData.transform((point.value, middle + sign * bar)) for sign in (-1, 1))
    return np.array([low[0] - around, low[1] - around, high[0] + around, high[1] + around])


def place(
    at: Sequence[float], size: tuple[float, float], taken: Sequence[np.ndarray], frame: np.ndarray, *, step: float
) -> tuple[float, float]:
    """The lower left corner of a label near a point, clear of what is there.

    Places on growing rings around the point are tried, right and left of it first. If every place within the frame
    covers something, the one that covers least is taken.

    Args:
        at: the point, x and y.
        size: width and height of the label.
        taken: boxes that must not be covered: left, bottom, right, top.
        frame: the box that the label must stay in.
        step: distance between two rings.

    >>> place((50, 50), (20, 10), [np.array([45, 45, 55, 55])], np.array([0, 0, 100, 100]), step=5)
    (55.0, 45.0)
    """
    width, height = size
    best, least = (float(at[0]), float(at[1])), np.inf
    for ring, (right, up) in product(
        range(1, 40), ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
    ):
        middle = (at[0] + right * (width / 2 + ring * step), at[1] + up * (height / 2 + ring * step))
        box = np.array([middle[0] - width / 2, middle[1] - height / 2, middle[0] + width / 2, middle[1] + height / 2])
        if (box[:2] < frame[:2]).any() or (box[2:] > frame[2:]).any():
            continue
        covered = sum(_overlap(box, other) for other in taken)
        if covered < least:
            best, least = (float(box[0]), float(box[1])), covered
        if covered == 0:
            break
    return best


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two boxes share."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    return float(sides.clip(0).prod())
