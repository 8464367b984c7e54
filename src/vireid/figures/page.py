"""One or several runs as one HTML file that needs no other file."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture
from vireid.data.protocol import parse_protocol, protocol_names
from vireid.data.size import Size
from vireid.data.stored import as_json, write_text
from vireid.evaluation.report import TITLES, Report, incomparable
from vireid.evaluation.spread import interval
from vireid.experiments.measurement import Measurement, measurements
from vireid.figures import charts
from vireid.model import configuration
from vireid.recipes import recipe
from vireid.training.configuration import differences
from vireid.training.run import Run

THUMBNAIL = Size(96, 48)


def write_page(out: Path, runs: Sequence[Run], *, title: str = "vireid report", sheet: bytes | None = None) -> Path:
    """Write the page.

    Args:
        out: the HTML file; replaced whole or not at all.
        runs: run directories, each trained and tested.
        title: the page's heading.
        sheet: a PNG or JPEG with examples of the pictures.

    Raises:
        BadInput: no run has a report yet, a report cannot be read, or the file cannot be written.
    """
    kept = {run.path: measurements(run) for run in runs}
    if not any(kept.values()):
        raise BadInput(f"no reports in {', '.join(str(run.path) for run in runs)}; run vireid test first")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html"
    )
    protocols = sorted({k.report.protocol for reports in kept.values() for k in reports}, key=_as_listed)
    text = page.render(
        title=title,
        generated=any(k.measured.generated for reports in kept.values() for k in reports),
        warnings=_warnings([k.report for reports in kept.values() for k in reports if not k.measured.untrained]),
        columns=TITLES,
        tables=[_protocol_table(protocol, runs, kept) for protocol in protocols],
        runs=[_run_section(run, kept[run.path]) for run in runs],
        sheet=_data_address(sheet) if sheet else None,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}") from error
    return out


def _as_listed(protocol: str) -> tuple[int, str]:
    """Protocols in the order in which they are listed everywhere else."""
    names = [parse_protocol(name).name for name in protocol_names()]
    return (names.index(protocol) if protocol in names else len(names), protocol)


def _protocol_table(protocol: str, runs: Sequence[Run], kept: dict[Path, list[Measurement]]) -> dict[str, Any]:
    rows, curves, chance = [], {}, math.nan
    by_setting: dict[str, list[Report]] = {}
    for run in runs:
        for one in kept[run.path]:
            if one.report.protocol != protocol:
                continue
            name = _name(run, one)
            faint = one.measured.untrained
            rows.append({"name": name, "report": one.report, "cells": _cells(one.report), "faint": faint})
            curves[name] = [(k, getattr(one.report, f"rank{k}")) for k in (1, 5, 10, 20)]
            chance = one.report.chance_rank1
            if not faint:
                by_setting.setdefault(_setting(run, one), []).append(one.report)
    for setting, reports in by_setting.items():
        if len(reports) > 1:
            values = [interval([getattr(r, name) for r in reports]) for name in TITLES]
            cells = [(f"{v[0]:.2f}", f"{v[1]:.2f}") for v in values if v]
            name = f"{setting}: mean of {len(reports)} seeds, 95 % interval"
            rows.append({"name": name, "report": None, "cells": cells, "faint": False})
    return {
        "protocol": protocol,
        "measured": _how(rows[0]["report"]),
        "rows": rows,
        "chance": None if math.isnan(chance) else f"{chance:.2f}",
        "chart": charts.lines(curves, x="rank", y="CMC, %", y_range=(0, 100), ticks_x=(1, 5, 10, 20)),
    }


def _how(report: Report) -> str:
    """Everything that the numbers of one protocol depend on, in one line."""
    draws = f"{len(report.trials)} draws" if len(report.trials) > 1 else "1 draw"
    return (
        f"{report.valid_queries} of {report.queries} queries count · {report.gallery} gallery pictures · {draws} · "
        f"CMC of {'distinct identities' if report.cmc == 'identity' else 'pictures'} · {report.distance} distance of "
        f"the embedding {report.embedding} · flip {'yes' if report.flip else 'no'} · re-ranking {report.rerank}"
    )


def _run_section(run: Run, kept: list[Measurement]) -> dict[str, Any]:
    name, config = configuration(run)
    epochs = run.epochs()
    terms: dict[str, list[tuple[float, float]]] = {}
    for line in epochs:
        for term, value in line["terms"].items():
            terms.setdefault(term, []).append((line["epoch"] + 1, value))
    shown = next((k for k in kept if k.examples and not k.measured.untrained), None)
    return {
        "path": str(run.path),
        "name": run.facts.name,
        "chart": charts.lines(terms, x="epoch", y="terms of the objective"),
        "epochs": len(epochs),
        "facts": _facts(run),
        "changed": differences(recipe(name).PAPER, config),
        "config": json.dumps(run.facts.config, indent=2, ensure_ascii=False),
        "lists": _lists(shown) if shown else [],
        "lists_protocol": shown.report.protocol if shown else None,
        "breakdowns": [{"name": _name(run, k), **as_json(k.breakdown)} for k in kept if k.breakdown],
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
        pixels = read_picture(file, THUMBNAIL)
    except BadInput:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return _data_address(buffer.getvalue())


def _data_address(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _cells(report: Report) -> list[tuple[str, str]]:
    """(mean, standard deviation over draws) of each column; no deviation where there is one draw."""
    many = len(report.trials) > 1
    return [(f"{getattr(report, name):.2f}", f"{report.std[name]:.2f}" if many else "") for name in TITLES]


def _name(run: Run, kept: Measurement) -> str:
    if kept.measured.untrained:
        return f"untrained ({run.path.name})"
    return run.path.name + "".join(f" +{mark}" for mark in kept.marks)


def _setting(run: Run, kept: Measurement) -> str:
    """What runs that differ only in the seed have in common."""
    return f"{run.facts.name} (settings {', '.join([run.settings, *kept.marks])})"


def _warnings(reports: list[Report]) -> list[str]:
    return list(dict.fromkeys([*incomparable(reports), *(f"{r.protocol}: {w}" for r in reports for w in r.warnings)]))
