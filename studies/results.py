"""Write the tables of docs/results from the JSON files in docs/results/study.

    python studies/results.py           write them
    python studies/results.py --check   exit with 1 if a page differs from the files

A page asks for a table with two comment lines. What stands between them is replaced. Nothing is trained here.

    <!-- study NAME -->                     the entries of a study, and each one's difference from another
    <!-- factors NAME … -->                 for the studies NAME-0 and NAME-1: each difference in both worlds
    <!-- side-by-side NAME: ENTRY … -->     the recipes of a study with steps, seconds and parameters, a picture, and
                                            how much better the last one is than each other one
    <!-- bench FILE -->                     what `vireid bench --json` wrote to a file in docs/results/bench
    <!-- end -->
"""

from __future__ import annotations

import argparse
import functools
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
PICTURE = PAGES.parent / "images" / "side-by-side.svg"
MARKED = re.compile(r"(<!-- (study|factors|side-by-side|bench) ([^\n]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METRICS = {"rank1": "Rank-1", "map": "mAP"}

Results = Mapping[int, dict[str, Any]]  # seed → what the file holds


@dataclass(frozen=True)
class Difference:
    """A difference in percentage points of Rank-1, over the seeds that all its parts have.

    Attributes:
        mean: of all queries and common seeds.
        low, high: the 95 % interval of the mean from drawing people and seeds again with replacement.
        seeds: how many seeds are common.
    """

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


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
    """The paired difference, second minus first; None without a common seed."""
    return combined([(-1, first), (1, second)], seed=seed)


def combined(parts: Sequence[tuple[int, Results]], *, seed: int = 0) -> Difference | None:
    """The sum of signed results of the same queries and seeds; None without a common seed.

    Queries of one person are alike, so people are drawn again and not queries.

    Args:
        parts: (sign, results) of each summand.
        seed: of the bootstrap.

    Raises:
        ValueError: they were measured on different queries.
    """
    common = sorted(set.intersection(*(set(results) for _, results in parts)))
    if not common:
        return None
    identity = np.array(parts[0][1][common[0]]["queries"]["identity"])
    people, person = np.unique(identity, return_inverse=True)
    sums = np.zeros((len(common), len(people)))
    for place, one in enumerate(common):
        for sign, results in parts:
            if results[one]["queries"]["identity"] != identity.tolist():
                raise ValueError("the entries were measured on different queries")
            np.add.at(sums[place], person, sign * np.array(results[one]["queries"]["rank1"]))
    counts = np.bincount(person)
    drawn_people, drawn_seeds = _draws(len(people), len(common), seed)
    means = ((drawn_seeds @ sums) * drawn_people).sum(1) / (len(common) * (drawn_people @ counts))
    low, high = np.percentile(means, (2.5, 97.5))
    return Difference(float(sums.sum() / (len(common) * counts.sum())), float(low), float(high), len(common))


@functools.cache
def _draws(people: int, seeds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each person and each seed is drawn: `DRAWS` × people and `DRAWS` × seeds."""
    generator = np.random.default_rng(seed)
    drawn = (generator.multinomial(count, np.full(count, 1 / count), DRAWS) for count in (people, seeds))
    return next(drawn), next(drawn)


def published(entry: Entry) -> Mapping[str, float | None]:
    """What the paper prints for the row of an entry; empty if it is not a row of a table as it stands."""
    from vireid import recipes

    if entry.plugin or entry.changed:
        return {}
    return recipes.find_row(entry.recipe)[2].published


def table(study: str) -> str:
    """The Markdown table of a study: each entry, and its difference from the entry that it is compared with."""
    found = in_study(study)
    head = ["entry", *METRICS.values(), "seeds", "compared with", "difference in Rank-1", "of the paper", "same sign"]
    lines = [head, ["---"] * len(head)]
    for entry in found:
        own = read(entry)
        numbers = [spread([metric(one, name) for one in own.values()]) if own else "–" for name in METRICS]
        lines.append([entry.name, *numbers, str(len(own)), *_against(entry)])
    if all(line[-2] in ("", "–") for line in lines[2:]):  # no paper has a number for any of them
        lines = [line[:-2] for line in lines]
    return _as_markdown(lines)


def in_study(study: str) -> list[Entry]:
    """The entries of a study."""
    found = [entry for entry in entries() if entry.study == study]
    if not found:
        raise SystemExit(f"a page asks for the study '{study}', which study.yaml does not have")
    return found


def _as_markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def compared_with(entry: Entry) -> Entry | None:
    """The entry that another one is compared with."""
    if entry.against is None:
        return None
    study, _, name = entry.against.rpartition("/")
    return next(one for one in in_study(study or entry.study) if one.name == name)


def _against(entry: Entry) -> list[str]:
    """The last four cells of a line."""
    other = compared_with(entry)
    if other is None or entry.against is None:
        return ["", "", "", ""]
    found = difference(read(other), read(entry))
    ours = str(found or "–")
    before, after = (published(one).get("rank1") for one in (other, entry))
    if before is None or after is None:
        return [entry.against, ours, "–", ""]
    paper = after - before
    if found is None or found.low <= 0 <= found.high:
        return [entry.against, ours, f"{paper:+.1f}", "open" if found else ""]
    return [entry.against, ours, f"{paper:+.1f}", "yes" if found.mean * paper > 0 else "no"]


def factors(names: str) -> str:
    """The Markdown table of differences in Rank-1 with a factor of the world off and on, and of their difference."""
    head = ["factor", "entry", "compared with", "difference at 0", "difference at 1", "of the two", "seeds"]
    lines = [head, ["---"] * len(head)]
    for name in names.split():
        off, on = (in_study(f"{name}-{level}") for level in (0, 1))
        for one, other in zip(off, on, strict=True):
            if one.against is None:
                continue
            signed = ((1, compared_with(one)), (-1, one), (-1, compared_with(other)), (1, other))
            parts = [(sign, read(entry)) for sign, entry in signed if entry]
            gains = [difference(parts[0][1], parts[1][1]), difference(parts[2][1], parts[3][1])]
            more = combined(parts)
            told = [str(gain or "–") for gain in (*gains, more)]
            lines.append([name, one.name, one.against, *told, str(more.seeds if more else 0)])
    return _as_markdown(lines)


def side_by_side(asked: str) -> str:
    """The Markdown table of whole recipes at one budget, and how much better the last one is. See also `picture`."""
    chosen = _chosen(asked)
    last = chosen[-1]
    head = [
        "recipe",
        "Rank-1",
        "mAP",
        "seeds",
        f"{last.recipe} is better by",
        "steps",
        "processor seconds",
        "parameters",
    ]
    lines = [head, ["---"] * len(head)]
    for entry in chosen:
        own = list(read(entry).values())
        if not own:
            lines.append([entry.recipe, *["–"] * (len(head) - 1)])
            continue
        numbers = [spread([metric(one, name) for one in own]) for name in METRICS]
        times = [one["processor_seconds"] for one in own if one.get("processor_seconds")]
        lengths = [text.split("=")[1] for text in entry.set if text.startswith("epoch_length=")]
        steps = own[0]["epochs"] * int(lengths[-1])  # the last assignment counts
        seconds = f"{np.median(times):.0f}" if times else "–"
        better = "" if entry is last else str(difference(read(entry), read(last)) or "–")
        lines.append([entry.recipe, *numbers, str(len(own)), better, str(steps), seconds, f"{own[0]['parameters']:,}"])
    return _as_markdown(lines)


def picture(asked: str) -> str:
    """The same as an SVG file: the mean of each recipe, and the range over its seeds."""
    from vireid.figures.charts import intervals

    rows = {}
    for entry in _chosen(asked):
        kinds = {told: [metric(one, name) for one in read(entry).values()] for name, told in METRICS.items()}
        if kinds["Rank-1"]:
            rows[entry.recipe] = {told: (float(np.mean(v)), min(v), max(v)) for told, v in kinds.items()}
    if not rows:
        return ""
    drawn = intervals(rows, x="percent; the lines reach from the lowest to the highest seed")
    look = (
        "<style>svg{background:#fff;font:12px sans-serif}.grid{stroke:#d8dee4}.tick,.axis{fill:#57606a;font-size:11px}"
        ".legend{fill:#1d2733}</style>"
    )
    return (
        drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="570" ', 1).replace(">", f">{look}", 1)
        + "\n"
    )


def _chosen(asked: str) -> list[Entry]:
    """The entries that a comment `NAME: ENTRY …` asks for, in its order."""
    study, _, names = asked.partition(": ")
    known = {entry.name: entry for entry in in_study(study)}
    return [known[name] for name in names.split()]


def benched(name: str) -> str:
    """The Markdown tables of a run of `vireid bench`: what was compared and which goals are reached; how times grow."""
    from vireid.bench.comparison import read as read_lines
    from vireid.bench.measure import Line
    from vireid.bench.words import GROWTH_HEADER, HEADER, cells, growth_cells

    lines = [Line.from_json(one) for one in read_lines(PAGES / "bench" / name)]
    shown = [place for place, title in enumerate(HEADER) if title not in ("baseline s", "ours s")]
    compared = [[cells(one)[place] for place in shown] for one in lines if "exponent" not in one.figures]
    grown = [growth_cells(one) for one in lines if "exponent" in one.figures]
    heads = [HEADER[place] for place in shown], GROWTH_HEADER
    tables = [[head, ["---"] * len(head), *rows] for head, rows in zip(heads, (compared, grown), strict=True) if rows]
    return "\n".join(_as_markdown(rows) for rows in tables)


TABLES = {"study": table, "factors": factors, "side-by-side": side_by_side, "bench": benched}


def rewritten(text: str) -> str:
    """A page with its tables made again."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]](found[3])}{found[5]}", text)


def files() -> dict[Path, str]:
    """What every page that has a table is to hold, and the picture that stands beside the recipes."""
    made = {}
    for page in (PAGES.parent.parent / "README.md", *sorted(PAGES.glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        asked = [found[3] for found in MARKED.finditer(text) if found[2] == "side-by-side"]
        made[page] = rewritten(text)
        if asked:
            made[PICTURE] = picture(asked[0])
    return made


def main() -> int:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--check", action="store_true", help="only say which pages differ")
    options = asked.parse_args()
    old = []
    for file, new in files().items():
        if not file.exists() or file.read_text(encoding="utf-8") != new:
            old.append(file.name)
            if not options.check:
                file.write_text(new, encoding="utf-8")
    print("\n".join(f"{name} {'differs' if options.check else 'written'}" for name in old) or "nothing to write")
    return int(options.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
