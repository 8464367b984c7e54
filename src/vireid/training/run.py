"""The run directory. It holds everything that is needed to explain, resume and test a run.

RUN/
├─ run.json        `RunFacts`: configuration, command, data, versions, git commit, hardware
├─ log.jsonl       one line for each epoch
├─ last.pt         the last checkpoint
├─ best.pt         the weights of the best epoch, if epochs were validated
├─ plugins/      copies of the plug-ins, if there were any
├─ reports/        what `vireid test` measured, one JSON file for each protocol
├─ queries/        the result of each query, one file of arrays for each report
└─ tensorboard/    what the tracker `tensorboard` wrote, if it was asked for
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vireid.data.errors import BadInput
from vireid.data.stored import as_json, from_values, read_json, write_json
from vireid.training import checkpoint
from vireid.training.configuration import digest

FORMAT = 2
LOCK = ".lock"
EXPORTED = "export.json"  # in the directory of an exported model; its entry `run` is the run's `run.json`
PACKAGE = Path(__file__).resolve().parents[1]

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hardware:
    """The machine that a run or a measurement was made on.

    Attributes:
        system: operating system and architecture.
        processor: name of the processor.
        cores: logical cores; None if the system does not say.
        threads: threads that torch uses in one operation.
        gpus: names of the visible GPUs.
    """

    system: str
    processor: str
    cores: int | None
    threads: int
    gpus: tuple[str, ...]

    @property
    def words(self) -> str:
        """The GPUs; without any, the processor.

        >>> Hardware("Linux x86_64", "Xeon", 2, 2, ()).words
        '2 cores Xeon'
        """
        return ", ".join(self.gpus) or f"{self.cores} cores {self.processor}"


@dataclass(frozen=True)
class Surroundings:
    """What a reader has to know of the software and the hardware to repeat a run or a measurement.

    Attributes:
        started: date and time in UTC, ISO 8601.
        versions: package → version, None if it is not installed.
        git_commit: of the checkout that the code runs from, with a + if files differ from it; None if vireid is
            installed as a package.
        hardware: the machine.
    """

    started: str
    versions: dict[str, str | None]
    git_commit: str | None
    hardware: Hardware


@dataclass(frozen=True)
class DataFacts:
    """The pictures that a run is trained on.

    Attributes:
        layout: name of the layout.
        root: absolute path of the data.
        fingerprint: of the training records; equal records have equal fingerprints.
        fold: RegDB's fold, 1 to 10; None for layouts without folds.
        identities: number of training identities.
        visible, infrared: number of training pictures of each modality.
        generated: whether the data are a generated world.
        source: absolute path that was named; it differs from `root` if that was a table. None in older runs.
        content: `vireid.data.records.content_fingerprint` of the training pictures; empty in older runs.
        scaling: how grey pictures with 16 bits became 8 bits, see `vireid.data.pictures.Scaling`.
        shared: number of people in more than one split, which `--allow-overlap` allowed.
        people: the data set's own identity numbers of the people that were trained on, ascending; empty in older runs.
            See `vireid.experiments.trained` for when equal numbers are one person.
    """

    layout: str
    root: str
    fingerprint: str
    fold: int | None
    identities: int
    visible: int
    infrared: int
    generated: bool
    source: str | None = None
    content: str = ""
    scaling: str = "full"
    shared: int = 0
    people: tuple[int, ...] = ()


@dataclass(frozen=True)
class WeightsFacts:
    """The file of weights that a run started from.

    Attributes:
        file: absolute path.
        sha256: of the file, as it was when the run began.
        run: `recipe:row` of the run that the file is a checkpoint of; None if it is not from a run.
        trained_on: the pictures that this run, and those that it started from itself, were trained on.
    """

    file: str
    sha256: str
    run: str | None
    trained_on: tuple[DataFacts, ...]


@dataclass(frozen=True)
class ValidationFacts:
    """How the best epoch is chosen.

    Attributes:
        every: epochs between two measurements.
        on: `val` or `test`, the split that is measured.
        protocol: name of the protocol.
        metric: name of the metric that chooses.
        identities, pictures: how many are measured.
        fingerprint: of the measured records.
        note: what a reader has to know about this choice.
    """

    every: int
    on: str
    protocol: str
    metric: str
    identities: int
    pictures: int
    fingerprint: str
    note: str


@dataclass(frozen=True)
class Extension:
    """A change of the number of epochs of a run that was there.

    Attributes:
        when: date and time in UTC, ISO 8601.
        before, after: number of epochs of the whole run, before and after the change.
        command: the command, or the call from Python.
        same: whether the run is the one that `after` epochs from the start would have been. It is not if the learning
            rate depends on the number of epochs.
    """

    when: str
    before: int
    after: int
    command: str
    same: bool


@dataclass(frozen=True)
class PluginFacts:
    """A plug-in that a run was trained with, see `vireid.plugins`.

    Attributes:
        name: name of the file without `.py`, or of the entry point.
        file: absolute path when the run began. A copy is in `RUN/plugins`.
        sha256: of the file.
        holds: what it made known, such as `recipe my_recipe`.
        package: name and version of the installed package; empty for a file that was named.
    """

    name: str
    file: str
    sha256: str
    holds: tuple[str, ...]
    package: str


@dataclass(frozen=True)
class RunFacts:
    """What `run.json` says.

    Attributes:
        recipe: the recipe's name.
        row: the table row that the configuration came from, or None.
        set: what `--set` changed, as `FIELD=VALUE`.
        seed: the run's seed.
        config: the whole configuration, as `vireid.training.configuration.to_json` writes it.
        command: the command, or the call from Python.
        data: the training pictures.
        validation: how the best epoch is chosen; None without validation.
        processes: number of processes (world size).
        normalisation: over which samples batch normalisation takes its statistics, in words.
        started, versions, git_commit, hardware: see `Surroundings`.
        extensions: changes of the number of epochs after the start, in their order. `config` and `set` are as they are
            after the last one.
        weights: the file that `weights` named; None if it named none.
        plugins: the plug-ins that were loaded.
        format: version of the file.
    """

    recipe: str
    row: str | None
    set: tuple[str, ...]
    seed: int
    config: dict[str, Any]
    command: str
    data: DataFacts
    validation: ValidationFacts | None
    processes: int
    normalisation: str
    started: str
    versions: dict[str, str | None]
    git_commit: str | None
    hardware: Hardware
    extensions: tuple[Extension, ...] = ()
    weights: WeightsFacts | None = None
    plugins: tuple[PluginFacts, ...] = ()
    format: int = FORMAT

    @property
    def name(self) -> str:
        """`recipe:row`, or `recipe` if the configuration is the paper's own."""
        return f"{self.recipe}:{self.row}" if self.row else self.recipe

    @property
    def as_begun(self) -> bool:
        """Whether the run is what its configuration says from the first epoch on; see `Extension.same`."""
        return all(one.same for one in self.extensions)


def surroundings(files: Iterable[Path] = (), packages: Iterable[str] = ()) -> Surroundings:
    """Versions, git commit and hardware as they are now.

    Args:
        files: code that is used beside the package, such as a recipe's file. The commit gets a + if one of them is not
            in it.
        packages: packages whose versions count beside those of every run.
    """
    always = ("vireid", "torch", "numpy", "pillow", "accelerate", "numba")
    versions = {name: _version(name) for name in (*always, *packages)}
    return Surroundings(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **versions},
        git_commit=_git_commit(PACKAGE, files),
        hardware=Hardware(
            system=f"{platform.system()} {platform.machine()}",
            processor=_processor(),
            cores=os.cpu_count(),
            threads=torch.get_num_threads(),
            gpus=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        ),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit(package: Path, files: Iterable[Path] = ()) -> str | None:
    """The commit of the checkout that `package` lies in; None if it is installed or git is missing.

    A + follows if tracked files were changed, if there are untracked files inside the package, such as a new recipe, or
    if one of `files` is not tracked: it is ignored, or lies outside the checkout.
    """
    if shutil.which("git") is None or "site-packages" in package.parts:
        return None

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(package), *words], capture_output=True, text=True)

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit.returncode != 0:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no").stdout.strip()
    added = git("status", "--porcelain", "--untracked-files=all", "--", ".").stdout.strip()
    unknown = any(git("ls-files", "--error-unmatch", "--", str(Path(file).resolve())).returncode for file in files)
    return commit.stdout.strip() + ("+" if changed or added or unknown else "")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --- the directory ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run directory and what its `run.json` says.

    Attributes:
        path: the directory.
        facts: the content of `run.json`.
        was_finished: whether `vireid.experiments.train.train` found it finished and had nothing to do.
    """

    path: Path
    facts: RunFacts
    was_finished: bool = False

    @cached_property
    def settings(self) -> str:
        """A name of the configuration without its seed, see `vireid.training.configuration.digest`."""
        return digest(self.facts.config)

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the best epoch. The file exists only if epochs were validated."""
        return self.path / "best.pt"

    @property
    def exported(self) -> bool:
        """Whether the directory is that of an exported model: it has reports, and nothing of the training."""
        return (self.path / EXPORTED).is_file()

    @property
    def log(self) -> Path:
        """One JSON line for each epoch."""
        return self.path / "log.jsonl"

    @property
    def reports(self) -> Path:
        """The folder of measurements."""
        return self.path / "reports"

    @property
    def queries(self) -> Path:
        """The folder of the results of single queries."""
        return self.path / "queries"

    def epochs(self) -> list[dict[str, Any]]:
        """The epochs logged so far. A last line that a killed process left unfinished is skipped."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @property
    def saved(self) -> bool:
        """Whether anything was kept of the training: a checkpoint, a finished epoch or a measurement.

        A run that failed or was interrupted before that is not worth keeping, and another one may begin in its place.
        """
        return self.checkpoint.exists() or self.best.exists() or self.reports.exists() or bool(self.epochs())

    @property
    def finished(self) -> bool:
        """Whether the last checkpoint is that of the last epoch.

        Raises:
            BadInput: the checkpoint cannot be read.
        """
        epochs = self.facts.config["epochs"]
        if len(self.epochs()) < epochs or not self.checkpoint.exists():
            return False  # known without reading the checkpoint, which is large
        return checkpoint.load(self.checkpoint)["progress"]["epoch"] >= epochs


def check_free(path: Path) -> None:
    """Check that a run can begin in `path`, before any costly work is done for it.

    A run that saved nothing leaves the directory free: a corrected command can begin there.

    Raises:
        BadInput: there is a run already (the sentence says how to continue it), or the directory is not empty.
    """
    if (path / "run.json").exists():
        with contextlib.suppress(BadInput):  # a file that cannot be read is not replaced
            if not open_run(path).saved:
                return
        raise BadInput(f"{path} holds a run already; go on with it by --resume, or choose another --run directory")
    if path.exists() and (not path.is_dir() or any(not _may_be_left(entry.name) for entry in path.iterdir())):
        raise BadInput(f"{path} exists and is not an empty directory; choose another --run directory")


def _may_be_left(name: str) -> bool:
    """Whether a process that was killed at the beginning of a run may have left a file of this name."""
    return name == LOCK or name == "run.json.unfinished"


def create(path: Path, facts: RunFacts) -> Run:
    """Begin a run in a new or empty directory.

    Raises:
        BadInput: as `check_free`, or the directory cannot be written.
    """
    check_free(path)
    _write(path, facts)
    return Run(path, facts)


def extend(run: Run, config: dict[str, Any], command: str, *, same: bool) -> Run:
    """Change the number of epochs of a run, and record it in `run.json`. The caller has locked the directory.

    Args:
        run: the run.
        config: its configuration with the new number, in JSON values.
        command: the command that asked for it.
        same: see `Extension`.

    Raises:
        BadInput: `run.json` cannot be written; it is as it was.
    """
    facts, after = run.facts, config["epochs"]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    one = Extension(now, facts.config["epochs"], after, command, same)
    told = (*(text for text in facts.set if not text.startswith("epochs=")), f"epochs={after}")
    longer = replace(facts, config=config, set=told, extensions=(*facts.extensions, one))
    _write(run.path, longer)
    return Run(run.path, longer)


def _write(path: Path, facts: RunFacts) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "run.json", as_json(facts))
    except OSError as error:
        raise BadInput(f"cannot write run directory {path}: {error.strerror}") from error


def open_run(path: Path) -> Run:
    """The run in `path`, or the run that the exported model in `path` came from.

    Raises:
        BadInput: there is no run, its `run.json` cannot be read or has another format, or a field is missing, unknown
            or of a wrong type. The sentence names the file and the field.
    """
    file = Path(path) / "run.json"
    if (exported := Path(path) / EXPORTED).is_file():
        found = read_json(exported)
        file, values = exported, found.get("run") if isinstance(found, dict) else None
    elif not file.is_file():
        raise BadInput(f"{path} is not a run directory: it has no run.json (vireid train … --run {path} makes one)")
    else:
        values = read_json(file)
    if isinstance(values, dict):
        if "format" not in values:
            values = _from_format_1(values)
        if values["format"] != FORMAT:
            raise BadInput(f"{file} has format {values['format']}; this version of vireid reads 1 and {FORMAT}")
    return Run(Path(path), from_values(RunFacts, values, str(file)))


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a format 1 file in format 2: `data.trial` is `data.fold`, `backbone_factor` is `trunk_factor`."""

    def renamed(value: Any, names: dict[str, str]) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): renamed(inner, names) for key, inner in value.items()}
        return [renamed(inner, names) for inner in value] if isinstance(value, list) else value

    upgraded = {**values, "format": FORMAT}
    if "data" in values:
        upgraded["data"] = renamed(values["data"], {"trial": "fold"})
    if "config" in values:
        upgraded["config"] = renamed(values["config"], {"backbone_factor": "trunk_factor"})
    return upgraded


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock a run directory for this process, until the block ends or the process dies.

    Raises:
        BadInput: another process has locked it.
    """
    if os.name != "posix":
        yield  # the locks below are POSIX; on other systems nothing prevents a second process
        return
    import fcntl

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / LOCK, "w")  # noqa: SIM115 closed below, after the caller's block
    except OSError as error:
        raise BadInput(f"cannot write run directory {path}: {error.strerror}") from error
    with lock:
        try:
            # lockf locks for the process. flock would lock the open file: the loader's workers inherit it, and live on
            # for some seconds after the process itself was killed.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{path} is in use by another process; wait for it or choose another --run") from error
        yield
