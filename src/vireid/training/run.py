"""The run directory: everything needed to explain, resume and test a run.

RUN/
├─ run.json        configuration, command, versions, git commit, hardware, data fingerprint, RegDB trial
├─ log.jsonl       one line per epoch
├─ last.pt         the last checkpoint
├─ best.pt         the best epoch's weights, where epochs were validated
├─ reports/        what `vireid test` measured, one JSON file per protocol
└─ tensorboard/    if TensorBoard is installed
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vireid.data.errors import BadInput

LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A run directory and what its `run.json` says."""

    path: Path
    facts: dict[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the best epoch; only there if epochs were validated."""
        return self.path / "best.pt"

    @property
    def log(self) -> Path:
        """One JSON line per epoch."""
        return self.path / "log.jsonl"

    @property
    def reports(self) -> Path:
        """Folder of measured reports."""
        return self.path / "reports"

    def epochs(self) -> list[dict[str, Any]]:
        """The epochs logged so far; a last line that a killed process left unfinished is passed over."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found


def check_free(path: Path) -> None:
    """See that a run can begin in `path`, before anything costly is done for it.

    Raises:
        BadInput: there is a run already (says how to go on with it), or the directory holds something else.
    """
    if (path / "run.json").exists():
        raise BadInput(f"{path} holds a run already; go on with it by --resume, or choose another --run directory")
    if path.exists() and (not path.is_dir() or any(not _ours(entry.name) for entry in path.iterdir())):
        raise BadInput(f"{path} exists and is not an empty directory; choose another --run directory")


def create(path: Path, facts: dict[str, Any]) -> Run:
    """Begin a run in a new or empty directory.

    Raises:
        BadInput: as `check_free`, or the directory cannot be written.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "run.json", facts)
    except OSError as error:
        raise BadInput(f"cannot write run directory {path}: {error.strerror}") from error
    return Run(path, facts)


def open_run(path: Path) -> Run:
    """The run in `path`.

    Raises:
        BadInput: no run there, or its `run.json` cannot be read.
    """
    file = Path(path) / "run.json"
    if not file.is_file():
        raise BadInput(f"{path} is not a run directory: it has no run.json (vireid train … --run {path} makes one)")
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from error
    return Run(Path(path), facts)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a run directory for this process alone, until the block ends or the process dies.

    Raises:
        BadInput: another process holds it.
    """
    if os.name != "posix":
        yield  # advisory locks below are POSIX; elsewhere a second process is the user's care
        return
    import fcntl

    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / LOCK, "w")  # noqa: SIM115 closed below, after the caller's block
    except OSError as error:
        raise BadInput(f"cannot write run directory {path}: {error.strerror}") from error
    with lock:
        try:
            # A lock of the process: one of the open file would live on in the loader's workers for some seconds after
            # the process itself was killed.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{path} is in use by another process; wait for it or choose another --run") from error
        yield


def surroundings() -> dict[str, Any]:
    """Versions, git commit and hardware, for a run or a report to carry."""
    versions = {name: _version(name) for name in ("vireid", "torch", "numpy", "pillow", "accelerate", "numba")}
    gpu = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": gpu,
        },
    }


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _ours(name: str) -> bool:
    """Whether a process that was killed while it began a run may have left this."""
    return name == LOCK or name == "run.json.unfinished"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout this code runs from, with a + where it has changes; None when installed."""
    here = Path(__file__).resolve().parent
    if shutil.which("git") is None or "site-packages" in here.parts:
        return None
    git = ["git", "-C", str(here)]
    commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if commit.returncode != 0:
        return None
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
