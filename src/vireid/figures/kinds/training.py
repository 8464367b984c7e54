"""How a training went: each term of the objective, the learning rate and the validation results, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vireid.data.settings import settings
from vireid.figures.drawing import DASHES, Figure, Look, canvas
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Name of a line → epochs and values."""


@settings
class Choices:
    """What can be chosen."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure with the curves of all runs."""
    lines = {one.name: curves(one.run.epochs()) for one in subjects}
    if not any(lines.values()):
        raise DoesNotApply("no epoch of these runs is finished")
    caption = "Terms of the objective (mean of each epoch), learning rates and validation results. " + " ".join(
        one.says(protocol=False) for one in subjects
    )
    return [training(lines, caption=caption)]


def curves(epochs: Sequence[Mapping[str, Any]]) -> Curves:
    """The lines of a run's log: every term, every learning rate and, where there is validation, its metrics.

    Args:
        epochs: what `vireid.training.run.Run.epochs` gives.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for line in epochs:
        for prefix, values in (
            ("", line["terms"]),
            ("rate of ", line["lr"]),
            ("validation ", line.get("validation", {})),
        ):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    found.setdefault(f"{prefix}{name}", []).append((line["epoch"] + 1, float(value)))
    return {
        name: (np.array([x for x, _ in points]), np.array([y for _, y in points])) for name, points in found.items()
    }


def training(runs: Mapping[str, Curves], *, caption: str = "") -> Figure:
    """Curves of one or several trainings; a panel for each quantity, a line for each run.

    Args:
        runs: name of a run → its curves: name → epochs and values, both of one length.
        caption: the caption.
    """
    panels = list(dict.fromkeys(name for lines in runs.values() for name in lines))
    numbers = {run: {name: {"epoch": x, "value": y} for name, (x, y) in lines.items()} for run, lines in runs.items()}

    def draw(look: Look) -> Any:
        columns = 2 if look.width == "column" else 4
        made, axes = canvas(
            look, 1.3 * -(-len(panels) // columns) + 0.3, nrows=-(-len(panels) // columns), ncols=columns, squeeze=False
        )
        for panel, axis in zip([*panels, *[None] * (axes.size - len(panels))], axes.flat, strict=True):
            if panel is None:
                axis.remove()
                continue
            for number, (run, lines) in enumerate(runs.items()):
                if panel in lines:
                    axis.plot(*lines[panel], DASHES[number % len(DASHES)], color=look.colour(number), label=run)
            axis.set_title(panel)
            axis.set_xlabel("epoch")
        if len(runs) > 1:
            made.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return made

    return Figure("training", caption, numbers, draw)
