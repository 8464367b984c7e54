"""The page of several runs: what groups are called, what is compared, and which runs are not finished."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from vireid.cli.main import main
from vireid.evaluation.breakdown import Breakdown, IdentityScore
from vireid.evaluation.report import METRICS
from vireid.evaluation.spread import bootstrap
from vireid.experiments.grouping import differing, from_first, groups, label
from vireid.experiments.measurement import Measurement, measurements
from vireid.experiments.test import TestOptions, test
from vireid.figures.page import document, write_page
from vireid.figures.tables import render
from vireid.training.run import Run, create, open_run

PROTOCOL = "sysu-mm01/all/single"


@pytest.fixture(scope="module")
def measured(runs, worlds) -> tuple[Run, Measurement]:
    """A trained run, and one measurement of it."""
    run, data = open_run(runs["sysu-mm01"]), f"sysu-mm01:{worlds['sysu-mm01']}"
    found = test(TestOptions(run.path, data, protocols=(PROTOCOL,), workers=0))
    return run, found[0]


@pytest.fixture
def make(measured, tmp_path):
    """Runs with other settings and numbers: `make(name, seed, mAP, field=value, …)` is a run and its measurement."""
    run, one = measured

    def made(name: str, seed: int, value: float, *, epochs: int = 2, **fields) -> tuple[Run, Measurement]:
        config = {**run.facts.config, **fields, "seed": seed}
        other = create(tmp_path / name, replace(run.facts, config=config, seed=seed, set=()))
        lines = run.log.read_text().splitlines(keepends=True)
        other.log.write_text("".join(lines[:epochs]))
        report = replace(one.report, **dict.fromkeys(METRICS, value), seed=seed)
        kept = replace(one, report=report, measured=replace(one.measured, epochs=epochs))
        kept.keep(other)
        return other, kept

    return made


def text_of(runs: list[Run], tmp_path) -> str:
    return re.sub(r"\s+", " ", write_page(tmp_path / "page.html", runs).read_text("utf-8"))


def test_groups_are_called_by_the_fields_in_which_they_differ(make, tmp_path):
    erasing = {"type": "RandomErasing", "p": 0.5, "area": [0.02, 0.4], "aspect": [0.3, 3.3], "fill": "mean"}
    found = [
        make(f"{name}/seed-{seed}", seed, value + seed, erasing=part)
        for name, part, value in (("a", None, 50.0), ("b", erasing, 60.0), ("c", {**erasing, "p": 0.25}, 70.0))
        for seed in (0, 1)
    ]
    made = groups(found)
    labels = ["erasing=null", "erasing=RandomErasing, erasing.p=0.5", "erasing=RandomErasing, erasing.p=0.25"]
    assert [group.label for group in made] == labels
    assert [group.ours.seeds for group in made] == [(0, 1)] * 3
    page = text_of([run for run, _ in found], tmp_path)
    for words in labels:
        assert f"{words}: mean of seeds 0, 1, 95 % interval" in page
    assert f"{labels[1]} minus {labels[0]}: paired over seeds 0, 1" in page
    assert "erasing=null, seed-0" in page, "several directories are called seed-0"
    assert not re.search(r"settings [0-9a-f]{8}", page)


def test_a_difference_is_of_common_seeds(make):
    found = [make(f"a{seed}", seed, 50.0 + seed) for seed in (0, 1, 2)]
    found += [make(f"b{seed}", seed, 53.0 + 2 * seed, gem_power=2.0) for seed in (1, 2, 5)]
    (one,) = from_first(groups(found))
    assert one.seeds == (1, 2) and one.metrics["map"].mean == pytest.approx((4.0 + 5.0) / 2)
    assert one.metrics["map"].half == pytest.approx(12.706 * 0.5)
    assert not one.identities, "no measurement has results of single identities"


def test_other_pictures_are_not_compared(make):
    first, (run, kept) = make("a", 0, 50.0), make("b", 0, 60.0, gem_power=2.0)
    assert len(from_first(groups([first, (run, kept)]))) == 1
    elsewhere = replace(kept, measured=replace(kept.measured, fingerprint="other"))
    assert from_first(groups([first, (run, elsewhere)])) == []


def test_identities_are_paired_and_weighted_by_their_queries(make):
    def with_people(pair, offset):
        run, kept = pair
        people = tuple(IdentityScore(n, 10.0 * n, offset * (n % 3) + n, 1 + n % 4) for n in range(1, 13))
        return run, replace(kept, breakdown=Breakdown(PROTOCOL, (), people, ()))

    found = [with_people(make(f"a{seed}", seed, 50.0), 0.0) for seed in (0, 1)]
    found += [with_people(make(f"b{seed}", seed, 55.0, gem_power=2.0), 1.0 + seed) for seed in (0, 1)]
    (one,) = from_first(groups(found))
    expected = bootstrap([1.5 * (n % 3) for n in range(1, 13)], [1 + n % 4 for n in range(1, 13)])
    assert one.identities["map"] == pytest.approx(expected) and one.identities["rank1"] == (0.0, 0.0)


def test_a_run_that_is_not_finished_is_named_and_not_compared(make, tmp_path):
    found = [make("whole", 0, 50.0), make("other", 0, 60.0, gem_power=2.0), make("half", 1, 10.0, epochs=1)]
    page = text_of([run for run, _ in found], tmp_path)
    assert f"{found[2][0].path} is not finished: it was trained for 1 of 2 epochs" in page
    assert "half (unfinished: 1 of 2 epochs)" in page
    made = groups(found)
    assert [group.finished for group in made] == [True, True, False]
    assert "unfinished: 1 of 2 epochs" in made[2].label
    assert [(one.second, one.seeds) for one in from_first(made)] == [("gem_power=2.0", (0,))]


def test_the_numbers_of_the_page_as_a_table(make):
    found = [make(f"{name}{seed}", seed, value, gem_power=power)
             for name, value, power in (("a", 50.0, 1.0), ("b", 60.125, 2.0)) for seed in (0, 1)]  # fmt: skip
    made = document([run for run, _ in found])
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [row["numbers"] for row in rows] == ["run"] * 4 + ["mean"] * 2 + ["difference"]
    assert [row["group"] for row in rows] == ["gem_power=1.0"] * 2 + ["gem_power=2.0"] * 2 + [
        "gem_power=1.0", "gem_power=2.0", "gem_power=2.0",
    ]  # fmt: skip
    assert float(rows[-1]["map"]) == pytest.approx(10.125) and float(rows[3]["map"]) == 60.125
    for form in ("text", "markdown", "latex"):
        text = render(made, form)
        assert "60.12" in text and "generated world" in text
        assert "minus" in text and ("gem\\_power=2.0" if form == "latex" else "gem_power=2.0") in text


def test_equal_labels_are_told_apart_by_their_data(make):
    (run, kept), second = make("a", 0, 50.0), make("b", 0, 60.0)
    facts = replace(run.facts, data=replace(run.facts.data, root="/elsewhere", fingerprint="other"))
    made = groups([(Run(run.path, facts), kept), second])
    assert len(made) == 2 and "on /elsewhere" in made[0].label and made[0].label != made[1].label


def test_many_fields_are_counted():
    one, two = ({"type": "Config", **{f"f{n}": n + k for n in range(9)}, "seed": k} for k in (0, 1))
    paths = differing([one, two])
    assert paths == [f"f{n}" for n in range(9)]
    assert label({path: one[path] for path in paths}) == "f0=0, f1=1, f2=2, f3=3, f4=4, f5=5, 3 more"


def test_the_program_prints_and_writes_every_format(make, tmp_path, capsys):
    found = [make("a", 0, 50.0), make("b", 0, 60.0, gem_power=2.0)]
    names = [str(run.path) for run, _ in found]
    assert main(["report", *names, "--format", "markdown"]) == 0
    assert "| run | R1 |" in capsys.readouterr().out and not (tmp_path / "a" / "report.html").exists()
    assert main(["report", *names]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a" / "report.html")
    both = [tmp_path / "x.html", tmp_path / "x.tex"]
    assert main(["report", *names, "--out", str(both[0]), "--out", str(both[1])]) == 0
    assert both[0].read_text().startswith("<!doctype html>") and "\\toprule" in both[1].read_text()
    assert main(["report", *names, "--out", str(tmp_path / "x.pdf")]) == 2
    assert "no format has the ending '.pdf'" in capsys.readouterr().err
    assert measurements(found[0][0])
