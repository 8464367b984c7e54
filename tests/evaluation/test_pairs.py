"""Distances of pairs against slow loops, and what they say on features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from tests.oracles import separation as oracle
from vireid.data.errors import BadInput
from vireid.evaluation import pairs
from vireid.evaluation.pairs import Overlap, equal_error_rate, modality_gap, overlap, pair_distances


@pytest.fixture
def pictures():
    """40 pictures of six people, one of them unknown, at three cameras; some pictures have no key."""
    generator = np.random.default_rng(0)
    identity = generator.choice([-1, 3, 5, 8, 9, 12], 40)
    key = generator.choice([-1, 1, 2, 3], 40)
    return {
        "features": generator.normal(size=(40, 8)),
        "identity": identity,
        "modality": generator.integers(0, 2, 40),
        "key": key,
    }


@pytest.mark.parametrize("keyed", [True, False])
def test_all_pairs_are_those_of_the_slow_loop(pictures, keyed):
    if not keyed:
        pictures["key"] = np.full(40, -1)
    expected = oracle.pairs(*(pictures[name].tolist() for name in ("features", "identity", "modality", "key")))
    assert len(expected) == 6
    found = pair_distances(**{**pictures, "key": pictures["key"] if keyed else None})
    for (kind, same), distances in expected.items():
        assert found[kind].complete
        values = found[kind].same if same else found[kind].different
        assert np.sort(values) == pytest.approx(distances, abs=1e-6)


@pytest.mark.parametrize("looked_at", [2_000_000, 0])
def test_drawn_pairs_are_different_ones_each_as_likely(pictures, monkeypatch, looked_at):
    """With few candidates all are looked at; with many, numbers are drawn. Both must give a fair draw."""
    monkeypatch.setattr(pairs, "_ALL", looked_at)
    every = pair_distances(**pictures)["across"] if looked_at else None
    whole = oracle.pairs(*(pictures[name].tolist() for name in ("features", "identity", "modality", "key")))
    for same in (True, False):
        there = np.array(whole["across", same])
        if every is not None:
            assert len(there) == len(every.same if same else every.different)
        times = np.zeros(len(there))
        for seed in range(60):
            drawn = pair_distances(**pictures, limit=10, seed=seed)["across"]
            assert not drawn.complete
            values = drawn.same if same else drawn.different
            assert len(values) == 10 and len(np.unique(values)) == 10
            times[np.abs(there[:, None] - values).argmin(axis=0)] += 1
        expected = 60 * 10 / len(there)
        deviation = np.sqrt(expected * (1 - 10 / len(there)))
        assert (np.abs(times - expected) < 5 * deviation).all()


def test_the_same_seed_draws_the_same_pairs(pictures):
    first, again, other = (pair_distances(**pictures, limit=9, seed=seed)["across"] for seed in (4, 4, 5))
    assert np.array_equal(first.different, again.different)
    assert not np.array_equal(first.different, other.different)


def test_pairs_that_are_all_left_out_end_the_draw(monkeypatch, pictures):
    monkeypatch.setattr(pairs, "_ALL", 0)
    found = pair_distances(**{**pictures, "key": np.ones(40, int)})
    assert all(len(one.same) == len(one.different) == 0 for one in found.values())


def test_a_hundred_thousand_pictures_need_no_matrix():
    """10^10 pairs: a matrix of their distances would take 40 GB."""
    generator = np.random.default_rng(0)
    identity, modality = np.repeat(np.arange(1000), 100), np.tile([0, 1], 50_000)
    features = (identity[:, None] % 2 + 0.1 * generator.normal(size=(100_000, 4))).astype(np.float32)
    found = pair_distances(features, identity, modality, limit=500)
    assert all(len(one.same) == len(one.different) == 500 and not one.complete for one in found.values())


@pytest.mark.parametrize("digits", [1, 12])
def test_the_equal_error_rate_is_that_of_the_roc_curve(digits):
    """With one digit, many distances are equal."""
    generator = np.random.default_rng(1)
    same, different = generator.normal(0.4, 0.2, 60).round(digits), generator.normal(0.8, 0.3, 90).round(digits)
    taken, found, _ = roc_curve(np.r_[np.ones(60), np.zeros(90)], -np.r_[same, different], drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    at = np.argmin(np.abs(np.interp(grid, taken, 1 - found) - grid))
    assert equal_error_rate(same, different) == pytest.approx(grid[at], abs=1e-4)


def test_at_the_equal_error_rate_both_errors_of_a_threshold_meet():
    generator = np.random.default_rng(2)
    same, different = generator.normal(0.4, 0.2, 500), generator.normal(0.7, 0.2, 500)
    rate = equal_error_rate(same, different)
    errors = [oracle.error_rates(same, different, threshold) for threshold in np.linspace(0, 1, 101)]
    nearest = min(errors, key=lambda pair: abs(pair[0] - pair[1]))
    assert nearest == (pytest.approx(rate, abs=0.02), pytest.approx(rate, abs=0.02))


def test_overlap_of_gaussians_with_a_known_answer():
    """Two Gaussians, d standard deviations apart, cross at Φ(−d/2): 50 % for 0 and 15.87 % for 2."""
    generator = np.random.default_rng(0)
    same, different = generator.normal(0.5, 0.1, 40_000), generator.normal(0.5, 0.1, 40_000)
    equal, apart = overlap(same, different), overlap(same, different + 0.2)
    assert (equal.d_prime, equal.equal_error_rate) == (pytest.approx(0, abs=0.03), pytest.approx(50, abs=1))
    assert (apart.d_prime, apart.equal_error_rate) == (pytest.approx(2, abs=0.03), pytest.approx(15.87, abs=0.6))
    assert (apart.same_mean, apart.same_std) == (pytest.approx(same.mean()), pytest.approx(same.std()))
    wider = overlap(same, 0.9 + 3 * (different - 0.5))  # √((0.1² + 0.3²) / 2) = 0.2236
    assert wider.d_prime == pytest.approx(0.4 / 0.2236, abs=0.03)


def test_overlap_of_few_pairs():
    assert overlap(np.array([0.1]), np.empty(0)) == Overlap(0.1, 0.0, None, None, None, None)
    assert overlap(np.array([0.1]), np.array([0.3])) == Overlap(0.1, 0.0, 0.3, 0.0, None, 0.0)
    assert equal_error_rate(np.array([0.4]), np.array([0.2])) == 1.0
    assert equal_error_rate(np.array([0.3]), np.array([0.3])) == 0.5


def test_the_modality_gap_by_hand():
    def one(mean, std):
        return Overlap(mean, std, mean + 1, std, None, None)

    found = {"visible": one(0.1, 0.1), "infrared": one(0.3, 0.3), "across": one(0.6, 0.5)}
    scale = np.sqrt(((0.01 + 0.09) / 2 + 0.25) / 2)
    assert modality_gap(found) == pytest.approx((0.4, 0.4 / scale))
    assert modality_gap(found, "different") == pytest.approx((0.4, 0.4 / scale))
    assert modality_gap({**found, "infrared": Overlap(*[None] * 6)})[0] == pytest.approx(0.5)
    assert modality_gap({**found, "across": Overlap(*[None] * 6)}) is None
    assert modality_gap(dict.fromkeys(found, one(0.2, 0.0))) == (0.0, None)


def test_a_modality_that_moves_features_makes_a_gap_and_one_that_does_not_makes_none():
    generator = np.random.default_rng(0)
    identity, modality = np.repeat(np.arange(20), 10), np.tile([0, 1], 100)
    features = generator.normal(size=(20, 32))[identity] + 0.2 * generator.normal(size=(200, 32))
    moved = features + 3.0 * modality[:, None] * np.eye(32)[0]
    gaps = []
    for given in (features, moved):
        found = pair_distances(given, identity, modality)
        gaps.append(modality_gap({kind: overlap(one.same, one.different) for kind, one in found.items()}))
    assert gaps[0] == (pytest.approx(0.0, abs=0.01), pytest.approx(0.0, abs=0.5))
    assert gaps[1][0] > 0.08


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"key": np.zeros(3)}, "key has shape"),
        ({"key": np.full(40, 0.5)}, "key: sample 0 is 0.5"),
        ({"modality": np.full(40, 2)}, "has modality 2"),
    ],
)
def test_arrays_that_cannot_be_used(pictures, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        pair_distances(**{**pictures, **change})
