"""Distances of tracklets against loops over all pairs of their pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.oracles import evaluation as oracle
from vireid.data.errors import BadInput
from vireid.data.protocol import Protocol, Side, draw_trials
from vireid.evaluation import tracklets
from vireid.evaluation.reranking import k_reciprocal
from vireid.evaluation.scoring import score


def unit(vector):
    length = math.sqrt(sum(float(x) ** 2 for x in vector))
    return [float(x) / length for x in vector]


def far(one, other, distance):
    """The distance of two pictures."""
    if distance == "euclidean":
        return math.dist(one, other)
    return 1 - sum(a * b for a, b in zip(unit(one), unit(other), strict=True))


def slow(features, query, gallery, rule, distance):
    """The distance of two tracklets, given as lists of places."""
    if rule == "average":
        means = []
        for places in (query, gallery):
            used = [unit(features[p]) if distance == "cosine" else features[p] for p in places]
            means.append([sum(float(one[d]) for one in used) / len(used) for d in range(features.shape[1])])
        return far(*means, distance)
    pairs = [far(features[q], features[g], distance) for q in query for g in gallery]
    return min(pairs) if rule == "min" else sum(pairs) / len(pairs)


def problem(seed=0):
    """40 pictures of 5 people at 4 cameras in tracklets of 1 to 4 pictures, the tracklets mixed in file order."""
    rng = np.random.default_rng(seed)
    identity, camera = rng.integers(5, size=40), rng.integers(4, size=40)
    tracklet = rng.integers(-1, 2, size=40)
    features = rng.normal(size=(40, 6)) + identity[:, None] * np.linspace(-1, 1, 6)
    return features, identity, camera, (camera > 1).astype(int), tracklet


def rules(rule, exclusion="none"):
    return Protocol("x/y", "x", Side(1), Side(0), exclusion=exclusion, cmc="image", tracklets=rule)  # type: ignore[arg-type]


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("rule", ["average", "min", "mean"])
def test_every_rule_agrees_with_the_slow_loop(monkeypatch, rule, distance, small_blocks):
    if small_blocks:
        monkeypatch.setattr(tracklets, "_PAIRS", 50)
    features, identity, camera, modality, tracklet = problem()
    (trial,) = draw_trials(rules(rule), identity, camera, modality, tracklet=tracklet)
    assert max(map(len, trial.query_sets)) > 1 and max(map(len, trial.gallery_sets)) > 1
    found = tracklets.set_distances(features, trial, rule, distance=distance)
    wanted = [[slow(features, q, g, rule, distance) for g in trial.gallery_sets] for q in trial.query_sets]
    shift = 1.0 if distance == "cosine" else 0.0
    np.testing.assert_allclose(found + shift, wanted, atol=2e-6)


@pytest.mark.parametrize("exclusion", ["none", "camera"])
@pytest.mark.parametrize("rule", ["average", "min", "mean"])
def test_the_report_is_that_of_the_slow_loop(rule, exclusion):
    features, identity, camera, modality, tracklet = problem(3)
    one = rules(rule, exclusion)
    (trial,) = draw_trials(one, identity, camera, modality, tracklet=tracklet)
    wanted = [[slow(features, q, g, rule, "cosine") for g in trial.gallery_sets] for q in trial.query_sets]
    key = camera if exclusion == "camera" else np.full(40, -1)
    people = [[identity[own[0]] for own in sets] for sets in (trial.query_sets, trial.gallery_sets)]
    keys = [[key[own[0]] for own in sets] for sets in (trial.query_sets, trial.gallery_sets)]
    curve, precision, penalty, valid = oracle.evaluate(wanted, people[0], keys[0], people[1], keys[1], cmc="image")
    report = score(features, identity, camera, modality, protocol=one, tracklet=tracklet)
    assert (report.queries, report.gallery, report.valid_queries) == (len(wanted), len(wanted[0]), valid)
    assert report.rank1 == pytest.approx(100 * curve[0]) and report.rank5 == pytest.approx(100 * curve[4])
    assert report.map == pytest.approx(100 * precision) and report.minp == pytest.approx(100 * penalty)


def test_tracklets_of_one_picture_are_pictures():
    features, identity, camera, modality, _ = problem()
    alone = np.full(40, -1)
    pictures = score(features, identity, camera, modality, protocol=rules("none"))
    for rule in ("average", "min", "mean"):
        found = score(features, identity, camera, modality, protocol=rules(rule), tracklet=alone)
        assert found == pictures


def test_re_ranking_takes_mean_features_only():
    features, identity, camera, modality, tracklet = problem()
    (trial,) = draw_trials(rules("average"), identity, camera, modality, tracklet=tracklet)
    means = [
        np.stack([np.mean([unit(features[p]) for p in own], axis=0) for own in sets])
        for sets in (trial.query_sets, trial.gallery_sets)
    ]
    found = tracklets.set_distances(features, trial, "average", reranker=k_reciprocal)
    np.testing.assert_allclose(found, k_reciprocal(*means), atol=1e-5)
    with pytest.raises(BadInput, match="use average"):
        score(features, identity, camera, modality, protocol=rules("min"), tracklet=tracklet, rerank="k-reciprocal")
