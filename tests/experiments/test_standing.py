"""The order of groups: what is certain, what is not, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vireid.evaluation.queries import Queries
from vireid.evaluation.report import METRICS
from vireid.evaluation.spread import order, people_drawn_again, seeds_drawn_again
from vireid.experiments.grouping import groups
from vireid.experiments.measurement import Measurement
from vireid.experiments.standing import standings
from vireid.experiments.test import TestOptions, test
from vireid.training.run import Run, create, open_run

PROTOCOL = "sysu-mm01/all/single"
PEOPLE, ASKED, TRIALS = 20, 3, 2


@pytest.fixture(scope="module")
def measured(runs, worlds) -> tuple[Run, Measurement]:
    """A trained run, and one measurement of it."""
    run, data = open_run(runs["sysu-mm01"]), f"sysu-mm01:{worlds['sysu-mm01']}"
    return run, test(TestOptions(run.path, data, protocols=(PROTOCOL,), workers=0))[0]


def answers(precision: np.ndarray) -> Queries:
    """Queries of 20 people with these average precisions, T×Q; the first match of a good query has rank 1."""
    identity = np.repeat(np.arange(PEOPLE), ASKED)
    path = np.array([f"cam3/{n:03d}.jpg" for n in range(len(identity))])
    first = np.where(precision > 0.5, 1, 3).astype(np.int32)
    drawn = np.array([f"draw {n}" for n in range(len(precision))])
    return Queries(path, identity, np.full(len(identity), 3), first, precision.astype(np.float32), drawn)


@pytest.fixture
def make(measured, tmp_path):
    """Runs with other answers: `make(name, seed, queries, field=value, …)` is a run and its measurement."""
    run, one = measured

    def made(name: str, seed: int, queries: Queries | None, *, epochs: int = 2, **fields) -> tuple[Run, Measurement]:
        other = create(
            tmp_path / name, replace(run.facts, config={**run.facts.config, **fields, "seed": seed}, seed=seed, set=())
        )
        numbers = dict.fromkeys(METRICS, 40.0)
        if queries is not None:
            numbers |= {m: float(np.nanmean(queries.values(m), axis=1).mean()) for m in ("map", "rank1")}
        trials = tuple({**one.report.trials[0], **numbers} for _ in range(TRIALS))
        report = replace(one.report, **numbers, trials=trials, seed=seed)
        kept = replace(one, report=report, measured=replace(one.measured, epochs=epochs), queries=queries)
        kept.keep(other)
        return other, kept

    return made


def people(seed: int) -> np.ndarray:
    """T×Q: 20 people who differ much."""
    generator = np.random.default_rng(seed)
    person = np.repeat(generator.uniform(0.2, 0.8, PEOPLE), ASKED)
    return np.clip(person + generator.normal(0.0, 0.05, (TRIALS, len(person))), 0.01, 1.0)


def test_a_clear_difference_is_certain_and_a_small_one_is_not(make):
    base, generator = people(0), np.random.default_rng(9)
    noise = np.repeat(generator.normal(0.0, 0.1, PEOPLE), ASKED)
    found = []
    for seed in (0, 1, 2):
        found.append(make(f"a{seed}", seed, answers(base), gem_power=1.0))
        found.append(make(f"b{seed}", seed, answers(np.clip(base + 0.1, 0, 1)), gem_power=2.0))
        found.append(make(f"c{seed}", seed, answers(np.clip(base + 0.1 - noise + noise.mean(), 0, 1)), gem_power=3.0))
    best, close, far = standings(groups(found))
    assert {best.group.label, close.group.label} == {"gem_power=2.0", "gem_power=3.0"}
    assert far.group.label == "gem_power=1.0"
    assert best.behind == {} and best.verdict("map") == ""
    assert far.verdict("map") == "certain" and far.behind["map"].probability > 0.99
    assert close.verdict("map") == "not certain" and 0.4 < close.behind["map"].probability < 0.975
    for one in (best, close, far):
        low, high = one.intervals["map"]
        assert low < one.group.ours.metrics["map"] < high and high - low > 5.0, "people differ much"
    low, high = far.behind["map"].low, far.behind["map"].high
    assert high - low < 3.0, "and do so for both groups"


def test_the_numbers_are_those_of_people_and_seeds_drawn_again(make):
    values = {name: [people(4) * factor for factor in factors]
              for name, factors in (("a", (1.0, 0.9, 0.95)), ("b", (0.8, 0.85, 0.75)))}  # fmt: skip
    found = [make(f"{name}{seed}", seed, answers(own), gem_power=float(ord(name)))
             for name, of_seeds in values.items() for seed, own in enumerate(of_seeds)]  # fmt: skip
    best, other = standings(groups(found))
    identity = np.repeat(np.arange(PEOPLE), ASKED)
    a, b = (
        seeds_drawn_again(
            people_drawn_again(np.stack([answers(v).values("map") for v in own]), identity, seed=1), range(3)
        )
        for own in values.values()
    )
    assert other.behind["map"] == order(a, b, other.group.ours.metrics["map"] - best.group.ours.metrics["map"])
    assert other.behind["map"].difference < 0


def test_with_few_seeds_the_order_is_certain_for_these_trainings_only(make):
    found = [make("a", 0, answers(people(0)), gem_power=1.0)]
    found += [make(f"b{seed}", seed, answers(people(0) * 0.5), gem_power=2.0) for seed in (0, 1, 2)]
    _, other = standings(groups(found))
    assert other.verdict("map") == "certain for these trainings"


def test_what_cannot_be_compared_says_why(make):
    best = make("best", 0, answers(people(0)), gem_power=1.0)
    worse = people(0) * 0.5
    one = answers(worse)
    renamed = replace(one, path=np.char.replace(one.path, "cam3/00", "cam6/00"))
    redrawn = replace(one, trials=np.array(["other", "draws"]))
    few = replace(one, identity=one.identity % 9)
    for number, (queries, words) in enumerate((
        (renamed, "other queries (50 of 60 are also queries of the best one)"),
        (redrawn, "the same queries, but other gallery pictures were drawn"),
        (few, "fewer than 10 test people"),
        (None, "the results of its queries are not kept; run vireid test again"),
    )):  # fmt: skip
        other = make(f"other{number}", 0, queries, gem_power=2.0)
        other = (other[0], replace(other[1], report=replace(other[1].report, map=1.0))) if queries is None else other
        _, found = standings(groups([best, other]))
        assert found.reason == f"not compared: {words}" and not found.behind and found.verdict("map") == ""
    half = make("half", 0, answers(worse), epochs=1, gem_power=3.0)
    _, found = standings(groups([best, half]))
    assert found.reason == "not compared: it is not finished"


def test_queries_of_an_older_measurement_are_not_used(make):
    """A report that was written again, by a version that keeps no queries, beside the file of the first one."""
    best, (run, one) = make("a", 0, answers(people(0)), gem_power=1.0), make("b", 0, answers(people(1)), gem_power=2.0)
    changed = replace(one, report=replace(one.report, map=1.0), queries=None)
    changed.keep(run)
    _, found = standings(groups([best, (run, changed)]))
    assert "are not kept" in found.reason


def test_a_broken_file_of_queries_is_named(make):
    best, (run, one) = make("a", 0, answers(people(0)), gem_power=1.0), make("b", 0, answers(people(1)), gem_power=2.0)
    (file,) = run.queries.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    found = standings(groups([best, (run, one)]))
    assert str(file) in next(standing.reason for standing in found if standing.group.found[0][0] is run)


def test_the_best_one_without_results_is_compared_with_nobody(make):
    best = make("a", 0, None, gem_power=1.0)
    other = make("b", 0, answers(people(0) * 0.1), gem_power=2.0)
    first, second = standings(groups([best, other]))
    assert "run vireid test again" in first.reason
    assert second.reason == "not compared: the best one has no results of queries to compare with"
