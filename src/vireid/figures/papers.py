"""`vireid figures --paper RECIPE`: the figures of a paper, from the runs of `vireid reproduce`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vireid import datasets, recipes
from vireid.data.errors import BadInput, unknown
from vireid.data.settings import Count, Whole, options
from vireid.data.stored import from_values
from vireid.experiments.reproduce import applicable, rows_of
from vireid.experiments.rows import Found, changes, plain_measurements, protocol_of
from vireid.experiments.trainings import Pictures
from vireid.figures.drawing import Figure
from vireid.figures.kinds import DoesNotApply, kind
from vireid.figures.of_runs import assigned
from vireid.figures.subject import Subject, Where
from vireid.recipes import Row
from vireid.training.configuration import digest, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run

FILE = Path(__file__).with_name("papers.yaml")


@dataclass(frozen=True)
class PaperFigure:
    """One figure of a paper.

    Attributes:
        shows: what it shows, in words.
        kind: the kind of figure.
        rows: name in the figure → row, for single runs; or what `vireid reproduce` takes, for all runs of these rows.
        choices: choices of the kind.
    """

    shows: str
    kind: str
    rows: dict[str, str] | str
    choices: dict[str, Any] = field(default_factory=dict)

    def needs(self, recipe: str) -> dict[str, Row]:
        """The rows whose runs are shown."""
        table = recipes.recipe(recipe).ROWS
        names = rows_of(self.rows, list(table), recipe) if isinstance(self.rows, str) else self.rows.values()
        return {name: table[name] for name in names}

    def layout(self, recipe: str) -> str:
        """The layout that its rows were printed for."""
        protocols = {row.on or "" for row in self.needs(recipe).values()}
        return next(iter(protocols)).partition("/")[0]


@options
class PaperOptions:
    """What is drawn, and from what.

    Attributes:
        recipe: the recipe of the paper.
        data: `LAYOUT:PATH` of the pictures that the rows were trained on.
        runs: folder of the runs. Runs that are there are used, whatever their directories are called.
        set: changes of the kinds' choices, as `KIND.FIELD=VALUE`, on top of those that the paper's figures have.
        fold: RegDB's fold of the figures with pictures; None for the first one that was trained.
        workers, cache: see `vireid.figures.subject.Where`.
    """

    recipe: str
    data: str
    runs: Path = Path("runs")
    set: tuple[str, ...] = ()
    fold: Count | None = None
    workers: Whole = 2
    cache: Path | None = None


@dataclass(frozen=True)
class Drawn:
    """The figures of a paper that could be drawn, and for the others why not: name of the figure → a sentence."""

    figures: tuple[Figure, ...]
    missing: Mapping[str, str]


def papers() -> dict[str, dict[str, PaperFigure]]:
    """Recipe → name of a figure, as in the paper → what it shows."""
    import yaml

    stored = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {
        recipe: {name: from_values(PaperFigure, said, f"{FILE.name}, {recipe}") for name, said in figures.items()}
        for recipe, figures in stored.items()
    }


def draw_paper(asked: PaperOptions, progress: Progress = Quiet()) -> Drawn:  # noqa: B008 has no state
    """Draw the figures of a paper that show results on this layout. Their names are `RECIPE-FIGURE`.

    Runs that are not there are not trained. A figure is drawn if all of its rows were trained on these pictures to the
    last epoch and tested, with the same changes of their configurations. Otherwise the command that does this is said.

    Raises:
        BadInput: no figures are known for this recipe, or none for this layout; or the data or a choice cannot be used.
    """
    known = papers()
    if asked.recipe not in known:
        raise unknown("recipe with figures", asked.recipe, known)
    layout, _ = datasets.parse_source(asked.data)
    layouts = {name: one.layout(asked.recipe) for name, one in known[asked.recipe].items()}
    chosen = {name: one for name, one in known[asked.recipe].items() if layouts[name] == layout}
    if not chosen:
        of = " and ".join(dict.fromkeys(layouts.values()))
        raise BadInput(f"the figures of {asked.recipe} show results on {of}; the data are {layout}")
    for other in (name for name in layouts if name not in chosen):
        progress.say(f"not drawn: {other}, which shows results on {layouts[other]}")
    given = assigned(list(dict.fromkeys(one.kind for one in chosen.values())), asked.set)
    paper = _Paper(asked, _on_these_pictures(asked, progress), progress)
    figures: list[Figure] = []
    missing: dict[str, str] = {}
    for name, one in chosen.items():
        choices = with_fields(with_fields(kind(one.kind).Choices(), one.choices), given[one.kind])
        try:
            figures += _named(f"{asked.recipe}-{name}", one.kind, kind(one.kind).figures(paper.subjects(one), choices))
        except DoesNotApply as reason:
            missing[name] = str(reason)
    return Drawn(tuple(figures), missing)


def _named(name: str, kind: str, figures: Sequence[Figure]) -> list[Figure]:
    """The figures with the name of the paper's; several ones keep what follows the name of their kind."""
    if len(figures) == 1:
        return [replace(figures[0], name=name)]
    return [replace(one, name=f"{name}{one.name.removeprefix(kind)}") for one in figures]


def _on_these_pictures(asked: PaperOptions, progress: Progress) -> list[Found]:
    """The plain measurements of this recipe's runs that were trained and tested on the pictures of the data."""
    found = [(run, one) for run, one in plain_measurements(asked.runs, progress) if run.facts.recipe == asked.recipe]
    folds = {run.facts.data.fold or 1 for run, _ in found}
    of_fold = {fold: Pictures.of(asked.data, fold) for fold in folds if fold <= _folds(asked.data)}
    kept = []
    for run, one in found:
        pictures = of_fold.get(run.facts.data.fold or 1)
        if pictures and (run.facts.data.fingerprint, one.measured.fingerprint) == (pictures.trained, pictures.tested):
            kept.append((run, one))
    return kept


def _folds(data: str) -> int:
    return datasets.folds(datasets.parse_source(data)[0])


@dataclass(frozen=True)
class _Paper:
    """The runs of a paper's rows. A run that several figures show is one subject, so it is embedded once."""

    asked: PaperOptions
    found: Sequence[Found]
    progress: Progress
    made: dict[tuple[Path, str, str], Subject] = field(default_factory=dict)

    def subjects(self, figure: PaperFigure) -> list[Subject]:
        """What the figure shows.

        Raises:
            DoesNotApply: a row has no run; the sentence has the command.
        """
        rows = figure.needs(self.asked.recipe)
        changed, found = with_the_same_changes(rows, self.found)
        if missing := [name for name in rows if not found[name]]:
            raise DoesNotApply(self._wanted(figure, missing, len(rows), changed))
        if isinstance(figure.rows, str):
            runs = {run.path: (run, rows[name].on) for name, pairs in found.items() for run, _ in pairs}
            return [self._subject(run, str(path), on, None) for path, (run, on) in runs.items()]
        chosen = of_one_training(found, self.asked.fold)
        return [
            self._subject(chosen[row], name, rows[row].on, chosen[row].facts.data.fold)
            for name, row in figure.rows.items()
        ]

    def _subject(self, run: Run, name: str, protocol: str | None, fold: int | None) -> Subject:
        key = (run.path, name, protocol or "")
        if key not in self.made:
            asked = self.asked
            where = Where(asked.data, protocol, fold=fold, workers=asked.workers, cache=asked.cache)
            self.made[key] = Subject(run, name, where, self.progress)
        return self.made[key]

    def _wanted(self, figure: PaperFigure, missing: Sequence[str], rows: int, changed: Sequence[str]) -> str:
        """Which rows have no run, and the commands that train and test them."""
        asked = self.asked
        study = isinstance(figure.rows, str)
        what = [figure.rows] if study else missing
        lacking = f"{len(missing)} of the {rows} rows {figure.rows}" if study else " and ".join(missing)
        same = [f"--data {asked.data} --runs {asked.runs}", *([f"--set {' '.join(changed)}"] if changed else [])]
        commands = [f"vireid reproduce {asked.recipe} {one} {' '.join(same)}" for one in what]
        return f"no run of {lacking} on these pictures: {'; '.join(commands)}"


def with_the_same_changes(
    rows: Mapping[str, Row], found: Iterable[Found]
) -> tuple[tuple[str, ...], dict[str, list[Found]]]:
    """The measurements of each row's protocol whose runs all have the same changes of their row's configuration.

    Of several sets of changes, the one that most rows were trained with is taken, then the one without a change, then
    the one of the newest measurement. A change that does not apply to a row is left out there, as `vireid reproduce`
    leaves it out.

    Returns:
        The changes, without the seed, and row → what was measured, which may be nothing.
    """
    found = list(found)
    sets = dict.fromkeys(told for run, _ in found for row in rows.values() if (told := changes(run, row)) is not None)
    best: tuple[tuple[str, ...], dict[str, list[Found]]] = ((), {name: [] for name in rows})
    order: tuple[int, bool, str] = (0, True, "")
    for changed in sets:
        of_row = {name: _of_row(row, changed, found) for name, row in rows.items()}
        newest = max((one.measured.started for pairs in of_row.values() for _, one in pairs), default="")
        ranks = (sum(map(bool, of_row.values())), not changed, newest)
        if ranks > order:
            best, order = (changed, of_row), ranks
    return best


def _of_row(row: Row, changed: Sequence[str], found: Sequence[Found]) -> list[Found]:
    try:
        settings = digest(to_json(with_fields(row.config, applicable(row, changed)[0])))
    except BadInput:  # a change of another row, which this one cannot take
        return []
    return [(run, one) for run, one in found if run.settings == settings and protocol_of(one) == row.on]


def of_one_training(found: Mapping[str, Sequence[Found]], fold: int | None = None) -> dict[str, Run]:
    """A run for each row, all of the same fold and seed: of those that every row has, the first fold and seed.

    Raises:
        DoesNotApply: there is no such fold and seed.
    """
    places = {
        name: {(run.facts.data.fold or 1, run.facts.seed): run for run, _ in pairs} for name, pairs in found.items()
    }
    shared = set.intersection(*(set(each) for each in places.values()))
    fitting = sorted(place for place in shared if fold in (None, place[0]))
    if not fitting:
        there = "; ".join(
            f"{name} {', '.join(f'fold {place[0]} seed {place[1]}' for place in sorted(each))}"
            for name, each in places.items()
        )
        wanted = "" if fold is None else f" in fold {fold}"
        raise DoesNotApply(f"the rows have no seed in common{wanted}: {there}")
    return {name: each[fitting[0]] for name, each in places.items()}
