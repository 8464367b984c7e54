"""`vireid reproduce`: train and test the rows of a table, and put the results beside the printed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid import datasets, recipes
from vireid.data.errors import BadInput, unknown
from vireid.data.protocol import default_protocols
from vireid.data.settings import Count, Whole, options
from vireid.experiments.folds import chosen
from vireid.experiments.jobs import Outcome, carry_out, counted
from vireid.experiments.rows import Comparison, Found, combined, protocol_of
from vireid.experiments.trainings import Pictures, Training, distinct, numbers
from vireid.recipes import Row
from vireid.training.configuration import NotChosen, as_assignments, to_json, with_fields
from vireid.training.progress import Progress, Quiet

NOT_APPLICABLE = " does not apply: "


@options
class ReproduceOptions:
    """What `vireid reproduce` is asked to do.

    Attributes:
        recipe: the recipe.
        table: `TABLE` or `TABLE/ROW`; empty for all tables.
        data: `LAYOUT:PATH`.
        runs: folder of the run directories. Runs that are there are used, whatever their directories are called.
        set: changes of every row's configuration, as texts `field=value` or as a mapping.
        folds: RegDB's folds, such as `1-10`, `3` or `1,3,5-7`; None for all.
        seeds: seeds, such as `0,1,2` or `0-4`; None for the seed of the configuration.
        jobs: how many are trained at once, each in a process of its own.
        workers: loading processes, of each training.
        cache: folder for resized pictures.
        command: the command that the runs record.
    """

    recipe: str
    data: str
    table: str = ""
    runs: Path = Path("runs")
    set: tuple[str, ...] | dict[str, Any] = ()
    folds: str | None = None
    seeds: str | None = None
    jobs: Count = 1
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class Planned:
    """A row and the trainings that it needs.

    Attributes:
        name: the row's name.
        row: its configuration and printed numbers.
        set: changes of its configuration, without the seed.
        trainings: one for each fold and seed; empty if the row is skipped.
        protocol: the protocol of the numbers that are shown.
        skipped: why the row is not measured, or None.
        notes: what a reader has to know.
    """

    name: str
    row: Row
    set: tuple[str, ...] = ()
    trainings: tuple[Training, ...] = ()
    protocol: str = ""
    skipped: str | None = None
    notes: tuple[str, ...] = ()


def reproduce(asked: ReproduceOptions, progress: Progress = Quiet()) -> list[Comparison]:  # noqa: B008 has no state
    """Train and test each row of a table, and compare.

    Rows of equal configuration share a training. A training that is there already is used. A second call continues
    where the first one stopped. If a training fails, the others are still carried out; its rows say why it failed.

    Returns:
        One comparison for each row, in the order of the table. Rows that were printed for another layout are skipped,
        unless one was asked for by its full name. Then it is measured by the protocols of the data, and its printed
        numbers are left out.

    Raises:
        BadInput: there is no such table, row or field, or the data, folds or seeds cannot be used.
    """
    rows = plan(asked)
    say_plan(rows, progress)
    trainings = distinct([one for row in rows for one in row.trainings])
    titles = {one.key: one.title(one.spec) for one in trainings}
    how = {"workers": asked.workers, "cache": asked.cache, "command": asked.command}
    outcome = carry_out(asked.recipe, trainings, titles, asked.runs, how, progress, at_once=asked.jobs)
    return [compared(row, outcome, asked.recipe) for row in rows]


def plan(asked: ReproduceOptions) -> list[Planned]:
    """The rows, each with the trainings that it needs. Nothing is trained.

    Raises:
        BadInput: as in `reproduce`.
    """
    layout, _ = datasets.parse_source(asked.data)
    table = recipes.recipe(asked.recipe).ROWS
    names = rows_of(asked.table, list(table), asked.recipe)
    by_name = names == [asked.table.rstrip("/")]
    one_fold = asked.folds is None and datasets.folds(layout) == 1
    folds = [1] if one_fold else chosen(asked.folds, layout, datasets.folds(layout))
    pictures = [Pictures.of(asked.data, fold) for fold in folds]
    found = [_planned(name, table[name], asked, pictures, by_name=by_name) for name in names]
    if sentence := _refused_by_all([row for row in found if row.trainings]):
        raise BadInput(sentence)
    return found


def _planned(name: str, row: Row, asked: ReproduceOptions, pictures: Sequence[Pictures], *, by_name: bool) -> Planned:
    layout = pictures[0].layout
    printed_for = row.on.partition("/")[0] if row.on else layout
    if printed_for != layout and not by_name:
        return Planned(name, row, skipped=f"printed for {printed_for}; the data are {layout}")
    given, notes = applicable(row, as_assignments(asked.set))
    if printed_for != layout:
        notes = (*notes, f"the paper's numbers are for {row.on}, so they do not stand here")
    ours = default_protocols(layout)
    protocol = row.on if row.on and printed_for == layout else ours[0]
    # RegDB's two directions need one embedding of the test pictures, so the second one costs little.
    protocols = tuple(ours) if len(ours) == 2 and protocol in ours else (protocol,)
    config = with_fields(row.config, given)
    seeds = [config.training.seed] if asked.seeds is None else numbers(asked.seeds, "--seeds", 0, None, "from 0")
    unseeded = tuple(text for text in given if not text.startswith("seed="))
    trainings = tuple(
        Training(
            recipe=asked.recipe,
            row=name,
            set=(*unseeded, f"seed={seed}"),
            config=to_json(with_fields(config, {"seed": seed})),
            pictures=each,
            protocols=protocols,
        )
        for seed in seeds
        for each in pictures
    )
    return Planned(name, row, unseeded, trainings, protocol, notes=notes)


def applicable(row: Row, given: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The changes that a row can take, and a note for each of the others.

    A field of a part that a row is without, such as `fusion.width` in a baseline, does not apply to this row. Any other
    mistake is raised.

    Raises:
        BadInput: an unknown field, or a value of a wrong type.
    """
    left, notes = list(given), []
    while True:
        try:
            with_fields(row.config, left)
        except NotChosen as error:
            wrong = next(text for text in left if not _takes(row, [*_choices(left), text]))
            left.remove(wrong)
            notes.append(f"{wrong}{NOT_APPLICABLE}{error}")
            continue
        return tuple(left), tuple(notes)


def _choices(given: Sequence[str]) -> list[str]:
    return [text for text in given if "." not in text.partition("=")[0]]


def _takes(row: Row, given: Sequence[str]) -> bool:
    try:
        with_fields(row.config, given)
    except NotChosen:
        return False
    return True


def _refused_by_all(found: Sequence[Planned]) -> str | None:
    """Why a change applies to none of the rows, if there is such a change."""
    for note in found[0].notes if found else ():
        change, applies_not, reason = note.partition(NOT_APPLICABLE)
        if applies_not and all(any(one.startswith(f"{change}{NOT_APPLICABLE}") for one in row.notes) for row in found):
            return reason
    return None


def say_plan(rows: Sequence[Planned], progress: Progress) -> None:
    """Say which rows are measured and which are not."""
    measured = [row for row in rows if row.trainings]
    progress.say(f"{counted(len(rows), 'row')}, {len(rows) - len(measured)} of them skipped")
    for reason in dict.fromkeys(row.skipped for row in rows if row.skipped):
        progress.say(f"skipped, {reason}: {', '.join(row.name for row in rows if row.skipped == reason)}")
    for row in rows:
        for note in row.notes:
            progress.say(f"{row.name}: {note}")


def compared(row: Planned, outcome: Outcome, recipe: str) -> Comparison:
    """The row beside what was measured for it."""
    found: list[Found] = []
    for key in (one.key for one in row.trainings if one.key in outcome.done):
        run, measured = outcome.done[key]
        found += [(run, one) for one in measured if protocol_of(one) == row.protocol]
    failed = dict.fromkeys(outcome.failed[one.key] for one in row.trainings if one.key in outcome.failed)
    ours = combined(found, row.set) if found else None
    return Comparison(recipe, row.name, row.row, ours, row.skipped, "; ".join(failed) or None, row.notes)


def rows_of(table: str, names: Sequence[str], recipe: str) -> list[str]:
    """The rows that `TABLE` or `TABLE/ROW` stands for; `TABLE/PARAMETER` stands for all its values, empty for all rows.

    Raises:
        BadInput: there is no such table or row.
    """
    table = table.rstrip("/")
    found = [name for name in names if not table or name == table or name.startswith((f"{table}/", f"{table}="))]
    if not found:
        tables = sorted({name.partition("/")[0] for name in names})
        raise unknown(f"table or row of {recipe}", table, [*tables, *names])
    return found
