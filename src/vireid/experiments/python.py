"""The verbs as Python functions, for notebooks and scripts: `vireid.train`, `vireid.test`, `vireid.reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vireid.data.errors import BadInput, unknown
from vireid.training.progress import Progress, Quiet, Terminal

if TYPE_CHECKING:
    from vireid.evaluation.report import Report
    from vireid.experiments.rows import Comparison
    from vireid.training.run import Run

Options = TypeVar("Options")


def train(recipe: str, *, data: str, run: str | Path, progress: bool | Progress = False, **options: Any) -> Run:
    """Train a recipe and write a run directory, as `vireid train` does.

    Args:
        recipe: `RECIPE` or `RECIPE:ROW`, e.g. `agw`.
        data: `LAYOUT:PATH`, e.g. `sysu-mm01:/data/SYSU-MM01`.
        run: the run directory, new or empty unless `resume=True`.
        progress: True shows what the command line shows; nothing is printed otherwise.
        options: the other fields of `vireid.experiments.train.TrainOptions`: `set` (a mapping from field to value,
            such as `{"trunk": "tiny", "size": "96x48", "epochs": 2}`), `resume`, `fold`, `workers`, `cache`,
            `checkpoint_steps`, `skip_unreadable`, `validate_every`, `validate_on`, `tracker`.

    Returns:
        The run; `run.path` is its directory, `run.epochs()` its log.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.train import TrainOptions
    from vireid.experiments.train import train as do

    return do(_asked(TrainOptions, "train", recipe=recipe, data=data, run=run, **options), _progress(progress))


def test(
    run: str | Path | Run,
    *,
    data: str,
    protocols: str | Sequence[str] | None = None,
    progress: bool | Progress = False,
    **options: Any,
) -> list[Report]:
    """Measure a run by named protocols, as `vireid test` does.

    Args:
        run: the run directory, or what `train` returned.
        data: `LAYOUT:PATH`.
        protocols: one name such as `sysu-mm01/all/single`, or several; None for the layout's own.
        progress: True shows what the command line shows; nothing is printed otherwise.
        options: the other fields of `vireid.experiments.test.TestOptions`: `flip`, `embedding`, `rerank`, `checkpoint`,
            `untrained`, `fold`, `batch`, `precision`, `workers`, `cache`, `permutation`, `features`, `breakdown`.

    Returns:
        One report for each protocol, with `report.rank1`, `report.map` and so on in percent.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.test import TestOptions
    from vireid.experiments.test import test as do

    directory = getattr(run, "path", run)
    if not isinstance(directory, (str, Path)):
        raise BadInput(f"run cannot be {run!r}; it takes a run directory, or what vireid.train returned")
    names = (protocols,) if isinstance(protocols, str) else protocols or ()
    if not isinstance(names, (list, tuple)):
        raise BadInput(f"protocols cannot be {protocols!r}; it takes a name, or a list of names")
    asked = _asked(TestOptions, "test", run=directory, data=data, protocols=tuple(names), **options)
    return [one.report for one in do(asked, _progress(progress))]


def reproduce(
    recipe: str, table: str = "", *, data: str, progress: bool | Progress = False, **options: Any
) -> list[Comparison]:
    """Train and test the rows of a paper's table, as `vireid reproduce` does.

    Args:
        recipe: the recipe, e.g. `peca`.
        table: `TABLE` or `TABLE/ROW`, e.g. `table3` or `table3/m1`; empty for all tables.
        data: `LAYOUT:PATH`.
        progress: True shows what the command line shows; nothing is printed otherwise.
        options: the other fields of `vireid.experiments.reproduce.ReproduceOptions`: `runs`, `set`, `folds`
            (RegDB's, such as `1-10`; default all), `seeds` (such as `0,1,2`), `workers`, `cache`.

    Returns:
        One comparison for each row: the printed numbers are `row.published`, ours are `ours.metrics`.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.reproduce import ReproduceOptions
    from vireid.experiments.reproduce import reproduce as do

    asked = _asked(ReproduceOptions, "reproduce", recipe=recipe, table=table, data=data, **options)
    return do(asked, _progress(progress))


def _asked(kind: type[Options], verb: str, **given: Any) -> Options:
    """The options object. If `command` is not given, it records this call."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if strange := [name for name in given if name not in names]:
        raise unknown(f"option of vireid.{verb}", strange[0], names)
    shown = ", ".join(f"{name}={str(value) if isinstance(value, Path) else value!r}" for name, value in given.items())
    return kind(**{"command": f"vireid.{verb}({shown})", **given})


def _progress(asked: bool | Progress) -> Progress:
    if isinstance(asked, bool):
        return Terminal() if asked else Quiet()
    return asked
