"""Trainings that several rows of a table share: which are needed, which are there already, where a new one goes.

A training is one configuration, one set of training pictures, one fold and one seed. Two rows of equal configuration
are one training. Whether a run below `--runs` is this training depends on its `run.json` and not on its directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.records import content_fingerprint
from vireid.experiments.measurement import Measurement, file_name
from vireid.experiments.test import TestOptions, test
from vireid.experiments.train import TrainOptions, train
from vireid.training.configuration import digest
from vireid.training.progress import Progress
from vireid.training.run import Run, open_run


def numbers(text: str, option: str, low: int, high: int | None, what: str) -> list[int]:
    """The numbers that `1-10`, `3` or `1,3,5-7` stands for, ascending.

    Args:
        text: what the user wrote.
        option: the option, for the sentence.
        low, high: the smallest and the largest number that there is; `high=None` for no limit.
        what: what there is, for the sentence, such as `regdb has folds 1 to 10`.

    Raises:
        BadInput: the text has another form, or a number is out of range.
    """
    example = f"{low}-{low + 2 if high is None else high}"
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInput(f"{option} '{text}' is not of the form {example}, {low} or {low},{low + 2}")
        begin, end = int(first), int(last if dash else first)
        if begin < low or begin > end or (end > high if high is not None else end - begin > 1000):
            raise BadInput(f"{option} '{text}': {what}; a range begins with its smaller number")
        found.update(range(begin, end + 1))
    return sorted(found)


@dataclass(frozen=True)
class Pictures:
    """What identifies the pictures of one fold of a data set.

    Attributes:
        data: `LAYOUT:PATH`.
        layout: name of the layout.
        fold: number of the fold, from 1.
        trained, tested: fingerprints of the training records and of the test records.
        trained_content, tested_content: fingerprints of their files, see `vireid.data.records.content_fingerprint`.
    """

    data: str
    layout: str
    fold: int
    trained: str
    tested: str
    trained_content: str
    tested_content: str

    @classmethod
    def of(cls, data: str, fold: int) -> Pictures:
        """Read the records of a fold.

        Raises:
            BadInput: the data cannot be read.
        """
        layout, root = datasets.parse_source(data)
        records = datasets.read(layout, root, fold=fold)
        both = (datasets.training_records(records), records.where(split="test"))
        contents = (content_fingerprint(part) for part in both)
        return cls(data, layout, fold, *(part.fingerprint() for part in both), *contents)


@dataclass(frozen=True)
class Training:
    """One training, and the protocols that it is tested by.

    Attributes:
        recipe: name of the recipe.
        row: a row that has this configuration, or None for the paper's own.
        set: what `--set` changes in the configuration of the row, the seed included.
        config: the whole configuration in JSON values.
        pictures: what it is trained and tested on.
        protocols: names of the protocols.
    """

    recipe: str
    row: str | None
    set: tuple[str, ...]
    config: Mapping[str, Any]
    pictures: Pictures
    protocols: tuple[str, ...]

    @property
    def key(self) -> str:
        """Equal for two trainings if and only if they are the same one."""
        return f"{self.recipe} {digest(self.config)} {self.config['seed']} {self.pictures}"

    @property
    def spec(self) -> str:
        """`RECIPE` or `RECIPE:ROW`."""
        return f"{self.recipe}:{self.row}" if self.row else self.recipe

    def title(self, name: str) -> str:
        """What it is called in messages: `NAME, fold 1, seed 0`, without the fold for a layout that has one."""
        fold = f", fold {self.pictures.fold}" if datasets.folds(self.pictures.layout) > 1 else ""
        return f"{name}{fold}, seed {self.config['seed']}"

    def fits(self, run: Run) -> bool:
        """Whether a run is this training: the same recipe, configuration and training pictures.

        Folds need no question of their own, because their training pictures differ.
        """
        facts = run.facts
        same = (facts.recipe, facts.config) == (self.recipe, self.config) and facts.as_begun
        # Older runs have no content.
        told = (facts.data.fingerprint, facts.data.content or self.pictures.trained_content)
        return same and told == (self.pictures.trained, self.pictures.trained_content)

    def measured(self, run: Run) -> list[Measurement] | None:
        """The measurements of a run by every protocol of this training, or None if one is missing.

        The file of a measurement is written last, and in one piece. So a process that was killed leaves either a
        complete file, which is used, or no file, and then the measurement is made again.
        """
        found = []
        for protocol in self.protocols:
            try:
                one = Measurement.read(run.reports / file_name(protocol))
            except BadInput:
                return None
            told = (one.measured.fingerprint, one.measured.content or self.pictures.tested_content)
            same = told == (self.pictures.tested, self.pictures.tested_content)
            if one.measured.epochs != self.config["epochs"] or not same or not one.plain:
                return None
            found.append(one)
        return found

    def directory(self, runs: Path) -> Path:
        """Where a new run of this training goes: `RECIPE/LAYOUT/settings-…/seed-0`, or `…/fold-01-seed-0`.

        If a run of other pictures is there, the fingerprint of the pictures is added to the name.
        """
        fold = f"fold-{self.pictures.fold:02d}-" if datasets.folds(self.pictures.layout) > 1 else ""
        settings = runs / self.recipe / self.pictures.layout / f"settings-{digest(self.config)}"
        usual = settings / f"{fold}seed-{self.config['seed']}"
        there = read_run(usual)
        return usual if there is None or self.fits(there) else usual.with_name(f"{usual.name}-{self.pictures.trained}")

    def done(self, runs: Iterable[Run]) -> tuple[Run, list[Measurement]] | None:
        """The first run of this training that was measured by all protocols, with its measurements, or None."""
        fitting = ((run, self.measured(run)) for run in runs if self.fits(run))
        return next(((run, measured) for run, measured in fitting if measured is not None), None)

    def place(self, runs: Iterable[Run], below: Path) -> Path:
        """Where this training goes on, or begins.

        A run that was validated is not continued, because `--resume` would need the same options.
        """
        begun = (run.path for run in runs if self.fits(run) and run.facts.validation is None)
        return next(begun, None) or self.directory(below)

    def carry_out(
        self, directory: Path, how: Mapping[str, Any], progress: Progress, *, breakdown: bool = False
    ) -> tuple[Run, list[Measurement]]:
        """Train, or go on where the run stopped, and test.

        Args:
            directory: the run directory.
            how: `workers`, `cache` and `command`.
            progress: where lines and bars are shown.
            breakdown: also measure single identities and cameras.

        Raises:
            BadInput: training or testing raises it.
        """
        data, fold = self.pictures.data, self.pictures.fold
        run = train(TrainOptions(self.spec, data, directory, set=self.set, resume=True, fold=fold, **how), progress)
        tested = TestOptions(directory, data, protocols=self.protocols, fold=fold, breakdown=breakdown, **how)
        return run, test(tested, progress)


def runs_below(folder: Path, left_out: Callable[[str], None] = lambda reason: None) -> Iterator[Run]:
    """Every run below a folder, in the order of the paths. A run that cannot be read is left out, with a message."""
    for file in sorted(folder.glob("**/run.json")) if folder.is_dir() else ():
        try:
            yield open_run(file.parent)
        except BadInput as error:
            left_out(f"left out: {error}")


def read_run(directory: Path) -> Run | None:
    """The run in a directory; None if there is none or it cannot be read."""
    try:
        return open_run(directory)
    except BadInput:
        return None


def distinct(trainings: Sequence[Training]) -> list[Training]:
    """The trainings, those of equal configuration, pictures and fold joined: they are tested by all protocols."""
    found: dict[str, Training] = {}
    for one in trainings:
        first = found.get(one.key, one)
        found[one.key] = replace(first, protocols=tuple(dict.fromkeys([*first.protocols, *one.protocols])))
    return list(found.values())
