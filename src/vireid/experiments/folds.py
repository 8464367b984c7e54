"""`vireid folds`: one model for each of RegDB's ten folds, trained, tested and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vireid import datasets, recipes
from vireid.data.errors import BadInput
from vireid.data.protocol import default_protocols
from vireid.data.settings import Count, Whole, options
from vireid.evaluation.report import METRICS, Report
from vireid.experiments.jobs import Job, Outcome, counted, finish
from vireid.experiments.measurement import Measurement
from vireid.experiments.trainings import Pictures, Training, numbers
from vireid.training.configuration import as_assignments, to_json, with_fields
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run, open_run


@options
class FoldOptions:
    """What `vireid folds` is asked to do.

    Attributes:
        recipe: `RECIPE` or `RECIPE:ROW`.
        data: `LAYOUT:PATH` of a layout with several folds.
        runs: folder of the run directories, `fold-01` and so on.
        folds: the folds to train, such as `1-10`, `3` or `1,3,5-7`; None for all.
        set: changes of every fold's configuration, as texts `field=value` or as a mapping.
        jobs: how many folds are trained at once, each in a process of its own.
        workers: loading processes, of each training.
        cache: folder for resized pictures.
        command: the command that the runs record.
    """

    recipe: str
    data: str
    runs: Path
    folds: str | None = None
    set: tuple[str, ...] | dict[str, Any] = ()
    jobs: Count = 1
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
    layout, _ = datasets.parse_source(asked.data)
    recipe, row_name, row = recipes.find_row(asked.recipe)
    changes = as_assignments(asked.set)
    asked_for = chosen(asked.folds, layout, datasets.folds(layout))
    how = {"workers": asked.workers, "cache": asked.cache, "command": asked.command}
    config, protocols = to_json(with_fields(row.config, asked.set)), tuple(default_protocols(layout))
    jobs = []
    for number in asked_for:
        one = Training(recipe, row_name, changes, config, Pictures.of(asked.data, number), protocols)
        jobs.append(Job(one, asked.runs / f"fold-{number:02d}", f"fold {number}", how))
    there = {job.training.key: _there(job.training, job.directory) for job in jobs}
    outcome = Outcome({key: found for key, found in there.items() if found is not None}, {})
    waiting = [job for job in jobs if job.training.key not in outcome.done]
    progress.say(f"{asked.recipe}: {counted(len(jobs), 'fold')}, {len(outcome.done)} there already")
    finish(waiting, outcome, progress, at_once=asked.jobs)
    if outcome.failed:
        titles = {job.training.key: job.title for job in jobs}
        raise BadInput("; ".join(f"{titles[key]}: {reason}" for key, reason in outcome.failed.items()))
    done = []
    for number, job in zip(asked_for, jobs, strict=True):
        _, measured = outcome.done[job.training.key]
        done.append(Fold(number, job.directory, tuple(found.report for found in measured)))
    return Folds(recipe, row_name, layout, changes, tuple(done), summarise([one.reports for one in done]))


def _there(one: Training, directory: Path) -> tuple[Run, list[Measurement]] | None:
    """The run in a fold's directory and its measurements; None if something is missing.

    Raises:
        BadInput: the directory holds a run of another recipe, configuration or fold, or of other pictures.
    """
    if not (directory / "run.json").exists():
        return None
    run = open_run(directory)
    if not one.fits(run):
        raise BadInput(f"{directory} holds a run of another recipe, configuration, fold or data; choose another --runs")
    measured = one.measured(run)
    return None if measured is None else (run, measured)


def chosen(text: str | None, layout: str, count: int) -> list[int]:
    """The folds named by `1-10`, `3` or `1,3,5-7`, ascending; all of them for None.

    Raises:
        BadInput: the layout has one fold only, the text has another form, or a fold is out of range.
    """
    if count == 1:
        raise BadInput(f"{layout} has one fold; --folds is for layouts with several: regdb")
    return numbers(text or f"1-{count}", "--folds", 1, count, f"{layout} has folds 1 to {count}")


def summarise(folds: Sequence[Sequence[Report]]) -> Summary:
    """Mean and population standard deviation over folds (what `numpy.std` gives), by protocol and metric."""
    found: Summary = {}
    for protocol in dict.fromkeys(report.protocol for reports in folds for report in reports):
        together = [report for reports in folds for report in reports if report.protocol == protocol]
        for name in METRICS:
            values = [getattr(report, name) for report in together]
            found.setdefault(protocol, {})[name] = {"mean": float(np.mean(values)), "std": float(np.std(values))}
    return found
