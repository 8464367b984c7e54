"""Intervals over seeds and over identities, against slow formulas and against what is known of the distributions."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from vireid.evaluation.spread import bootstrap, interval, paired, student


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
