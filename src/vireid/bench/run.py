"""Run areas of the benchmark, one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vireid.bench.areas import area, areas
from vireid.bench.measure import Contender, Line, Missing, Timed, interleaved
from vireid.data.errors import BadInput
from vireid.data.settings import Count, options
from vireid.data.stored import as_json
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Surroundings, surroundings

Size = TypeVar("Size")

QUICK_ROUNDS = 2
PACKAGES = ("onnxruntime", "openvino", "nncf", "faiss-cpu", "pymilvus", "milvus-lite", "simplejpeg")
"""Packages whose versions are noted beside those of every run: contenders, and parts of them."""


@options
class BenchOptions:
    """What `vireid bench` is asked to do.

    Attributes:
        areas: what is measured; empty for all areas but those that are measured on request only.
        quick: tiny sizes and few rounds, which show that everything works, and no ratio.
        rounds: how often each contender is measured; None leaves it to the area.
        growth: also measure how the time grows with sizes.
        options: area → the values of its options that were given, by the names of its class `Options`.
    """

    areas: tuple[str, ...] = ()
    quick: bool = False
    rounds: Count | None = None
    growth: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What an area gets.

    Attributes:
        folder: an empty folder, which is removed afterwards.
        quick, rounds: see `BenchOptions`.
        named: whether the user named this area, and not only all of them.
        options: an instance of the area's `Options`; None if it has none.
        progress: where long work reports.
        leave_out: call it with (what, why) for a part that cannot be measured here.
    """

    folder: Path
    quick: bool = False
    rounds: int | None = None
    named: bool = True
    options: Any = None
    progress: Progress = field(default_factory=Quiet)
    leave_out: Callable[[str, str], None] = lambda what, why: None

    def size(self, full: Size, quick: Size) -> Size:
        """`full`, or `quick` with `--quick`."""
        return quick if self.quick else full

    def timed(self, contenders: Mapping[str, Contender], *, rounds: int = 7, **how: Any) -> Timed:
        """`vireid.bench.measure.interleaved`, with the rounds that the user chose, or else these."""
        return interleaved(contenders, self.rounds or self.size(rounds, QUICK_ROUNDS), **how)


@dataclass(frozen=True)
class Benched:
    """What `bench` measured.

    Attributes:
        lines: one for each comparison.
        left_out: what was not measured → why.
        surroundings: versions, commit and machine.
    """

    lines: tuple[Line, ...]
    left_out: dict[str, str]
    surroundings: Surroundings

    def to_json(self, command: str) -> list[dict[str, Any]]:
        """A list with one object for each line. Each has the machine, versions, commit and the command as well."""
        around = as_json(self.surroundings)
        facts = {
            "machine": around["hardware"],
            "versions": around["versions"],
            "commit": around["git_commit"],
            "started": around["started"],
            "command": command,
        }
        return [{**one.to_json(), **facts} for one in self.lines]


def bench(asked: BenchOptions, progress: Progress = Quiet()) -> Benched:  # noqa: B008 has no state
    """Measure the areas that were asked for, one after another.

    Everything that is written lies in a temporary folder (`TMPDIR` chooses where) and is removed.

    Raises:
        BadInput: an area or an option is unknown, or what an option names cannot be used.
        RuntimeError: two contenders that must compute the same did not.
    """
    modules = {name: area(name) for name in asked.areas or areas()}
    if not asked.areas:
        modules = {name: module for name, module in modules.items() if not getattr(module, "ON_REQUEST", False)}
    if strange := [name for name in asked.options if name not in modules]:
        given = ", ".join("--" + one.replace("_", "-") for one in asked.options[strange[0]])
        raise BadInput(f"{given}: an option of the area {strange[0]}, which is not among those that are measured")
    chosen = {name: _options(name, module, asked) for name, module in modules.items()}
    left_out: dict[str, str] = {}
    lines: list[Line] = []

    def leave_out(what: str, why: str) -> None:
        left_out[what] = why
        progress.say(f"  {what}: {why}")

    for name, module in modules.items():
        with tempfile.TemporaryDirectory(prefix="vireid-bench-") as folder:
            given = Bench(Path(folder), asked.quick, asked.rounds, bool(asked.areas), chosen[name], progress, leave_out)
            progress.say(f"measuring {name}")
            lines += _collected(name, module.measure(given), asked, leave_out, progress)
            if asked.growth and hasattr(module, "growth"):
                lines += _collected(name, module.growth(given), asked, leave_out, progress)
    return Benched(tuple(lines), left_out, surroundings(packages=PACKAGES))


def _options(name: str, module: ModuleType, asked: BenchOptions) -> Any:
    """The options of an area: those of `--quick`, and over them those that were given."""
    given = asked.options.get(name, {})
    if not hasattr(module, "Options"):
        return None
    return module.Options(**{**(getattr(module, "QUICK", {}) if asked.quick else {}), **given})


def _collected(
    name: str,
    found: Iterable[Line],
    asked: BenchOptions,
    leave_out: Callable[[str, str], None],
    progress: Progress,
) -> list[Line]:
    """What an area yields, until it ends or cannot go on."""
    kept: list[Line] = []
    try:
        for one in found:
            kept.append(replace(one, area=name, quick=asked.quick))
            progress.say(f"  {one.name}: {one.ratio:.2f}")
    except Missing as why:
        leave_out(name, str(why))
    return kept
