"""`vireid trials`: one model for each of RegDB's splits, trained, tested and averaged."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid.cli import console
from vireid.data.errors import BadInput

SHOWN = {"rank1": "R1", "rank10": "R10", "rank20": "R20", "map": "mAP", "minp": "mINP"}


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "trials",
        help="train and test one model per RegDB trial",
        description="Train and test one model for each of RegDB's ten splits, and print mean ± standard deviation over "
        "them. A second call goes on where the first one stopped.",
    )
    verb.add_argument("recipe", metavar="RECIPE[:ROW]", help="e.g. agw; see vireid rows")
    verb.add_argument("--data", required=True, metavar="LAYOUT:PATH", help="e.g. regdb:/data/RegDB")
    verb.add_argument("--runs", required=True, type=Path, metavar="DIR", help="one run directory per trial goes here")
    verb.add_argument("--trials", default=None, metavar="1-10", help="which, e.g. 1-10 (default: all) or 1,3,5-7")
    console.add_sets(verb, "change fields of the configuration, of every trial alike")
    console.add_loading(verb)
    verb.add_argument("--json", metavar="FILE", help="write every trial and the summary as JSON")
    verb.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Do what is not done yet, then print and write everything."""
    from vireid import datasets, recipes
    from vireid.data.protocol import default_protocols
    from vireid.training.configuration import to_json, with_fields

    layout, root = datasets.parse_source(options.data)
    wanted = chosen(options.trials, layout, datasets.trials(layout))
    recipe, row_name, row = recipes.find_row(options.recipe)
    config = to_json(with_fields(row.config, options.sets))
    protocols = default_protocols(layout)
    done = []
    for place, trial in enumerate(wanted, start=1):
        directory = options.runs / f"trial-{trial:02d}"
        print(f"trial {trial} ({place} of {len(wanted)}): {directory}", file=sys.stderr, flush=True)
        test_rows = datasets.read(layout, root, trial=trial).where(split="test").fingerprint()
        asked = {"recipe": recipe, "row": row_name, "config": config, "trial": trial}
        reports = finished(directory, protocols, asked, test_rows)
        if reports is None:
            reports = _train_and_test(options, directory, trial, protocols)
        done.append({"trial": trial, "run": str(directory), "reports": reports})
        print("\n".join(f"trial {trial}: {_line(report)}" for report in reports), flush=True)
    summary = summarise([one["reports"] for one in done])
    print(summary_table(summary, len(done)))
    facts = {"recipe": recipe, "row": row_name, "layout": layout, "set": options.sets}
    console.write_json(options.json, {**facts, "trials": done, "summary": summary})


def chosen(text: str | None, layout: str, count: int) -> list[int]:
    """The trials named by `1-10`, `3` or `1,3,5-7`, ascending; all of them for None.

    Raises:
        BadInput: the layout has one split only, the text is none of these forms, or a trial is out of range.
    """
    if count == 1:
        raise BadInput(f"{layout} has one split; vireid trials is for layouts with several: regdb")
    found: set[int] = set()
    for part in (text or f"1-{count}").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInput(f"--trials '{text}' is not of the form 1-{count}, 3 or 1,3,5-7")
        low, high = int(first), int(last if dash else first)
        if not 1 <= low <= high <= count:
            raise BadInput(f"--trials '{text}': {layout} has trials 1 to {count}, in ascending order")
        found.update(range(low, high + 1))
    return sorted(found)


def finished(
    directory: Path, protocols: Sequence[str], asked: dict[str, Any], fingerprint: str
) -> list[dict[str, Any]] | None:
    """The reports of a trial that is done, or None where something is left to do.

    Only whole reports count: they are written last and in one piece, so whatever a killed process left behind is either
    done or done again.

    Raises:
        BadInput: the directory holds a run of another recipe, configuration or trial.
    """
    import json

    from vireid.training.run import open_run

    if not (directory / "run.json").exists():
        return None
    run = open_run(directory)
    there = {name: run.facts.get(name) for name in ("recipe", "row", "config")} | {"trial": run.facts["data"]["trial"]}
    other = [name for name, value in asked.items() if there[name] != value]
    if other:
        raise BadInput(f"{directory} holds a run of another {' and '.join(other)}; choose another --runs")
    reports = []
    for protocol in protocols:
        try:
            stored = json.loads((run.reports / f"{protocol.replace('/', '-')}.json").read_text(encoding="utf-8"))
            whole = stored["measured"]["epochs"] == asked["config"]["epochs"]
            if not whole or stored["measured"]["fingerprint"] != fingerprint:
                return None
            reports.append(stored["report"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return reports


def summarise(trials: Sequence[Sequence[dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Protocol → metric → mean and population standard deviation over trials (what `numpy.std` gives), in percent.

    >>> summarise([[{"protocol": "regdb/v2i", **dict.fromkeys(SHOWN, 40.0)}],
    ...            [{"protocol": "regdb/v2i", **dict.fromkeys(SHOWN, 50.0)}]])["regdb/v2i"]["map"]
    {'mean': 45.0, 'std': 5.0}
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for protocol in dict.fromkeys(report["protocol"] for reports in trials for report in reports):
        together = [report for reports in trials for report in reports if report["protocol"] == protocol]
        for name in SHOWN:
            values = [report[name] for report in together]
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
            found.setdefault(protocol, {})[name] = {"mean": mean, "std": deviation}
    return found


def summary_table(summary: dict[str, dict[str, dict[str, float]]], trials: int) -> str:
    """Mean ± standard deviation over trials, a protocol a line."""
    rows = [
        [protocol, *(f"{numbers[name]['mean']:.2f} ± {numbers[name]['std']:.2f}" for name in SHOWN)]
        for protocol, numbers in summary.items()
    ]
    return console.table([f"mean over {trials} {'trials' if trials > 1 else 'trial'}", *SHOWN.values()], rows)


def _train_and_test(
    options: argparse.Namespace, directory: Path, trial: int, protocols: Sequence[str]
) -> list[dict[str, Any]]:
    from vireid.cli.evaluate import test
    from vireid.cli.train import train

    command = "vireid " + " ".join(sys.argv[1:])
    loading = {"workers": options.workers, "cache": options.cache, "command": command}
    train(options.recipe, options.data, directory, sets=options.sets, resume=True, trial=trial, **loading)
    return [report.to_json() for report in test(directory, options.data, protocols=protocols, trial=trial, **loading)]


def _line(report: dict[str, Any]) -> str:
    return f"{report['protocol']}  " + "  ".join(f"{short} {report[name]:.2f}" for name, short in SHOWN.items())
