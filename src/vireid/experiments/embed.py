"""`vireid embed`: features of pictures that need no labels, in a file that says which picture each feature is of."""

from __future__ import annotations

import importlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality, modality_of
from vireid.data.pictures import is_picture_start, without_waiting
from vireid.data.records import UNLABELLED, Records
from vireid.data.settings import Count, Whole, options
from vireid.data.stored import check_output, writing
from vireid.datasets import folder as own
from vireid.datasets.tree import is_picture, scaling_of
from vireid.experiments.embedding import Inference, embed_records
from vireid.training.progress import Progress, Quiet

if TYPE_CHECKING:
    from vireid.evaluation.embedding import Embedder, Way
    from vireid.model import Model

FORMAT = "vireid-features-1"
QUICK = 2000  # this many files are looked at in a moment, without a bar
SKIP = "--skip-unreadable leaves such pictures out"


@options
class EmbedOptions:
    """What `vireid embed` is asked to do.

    Attributes:
        run: the run directory.
        pictures: a folder that is searched at any depth, a table (CSV) with a column `path`, or one picture.
        modality: a word of `vireid.data.modality.MODALITIES` for all pictures; None if the table says each one's.
        out: the file to write, `.npz` or `.parquet`; None writes nothing.
        checkpoint: `last` or `best`.
        embedding: `neck`, `pooled` or `both`.
        flip: average with the mirrored picture's feature.
        batch: pictures embedded at once.
        precision: `off`, `bf16`, `fp16`, or `auto` for bf16 where that is clearly faster.
        workers: loading processes.
        cache: folder for resized pictures.
        skip_unreadable: leave out pictures that cannot be read.
        command: the command that the file records.
    """

    run: Path
    pictures: Path
    modality: str | None = None
    out: Path | None = None
    checkpoint: Literal["last", "best"] = "last"
    embedding: Literal["neck", "pooled", "both"] = "neck"
    flip: bool = False
    batch: Count = 64
    precision: Literal["off", "bf16", "fp16", "auto"] = "off"
    workers: Whole = 2
    cache: Path | None = None
    skip_unreadable: bool = False
    command: str = ""


@dataclass(frozen=True)
class Embedded:
    """Features of pictures, and what is known of the pictures.

    Attributes:
        features: N×D float32, each of length one.
        path: N strings, relative to `root`.
        modality: N int64, 0 visible or 1 infrared.
        identity: N int64, -1 where it is not known; None if the pictures came without a column `identity`.
        camera: N int64; None if the pictures came without a column `camera`.
        time: N float64 seconds, NaN where unknown; None if the pictures came without a column `time`.
        root: the folder that every `path` is relative to, absolute.
        unreadable: path → reason, of the pictures that were left out.
        header: how the features were made, as JSON values.
    """

    features: np.ndarray
    path: np.ndarray
    modality: np.ndarray
    identity: np.ndarray | None
    camera: np.ndarray | None
    time: np.ndarray | None
    root: Path
    unreadable: dict[str, str]
    header: dict[str, Any]

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays of the file, by name. Without labels there is no `identity` and no `camera`."""
        names = ("features", "path", "modality", "identity", "camera", "time")
        return {name: column for name in names if (column := getattr(self, name)) is not None}

    def write(self, file: str | Path) -> None:
        """Write a `.npz` or a `.parquet` file completely or not at all.

        Both hold `columns()` and the header as JSON text. NumPy reads the `.npz` without pickle:
        `json.loads(str(np.load(file)["header"]))`. In a `.parquet`, the header is the metadata `vireid` of the schema.

        Raises:
            BadInput: another ending, the file cannot be written, or pyarrow is needed and is not installed.
        """
        write = _writer(Path(file))
        try:
            write(Path(file), self.columns(), json.dumps(self.header))
        except OSError as error:
            raise BadInput(f"cannot write {file}: {error.strerror}") from error


def embed(asked: EmbedOptions, progress: Progress = Quiet()) -> Embedded:  # noqa: B008 has no state
    """Features of all pictures of a folder or a table, in the order of their paths or of the table.

    Before anything is embedded, each file is opened, and its first bytes are looked at. That is fast, because it reads
    little and decodes nothing. So most pictures that cannot be read are found before the long work, all at once. A
    picture that is damaged further inside is found when it is decoded, and stops the work unless such pictures are
    skipped.

    Raises:
        BadInput: the run, the pictures or the modality cannot be used, pictures cannot be read and are not skipped, or
            the file cannot be written.
    """
    from vireid.evaluation.embedding import fastest_device
    from vireid.model import load

    if asked.out is not None:
        check_output(asked.out)
        _writer(asked.out)
    records, known = listed(asked.pictures, asked.modality)
    model = load(asked.run, checkpoint=asked.checkpoint)
    records = records.with_scaling(model.scaling)
    embedder = model.embedder(
        asked.embedding,
        device=fastest_device(),
        precision=asked.precision,
        pictures=len(records),
        batch=asked.batch,
    )
    wanted, unlike = len(records), _unlike_pictures(records, progress)
    records, unreadable = _without(records, unlike)
    if unreadable and not asked.skip_unreadable:
        raise BadInput(f"{_told(unreadable, wanted, records.root)}; {SKIP}")
    how = Inference(model.size, asked.flip, asked.batch, asked.workers, asked.cache)
    features, damaged = _features(embedder, records, how, asked.skip_unreadable, progress)
    records, reasons = _without(records, damaged)
    unreadable |= reasons
    if not len(records):
        raise BadInput(_told(unreadable, wanted, records.root))
    found = Embedded(
        features=features,
        path=records.path.astype(str),
        modality=records.modality.astype(np.int64),
        identity=records.identity if "identity" in known else None,
        camera=records.camera if "camera" in known else None,
        time=records.time if "time" in known else None,
        root=Path(records.root).resolve(),
        unreadable=unreadable,
        header=_header(model, records, asked, embedder.way, unreadable),
    )
    if asked.out is not None:
        found.write(asked.out)
    return found


def _features(
    embedder: Embedder, records: Records, how: Inference, skip_unreadable: bool, progress: Progress
) -> tuple[np.ndarray, dict[int, str]]:
    """The features of the pictures that can be decoded, and position → reason of the others."""
    if not len(records):
        return np.empty((0, 0), np.float32), {}
    failed: dict[int, str] = {}
    on_skip = failed.__setitem__ if skip_unreadable else None
    try:
        found = embed_records(embedder, records, np.arange(len(records)), how, progress, on_skip)
    except BadInput as error:
        about_a_picture = any(str(error).startswith(f"{records.file(position)} ") for position in range(len(records)))
        raise BadInput(f"{error}; {SKIP}" if about_a_picture else str(error)) from None
    return np.delete(found, list(failed), axis=0) if failed else found, failed


# --- which pictures ---------------------------------------------------------------------------------------------------


def listed(pictures: Path, modality: str | None) -> tuple[Records, frozenset[str]]:
    """The pictures of a folder or of a table, or one picture.

    A folder is searched at any depth for files with a picture's extension, sorted by path; hidden files and folders are
    left out, and a folder that links lead to is searched once. A table is a CSV file with a column `path`, relative to
    the folder of the table, and optionally `modality`, `camera`, `identity` and `time`, written as in the layout
    `folder`. If a `pictures.yaml` in the folder states a scaling, it is used instead of the run's.

    Returns:
        The records, of layout `folder` and split `test`. Without a column, identities are -1 and cameras the number of
        the modality. And the columns that the table has.

    Raises:
        BadInput: there are no pictures, the table cannot be read, or a modality is missing or unknown.
    """
    word = None if modality is None else modality_of(modality)
    if pictures.is_file() and not is_picture(pictures.name):
        return _from_table(pictures, word)
    if word is None:
        raise BadInput(
            f"the pictures of {pictures} need a modality, visible or infrared; a table can have one for each picture"
        )
    root, paths = (pictures.parent, [pictures.name]) if pictures.is_file() else (pictures, below(pictures))
    if not paths:
        raise BadInput(f"{pictures} holds no pictures; their names end in .jpg, .png, .bmp, .tif, .webp, .ppm or .gif")
    return _records(root, paths, [word] * len(paths)), frozenset()


def below(folder: Path) -> list[str]:
    """The pictures below a folder, as sorted relative paths with forward slashes."""
    own.folder_names(folder)  # refuses what is not a folder, or cannot be read, or is empty

    def failed(error: OSError) -> None:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror}") from None

    found, seen = [], {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        relative = Path(here).relative_to(folder).as_posix()
        found += [name if relative == "." else f"{relative}/{name}" for name in files if is_picture(name)]
        fresh = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(here, name))
            if not name.startswith(".") and real not in seen:
                seen.add(real)
                fresh.append(name)
        folders[:] = fresh
    return sorted(found)


def _from_table(file: Path, word: Modality | None) -> tuple[Records, frozenset[str]]:
    root = file.parent
    header, lines = own.table_lines(root, file.name, needed=("path",))
    given = [cells.get("modality", "") for _, cells in lines]
    if all(given) and word is not None:
        raise BadInput(f"{file} has the modality of every picture: leave out the modality {word.word} for all")
    modalities, times = [], []
    for (line, cells), of_picture in zip(lines, given, strict=True):
        where = f"{file}, line {line}"
        if not cells["path"]:
            raise BadInput(f"{where}: 'path' is empty")
        if not of_picture and word is None:
            raise BadInput(
                f"{where} has no modality; fill a column 'modality', or give one for all: visible or infrared"
            )
        try:
            modalities.append(modality_of(of_picture) if of_picture else word)
            times.append(float(cells.get("time") or "nan"))
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        except ValueError:
            raise BadInput(f"{where}: time '{cells['time'][:40]}' is not a number of seconds") from None
    people, about_people = own.identity_numbers([cells.get("identity", "") for _, cells in lines])
    cameras, about_cameras = own.cameras([cells.get("camera", "") for _, cells in lines], modalities)
    paths = [own.table_path(cells["path"], root) for _, cells in lines]
    columns = {"identity": people, "camera": cameras, "time": times, "notes": (*about_people, *about_cameras)}
    return _records(root, paths, modalities, **columns), frozenset(header)


def _records(root: Path, paths: list[str], modalities: list[Modality], **columns: Any) -> Records:
    unlabelled = {"identity": [UNLABELLED] * len(paths), "camera": [int(one) for one in modalities]}
    return Records(
        layout="folder",
        root=root,
        path=np.array(paths, dtype=object),
        modality=np.array(modalities, dtype=np.int8),
        split=np.full(len(paths), "test"),
        scaling=scaling_of(root),
        **{**unlabelled, **columns},
    )


# --- pictures that cannot be read -------------------------------------------------------------------------------------


def _unlike_pictures(records: Records, progress: Progress) -> dict[int, str]:
    """Position → reason, of the files that are missing, empty, no regular file, or do not begin like a picture."""
    found = {}
    every = max(1, len(records) // 100)
    with (progress if len(records) > QUICK else Quiet()).bar("checking") as advance:
        for position in range(len(records)):
            if reason := problem(records.file(position)):
                found[position] = reason
            if (position + 1) % every == 0:
                advance(position + 1, len(records))
    return found


def problem(file: Path) -> str | None:
    """Why a file cannot be a picture, by its first bytes; None if it can be one."""
    try:
        os.fspath(file).encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    try:
        with open(file, "rb", opener=without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                return "is not a file"
            head = stream.read(16)
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if not head:
        return "is empty"
    return None if is_picture_start(head) else "is not a picture in a known format"


def _without(records: Records, left_out: dict[int, str]) -> tuple[Records, dict[str, str]]:
    """The other records, and path → reason of these."""
    if not left_out:
        return records, {}
    kept = np.setdiff1d(np.arange(len(records)), list(left_out))
    reasons = {n: reason.removeprefix(f"{records.file(n)} ") for n, reason in left_out.items()}
    return records.take(kept), {shown(records.path[n]): reason for n, reason in sorted(reasons.items())}


def _told(unreadable: dict[str, str], of: int, root: Path) -> str:
    """How many pictures cannot be read, and the first few with their reasons."""
    first = [f"{path} ({reason})" for path, reason in [*unreadable.items()][:3]]
    more = " …" if len(unreadable) > len(first) else ""
    return f"{len(unreadable)} of {of} pictures in {root} cannot be read: {', '.join(first)}{more}"


def shown(path: str) -> str:
    """A path that can be printed and written as UTF-8, whatever bytes a file name has."""
    return path.encode("utf-8", "backslashreplace").decode()


# --- the file ---------------------------------------------------------------------------------------------------------


def _header(
    model: Model, records: Records, asked: EmbedOptions, way: Way, unreadable: dict[str, str]
) -> dict[str, Any]:
    """How the features were made, as JSON values."""
    from importlib.metadata import version

    from vireid.networks.weights import sha256

    run, planned = model.run, model.planned
    unfinished = model.checkpoint == "last" and model.epochs < planned
    return {
        "format": FORMAT,
        "vireid": version("vireid"),
        "command": asked.command,
        "model": run.facts.name,
        "run": str(run.path.resolve()),
        "settings": run.settings,
        "seed": run.facts.seed,
        "checkpoint": model.checkpoint,
        "epochs": model.epochs,
        "weights_sha256": sha256(model.file),
        "trained_on": {"layout": run.facts.data.layout, "fingerprint": run.facts.data.fingerprint},
        "size": list(model.size),
        "embedding": asked.embedding,
        "flip": asked.flip,
        "precision": way.precision,
        "way": way.words,
        "runtime": model.runtime,
        "scaling": records.scaling,
        "root": str(Path(records.root).resolve()),
        "notes": list(records.notes),
        "warnings": [f"the run is not finished: {model.epochs} of {planned} epochs"] if unfinished else [],
        "unreadable": [{"path": path, "reason": reason} for path, reason in unreadable.items()],
    }


Write = Callable[[Path, dict[str, np.ndarray], str], None]


def _writer(file: Path) -> Write:
    """The function that writes this kind of file.

    Raises:
        BadInput: there is none, or it needs a package that is not installed.
    """
    if file.suffix == ".npz":
        return _write_npz
    if file.suffix != ".parquet":
        raise unknown("kind of features file", file.suffix or file.name, (".npz", ".parquet"))
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise BadInput(
            f"{file} needs the package pyarrow, which is not installed: pip install 'vireid[parquet]', or write an .npz"
        ) from None
    return _write_parquet


def _write_npz(file: Path, columns: dict[str, np.ndarray], header: str) -> None:
    with writing(file) as opened:
        np.savez(opened, allow_pickle=False, **columns, header=np.array(header))  # type: ignore[arg-type]


def _write_parquet(file: Path, columns: dict[str, np.ndarray], header: str) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    features = columns["features"]
    values = arrow.array(np.ascontiguousarray(features).reshape(-1))
    made = {**columns, "features": arrow.FixedSizeListArray.from_arrays(values, features.shape[1])}
    made = {name: arrow.array(column) if name != "features" else column for name, column in made.items()}
    table = arrow.table(made).replace_schema_metadata({"vireid": header})
    with writing(file) as opened:
        parquet.write_table(table, opened)
