"""One or several runs side by side: one HTML file that needs no other file and no script, or tables."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture
from vireid.data.protocol import protocol_names
from vireid.data.size import Size
from vireid.data.stored import as_json, write_text
from vireid.evaluation.report import SHORT, TITLES, Report, incomparable, mixed_legend, of_mixed_galleries
from vireid.experiments.grouping import Difference, Group, fields_of, from_first, groups, shown
from vireid.experiments.measurement import Circumstances, Measurement, measurements
from vireid.experiments.rows import Found
from vireid.experiments.standing import standings
from vireid.figures import charts
from vireid.figures.drawing import Figure, Look
from vireid.figures.pieces import camera_pairs, pieces
from vireid.figures.tables import (
    MISSING,
    Document,
    Table,
    mixed_table,
    numbers_of,
    numbers_of_difference,
    numbers_of_group,
    spread,
)
from vireid.figures.verdict import LEGEND as VERDICT_LEGEND
from vireid.figures.verdict import configurations, sentence, verdict
from vireid.model import configuration
from vireid.recipes import recipe
from vireid.training.configuration import differences
from vireid.training.run import Run

THUMBNAIL = Size(96, 48)
FIGURE_WIDTH = 1200  # pixels of a figure in the page
LEGEND = "± of a run is the standard deviation over the protocol's gallery draws; 95 % intervals are over seeds"
Kept = Mapping[Path, Sequence[Measurement]]
"""The measurements of each run, by its directory."""


def write_page(
    out: Path,
    runs: Sequence[Run],
    *,
    title: str = "vireid report",
    sheet: bytes | None = None,
    figures: Sequence[Figure] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write the page.

    Args:
        out: the HTML file; replaced whole or not at all.
        runs: run directories, each trained and tested.
        title: the page's heading.
        sheet: a PNG or JPEG with examples of the pictures.
        figures: what `vireid.figures.of_runs.draw` drew of these runs.
        notes: sentences about the figures, such as which ones are missing.

    Raises:
        BadInput: no run has a report yet, a report cannot be read, or the file cannot be written.
    """
    kept = _kept(runs)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html")
    names = names_of(runs, kept)
    ordered = {protocol: standings(_groups(protocol, runs, kept)) for protocol in _protocols(kept)}
    text = page.render(
        title=title,
        generated=any(k.measured.generated for reports in kept.values() for k in reports),
        warnings=_warnings(runs, kept),
        columns=TITLES,
        mixed_legend=mixed_legend,
        legend=LEGEND[0].upper() + LEGEND[1:],
        verdicts=[verdict(protocol, found) for protocol, found in ordered.items() if found],
        verdict_legend=VERDICT_LEGEND,
        differences=configurations(one.group for found in ordered.values() for one in found),
        tables=[_protocol_table(protocol, runs, kept, names) for protocol in ordered],
        pieces=[one for protocol, found in ordered.items() if (one := pieces(protocol, found, _thumbnail))],
        figures=[_shown(one) for one in figures],
        figure_notes=list(notes),
        runs=[_run_section(run, kept[run.path], names[run.path]) for run in runs],
        sheet=_data_address(sheet) if sheet else None,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}") from error
    return out


def _shown(figure: Figure) -> dict[str, str]:
    """A figure as pictures for light and dark pages."""
    light, dark = (_small(figure.image(Look(theme, "page"))) for theme in ("light", "dark"))
    return {"name": figure.name, "light": light, "dark": dark, "caption": figure.caption}


def _small(image: bytes) -> str:
    """A figure for a screen, as a data address. At the size for print, a page with ranked lists has 150 MB."""
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    if picture.width > FIGURE_WIDTH:
        picture = picture.resize((FIGURE_WIDTH, round(picture.height * FIGURE_WIDTH / picture.width)))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def document(runs: Sequence[Run]) -> Document:
    """The results of the page as tables: a line for each measurement, each group's mean, and each difference.

    Raises:
        BadInput: no run has a report yet, or a report cannot be read.
    """
    kept = _kept(runs)
    names, tables, numbers = names_of(runs, kept), [], []
    for protocol in _protocols(kept):
        lines = _lines(protocol, runs, kept, names)
        cells = tuple((line.name, *(spread(*cell, sign=line.sign) for cell in line.cells)) for line in lines)
        tables.append(Table(protocol, ("run", *SHORT.values()), cells, where=_how(next(_reports(lines)))))
        if besides := _besides(lines):
            tables.append(mixed_table(besides))
        numbers += [line.numbers for line in lines]
    generated = any(k.measured.generated for reports in kept.values() for k in reports)
    world = ["measured on a generated world: these numbers must not stand beside published ones"] if generated else []
    ordered = {protocol: standings(_groups(protocol, runs, kept)) for protocol in _protocols(kept)}
    order = [f"{name}: {sentence(found)}" for name, found in ordered.items() if any(one.behind for one in found)]
    notes = [LEGEND, *order, *world, *(f"warning: {warning}" for warning in _warnings(runs, kept))]
    return Document(tuple(tables), tuple(numbers), tuple(notes))


def _kept(runs: Sequence[Run]) -> Kept:
    """The measurements of all runs.

    Raises:
        BadInput: there is none, or one cannot be read.
    """
    kept = {run.path: measurements(run) for run in runs}
    if not any(kept.values()):
        raise BadInput(f"no reports in {', '.join(str(run.path) for run in runs)}; run vireid test first")
    return kept


def names_of(runs: Sequence[Run], kept: Kept) -> dict[Path, str]:
    """What each run is called: its directory's name; where several have the same name, with what is particular to it.

    Runs that differ in the seed only and have the same name, in different places, are called by their whole paths.
    """
    short = [run.path.name for run in runs]
    found = {run.path: run.path.name for run in runs if short.count(run.path.name) == 1}
    if len(found) < len(runs):
        every = [(run, next(iter(kept[run.path]))) for run in runs if kept[run.path]]
        labels = {run.path: group.label for group in groups(every) for run, _ in group.found}
        told = {run.path: f"{labels.get(run.path, run.facts.name)}, {run.path.name}" for run in runs}
        again = list(told.values())
        found |= {
            path: name if again.count(name) == 1 else str(path) for path, name in told.items() if path not in found
        }
    return found


def _protocols(kept: Kept) -> list[str]:
    """The protocols that were measured, in the order in which they are listed everywhere else."""
    return sorted({k.report.protocol for reports in kept.values() for k in reports}, key=_as_listed)


def _as_listed(protocol: str) -> tuple[int, str]:
    names = protocol_names()
    return (names.index(protocol) if protocol in names else len(names), protocol)


@dataclass(frozen=True)
class Line:
    """One line of the table of a protocol.

    Attributes:
        name: of the run, of the group, or of the difference.
        cells: (value, what lies around it) for each metric; the latter is None where there is nothing.
        numbers: the row of the CSV file.
        report: the report, if the line is about one run.
        faint: whether it is shown faintly: it is not the result of a trained network.
        sign: whether values have a sign.
    """

    name: str
    cells: tuple[tuple[float, float | None], ...]
    numbers: Mapping[str, Any]
    report: Report | None = None
    faint: bool = False
    sign: bool = False


def _lines(protocol: str, runs: Sequence[Run], kept: Kept, names: Mapping[Path, str]) -> list[Line]:
    """Every run, then the mean of every group of several seeds, then the groups minus the first one."""
    found = _found(protocol, runs, kept)
    made = _groups(protocol, runs, kept)
    labels = {(run.path, one.file_name): group.label for group in made for run, one in group.found}
    lines = [_run_line(run, one, names[run.path], labels.get((run.path, one.file_name), "")) for run, one in found]
    lines += [_mean_line(group) for group in made if len(group.found) > 1]
    return lines + [_difference_line(one, protocol) for one in from_first(made)]


def _found(protocol: str, runs: Sequence[Run], kept: Kept) -> list[Found]:
    return [(run, one) for run in runs for one in kept[run.path] if one.report.protocol == protocol]


def _groups(protocol: str, runs: Sequence[Run], kept: Kept) -> list[Group]:
    """The groups of a protocol, without untrained networks."""
    return groups((run, one) for run, one in _found(protocol, runs, kept) if not one.measured.untrained)


def _run_line(run: Run, one: Measurement, name: str, group: str) -> Line:
    report, facts = one.report, run.facts
    many = len(report.trials) > 1
    cells = tuple((getattr(report, name), report.std[name] if many else None) for name in TITLES)
    told = {"protocol": report.protocol, "numbers": "untrained" if one.measured.untrained else "run", "group": group}
    place = {"minus": None, "seed": facts.seed, "fold": facts.data.fold, "run": str(run.path)}
    numbers = {**told, **place, **numbers_of(report)}
    return Line(_name(name, one), cells, numbers, report, one.measured.untrained)


def _mean_line(group: Group) -> Line:
    ours = group.ours
    cells = tuple((ours.metrics[name], ours.interval.get(name)) for name in TITLES)
    around = ", 95 % interval" if ours.interval else ""
    return Line(f"{group.label}: mean of {ours.extent}{around}", cells, numbers_of_group(group))


def _difference_line(one: Difference, protocol: str) -> Line:
    cells = tuple((one.metrics[name].mean, one.metrics[name].half) for name in TITLES)
    seeds = f"{'seed' if len(one.seeds) == 1 else 'seeds'} {', '.join(map(str, one.seeds))}"
    around = ", 95 % interval" if len(one.seeds) > 1 else ""
    name = f"{one.second} minus {one.first}: paired over {seeds}{around}"
    return Line(name, cells, numbers_of_difference(one, protocol), sign=True)


def _reports(lines: Sequence[Line]) -> Iterator[Report]:
    return (line.report for line in lines if line.report is not None)


def _protocol_table(protocol: str, runs: Sequence[Run], kept: Kept, names: Mapping[Path, str]) -> dict[str, Any]:
    lines = _lines(protocol, runs, kept, names)
    first = next(_reports(lines))
    chance = next((report.chance_rank1 for report in _reports(lines) if not math.isnan(report.chance_rank1)), None)
    curves = {
        line.name: [(k, getattr(line.report, f"rank{k}")) for k in (1, 5, 10, 20)] for line in lines if line.report
    }
    return {
        "protocol": protocol,
        "measured": _how(first),
        "rows": [{"name": line.name, "faint": line.faint, "cells": _cells(line)} for line in lines],
        "chance": None if chance is None else f"{chance:.2f}",
        "besides": _besides(lines),
        "chart": charts.lines(curves, x="rank", y="CMC, %", y_range=(0, 100), ticks_x=(1, 5, 10, 20)),
    }


def _besides(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """What a gallery of both modalities gives besides: headings, and a line for each run; empty without one."""
    runs = [(line.report, line.name) for line in lines if line.report is not None]
    return of_mixed_galleries([report for report, _ in runs], [name for _, name in runs])


def _how(report: Report) -> str:
    """Everything that the numbers of one protocol depend on, in one line."""
    draws = f"{len(report.trials)} draws" if len(report.trials) > 1 else "1 draw"
    compared = f"{report.distance} distance" if report.alarms is None else "log-likelihood ratio of the cosine"
    return (
        f"{report.valid_queries} of {report.queries} queries count · {report.gallery} gallery pictures · {draws} · "
        f"CMC of {'distinct identities' if report.cmc == 'identity' else 'pictures'} · {compared} of "
        f"the embedding {report.embedding} · flip {'yes' if report.flip else 'no'} · re-ranking {report.rerank}"
    )


def _run_section(run: Run, kept: Sequence[Measurement], name: str) -> dict[str, Any]:
    recipe_name, config = configuration(run)
    epochs = run.epochs()
    terms: dict[str, list[tuple[float, float]]] = {}
    for line in epochs:
        for term, value in line["terms"].items():
            terms.setdefault(term, []).append((line["epoch"] + 1, value))
    shown_lists = next((k for k in kept if k.examples and not k.measured.untrained), None)
    changed = differences(recipe(recipe_name).PAPER, config)
    return {
        "path": str(run.path),
        "called": name,
        "name": run.facts.name,
        "chart": charts.lines(terms, x="epoch", y="terms of the objective"),
        "epochs": len(epochs),
        "facts": _facts(run),
        "changed": [line for path, values in changed.items() for line in _fields_of_change(path, *values)],
        "config": json.dumps(run.facts.config, indent=2, ensure_ascii=False),
        "measured": [_measured(name, one) for one in kept],
        "lists": _lists(shown_lists) if shown_lists else [],
        "lists_protocol": shown_lists.report.protocol if shown_lists else None,
        "breakdowns": [
            {"name": _name(run.path.name, k), "protocol": k.report.protocol, "pairs": camera_pairs(k.breakdown)}
            | {"worst": as_json(k.breakdown.worst)}
            for k in kept
            if k.breakdown
        ],
    }


def _fields_of_change(path: str, before: Any, after: Any) -> list[tuple[str, str, str]]:
    """The lines of one changed field; a part that was exchanged has a line for each of its fields.

    >>> _fields_of_change("crop", None, {"type": "PadCrop", "padding": 4})
    [('crop', 'null', 'PadCrop'), ('crop.padding', '–', '4')]
    """
    old, new = (fields_of({path: value}) for value in (before, after))

    def cell(fields: Mapping[str, Any], name: str) -> str:
        return shown(fields[name]) if name in fields else MISSING

    cells = [(name, cell(old, name), cell(new, name)) for name in dict.fromkeys((*old, *new))]
    return [line for line in cells if line[1] != line[2]]


def _measured(name: str, one: Measurement) -> dict[str, str]:
    """What the numbers of one measurement depend on."""
    how, report = one.measured, one.report
    content = f", content {how.content}" if how.content else ""
    way = f" · features by {how.way}" if how.way else ""
    return {
        "protocol": report.protocol,
        "name": _name(name, one),
        "checkpoint": "before the first step" if how.untrained else f"{how.checkpoint}, {_epochs_of(how)}",
        "data": f"{how.root}, fingerprint {how.fingerprint}{content}",
        "how": f"{_how(report)} · precision {how.precision}{way}",
        "commit": how.git_commit or "installed package",
        "hardware": how.hardware.words,
        "started": how.started,
        "command": how.command,
    }


def _facts(run: Run) -> dict[str, str]:
    facts, data = run.facts, run.facts.data
    fold = f", fold {data.fold}" if data.fold else ""
    return {
        "command": facts.command,
        "seed": str(facts.seed),
        "data": f"{data.layout}{fold}: {data.identities} training identities, {data.visible:,} visible and "
        f"{data.infrared:,} infrared pictures, fingerprint {data.fingerprint}",
        "started": facts.started,
        "hardware": facts.hardware.words,
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items() if version),
        "git commit": facts.git_commit or "installed package",
    }


def _lists(kept: Measurement) -> list[dict[str, Any]]:
    root = Path(kept.measured.root)
    found = []
    for example in kept.examples:
        query = _thumbnail(root / example.query)
        answers = [
            {"picture": _thumbnail(root / a.path), "path": a.path, "correct": a.correct} for a in example.answers
        ]
        if query and any(answer["picture"] for answer in answers):
            found.append({"query": query, "path": example.query, "answers": answers})
    return found


def _thumbnail(file: Path) -> str | None:
    """A small picture as a data address; None where the data have moved."""
    from PIL import Image

    try:
        pixels = read_picture(file, THUMBNAIL, scaling="percentile")  # to be looked at, whatever the network sees
    except BadInput:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return _data_address(buffer.getvalue())


def _data_address(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _cells(line: Line) -> list[tuple[str, str]]:
    """(value, what lies around it) of each column, as texts."""
    shown = "{:+.2f}" if line.sign else "{:.2f}"
    return [(shown.format(value), "" if around is None else f"{around:.2f}") for value, around in line.cells]


def _name(name: str, kept: Measurement) -> str:
    measured = kept.measured
    if measured.untrained:
        return f"untrained ({name})"
    marks = "".join(f" +{mark}" for mark in kept.marks)
    return f"{name}{marks}" if measured.finished else f"{name}{marks} (unfinished: {_epochs_of(measured)})"


def _epochs_of(measured: Circumstances) -> str:
    planned = "" if measured.planned is None else f" of {measured.planned}"
    return f"{measured.epochs}{planned} epochs"


def _warnings(runs: Sequence[Run], kept: Kept) -> list[str]:
    """What a reader has to know before comparing: each sentence once."""
    found = []
    for run in runs:
        done, planned = len(run.epochs()), run.facts.config["epochs"]
        if done < planned:
            found.append(f"{run.path} is not finished: it was trained for {done} of {planned} epochs")
    reports = [k.report for measured in kept.values() for k in measured if not k.measured.untrained]
    about: dict[str, list[str]] = {}
    for report in reports:
        for warning in report.warnings:
            about.setdefault(warning, []).append(report.protocol)
    found += incomparable(reports)
    found += [f"{', '.join(dict.fromkeys(protocols))}: {warning}" for warning, protocols in about.items()]
    return list(dict.fromkeys(found))
