"""Runs with invented settings and results, as real directories: what a training of hours would leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vireid import recipes
from vireid.evaluation.report import METRICS
from vireid.experiments.measurement import Measurement
from vireid.experiments.test import TestOptions, test
from vireid.training.configuration import to_json, with_fields
from vireid.training.run import Run, create, open_run


def measured(run: Path, world: Path, layout: str, protocol: str) -> tuple[Run, Measurement]:
    """A trained run, and a measurement of it."""
    opened = open_run(run)
    (found,) = test(TestOptions(opened.path, f"{layout}:{world}", protocols=(protocol,), workers=0))
    return opened, found


def invented(
    path: Path,
    like: tuple[Run, Measurement],
    spec: str,
    results: Mapping[str, float],
    *,
    seed: int = 0,
    set: tuple[str, ...] = (),
    fold: int | None = None,
    generated: bool = True,
    **report,
) -> Run:
    """A run of `RECIPE` or `RECIPE:ROW` with a measurement, on the pictures of another run.

    Args:
        path: its directory.
        like: the run and the measurement that everything else is taken from.
        spec: `RECIPE` or `RECIPE:ROW`.
        results: metric → percent; the metrics that are missing are 0.
        seed, set, fold, generated: as in `run.json`.
        report: other fields of the report, such as `flip`.
    """
    run, one = like
    recipe, row, found = recipes.find_row(spec)
    config = to_json(with_fields(found.config, [*set, f"seed={seed}"]))
    data = replace(run.facts.data, generated=generated, fold=fold)
    made = create(
        path, replace(run.facts, recipe=recipe, row=row, set=set, seed=seed, config=config, data=data, plugins=())
    )
    epochs = config["epochs"]
    measured = replace(one.measured, epochs=epochs, planned=epochs, generated=generated)
    told = {**dict.fromkeys(METRICS, 0.0), **results, **report}
    replace(one, report=replace(one.report, **told), measured=measured).keep(made)
    return made
