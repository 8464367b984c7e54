"""`vireid folds`: one model for each of RegDB's ten folds, trained, tested and averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vireid import datasets, recipes
from vireid.data.errors import BadInput
from vireid.data.protocol import default_protocols
from vireid.data.settings import Whole, options
from vireid.evaluation.report import METRICS, Report
from vireid.experiments.measurement import Measurement, file_name
from vireid.experiments.test import TestOptions, test
from vireid.experiments.train import TrainOptions, train
from vireid.training.configuration import as_assignments, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import open_run


@options
class FoldOptions:
    """What `vireid folds` is asked to do.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`.
        data: `LAYOUT:PATH` of a layout with several folds.
        runs: folder of the run directories, `fold-01` and so on.
        folds: the folds to train, such as `1-10`, `3` or `1,3,5-7`; None for all.
        set: changes of every fold's configuration, as texts `field=value` or as a mapping.
        workers: loading processes.
        cache: folder for resized pictures.
        command: the command that the runs record.
    """

    recipe: str
    data: str
    runs: Path
    folds: str | None = None
    set: tuple[str, ...] | dict[str, Any] = ()
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class Fold:
    """One fold that is done: its number, its run directory, and its report by each protocol."""

    number: int
    run: Path
    reports: tuple[Report, ...]


Summary = dict[str, dict[str, dict[str, float]]]
"""Protocol → metric → `mean` and `std` over folds, in percent."""


@dataclass(frozen=True)
class Folds:
    """The results of all folds that were asked for.

    Attributes:
        recipe, row, layout: names of the recipe, of the table row (or None) and of the layout.
        set: changes of the configuration, as texts `field=value`.
        folds: the result of each fold, ascending.
        summary: mean and standard deviation over the folds.
    """

    recipe: str
    row: str | None
    layout: str
    set: tuple[str, ...]
    folds: tuple[Fold, ...]
    summary: Summary

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes. A fold is called `trial` there, so that programs that read older files still work."""
        done = [
            {"trial": one.number, "run": str(one.run), "reports": [report.to_json() for report in one.reports]}
            for one in self.folds
        ]
        facts = {"recipe": self.recipe, "row": self.row, "layout": self.layout, "set": list(self.set)}
        return {**facts, "trials": done, "summary": self.summary}


def run_folds(asked: FoldOptions, progress: Progress = Quiet()) -> Folds:  # noqa: B008 has no state
    """Train and test every fold that was asked for. A second call does only what is missing.

    Raises:
        BadInput: the layout has one fold only, a fold is out of range, or a run directory holds something else.
    """
    layout, root = datasets.parse_source(asked.data)
    numbers = chosen(asked.folds, layout, datasets.folds(layout))
    recipe, row_name, row = recipes.find_row(asked.recipe)
    expected = {"recipe": recipe, "row": row_name, "config": to_json(with_fields(row.config, asked.set))}
    done = []
    for place, number in enumerate(numbers, start=1):
        directory = asked.runs / f"fold-{number:02d}"
        progress.say(f"fold {number} ({place} of {len(numbers)}): {directory}")
        fingerprint = datasets.read(layout, root, fold=number).where(split="test").fingerprint()
        found = finished(directory, default_protocols(layout), {**expected, "fold": number}, fingerprint)
        if found is None:
            found = _train_and_test(asked, directory, number, progress)
        done.append(Fold(number, directory, tuple(one.report for one in found)))
    return Folds(
        recipe, row_name, layout, as_assignments(asked.set), tuple(done), summarise([one.reports for one in done])
    )


def chosen(text: str | None, layout: str, count: int) -> list[int]:
    """The folds named by `1-10`, `3` or `1,3,5-7`, ascending; all of them for None.

    Raises:
        BadInput: the layout has one fold only, the text has another form, or a fold is out of range.
    """
    if count == 1:
        raise BadInput(f"{layout} has one fold; vireid folds is for layouts with several: regdb")
    found: set[int] = set()
    for part in (text or f"1-{count}").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInput(f"--folds '{text}' is not of the form 1-{count}, 3 or 1,3,5-7")
        low, high = int(first), int(last if dash else first)
        if not 1 <= low <= high <= count:
            raise BadInput(f"--folds '{text}': {layout} has folds 1 to {count}; a range begins with its smaller number")
        found.update(range(low, high + 1))
    return sorted(found)


def finished(
    directory: Path, protocols: Sequence[str], expected: Mapping[str, Any], fingerprint: str
) -> list[Measurement] | None:
    """The measurements of a finished fold, or None if a part of the fold is not finished.

    The file of a measurement is written last, and in one piece. So a process that was killed leaves either a complete
    file, which is used, or no file, and then the measurement is made again.

    Args:
        directory: the fold's run directory.
        protocols: names of the protocols that must be measured.
        expected: `recipe`, `row`, `config` (in JSON values) and `fold` that the run must have.
        fingerprint: fingerprint of the fold's test records.

    Raises:
        BadInput: the directory holds a run of another recipe, configuration or fold.
    """
    if not (directory / "run.json").exists():
        return None
    run = open_run(directory)
    there = {"recipe": run.facts.recipe, "row": run.facts.row, "config": run.facts.config, "fold": run.facts.data.fold}
    other = [name for name, value in expected.items() if there[name] != value]
    if other:
        raise BadInput(f"{directory} holds a run of another {' and '.join(other)}; choose another --runs")
    found = []
    for protocol in protocols:
        try:
            one = Measurement.read(run.reports / file_name(protocol))
        except BadInput:
            return None
        if one.measured.epochs != expected["config"]["epochs"] or one.measured.fingerprint != fingerprint:
            return None
        found.append(one)
    return found


def summarise(folds: Sequence[Sequence[Report]]) -> Summary:
    """Mean and population standard deviation over folds (what `numpy.std` gives), by protocol and metric."""
    found: Summary = {}
    for protocol in dict.fromkeys(report.protocol for reports in folds for report in reports):
        together = [report for reports in folds for report in reports if report.protocol == protocol]
        for name in METRICS:
            values = [getattr(report, name) for report in together]
            found.setdefault(protocol, {})[name] = {"mean": float(np.mean(values)), "std": float(np.std(values))}
    return found


def _train_and_test(asked: FoldOptions, directory: Path, number: int, progress: Progress) -> list[Measurement]:
    how = {"workers": asked.workers, "cache": asked.cache, "command": asked.command, "fold": number}
    train(TrainOptions(asked.recipe, asked.data, directory, set=asked.set, resume=True, **how), progress)
    return test(TestOptions(directory, asked.data, **how), progress)
