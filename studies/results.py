"""Write the tables of docs/results from the JSON files in docs/results/study.

    python studies/results.py           write them
    python studies/results.py --check   exit with 1 if a page differs from the files

A page asks for a table with two comment lines, `<!-- study NAME -->` and `<!-- end -->`. What stands between them is
replaced. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import PROTOCOL, RESULTS, Entry, entries

PAGES = RESULTS.parent
DRAWS = 10_000  # of the bootstrap
MARKED = re.compile(r"(<!-- study ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METRICS = {"rank1": "Rank-1", "map": "mAP"}

Results = Mapping[int, dict[str, Any]]  # seed → what the file holds


@dataclass(frozen=True)
class Difference:
    """Second minus first, in percentage points of Rank-1, over the seeds that both have.

    Attributes:
        mean: of all queries and common seeds.
        low, high: the 95 % interval of the mean from drawing people and seeds again with replacement.
        seeds: how many seeds are common.
    """

    mean: float
    low: float
    high: float
    seeds: int


def read(entry: Entry) -> Results:
    """The results of an entry that are there, by seed."""
    return {seed: json.loads(entry.file(seed).read_text()) for seed in entry.seeds if entry.file(seed).exists()}


def metric(result: Mapping[str, Any], name: str, protocol: str = PROTOCOL) -> float:
    """One number of a result's report."""
    return next(report[name] for report in result["reports"] if report["protocol"] == protocol)


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation over seeds, without the latter for one seed."""
    mean = sum(values) / len(values)
    return f"{mean:.1f} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else f"{mean:.1f}"


def difference(first: Results, second: Results, *, seed: int = 0) -> Difference | None:
    """The paired difference of two entries; None without a common seed.

    Queries of one person are alike, so people are drawn again and not queries.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    identity = np.array(first[common[0]]["queries"]["identity"])
    people, person = np.unique(identity, return_inverse=True)
    sums = np.zeros((len(common), len(people)))
    for place, one in enumerate(common):
        for results, sign in ((first, -1), (second, 1)):
            if results[one]["queries"]["identity"] != identity.tolist():
                raise ValueError("the two entries were measured on different queries")
            np.add.at(sums[place], person, sign * np.array(results[one]["queries"]["rank1"]))
    counts = np.bincount(person)
    generator = np.random.default_rng(seed)
    drawn_people = generator.multinomial(len(people), np.full(len(people), 1 / len(people)), DRAWS)
    drawn_seeds = generator.multinomial(len(common), np.full(len(common), 1 / len(common)), DRAWS)
    means = ((drawn_seeds @ sums) * drawn_people).sum(1) / (len(common) * (drawn_people @ counts))
    low, high = np.percentile(means, (2.5, 97.5))
    return Difference(float(sums.sum() / (len(common) * counts.sum())), float(low), float(high), len(common))


def published(entry: Entry) -> Mapping[str, float | None]:
    """What the paper prints for the row of an entry; empty if it is no row of a table."""
    from vireid import recipes

    return recipes.find_row(entry.recipe)[2].published


def table(study: str) -> str:
    """The Markdown table of a study: each entry, and its difference from the entry that it is compared with."""
    found = [entry for entry in entries() if entry.study == study]
    if not found:
        raise SystemExit(f"a page asks for the study '{study}', which study.yaml does not have")
    results = {entry.name: read(entry) for entry in found}
    printed = {entry.name: published(entry).get("rank1") for entry in found}
    head = ["entry", *METRICS.values(), "seeds", "compared with", "difference in Rank-1", "of the paper", "same sign"]
    lines = [head, ["---"] * len(head)]
    for entry in found:
        own = results[entry.name]
        numbers = [spread([metric(one, name) for one in own.values()]) if own else "–" for name in METRICS]
        lines.append([entry.name, *numbers, str(len(own)), *_against(entry, results, printed)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _against(entry: Entry, results: Mapping[str, Results], printed: Mapping[str, float | None]) -> list[str]:
    """The last four cells of a line."""
    if entry.against is None:
        return ["", "", "", ""]
    found = difference(results[entry.against], results[entry.name])
    ours = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]" if found else "–"
    before, after = printed[entry.against], printed[entry.name]
    if before is None or after is None:
        return [entry.against, ours, "–", ""]
    paper = after - before
    if found is None or found.low <= 0 <= found.high:
        return [entry.against, ours, f"{paper:+.1f}", "open" if found else ""]
    return [entry.against, ours, f"{paper:+.1f}", "yes" if found.mean * paper > 0 else "no"]


def rewritten(text: str) -> str:
    """A page with its tables made again."""
    return MARKED.sub(lambda found: f"{found[1]}{table(found[2])}{found[4]}", text)


def main() -> int:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--check", action="store_true", help="only say which pages differ")
    options = asked.parse_args()
    old = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text:
            old.append(page.name)
            if not options.check:
                page.write_text(new, encoding="utf-8")
    print("\n".join(f"{name} {'differs' if options.check else 'written'}" for name in old) or "nothing to write")
    return int(options.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
