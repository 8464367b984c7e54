"""`vireid figures`: the figures of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.figures.drawing import Figure
from vireid.figures.kinds import DoesNotApply, kind, kinds
from vireid.figures.subject import Where, subjects
from vireid.training.configuration import with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run


def draw(
    runs: Sequence[str | Path | Run],
    *,
    data: str | None = None,
    figures: Sequence[str] = (),
    set: Sequence[str] | Mapping[str, Any] = (),
    names: Sequence[str] = (),
    protocol: str | None = None,
    checkpoint: str = "last",
    untrained: bool = False,
    fold: int | None = None,
    workers: int = 2,
    cache: Path | None = None,
    progress: Progress = Quiet(),  # noqa: B008 has no state
    say: Callable[[str], None] | None = None,
) -> list[Figure]:
    """Figures of runs. Nothing is written; see `vireid.figures.write`.

    Args:
        runs: run directories, or runs.
        data: `LAYOUT:PATH` of the pictures; None draws only what needs no pictures.
        figures: names of kinds; without any, all that apply.
        set: what to change of the kinds' choices, as `KIND.FIELD=VALUE`.
        names: what the runs are called in the figures, one for each.
        protocol, checkpoint, untrained, fold, workers, cache: see `vireid.figures.subject.Where`.
        progress: where bars are shown.
        say: is told which kinds do not apply and why, a sentence for each reason; None: `progress`.

    Raises:
        BadInput: a run, the data or a choice cannot be used, or a kind that was named does not apply.
    """
    asked = list(figures or kinds())
    chosen = choices(asked, set)
    place = None
    if data is not None:
        place = Where(data, protocol, checkpoint, untrained, fold, workers=workers, cache=cache)
    about = subjects(runs, place, names, progress)
    made: list[Figure] = []
    left_out: dict[str, list[str]] = {}
    for name in asked:
        try:
            made += kind(name).figures(about, chosen[name])
        except DoesNotApply as reason:
            if figures:
                raise
            left_out.setdefault(str(reason), []).append(name)
    for reason, without in left_out.items():
        (say or progress.say)(f"not drawn: {', '.join(without)}: {reason}")
    return made


def choices(asked: Sequence[str], set: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The choices of each kind that is drawn, with what was set.

    Raises:
        BadInput: a choice is unknown, has a wrong value, or belongs to a kind that is not drawn.
    """
    return {name: with_fields(kind(name).Choices(), own) for name, own in assigned(asked, set).items()}


def assigned(asked: Sequence[str], set: Sequence[str] | Mapping[str, Any]) -> dict[str, list[str] | dict[str, Any]]:
    """Kind → what was set of its choices, as `vireid.training.configuration.with_fields` takes it.

    Raises:
        BadInput: a text has another form, or belongs to a kind that is not drawn.
    """
    pairs = list(set.items()) if isinstance(set, Mapping) else [tuple(text.split("=", 1)) for text in set]
    found: dict[str, dict[str, Any]] = {name: {} for name in asked}
    for path, *value in pairs:
        name, _, field = str(path).partition(".")
        if not field or not value:
            raise BadInput(
                f"--set takes KIND.FIELD=VALUE, such as tsne.people=20, not '{'='.join(map(str, (path, *value)))}'"
            )
        if name not in found:
            kind(name)  # says which kinds there are
            raise BadInput(f"'{path}' is a choice of {name}, which is not drawn; drawn: {', '.join(asked)}")
        found[name][field] = value[0]
    return {
        name: own if isinstance(set, Mapping) else [f"{field}={value}" for field, value in own.items()]
        for name, own in found.items()
    }
