"""`vireid gallery records`: what a service kept on this machine, the audit log and the feedback, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.data.settings import options
from vireid.gallery import feedback
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import state_folder
from vireid.gallery.service import audit
from vireid.gallery.service.audit import FORMATS, Audit, Span
from vireid.gallery.times import parse_time


@options
class RecordsOptions:
    """What `vireid gallery records` is asked to write.

    Attributes:
        index: a folder, or `milvus://host:port/name`. No server is asked.
        audit: a file for the audit log, which ends in `.csv` or `.jsonl`.
        feedback: a file for the feedback, which ends in `.csv`.
        who: only searches with this token's name.
        since, until: only searches from this time on, and before this time: ISO 8601, or how long ago, such as `7d`.
        state: the private folder of this machine, for an index in Milvus; None for the usual one.
    """

    index: str
    audit: Path | None = None
    feedback: Path | None = None
    who: str | None = None
    since: str | None = None
    until: str | None = None
    state: Path | None = None

    def __post_init__(self) -> None:
        if self.audit is None and self.feedback is None:
            raise BadInput("say what to write: --audit FILE, --feedback FILE, or both")
        if self.audit is None and not (self.who is self.since is self.until is None):
            raise BadInput("--who, --since and --until are of the audit log: give --audit FILE, or leave them out")
        _check_file("--audit", self.audit, FORMATS)
        _check_file("--feedback", self.feedback, ("csv",))


@dataclass(frozen=True)
class Records:
    """How much was written: searches and verdicts; None for a file that was not asked for."""

    audit: int | None
    feedback: int | None


def write_records(asked: RecordsOptions) -> Records:
    """Write what a service kept into private files. It may run meanwhile.

    Raises:
        BadInput: nothing was kept, a time cannot be read, or a file cannot be written.
    """
    span = Span(who=asked.who, since=_time(asked.since, "since"), until=_time(asked.until, "until"))
    folder = state_folder(asked.index, asked.state)
    if asked.audit is not None:
        _check_kept(folder, audit.DATABASE, "audit log")
    if asked.feedback is not None:
        _check_kept(folder, feedback.DATABASE, "feedback")
    searches = verdicts = None
    if asked.audit is not None:
        form: Any = asked.audit.suffix[1:]
        with Audit(folder) as log:
            searches = log.export(asked.audit, form, span)
    if asked.feedback is not None:
        with Feedback(folder) as said:
            verdicts = said.export(asked.feedback)
    return Records(searches, verdicts)


def _check_file(option: str, file: Path | None, endings: tuple[str, ...]) -> None:
    if file is None:
        return
    if file.suffix[1:] not in endings:
        known = ", ".join(f".{ending}" for ending in endings)
        raise BadInput(f"{option} {file}: the name of the file says its format, choices: {known}")
    if not file.parent.is_dir():
        raise BadInput(f"{option} {file}: there is no folder {file.parent}")


def _check_kept(folder: Path, name: str, what: str) -> None:
    if not (folder / name).exists():  # opening would make it
        raise BadInput(f"{folder} has no {what}: vireid gallery serve makes it")


def _time(text: str | None, what: str) -> int | None:
    return None if text is None else parse_time(text, what)
