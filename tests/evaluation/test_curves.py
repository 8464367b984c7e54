"""Curves against slow loops, the report, and scikit-learn."""

from __future__ import annotations

import warnings
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from tests.evaluation.test_breakdown import little_sysu
from vireid.data.protocol import Trial, draw_trials, parse_protocol
from vireid.evaluation.curves import curves, precision_over_recall
from vireid.evaluation.metrics import average_precision
from vireid.evaluation.ranking import Matches, rank_matches
from vireid.evaluation.scoring import Measured, evaluate


def matches_of(*ranks: list[int]) -> Matches:
    """Matches of queries whose true matches have these ranks."""
    return Matches(
        np.concatenate([np.array(own, np.int32) for own in ranks]),
        np.cumsum([0, *map(len, ranks)]),
        np.zeros(len(ranks), np.int32),
    )


def slow(*ranks: list[int]) -> list[Fraction]:
    """Each hundredth is cut into the steps of each query, in fractions."""
    asked = [own for own in ranks if own]
    found = []
    for step in range(100):
        low, high, total = Fraction(step, 100), Fraction(step + 1, 100), Fraction(0)
        for own in asked:
            for i, rank in enumerate(own, start=1):
                begin, end = Fraction(i - 1, len(own)), Fraction(i, len(own))
                total += max(Fraction(0), min(high, end) - max(low, begin)) * Fraction(i, rank)
        found.append(total * 100 / len(asked))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_precision_over_recall_is_the_slow_loop(seed):
    rng = np.random.default_rng(seed)
    counts = [0, 1, 3, 3, 7, 130, *rng.integers(1, 12, 5)]
    ranks = [sorted((rng.permutation(200)[:n] + 1).tolist()) for n in counts]
    found = precision_over_recall(matches_of(*ranks))
    assert found == pytest.approx([float(one) for one in slow(*ranks)], abs=1e-12)
    assert found.mean() == pytest.approx(np.nanmean(average_precision(matches_of(*ranks))), abs=1e-12)


def test_precision_over_recall_by_hand():
    """Matches at ranks 1 and 4: precision 1 up to half of the recall, then 2/4. A match at rank 5: 1/5."""
    found = precision_over_recall(matches_of([1, 4], [], [5]))
    assert found == pytest.approx([0.6] * 50 + [0.35] * 50)
    with warnings.catch_warnings(action="error"):
        assert np.isnan(precision_over_recall(matches_of([], []))).all()


@pytest.mark.parametrize("count", [1, 4, 20])
def test_the_steps_of_a_query_are_scikit_learns_points(count):
    """At the recall of each true match, scikit-learn has the same precision; the step before it has this height."""
    rng = np.random.default_rng(count)
    true = np.zeros(60, bool)
    true[rng.permutation(60)[:count]] = True
    near = rng.permutation(60).astype(float)
    trial = Trial(np.array([0]), np.arange(1, 61), np.array([-1]), np.full(60, -1))
    found = precision_over_recall(rank_matches(-near[None], trial, np.array([1, *true.astype(int)])))
    precision, recall, _ = precision_recall_curve(true, near)
    for step, height in enumerate(found):
        reached = recall[recall > (step + 0.5) / 100].min()
        assert height == pytest.approx(precision[recall == reached].max(), abs=1e-9)


@pytest.mark.parametrize("name", ["sysu-mm01/all/single", "sysu-mm01/indoor/multi", "regdb/v2i", "llcm/i2v"])
def test_the_curves_have_the_reports_numbers(name):
    features, identity, camera, modality = little_sysu()
    if not name.startswith("sysu"):
        camera = modality + 1
    trials = draw_trials(name, identity, camera, modality)
    found = evaluate(features, identity, parse_protocol(name), trials, Measured())
    cmc, precision = curves(found, 25)
    assert cmc.shape == (len(trials), 25) and precision.shape == (len(trials), 100)
    for number, one in enumerate(found.report.trials):
        assert [cmc[number, k - 1] for k in (1, 5, 10, 20)] == [one[f"rank{k}"] for k in (1, 5, 10, 20)]
        assert precision[number].mean() == pytest.approx(one["map"], abs=1e-10)
    assert (np.diff(cmc) >= 0).all() and cmc[:, -1] == pytest.approx(100)
