"""Re-ranking against slow loops over sets, against values by hand, and with the protocols' exclusion rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import reranking as oracle
from vireid.data.errors import BadInput
from vireid.data.protocol import Trial
from vireid.evaluation.ranking import rank_matches
from vireid.evaluation.reranking import RERANKERS, find_reranker, k_reciprocal, query_expansion
from vireid.evaluation.scoring import score, score_trials


def people(queries: int, gallery: int, *, identities: int = 4, noise: float = 0.7, seed: int = 0):
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=(identities, 8))
    identity = generator.integers(0, identities, queries + gallery)
    features = (centre[identity] + noise * generator.normal(size=(len(identity), 8))).astype(np.float32)
    return features[:queries], features[queries:], identity


@settings(max_examples=25, deadline=None)
@given(
    queries=st.integers(1, 9),
    gallery=st.integers(1, 12),
    k1=st.integers(1, 9),
    k2=st.integers(1, 7),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    form=st.sampled_from(["code", "paper"]),
    block=st.sampled_from([1, 2**27]),
    seed=st.integers(0, 10**6),
)
def test_k_reciprocal_agrees_with_the_loop_over_sets(queries, gallery, k1, k2, weight, form, block, seed):
    query, searched, _ = people(queries, gallery, seed=seed)
    found = k_reciprocal(query, searched, k1=k1, k2=k2, weight=weight, form=form, block_bytes=block)
    wanted = oracle.k_reciprocal(query.tolist(), searched.tolist(), k1=k1, k2=k2, weight=weight, form=form)
    assert found.dtype == np.float32 and found.shape == (queries, gallery)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_k_reciprocal_by_hand():
    """One query and two gallery pictures on a circle at 0°, 60° and 180°, k1 = k2 = 1, λ = 0.

    1 − cos is ½ and 2 from the query to the others, ½ and 1½ from the picture at 60°, and 2 and 1½ from the picture at
    180°. The first two are the nearest neighbours of each other. The third is the nearest neighbour of none. Each
    distance is divided by the largest one of its picture. So d between the first two is ¼ from the query and ⅓ from the
    gallery picture. With w = e^−¼ and u = e^−⅓, V(query) = (1, w, 0)/(1 + w), V(first) = (u, 1, 0)/(1 + u) and
    V(second) = (0, 0, 1).
    """
    angle = np.radians([0, 60, 180])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    w, u = math.exp(-1 / 4), math.exp(-1 / 3)
    smaller = u / (1 + u) + w / (1 + w)
    near = 1 - smaller / (2 - smaller)
    found = k_reciprocal(features[:1], features[1:], k1=1, k2=1, weight=0.0)
    np.testing.assert_allclose(found, [[near, 1.0]], atol=1e-6)
    mixed = k_reciprocal(features[:1], features[1:], k1=1, k2=1, weight=0.3)
    np.testing.assert_allclose(mixed, [[0.7 * near + 0.3 / 4, 0.7 + 0.3]], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    queries=st.integers(1, 6),
    gallery=st.integers(1, 9),
    neighbours=st.integers(1, 12),
    alpha=st.sampled_from([0.0, 1.0, 3.0]),
    seed=st.integers(0, 10**6),
)
def test_query_expansion_agrees_with_the_loop(queries, gallery, neighbours, alpha, seed):
    query, searched, _ = people(queries, gallery, seed=seed)
    wanted = oracle.query_expansion(query.tolist(), searched.tolist(), neighbours=neighbours, alpha=alpha)
    np.testing.assert_allclose(query_expansion(query, searched, neighbours=neighbours, alpha=alpha), wanted, atol=5e-6)


def test_query_expansion_by_hand():
    # The query (1, 0) is averaged with (0, 1). The mean has an angle of 45° to both.
    found = query_expansion(np.array([[2.0, 0.0]]), np.array([[0.0, 5.0], [-1.0, 0.0]]), neighbours=1)
    np.testing.assert_allclose(found, [[1 - math.sqrt(0.5), 1 + math.sqrt(0.5)]], atol=1e-6)


@pytest.mark.parametrize("name", RERANKERS)
def test_excluded_pictures_are_not_in_the_ranking(name):
    """Neighbours of a query may be excluded pictures. Its ranking is that of the distances without their columns."""
    query, searched, identity = people(12, 30, seed=3)
    key = np.arange(42) % 3
    trial = Trial(np.arange(12), np.arange(12, 42), key[:12], key[12:])
    both = np.concatenate([query, searched])
    (scored,) = score_trials(both, identity, [trial], cmc="image", reranker=find_reranker(name))
    values = RERANKERS[name](query, searched)
    for q in range(12):
        seen = trial.gallery_key != trial.query_key[q]
        alone = Trial(trial.query[[q]], trial.gallery[seen], np.array([-1]), np.full(seen.sum(), -1))
        ranks = rank_matches(values[[q]][:, seen], alone, identity).ranks
        assert scored.first[q] == (ranks[0] if len(ranks) else 0)


@pytest.mark.parametrize("name", RERANKERS)
def test_degenerate_features_give_finite_distances(name):
    for features in (np.ones((9, 4)), np.zeros((9, 4)), np.eye(9)):
        found = RERANKERS[name](features[:4], features[4:])
        assert np.isfinite(found).all() and (found >= 0).all()
    assert RERANKERS[name](np.ones((1, 2)), np.ones((1, 2))).shape == (1, 1)


def test_it_helps_if_neighbours_have_the_same_identity():
    query, searched, identity = people(60, 240, identities=20, noise=0.8, seed=5)
    modality = np.array([1] * 60 + [0] * 240)
    arrays = (np.concatenate([query, searched]), identity, modality, modality)
    plain = score(*arrays, protocol="regdb/i2v")
    better = score(*arrays, protocol="regdb/i2v", rerank="k-reciprocal", reranker=k_reciprocal)
    assert better.map > plain.map + 3
    assert (better.rerank, plain.rerank) == ("k-reciprocal", "none")
    assert any("not comparable with plain numbers" in warning for warning in better.warnings)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: k_reciprocal(f, f, k1=0), "k1=0"),
        (lambda f: k_reciprocal(f, f, weight=1.5), "share of the plain distance, 0 to 1"),
        (lambda f: k_reciprocal(f, f, form="cod"), "unknown form of re-ranking 'cod'; did you mean 'code'"),
        (lambda f: query_expansion(f, f, neighbours=0), "neighbours=0"),
        (lambda f: find_reranker("k-recip"), "did you mean 'k-reciprocal'"),
    ],
)
def test_settings_outside_their_range_are_refused(call, says):
    with pytest.raises(BadInput, match=says):
        call(np.eye(3))
    assert find_reranker("none") is None
