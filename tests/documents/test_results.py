"""The tables of docs/results are those of the JSON files, and a paired difference is what it says."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.outside import forgotten
from vireid.bench.measure import Line, Spent, counted
from vireid.data.batch import Batch
from vireid.plugins import plugin
from vireid.recipes import find_row
from vireid.training.configuration import with_fields

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "docs" / "results" / "study").glob("*/*.json"))


@pytest.fixture(scope="module")
def made():
    sys.path.insert(0, str(ROOT / "studies"))
    with forgotten():  # what the study has as a plug-in
        try:
            yield importlib.import_module("results")
        finally:
            sys.path.remove(str(ROOT / "studies"))


def test_the_pages_show_what_the_files_hold():
    done = subprocess.run(
        [sys.executable, str(ROOT / "studies" / "results.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_with_another_number_is_noticed(made):
    pages = [page.read_text(encoding="utf-8") for page in made.files() if page.suffix == ".md"]
    (text,) = [text for text in pages if "<!-- study search-128x64-480 -->" in text]
    assert made.rewritten(text) == text
    assert made.rewritten(text.replace("| agw | ", "| agw | 9", 1)) == text


def test_there_are_results():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_result_says_how_to_make_it_again(made, file):
    """Commit, hardware, seed and commands; the commands name the world, the configuration and the seed."""
    found = json.loads(file.read_text())
    assert found["git_commit"] and "+" not in found["git_commit"] and found["hardware"]["processor"]
    (entry,) = [one for one in made.entries() if (one.study, one.name) == (found["study"], found["name"])]
    assert found["set"] == [*entry.set, f"seed={found['seed']}"] and found["recipe"] == entry.recipe
    if entry.plugin:
        plugin(ROOT / "studies" / entry.plugin)
    with_fields(find_row(found["recipe"])[2].config, found["set"])  # every field is known
    assert all(shlex.split(command)[0] == "vireid" for command in found["commands"])
    assert f"seed={found['seed']}" in shlex.split(found["commands"][1])
    own = found["queries"]
    report = next(one for one in found["reports"] if one["protocol"] == own["protocol"])
    assert np.mean(own["rank1"]) == pytest.approx(report["rank1"], abs=0.1)
    assert np.mean(own["ap"]) == pytest.approx(report["map"], abs=0.1)


def as_results(values: np.ndarray, identity: list[int]) -> dict:
    return {seed: {"queries": {"identity": identity, "rank1": list(line)}} for seed, line in enumerate(values)}


def test_the_paired_difference_is_the_mean_and_its_interval_holds_it(made):
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(30), 4).tolist()
    first = generator.random((3, 120)) * 100
    second = first + 5 + generator.normal(size=(3, 120))
    found = made.difference(as_results(first, identity), as_results(second, identity))
    assert found.mean == pytest.approx(np.mean(second - first)) and found.seeds == 3
    assert found.low < found.mean < found.high and 0 < found.high - found.low < 2


def test_people_are_drawn_and_not_single_queries(made):
    """If one person in ten changes with all of its queries, the interval is as wide as that of ten numbers."""
    identity = np.repeat(np.arange(10), 50).tolist()
    change = np.where(np.array(identity) == 0, 100.0, 0.0)[None]
    found = made.difference(as_results(0 * change, identity), as_results(change, identity))
    assert found.mean == pytest.approx(10) and (found.low, found.high) == pytest.approx((0, 30))


def test_other_queries_and_no_common_seed(made):
    one = as_results(np.zeros((1, 2)), [1, 2])
    assert made.difference(one, {5: one[0]}) is None
    with pytest.raises(ValueError, match="different queries"):
        made.difference(one, as_results(np.zeros((1, 2)), [1, 3]))


def test_a_difference_of_differences_draws_the_same_people(made):
    """A part that gains 5 points for each person in one world and 2 in the other gains 3 more, without any doubt."""
    generator = np.random.default_rng(0)
    identity = np.repeat(np.arange(30), 4).tolist()
    off, on = generator.random((2, 2, 120)) * 100
    worlds = [(1, off), (-1, off + 2), (-1, on), (1, on + 5)]
    found = made.combined([(sign, as_results(values, identity)) for sign, values in worlds])
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3, 3)) and found.seeds == 2


def test_the_picture_stands_for_the_numbers(made):
    """The recipes side by side: the label of the picture has the same means as the table."""
    asked = "parts: agw wrim_net"
    (entry,) = [one for one in made.in_study("parts") if one.name == "agw"]
    values = [made.metric(one, "rank1") for one in made.read(entry).values()]
    drawn, table = made.picture(asked), made.side_by_side(asked)
    assert drawn.startswith("<svg xmlns") and f"agw:channel-augmentation Rank-1 {np.mean(values):.2f}" in drawn
    assert (
        table.splitlines()[2].startswith(f"| agw:channel-augmentation | {np.mean(values):.1f} ") and "| 480 |" in table
    )


def test_an_entry_that_changes_a_row_has_no_printed_number(made):
    rows = {entry.name: entry for study in ("parts", "alternatives") for entry in made.in_study(study)}
    assert made.published(rows["peca"])["rank1"] == 74.89 and not made.published(rows["peca-refill"])
    assert made.compared_with(rows["peca-refill"]) == rows["peca"] and made.compared_with(rows["agw"]) is None


def test_factors_without_a_result_are_missing(made, tmp_path, monkeypatch):
    monkeypatch.setattr("study.RESULTS", tmp_path)
    lines = made.factors("look_alikes").splitlines()
    assert len(lines) == 3 and lines[2] == "| look_alikes | gsl | no-gsl | – | – | – | 0 |"


def test_a_run_of_the_benchmark_becomes_two_tables(made, tmp_path, monkeypatch):
    spent = (Spent(2.0, 2.0), Spent(3.0, 3.0), Spent(8.0, 8.0))
    ours = (Spent(1.0, 1.0),) * 3
    told = {"name": "work", "baseline": "loops", "ours": "ours", "larger": True, "clock": "wall", "area": "losses"}
    line = Line(**told, ratios=(2.0, 3.0, 8.0), baseline_spent=spent, ours_spent=ours, goal=4.0, limit=9.0)
    growth = {"sizes": [10, 2000], "seconds": [0.5, 1.25], "exponent": 0.172, "unit": "rows"}
    found = [counted(line, 64, "rows"), replace(line, goal=2.5), replace(line, figures=growth)]
    monkeypatch.setattr(made, "PAGES", tmp_path)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "a.json").write_text(json.dumps([one.to_json() for one in found]))
    first, second = made.benched("a.json").split("\n\n")
    assert first.splitlines()[2:] == [
        "| losses | work | loops | ours | 64 rows/s | 3.00 (2.00–8.00) | ≥ 4 | 9 | not reached |",
        "| losses | work | loops | ours |  | 3.00 (2.00–8.00) | ≥ 2.5 | 9 | reached |",
    ]
    assert second.splitlines()[2:] == ["| losses | work | 10: 0.50, 2,000: 1.25 | 0.17 |"]


def test_every_part_of_the_candidate_is_trained(made):
    """Each entry of the forward selection has finite terms, and each of its parameters gets a gradient."""
    chosen = [entry for entry in made.entries() if entry.plugin == "candidate.py"]
    build = plugin(ROOT / "studies" / "candidate.py").build
    kind = torch.tensor([0, 1]).repeat(16)
    batch = Batch(torch.rand(32, 3, 64, 32), torch.arange(4).repeat_interleave(8), kind, camera=kind, seed=3)
    for entry in chosen:
        config = with_fields(find_row("candidate")[2].config, [*entry.set, "weights=none"])
        network = build(config, 4)
        terms = network.objective(batch)
        assert all(term.isfinite() for term in terms.values()), entry.name
        sum(terms.values()).backward()
        idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
        assert all(name.startswith("necks.") and name.endswith("bias") for name in idle), entry.name
        _, logits = network.eval().by_branch(batch.images, batch.modality)["global"]
        assert logits.shape == (32, 4), entry.name
    assert len(chosen) > 10
