"""What a service has recorded, for those who run it: the audit log, and what people said of matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.data.settings import options
from vireid.gallery import audit, feedback
from vireid.gallery.audit import Audit, Span
from vireid.gallery.embedded import DATABASE
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import is_url, state_folder
from vireid.gallery.times import parse_time


@options
class RecordsOptions:
    """What `vireid gallery records` is asked to write.

    Attributes:
        index: a folder, or `milvus://host:port/name`.
        audit: a file for the audit log: JSON lines if its name ends in .jsonl, else CSV.
        feedback: a CSV file for what people said of matches.
        who: only entries of the audit log of this token's name.
        since, until: only entries of this time or later, and before this time: ISO 8601, or how long ago.
        state: the private folder of this machine, for an index in Milvus.
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


def write_records(asked: RecordsOptions) -> dict[str, int]:
    """Write what was recorded into private files. A service may run meanwhile.

    Returns:
        How many entries each file has: `audit` and `feedback`, as far as they were asked for.

    Raises:
        BadInput: there is no index, nothing was recorded, or a file cannot be written.
    """
    if not is_url(asked.index) and not (Path(asked.index) / DATABASE).is_file():
        raise BadInput(f"there is no gallery in {asked.index}")
    folder = state_folder(asked.index, asked.state)
    written: dict[str, int] = {}
    if asked.audit is not None:
        span = Span(who=asked.who, since=_time(asked.since, "--since"), until=_time(asked.until, "--until"))
        with Audit(_recorded(folder, audit.DATABASE)) as log:
            form: Any = "jsonl" if asked.audit.suffix == ".jsonl" else "csv"
            written["audit"] = log.export(asked.audit, form, span)
    if asked.feedback is not None:
        with Feedback(_recorded(folder, feedback.DATABASE)) as said:
            written["feedback"] = said.export(asked.feedback)
    return written


def _recorded(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise BadInput(f"nothing was recorded in {folder}: no service has run with this index on this machine")
    return folder


def _time(text: str | None, what: str) -> int | None:
    return None if text is None else parse_time(text, what)
