"""Intervals over seeds and over identities, against slow formulas and against what is known of the distributions."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from vireid.evaluation.spread import (
    Order,
    bootstrap,
    interval,
    order,
    paired,
    people_drawn_again,
    seeds_drawn_again,
    student,
)


def test_a_paired_difference_is_the_interval_of_the_differences():
    first, second = {0: 50.0, 1: 62.0, 2: 55.0, 9: 1.0}, {2: 57.5, 1: 63.0, 0: 52.0, 7: 99.0}
    found = paired(first, second)
    assert found is not None and found.seeds == (0, 1, 2)
    differences = [2.0, 1.0, 2.5]
    assert found.mean == pytest.approx(statistics.mean(differences))
    assert found.half == pytest.approx(4.303 * statistics.stdev(differences) / math.sqrt(3))
    alone = interval([first[seed] for seed in (0, 1, 2)])
    assert alone is not None and found.half < alone[1] / 5, "what seeds do to both groups is gone"


def test_without_a_second_common_seed_there_is_no_interval():
    assert paired({0: 1.0}, {1: 1.0}) is None
    found = paired({0: 1.0, 1: 5.0}, {1: 4.0, 2: 9.0})
    assert found is not None and (found.mean, found.half, found.seeds) == (-1.0, None, (1,))


def test_a_bootstrap_of_equal_weights_has_the_width_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(2.0, 5.0, 400)
    found = bootstrap(values, np.ones(400))
    assert found is not None
    low, high = found
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half * 2)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half * 2)


def test_a_bootstrap_weighs_its_members():
    values, weights = np.r_[np.zeros(50), np.ones(50)], np.r_[np.ones(50), np.full(50, 9.0)]
    found = bootstrap(values, weights)
    assert found is not None and found[0] < 0.9 < found[1] and found[0] > 0.8
    assert bootstrap(values, weights) == found, "the same draws again"
    assert bootstrap(values, 7 * weights) == pytest.approx(found)


def test_a_few_members_are_not_enough_for_a_bootstrap():
    assert bootstrap([1.0] * 9, [1.0] * 9) is None
    assert bootstrap([1.0] * 10, [1.0] * 10) == (1.0, 1.0)


def test_students_points_go_down_to_the_normal_ones():
    points = [student(freedom) for freedom in range(1, 200)]
    assert points == sorted(points, reverse=True) and points[-1] == pytest.approx(1.972, abs=5e-4)


def synthetic(generator, runs, trials=3, people=30, asked=4, effect=0.0, seed_spread=0.0):
    """R×T×Q results: people differ much, their queries little; every second person counts in the first trial only."""
    identity = np.repeat(np.arange(people) * 7, asked)
    person = np.repeat(generator.normal(50.0 + effect, 10.0, people), asked)
    trainings = generator.normal(0.0, seed_spread, runs) if seed_spread else np.zeros(runs)
    values = person + generator.normal(0.0, 2.0, (runs, trials, len(identity))) + trainings[:, None, None]
    values[:, 1:, (np.arange(len(identity)) // asked) % 2 == 1] = np.nan
    return values, identity


def test_people_are_drawn_with_all_their_queries_as_in_a_slow_loop(monkeypatch):
    monkeypatch.setattr("vireid.evaluation.spread.DRAWS", 50)
    values, identity = synthetic(np.random.default_rng(0), runs=2, people=12)
    found = people_drawn_again(values, identity, seed=5)
    people = np.unique(identity)
    times = np.random.default_rng(5).multinomial(len(people), np.full(len(people), 1 / len(people)), 50)
    for draw in range(50):
        for run in range(2):
            means = []
            for trial in range(3):
                answers = []
                for person, often in zip(people, times[draw], strict=True):
                    own = values[run, trial, identity == person]
                    answers += [value for value in own if not math.isnan(value)] * int(often)
                means.append(statistics.mean(answers))
            assert found[draw, run] == pytest.approx(statistics.mean(means))


def test_results_of_the_same_queries_are_paired():
    generator = np.random.default_rng(1)
    values, identity = synthetic(generator, runs=1)
    other = values + 1.0 + generator.normal(0.0, 0.1, values.shape)
    first, second = people_drawn_again(values, identity)[:, 0], people_drawn_again(other, identity)[:, 0]
    assert (second - first).std() < first.std() / 50, "what people do to both is gone"
    found = order(first, second, 1.0)
    assert found.certain and found.probability == 0.0 and 0.95 < found.low < found.high < 1.05


def test_two_equal_runs_have_no_order():
    values, identity = synthetic(np.random.default_rng(2), runs=1)
    first = people_drawn_again(values, identity)[:, 0]
    assert order(first, first, 0.0) == Order(0.0, 0.0, 0.0, 0.5) and not order(first, first, 0.0).certain


def test_the_interval_over_people_covers_the_true_difference(monkeypatch):
    """Of 95 % intervals, about 95 % cover. Drawing single queries would cover in about two thirds of the worlds."""
    monkeypatch.setattr("vireid.evaluation.spread.DRAWS", 300)
    generator, covered, worlds = np.random.default_rng(3), 0, 200
    for _ in range(worlds):
        values, identity = synthetic(generator, runs=1, trials=1, people=40)
        # How much better the second run is depends on the person; 2 points on average.
        gain = np.repeat(generator.normal(2.0, 6.0, 40), 4) + generator.normal(0.0, 1.0, len(identity))
        first, second = (people_drawn_again(v, identity)[:, 0] for v in (values, values + gain))
        found = order(first, second, float(gain.mean()))
        covered += found.low <= 2.0 <= found.high
    assert 0.90 < covered / worlds < 0.98


def test_the_variance_over_seeds_is_that_of_a_mean():
    numbers = np.tile([50.0, 53.0, 58.0], (10_000, 1))
    drawn = seeds_drawn_again(numbers, (0, 1, 2))
    assert drawn.mean() == pytest.approx(numbers[0].mean(), abs=0.1)
    assert drawn.var() == pytest.approx(statistics.variance(numbers[0]) / 3, rel=0.05)
    assert np.array_equal(seeds_drawn_again(numbers[:, :1], (4,)), numbers[:, 0]), "one seed is not drawn"


def test_seeds_are_paired_where_they_are_the_same():
    generator = np.random.default_rng(4)
    numbers = np.tile(generator.normal(50.0, 5.0, 4), (10_000, 1))
    same = seeds_drawn_again(numbers, (0, 1, 2, 3)) - seeds_drawn_again(numbers + 1.0, (0, 1, 2, 3))
    other = seeds_drawn_again(numbers, (0, 1, 2, 3)) - seeds_drawn_again(numbers + 1.0, (4, 5, 6, 7))
    assert same.std() < 1e-9 and other.std() > 1.0


def test_fewer_than_ten_people_are_not_drawn():
    values, identity = synthetic(np.random.default_rng(5), runs=1, people=9)
    assert people_drawn_again(values, identity) is None
    values, identity = synthetic(np.random.default_rng(5), runs=1, people=10)
    values[:, :, identity == 0] = np.nan
    assert people_drawn_again(values, identity) is None, "a person without a query that counts is not there"
