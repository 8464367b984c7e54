"""The verbs as Python functions, for notebooks and scripts, such as `vireid.train` and `vireid.test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vireid.data.errors import BadInput, unknown
from vireid.training.progress import Progress, Quiet, Terminal

if TYPE_CHECKING:
    from vireid.data.records import Records
    from vireid.evaluation.report import Report
    from vireid.experiments.embed import Embedded
    from vireid.experiments.rows import Comparison
    from vireid.training.run import Run

Options = TypeVar("Options")


def train(
    recipe: str | None = None,
    *,
    run: str | Path,
    data: str | None = None,
    progress: bool | Progress = False,
    **options: Any,
) -> Run:
    """Train a recipe and write a run directory, as `vireid train` does.

    Args:
        recipe: `RECIPE` or `RECIPE:ROW`, e.g. `agw`. With `resume=True` it may be left out: then everything that is not
            given is that of the run.
        run: the run directory, new or empty unless `resume=True`.
        data: `LAYOUT:PATH`, e.g. `sysu-mm01:/data/SYSU-MM01`.
        progress: True shows what the command line shows; nothing is printed otherwise.
        options: the other fields of `vireid.experiments.train.TrainOptions`: `set` (a mapping from field to value,
            such as `{"trunk": "tiny", "size": "96x48", "epochs": 2}`), `config`, `resume`, `extend`, `fold`, `workers`,
            `cache`, `checkpoint_steps`, `recompute`, `skip_unreadable`, `validate_every`, `validate_on`,
            `allow_overlap`, `tracker`, `tracker_figures`. With `tracker` and `validate_every`, the tracker gets figures
            too, if matplotlib is installed.

    Returns:
        The run; `run.path` is its directory, `run.epochs()` its log.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.train import TrainOptions
    from vireid.experiments.train import train as do
    from vireid.figures.live import Live

    told = _progress(progress)
    return do(_asked(TrainOptions, "train", recipe=recipe, data=data, run=run, **options), told, Live(told))


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
            `untrained`, `fold`, `batch`, `precision`, `workers`, `cache`, `permutation`, `features`, `breakdown`,
            `allow_overlap`.

    Returns:
        One report for each protocol, with `report.rank1`, `report.map` and so on in percent.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.test import TestOptions
    from vireid.experiments.test import test as do

    names = (protocols,) if isinstance(protocols, str) else protocols or ()
    if not isinstance(names, (list, tuple)):
        raise BadInput(f"protocols cannot be {protocols!r}; it takes a name, or a list of names")
    asked = _asked(TestOptions, "test", run=_directory(run), data=data, protocols=tuple(names), **options)
    return [one.report for one in do(asked, _progress(progress))]


def embed(
    run: str | Path | Run,
    pictures: str | Path,
    *,
    modality: str | None = None,
    out: str | Path | None = None,
    progress: bool | Progress = False,
    **options: Any,
) -> Embedded:
    """Features of pictures without labels, as `vireid embed` makes them.

    Args:
        run: the run directory, or what `train` returned.
        pictures: a folder, which is searched at any depth; a CSV file with a column `path`; or one picture. For
            pictures that are in memory, use `vireid.load(run).embed`.
        modality: `visible` or `infrared` (or another word for them); None if the table has a column `modality`.
        out: also write this `.npz` or `.parquet` file.
        progress: True shows what the command line shows; nothing is printed otherwise.
        options: the other fields of `vireid.experiments.embed.EmbedOptions`: `checkpoint`, `embedding`, `flip`,
            `batch`, `precision`, `workers`, `cache`, `skip_unreadable`.

    Returns:
        The features with the paths of the pictures.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.embed import EmbedOptions
    from vireid.experiments.embed import embed as do

    given = {"run": _directory(run), "pictures": pictures, "modality": modality, "out": out, **options}
    return do(_asked(EmbedOptions, "embed", **given), _progress(progress))


def records(layout: str, root: str | Path | None = None, *, fold: int = 1) -> Records:
    """Read the records of a data set, without opening its pictures.

    Args:
        layout: `LAYOUT:PATH`, such as `folder:yard`, or only the layout.
        root: the path, if it is not part of `layout`: the folder of the data set; for `folder` also a CSV file.
        fold: RegDB's fold, 1 to 10.

    Raises:
        BadInput: the layout or the fold is unknown, or the data set cannot be read; the sentence says why.
    """
    from vireid import datasets

    if not isinstance(layout, str):
        raise BadInput(f"layout cannot be {layout!r}; it takes LAYOUT:PATH, or a layout with a path behind it")
    if root is None:
        layout, root = datasets.parse_source(layout)
    return datasets.read(layout, root, fold=fold)


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
            (RegDB's, such as `1-10`; default all), `seeds` (such as `0,1,2`), `jobs` (how many at once), `workers`,
            `cache`.

    Returns:
        One comparison for each row: the printed numbers are `row.published`, ours are `ours.metrics`.

    Raises:
        BadInput: whatever a user can get wrong, in one sentence.
    """
    from vireid.experiments.reproduce import ReproduceOptions
    from vireid.experiments.reproduce import reproduce as do

    asked = _asked(ReproduceOptions, "reproduce", recipe=recipe, table=table, data=data, **options)
    return do(asked, _progress(progress))


def _directory(run: str | Path | Run) -> Path:
    directory = getattr(run, "path", run)
    if not isinstance(directory, (str, Path)):
        raise BadInput(f"run cannot be {run!r}; it takes a run directory, or what vireid.train returned")
    return Path(directory)


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
