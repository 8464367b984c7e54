"""A measurement: one protocol's report, how it was measured, and some ranked lists. It is kept in `RUN/reports`.

The results of its queries are kept in `RUN/queries`, as arrays, so that the report stays a short text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.data.stored import as_json, from_values, read_json, write_json
from vireid.evaluation.breakdown import Breakdown
from vireid.evaluation.queries import Queries
from vireid.evaluation.report import Report
from vireid.training.run import Hardware, Run

FORMAT = 3


def file_name(protocol: str, *, marks: Iterable[str] = (), untrained: bool = False) -> str:
    """The name of a measurement's file in `RUN/reports`. Each way of measuring has a name of its own."""
    return "-".join([*(["untrained"] if untrained else []), protocol.replace("/", "-"), *marks]) + ".json"


@dataclass(frozen=True)
class Circumstances:
    """The model, the data and the machine that a report was measured with.

    Attributes:
        command: the command, or the call from Python.
        epochs: how many epochs the network was trained.
        checkpoint: `last` or `best`.
        untrained: whether it is the network before its first step.
        embedding: which embedding was compared, a key of `vireid.model.EMBEDDINGS`.
        root: folder of the data.
        fingerprint: fingerprint of the test records.
        generated: whether the data are a generated world.
        started, versions, git_commit, hardware: see `vireid.training.run.Surroundings`.
        precision: arithmetic of the embedding, `off` for float32.
        planned: how many epochs the run's configuration asks for; None where that is not known.
        trained_on: which pictures the network was trained on, in words, if they are not the training pictures of the
            data set that it is tested on; otherwise empty.
        content: `vireid.data.records.content_fingerprint` of the test pictures; empty in older reports.
        shared: number of people in more than one split of the data, which `--allow-overlap` allowed.
        runtime: what computed the features of an exported model, such as `onnx` or `onnx-int8`; empty for PyTorch.
        way: how the features were computed, in words, see `vireid.evaluation.inference`; empty in older reports.
        difference: how far they are from those of the network as it is, see `vireid.evaluation.embedding.Way`.
    """

    command: str
    epochs: int
    checkpoint: str
    untrained: bool
    embedding: str
    root: str
    fingerprint: str
    generated: bool
    started: str
    versions: dict[str, str | None]
    git_commit: str | None
    hardware: Hardware
    precision: str = "off"
    planned: int | None = None
    trained_on: str = ""
    content: str = ""
    shared: int = 0
    runtime: str = ""
    way: str = ""
    difference: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the network was trained for as many epochs as its configuration asks for."""
        return self.planned in (None, self.epochs)


@dataclass(frozen=True)
class Answer:
    """One picture of a ranked list: its path, and whether it shows the query's identity."""

    path: str
    correct: bool


@dataclass(frozen=True)
class RankedList:
    """The path of a query, and its nearest gallery pictures, nearest first."""

    query: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Measurement:
    """One protocol's report with everything that belongs to it.

    Attributes:
        report: the numbers.
        measured: the model, the data and the machine.
        examples: ranked lists of a few queries of the first trial.
        breakdown: the result by cameras and identities; None unless it was asked for.
        format: version of the file.
        queries: the result of each query, when it was just measured. It is kept in a file of its own, which
            `queries_of` reads when it is needed.
    """

    report: Report
    measured: Circumstances
    examples: tuple[RankedList, ...] = ()
    breakdown: Breakdown | None = None
    format: int = FORMAT
    queries: Queries | None = field(default=None, compare=False, repr=False)

    @property
    def marks(self) -> tuple[str, ...]:
        """What is not plain about how it was measured: flip, embedding, re-ranking, checkpoint, arithmetic, data.

        `onnx`, `openvino-int8` and so on: the features are those of an exported model.
        `overlap`: the same people are in several splits of the data.
        """
        marks = {
            "flip": self.report.flip,
            self.measured.embedding: self.measured.embedding != "neck",
            self.report.rerank: self.report.rerank != "none",
            "best": self.measured.checkpoint == "best",
            self.measured.precision: self.measured.precision != "off",
            self.measured.runtime: bool(self.measured.runtime),
            "other-data": bool(self.measured.trained_on),
            "overlap": self.measured.shared > 0,
        }
        return tuple(mark for mark, shown in marks.items() if shown)

    @property
    def plain(self) -> bool:
        """Whether it can be compared with a published number.

        The network was trained to its last epoch, on the training pictures of the data set that it is tested on, and
        was measured without marks.
        """
        return self.measured.finished and not self.measured.untrained and not self.marks

    @property
    def title(self) -> str:
        """The protocol, and in brackets what is not plain about how it was measured."""
        words = {
            "best": "best checkpoint",
            "other-data": "other data",
            "overlap": "people in several splits",
            self.measured.embedding: f"{self.measured.embedding} embedding",
        }
        marks = [*(["untrained"] if self.measured.untrained else []), *(words.get(mark, mark) for mark in self.marks)]
        shown = ", ".join(marks)
        return f"{self.report.protocol} ({shown})" if shown else self.report.protocol

    @property
    def file_name(self) -> str:
        """The name of its file. Two measurements of one run that differ in protocol or marks have different names."""
        return file_name(self.report.protocol, marks=self.marks, untrained=self.measured.untrained)

    def keep(self, run: Run) -> None:
        """Write the measurement into the run's folder of reports, and the results of its queries beside that folder.

        Raises:
            OSError: a folder cannot be written.
        """
        run.reports.mkdir(exist_ok=True)
        if self.queries is not None:
            run.queries.mkdir(exist_ok=True)
            self.queries.write(_file_of_queries(run, self))
        stored = {**as_json(replace(self, queries=None)), "report": self.report.to_json()}
        del stored["queries"]
        write_json(run.reports / self.file_name, stored)

    @classmethod
    def read(cls, file: Path) -> Measurement:
        """Read a measurement that `keep` wrote.

        Raises:
            BadInput: the file cannot be read, or another version of vireid wrote it.
        """
        stored = read_json(file)
        found = stored.get("format", 1) if isinstance(stored, Mapping) else None
        if found != FORMAT:
            raise BadInput(f"{file} is a report of format {found}, this version reads {FORMAT}; run vireid test again")
        values: dict[str, Any] = dict(stored)
        report = Report.from_json(values.pop("report", {}), f"the report in {file}")
        rest = from_values(_Rest, values, str(file))
        return cls(report, rest.measured, rest.examples, rest.breakdown)


@dataclass(frozen=True)
class _Rest:
    """A stored measurement without its report. `Report.from_json` reads the report."""

    measured: Circumstances
    examples: tuple[RankedList, ...]
    breakdown: Breakdown | None
    format: int


def queries_of(run: Run, one: Measurement) -> Queries | None:
    """The result of each query of a measurement that was kept.

    Returns:
        None if there is no such file, because an older version measured, or if it belongs to another measurement.

    Raises:
        BadInput: the file cannot be read.
    """
    file = _file_of_queries(run, one)
    found = Queries.read(file) if file.exists() else None
    return found if found is not None and found.belong_to(one.report) else None


def _file_of_queries(run: Run, one: Measurement) -> Path:
    return (run.queries / one.file_name).with_suffix(".npz")


def measurements(run: Run) -> list[Measurement]:
    """All measurements that `vireid test` kept in a run, in the order of the file names.

    Raises:
        BadInput: a file cannot be read, or another version of vireid wrote it.
    """
    return [Measurement.read(file) for file in sorted(run.reports.glob("*.json"))] if run.reports.is_dir() else []
