"""The pieces are cut from the whole: they agree with the slow loop and add up to the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import evaluation as oracle
from vireid.data.errors import BadInput
from vireid.data.protocol import Trial, draw_trials, parse_protocol
from vireid.evaluation.breakdown import Breakdown, break_down, lines
from vireid.evaluation.reranking import k_reciprocal
from vireid.evaluation.scoring import Measured, evaluate, score

PATHS = [f"{sample}.jpg" for sample in range(500)]


def pieces(
    features, identity, camera, trials, *, paths=PATHS, protocol="regdb/v2i", reranker=None, **options
) -> Breakdown:
    """The break-down of these trials, by the rules of a protocol."""
    rules, how = parse_protocol(protocol), Measured(rerank="given" if reranker else "none")
    found = evaluate(features, identity, rules, trials, how, reranker=reranker, camera=camera)
    return break_down(found, identity, camera, paths, **options)


def little_sysu(seed: int = 0):
    generator = np.random.default_rng(seed)
    rows = [(c, i) for c in range(1, 7) for i in range(1, 9) for _ in range(2) if (c + i) % 5]
    camera, identity = np.array(rows).T
    modality = np.isin(camera, (3, 6)).astype(np.int64)
    centre = generator.normal(size=(9, 8))
    return centre[identity] + generator.normal(size=(len(rows), 8)), identity, camera, modality


def backwards(query, gallery):
    return query @ gallery.T


@pytest.mark.parametrize("reranker", [None, backwards, k_reciprocal])
@pytest.mark.parametrize("name", ["sysu-mm01/all/multi", "llcm/i2v", "regdb/v2i"])
def test_the_pieces_add_up_to_the_report(name, reranker):
    features, identity, camera, modality = little_sysu()
    if name.startswith("regdb"):
        camera = modality + 1  # one camera of each modality
    elif name.startswith("llcm"):
        camera = np.where(camera > 4, camera - 3, camera)  # each camera takes both kinds of pictures, or one
    trials = draw_trials(name, identity, camera, modality)
    rerank = {"rerank": "given", "reranker": reranker} if reranker else {}
    report = score(features, identity, camera, modality, protocol=name, **rerank)
    found = pieces(features, identity, camera, trials, protocol=name, reranker=reranker)
    weights = [one.queries for one in found.identities]
    assert np.average([one.map for one in found.identities], weights=weights) == pytest.approx(report.map)
    assert np.average([one.rank1 for one in found.identities], weights=weights) == pytest.approx(report.rank1)
    assert sum(weights) == report.valid_queries
    assert [one.precision for one in found.worst] == sorted(one.precision for one in found.worst)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["protocol"] == name
    assert all(str(one.path) in lines(found) for one in found.worst[:5])


@pytest.mark.parametrize("reranker", [None, backwards])
def test_a_pair_of_cameras_is_the_slow_loop_over_its_pictures(reranker):
    features, identity, camera, modality = little_sysu(1)
    (trial, *_) = draw_trials("sysu-mm01/all/multi", identity, camera, modality)
    found = pieces(features, identity, camera, [trial], protocol="llcm/i2v", reranker=reranker)
    assert [(p.query_camera, p.gallery_camera) for p in found.pairs] == [(a, b) for a in (3, 6) for b in (1, 2, 4, 5)]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for pair in found.pairs:
        query = trial.query[camera[trial.query] == pair.query_camera]
        gallery = trial.gallery[camera[trial.gallery] == pair.gallery_camera]
        distances = features[query] @ features[gallery].T if reranker else -unit[query] @ unit[gallery].T
        # Camera 3 may not see camera 2, whoever stands there.
        key = 2 if (pair.query_camera, pair.gallery_camera) == (3, 2) else -1
        answer = oracle.evaluate(
            distances, identity[query], [key] * len(query), identity[gallery], [key] * len(gallery), cmc="identity"
        )
        if answer is None:
            assert (pair.rank1, pair.map, pair.queries) == (None, None, 0)
        else:
            assert (pair.rank1, pair.map) == pytest.approx((100 * answer[0][0], 100 * answer[1]))
            assert pair.queries == answer[3]


def test_by_hand():
    """Query a finds itself first (AP 1); query b finds a stranger first and itself second (AP ½)."""
    features = np.array([[1, 0], [0, 1], [1, 0.1], [0.2, 1], [0.5, 1]])
    identity, camera = np.array([7, 8, 7, 7, 8]), np.array([3, 3, 1, 1, 2])
    none = np.full(2, -1)
    trial = Trial(np.array([0, 1]), np.array([2, 3, 4]), none, np.full(3, -1))
    found = pieces(features, identity, camera, [trial], paths=list("abcde"), worst=1)
    # Of identity 7, a sees c (1st), e (2nd), d (3rd): (1 + ⅔)/2.
    assert [(one.identity, one.rank1, round(one.map, 4)) for one in found.identities] == [(7, 100, 83.3333), (8, 0, 50)]
    assert [(one.path, one.precision, one.rank) for one in found.worst] == [("b", 50.0, 2.0)]
    assert [(p.gallery_camera, p.rank1, p.map, p.queries) for p in found.pairs] == [(1, 100, 100, 1), (2, 100, 100, 1)]


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3]), st.integers(0, 1)), min_size=2, max_size=30
    ),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_labels_empty_cells_single_identities_and_ties(labels, ties, seed):
    """For any labels, the queries that count are those with a match, and each has the rank of the slow loop."""
    identity, camera, modality = np.array(labels).T
    query, gallery = np.flatnonzero(modality == 1), np.flatnonzero(modality == 0)
    features = np.ones((len(labels), 3)) if ties else np.random.default_rng(seed).normal(size=(len(labels), 3))
    trial = Trial(query, gallery, camera[query], camera[gallery])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    answers = {
        f"{q}.jpg": oracle.answer(
            np.zeros(len(gallery)) if ties else -unit[gallery] @ unit[q],
            identity[q], camera[q], identity[gallery], camera[gallery], cmc="identity",
        )
        for q in query
    }  # fmt: skip
    counting = {path: answer for path, answer in answers.items() if answer}
    if not counting:
        with pytest.raises(BadInput, match="not one query"):
            pieces(features, identity, camera, [trial], protocol="llcm/i2v")
        return
    found = pieces(features, identity, camera, [trial], protocol="llcm/i2v")
    assert sum(one.queries for one in found.identities) == len(counting)
    assert len(found.worst) == min(20, len(counting))
    for one in found.worst:
        assert (one.rank, one.precision) == pytest.approx((counting[one.path][0], 100 * counting[one.path][1]))


@pytest.mark.parametrize("reranker", [None, backwards])
def test_the_ranked_lists_come_from_the_same_ranking(reranker):
    features, identity, camera, modality = little_sysu(2)
    trials = draw_trials("sysu-mm01/all/multi", identity, camera, modality)
    how = Measured(rerank="given" if reranker else "none")
    rules = parse_protocol("sysu-mm01/all/multi")
    found = evaluate(features, identity, rules, trials, how, reranker=reranker, camera=camera, listed=4)
    lists = found.rankings[0].lists
    assert len(lists) == 4 and not found.rankings[1].lists
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    trial = trials[0]
    for position, samples in lists.items():
        query = trial.query[position]
        seen = trial.gallery[trial.gallery_key != trial.query_key[position]]
        distance = features[seen] @ features[query] if reranker else -unit[seen] @ unit[query]
        assert samples.tolist() == seen[np.argsort(distance, kind="stable")][:10].tolist()
        assert (found.scores[0].first[position] == 1) == (identity[samples[0]] == identity[query])
