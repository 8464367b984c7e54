"""Results over a number that the runs vary, such as a loss weight, with error bars over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeGuard

import numpy as np

from vireid import plugins
from vireid.data.errors import BadInput, unknown
from vireid.data.settings import settings
from vireid.evaluation.report import TITLES
from vireid.experiments.grouping import Group, shown
from vireid.experiments.rows import changes
from vireid.figures.drawing import DASHES, MARKERS, Figure, Look, canvas, wrapped
from vireid.figures.kinds import DoesNotApply
from vireid.figures.measured import Bars, Metric, Point, measured, says, titles
from vireid.figures.subject import Subject

Lines = Mapping[str, Sequence[Point]]
"""Name of a line → its points, ascending."""
LOGARITHMIC = 50  # the axis is logarithmic if the largest value is at least so many times the smallest one
MARGIN = 2  # percent of the vertical axis below 0 and above 100, for markers
NAN = float("nan")
MEASURED, PRINTED = "measured", "printed in the paper"
FEW, APART = 6, 8  # so many values are written at the axis if there is room; otherwise, only some round numbers


@settings
class Choices:
    """What can be chosen."""

    over: str = ""
    """ours: the field on the horizontal axis, such as `contrast.weight`; empty for every number that is varied."""
    label: str = ""
    """ours: what the horizontal axis is called; empty for the name of the field."""
    metrics: tuple[Metric, ...] = ("rank1", "map")
    """ours: which metrics, a panel each."""
    bars: Bars = "interval"
    """ours: error bars, `interval` (95 % of the mean over seeds) or `std` (over seeds; over folds if several)."""
    scale: Literal["auto", "linear", "log"] = "auto"
    """ours: of the horizontal axis; `auto` is `log` if the largest value is 50 times the smallest one or more."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """A figure for each field over which a curve can be drawn."""
    return of_groups(measured(subjects), choices)


def of_groups(found: Sequence[Group], choices: Choices) -> list[Figure]:
    """The same, for measurements of one protocol that are in groups already.

    Raises:
        DoesNotApply: no two groups differ in one number only.
        BadInput: no curve can be drawn over the field that was asked for.
    """
    fields = [name for name in numeric(found) if lines(found, name, choices.bars)]
    if choices.over and choices.over not in fields:
        raise unknown("field with a curve", choices.over, fields)
    if not fields:
        raise DoesNotApply("no two of these runs differ in the value of one number only")
    return [_of_field(found, name, choices) for name in ([choices.over] if choices.over else fields)]


def _of_field(found: Sequence[Group], name: str, choices: Choices) -> Figure:
    drawn = lines(found, name, choices.bars)
    at = next(iter(drawn)) if len(drawn) == 1 else ""
    used = [group for group in found if name in group.values and line_of(found, group, name) in drawn]
    roots = [run.facts.data.root for group in used for run, _ in group.found]
    names = dict.fromkeys(run.facts.recipe for group in used for run, _ in group.found)
    what = f"{titles(choices.metrics)} over {choices.label or name}{f' at {at}' if at else ''}: {', '.join(names)}."
    return curves(
        drawn if len(drawn) > 1 else {"": next(iter(drawn.values()))},
        x=choices.label or name,
        metrics=choices.metrics,
        printed=printed(used, name) if len(drawn) == 1 else [],
        scale=choices.scale,
        name=f"curves-{name.replace('.', '-')}",
        caption=f"{what} {says([group.ours for group in used], choices.bars, roots)}",
    )


def numeric(found: Sequence[Group]) -> list[str]:
    """The fields that are a number in at least two groups, and not the same one in all."""
    names = dict.fromkeys(name for group in found for name in group.values)
    values = {name: {one.values[name] for one in found if _is_number(one.values.get(name))} for name in names}
    return [name for name, seen in values.items() if len(seen) > 1]


def line_of(found: Sequence[Group], group: Group, name: str) -> str:
    """What the line of a group over a field is called: what else is particular about the group."""
    recipe, root = _place(group)
    told = [
        recipe if len({_place(one)[0] for one in found}) > 1 else "",
        *(f"{path}={shown(value)}" for path, value in group.values.items() if path != name),
        f"on {root}" if len({_place(one)[1] for one in found}) > 1 else "",
    ]
    return ", ".join(part for part in told if part)


def lines(found: Sequence[Group], name: str, bars: Bars) -> dict[str, list[Point]]:
    """The lines over a field. A line has the groups that are alike in everything else, at least two."""
    made: dict[str, list[Point]] = {}
    for group in found:
        value = group.values.get(name)
        if _is_number(value):
            made.setdefault(line_of(found, group, name), []).append(Point.of(float(value), group.ours, bars))
    return {line: sorted(points, key=lambda one: one.value) for line, points in made.items() if len(points) > 1}


def printed(found: Sequence[Group], name: str) -> list[Point]:
    """The paper's numbers for these runs, as `vireid rows` shows them; nothing if a run saw a generated world.

    The papers did not use generated pictures, so their numbers cannot stand beside such results.
    """
    if any(group.ours.generated for group in found):
        return []
    points: dict[float, Point] = {}
    for group in found:
        run = group.found[0][0]
        for row in plugins.recipe_of(run).ROWS.values():
            told = {metric: value for metric, value in row.published.items() if value is not None}
            if told and row.on == group.ours.protocol and changes(run, row) is not None:
                points[float(group.values[name])] = Point(float(group.values[name]), told)
    return [points[value] for value in sorted(points)]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(group: Group) -> tuple[str, str]:
    facts = group.found[0][0].facts
    return facts.recipe, facts.data.root


def curves(
    lines: Lines,
    *,
    x: str,
    metrics: Sequence[str] = ("rank1", "map"),
    printed: Sequence[Point] = (),
    scale: Literal["auto", "linear", "log"] = "auto",
    name: str = "curves",
    caption: str = "",
) -> Figure:
    """Results over a number: a panel for each metric, a line for each series.

    Args:
        lines: name of a line → its points. A single line may be called "", and then there is no legend.
        x: what the horizontal axis is called.
        metrics: names of metrics, as in the points. Values are percent.
        printed: the numbers of a paper, drawn faintly. Real data only: do not draw them beside generated pictures.
        scale: of the horizontal axis.
        name, caption: of the figure.

    Raises:
        BadInput: there is no point, or the axis is to be logarithmic and a value is not positive.
    """
    values = sorted({point.value for points in lines.values() for point in points})
    if not values:
        raise BadInput("a curve needs points")
    if scale == "log" and values[0] <= 0:
        raise BadInput(f"a logarithmic axis cannot show {values[0]:g}")
    logarithmic = scale == "log" or (scale == "auto" and values[0] > 0 and values[-1] >= LOGARITHMIC * values[0])
    numbers = {
        "x": x,
        "lines": {line: [vars(point) for point in points] for line, points in lines.items()},
        "printed": [vars(point) for point in printed],
    }

    def draw(look: Look) -> Any:
        columns = min(len(metrics), 2 if look.width == "column" else 4)
        rows = -(-len(metrics) // columns)
        legend = [*wrapped(lines, look), *([PRINTED] if printed else [])]
        below = sum(0.16 + 0.12 * name.count("\n") for name in legend) if len(legend) > 1 else 0
        height = (1.5 if look.width == "column" else 1.9) * rows + below
        made, axes = canvas(look, height, nrows=rows, ncols=columns, squeeze=False)
        for axis in axes.flat[len(metrics) :]:
            axis.remove()
        for metric, axis in zip(metrics, axes.flat, strict=False):
            for number, (line, points) in enumerate(lines.items()):
                _draw_line(axis, points, metric, line or MEASURED, look, number)
            if printed:
                _draw_printed(axis, printed, metric, look)
            _scale(axis, values, logarithmic=logarithmic)
            axis.set_title(f"{TITLES.get(metric, metric)}, %")
            axis.set_xlabel(x)
        if len(legend) > 1:
            found = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))
            handles = [found[line or MEASURED] for line in [*lines, *([PRINTED] if printed else [])]]
            made.legend(handles, [name or MEASURED for name in legend], loc="outside lower center")
        return made

    return Figure(name, caption, numbers, draw)


def _draw_line(axis: Any, points: Sequence[Point], metric: str, line: str, look: Look, number: int) -> None:
    axis.errorbar(
        [point.value for point in points],
        [point.metrics[metric] for point in points],
        yerr=[point.bars.get(metric, NAN) for point in points] if any(metric in one.bars for one in points) else None,
        color=look.colour(number),
        marker=MARKERS[number % len(MARKERS)],
        linestyle=DASHES[number % len(DASHES)],
        capsize=1.5,
        elinewidth=0.7,
        label=line,
    )


def _draw_printed(axis: Any, points: Sequence[Point], metric: str, look: Look) -> None:
    axis.plot(
        [point.value for point in points],
        [point.metrics.get(metric, NAN) for point in points],
        color=look.ink,
        alpha=0.45,
        marker="x",
        linestyle=":",
        label=PRINTED,
        zorder=1,
    )


def _scale(axis: Any, values: Sequence[float], *, logarithmic: bool) -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    places = np.log(values) if logarithmic else np.array(values)
    if len(values) <= FEW and (np.diff(places) >= (places[-1] - places[0]) / APART).all():
        axis.xaxis.set_major_locator(FixedLocator(list(values)))
    elif not logarithmic:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    axis.yaxis.set_major_locator(MaxNLocator(5))
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, -MARGIN), min(high, 100 + MARGIN))  # intervals of two seeds can be very long
