"""`vireid bench --compare`: a line that is slower by more than the noise is named, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from vireid.bench.comparison import compare, read
from vireid.bench.measure import Line, Spent
from vireid.bench.run import PACKAGES, Benched
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.training.run import surroundings


@pytest.fixture(scope="module")
def around():
    return surroundings(packages=PACKAGES)


def line(*ratios: float, larger: bool = True, name: str = "work") -> Line:
    one = (Spent(1.0, 1.0),) * len(ratios)
    return Line(name, "loop", "ours", ratios, larger, "wall", one, one, area="losses")


def written(around, *lines: Line) -> list[dict]:
    return json.loads(json.dumps(Benched(lines, {}, around).to_json("vireid bench")))


@pytest.mark.parametrize(
    ("before", "now", "slower"),
    [
        ((4.0, 4.1, 4.2), (3.0, 3.1, 3.2), True),
        ((4.0, 4.1, 4.2), (4.0, 4.1, 4.2), False),
        ((3.0, 4.1, 4.2), (2.9, 3.0, 3.3), False),  # the ranges overlap
        ((4.0, 4.1, 4.2), (3.7, 3.75, 3.8), False),  # less than a tenth
        ((4.0, 4.1, 4.2), (6.0, 6.1, 6.2), False),  # faster
    ],
)
def test_a_slower_line_is_named_and_a_noisy_one_is_not(around, before, now, slower):
    found = compare(written(around, line(*before)), [line(*now)], around)
    assert bool(found.slower) is slower
    assert (found.lines, found.notes) == (1, ())
    # The same with ratios of which smaller ones are better.
    turned = (tuple(1 / ratio for ratio in ratios) for ratios in (before, now))
    first, second = (line(*ratios, larger=False) for ratios in turned)
    assert bool(compare(written(around, first), [second], around).slower) is slower


def test_the_sentence_has_both_ratios_with_their_ranges(around):
    found = compare(written(around, line(4.0, 4.1, 4.2)), [line(3.0, 3.1, 3.2)], around)
    assert found.slower == ("slower: losses, work: ratio 4.10 (4.00–4.20) → 3.10 (3.00–3.20)",)


def test_lines_of_one_run_only_are_said(around):
    earlier = written(around, line(4.0, name="old"), line(4.0, name="both"))
    found = compare(earlier, [line(1.0, name="new"), line(4.0, name="both")], around)
    assert (found.lines, found.slower) == (1, ())
    assert found.notes == (
        "1 of 2 lines are not in the earlier run, or have other sizes there",
        "1 lines of the earlier run are not in this one, such as losses: old",
    )


def test_areas_that_are_not_measured_now_are_no_difference(around):
    earlier = written(around, replace(line(4.0), area="search"), line(4.0))
    assert compare(earlier, [line(4.0)], around).notes == ()


def test_another_machine_and_other_versions_are_said(around):
    earlier = written(around, line(4.0))
    earlier[0]["machine"]["threads"] += 1
    earlier[0]["versions"]["torch"] = "1.0"
    machine, versions = compare(earlier, [line(4.0)], around).notes
    threads = around.hardware.threads
    assert machine == f"another machine: threads {threads + 1} → {threads}"
    assert versions == f"other versions: torch 1.0 → {around.versions['torch']}"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        "[1]",
        '[{"area": "losses"}]',
        '[{"area": "a", "name": "b", "baseline": "c", "ours": "d", "ratio": null}]',
        '[{"area": "a", "name": "b", "baseline": "c", "ours": "d", "ratio": 1, "ratio_min": 1, "ratio_max": 1}]',
    ],
)
def test_another_file_is_refused_before_anything_is_measured(content, tmp_path, capsys):
    file = tmp_path / "earlier.json"
    file.write_text(content)
    with pytest.raises(BadInput):
        read(file)
    assert main(["bench", "losses", "--quick", "--compare", str(file)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "earlier.json" in told.err
    assert main(["bench", "losses", "--quick", "--compare", str(tmp_path / "none.json")]) == 2
