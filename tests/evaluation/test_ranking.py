from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import evaluation as oracle
from vireid.data.protocol import Trial
from vireid.evaluation import distance as distances
from vireid.evaluation import metrics
from vireid.evaluation.ranking import Matches, rank_matches, rank_trials, top_matches

# Worked by hand: eight gallery pictures of four identities, four queries of which the last has no match.
GALLERY = np.array([1, 1, 1, 2, 2, 3, 3, 4])
GALLERY_CAMERA = np.array([1, 2, 4, 1, 5, 2, 4, 5])
QUERY = np.array([1, 2, 3, 5])
DISTANCES = np.array(
    [
        [0.50, 0.10, 0.40, 0.20, 0.60, 0.05, 0.30, 0.70],
        [0.20, 0.25, 0.30, 0.35, 0.90, 0.40, 0.10, 0.15],
        [0.60, 0.70, 0.10, 0.20, 0.30, 0.05, 0.40, 0.50],
        [0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80],
    ]
)
LOCATION = np.array([0, 1, 2, 2, 4, 5, 6])
BY_LOCATION = (LOCATION[[3, 6, 3, 6]], LOCATION[GALLERY_CAMERA])
BY_PAIR = (QUERY * 10 + [2, 1, 4, 5], GALLERY * 10 + GALLERY_CAMERA)
NOTHING = (np.full(4, -1), np.full(8, -1))


def problem(query_identity, gallery_identity, query_key, gallery_key):
    queries = len(query_identity)
    trial = Trial(
        np.arange(queries),
        np.arange(queries, queries + len(gallery_identity)),
        np.asarray(query_key, np.int64),
        np.asarray(gallery_key, np.int64),
    )
    return trial, np.concatenate([query_identity, gallery_identity]).astype(np.int64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("keys", "cmc", "curve", "precision", "penalty"),
    [
        (BY_LOCATION, "identity", [0, 0, 2 / 3, 1, 1], 0.291667, 0.333333),
        (BY_LOCATION, "image", [0, 0, 1 / 3, 2 / 3, 2 / 3], 0.291667, 0.333333),
        (NOTHING, "image", [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3], 0.458333, 0.383333),
        (BY_PAIR, "identity", [1 / 3, 1 / 3, 2 / 3, 1, 1], 0.489286, 0.514286),
    ],
    ids=["sysu-mm01", "sysu-mm01 by image", "regdb", "llcm"],
)
def test_the_answers_worked_by_hand(dtype, keys, cmc, curve, precision, penalty):
    trial, identity = problem(QUERY, GALLERY, *keys)
    matches = rank_matches(DISTANCES.astype(dtype), trial, identity)
    first = metrics.first_rank(matches, cmc=cmc)
    assert (first > 0).tolist() == [True, True, True, False]
    assert metrics.cumulative_matches(first, 5) == pytest.approx(curve, abs=1e-9)
    assert np.nanmean(metrics.average_precision(matches)) == pytest.approx(precision, abs=1e-6)
    assert np.nanmean(metrics.inverse_penalty(matches)) == pytest.approx(penalty, abs=1e-6)


@st.composite
def problems(draw):
    """Few different distances, so ties are everywhere; identities without pictures; any exclusion rule."""
    gallery = draw(st.integers(1, 80))
    queries = draw(st.integers(1, 6))
    kinds = draw(st.integers(1, 6))
    numbers = st.integers(1, kinds)
    query_identity = np.array(draw(st.lists(st.integers(1, kinds + 1), min_size=queries, max_size=queries)))
    gallery_identity = np.array(draw(st.lists(numbers, min_size=gallery, max_size=gallery)))
    cameras = st.integers(1, 3)
    query_camera = np.array(draw(st.lists(cameras, min_size=queries, max_size=queries)))
    gallery_camera = np.array(draw(st.lists(cameras, min_size=gallery, max_size=gallery)))
    rule = draw(st.sampled_from(["none", "location", "identity-camera", "some free"]))
    if rule == "none":
        keys = np.full(queries, -1), np.full(gallery, -1)
    elif rule == "identity-camera":
        keys = query_identity * 10 + query_camera, gallery_identity * 10 + gallery_camera
    else:
        keys = query_camera, gallery_camera
        if rule == "some free":
            keys = tuple(np.where(key == 1, -1, key) for key in keys)
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, levels, (queries, gallery))
    return values.astype(np.float32) / 8 - 3, query_identity, gallery_identity, *keys


@given(problems())
@settings(max_examples=300, deadline=None)
def test_counting_agrees_with_sorting(drawn):
    values, query_identity, gallery_identity, query_key, gallery_key = drawn
    trial, identity = problem(query_identity, gallery_identity, query_key, gallery_key)
    matches = rank_matches(values, trial, identity)
    precision, penalty = metrics.average_precision(matches), metrics.inverse_penalty(matches)
    for cmc in ("identity", "image"):
        first = metrics.first_rank(matches, cmc=cmc)
        for q in range(len(values)):
            expected = oracle.answer(
                values[q].tolist(), query_identity[q], query_key[q], gallery_identity, gallery_key, cmc=cmc
            )
            if expected is None:
                assert first[q] == 0 and matches.start[q] == matches.start[q + 1]
                assert np.isnan(precision[q]) and np.isnan(penalty[q])
                continue
            assert first[q] == expected[0]
            assert precision[q] == pytest.approx(expected[1], abs=1e-12)
            assert penalty[q] == pytest.approx(expected[2], abs=1e-12)
            assert matches.ranks[matches.start[q] : matches.start[q + 1]].tolist() == expected[3]
        curve = oracle.evaluate(
            values.tolist(), query_identity, query_key, gallery_identity, gallery_key, cmc=cmc, depth=7
        )
        if curve is None:
            assert np.isnan(metrics.cumulative_matches(first, 7)).all()
        else:
            assert metrics.cumulative_matches(first, 7) == pytest.approx(curve[0], abs=1e-12)


def test_average_precision_is_scikit_learns_where_nothing_ties():
    from sklearn.metrics import average_precision_score

    generator = np.random.default_rng(1)
    gallery, queries = generator.integers(0, 8, 150), generator.integers(0, 8, 30)
    values = generator.permutation(150 * 30).reshape(30, 150).astype(np.float32)
    trial, identity = problem(queries, gallery, np.full(30, -1), np.full(150, -1))
    found = metrics.average_precision(rank_matches(values, trial, identity))
    expected = [average_precision_score(gallery == q, -row) for q, row in zip(queries, values, strict=True)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_values_must_be_finite_and_fit():
    trial, identity = problem(QUERY, GALLERY, *NOTHING)
    for wrong in (DISTANCES[:3], np.where(DISTANCES == 0.7, np.inf, DISTANCES), DISTANCES * np.nan):
        with pytest.raises(ValueError, match="finite and 4×8"):
            rank_matches(wrong, trial, identity)


def test_parts_join_into_what_they_were():
    trial, identity = problem(QUERY, GALLERY, *BY_LOCATION)
    whole = rank_matches(DISTANCES, trial, identity)
    single = [
        rank_matches(
            DISTANCES[q : q + 1],
            Trial(
                *(
                    part[q : q + 1] if i % 2 == 0 else part
                    for i, part in enumerate((trial.query, trial.gallery, trial.query_key, trial.gallery_key))
                )
            ),
            identity,
        )
        for q in range(4)
    ]
    joined = Matches.join(single)
    for name in ("ranks", "start", "ahead"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()
    assert Matches.join([]).start.tolist() == [0]


def random_trials(generator, rows, identity, count, *, queries=None):
    trials = []
    for _ in range(count):
        query = np.sort(generator.choice(rows // 2, rows // 4, replace=False)) if queries is None else queries
        gallery = np.sort(generator.choice(np.arange(rows // 2, rows), rows // 3, replace=False))
        trials.append(Trial(query, gallery, identity[query] % 3, identity[gallery] % 2))
    return trials


@pytest.mark.parametrize("distance", distances.DISTANCES)
@pytest.mark.parametrize("shared", [True, False])
def test_trials_from_features_agree_with_their_distances(distance, shared):
    generator = np.random.default_rng(2)
    identity = generator.integers(0, 9, 120)
    features = generator.normal(size=(120, 5)) + identity[:, None] * [1, 0, 0, -1, 0]
    trials = random_trials(generator, 120, identity, 4, queries=np.arange(0, 60, 2) if shared else None)
    # A block of a few queries: the parts must join in order.
    found = rank_trials(features, identity, trials, distance=distance, block_bytes=4 * 64 * 7)
    for trial, matches in zip(trials, found, strict=True):
        exact = np.empty((len(trial.query), len(trial.gallery)))
        for i, q in enumerate(trial.query):
            for j, g in enumerate(trial.gallery):
                a, b = features[q], features[g]
                if distance == "cosine":
                    exact[i, j] = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
                else:
                    exact[i, j] = np.sqrt(((a - b) ** 2).sum())
        expected = rank_matches(exact, trial, identity)
        for name in ("ranks", "start", "ahead"):
            assert getattr(matches, name).tolist() == getattr(expected, name).tolist()
        assert distances.pairwise(features[trial.query], features[trial.gallery], distance=distance) == pytest.approx(
            exact, abs=1e-6
        )


@pytest.mark.parametrize("distance", distances.DISTANCES)
@pytest.mark.parametrize("copies", [37, 301])
def test_equal_pictures_tie_and_the_lower_row_is_first(distance, copies):
    # The same feature everywhere in the gallery: whatever the matrix product rounds, it must round everywhere alike.
    generator = np.random.default_rng(3)
    features = np.concatenate([generator.normal(size=(5, 129)), np.repeat(generator.normal(size=(1, 129)), copies, 0)])
    identity = np.concatenate([[0, 1, 2, 3, 4], np.arange(copies) % 5])
    trial = Trial(np.arange(5), np.arange(5, 5 + copies), np.full(5, -1), np.full(copies, -1))
    (matches,) = rank_trials(features, identity, [trial], distance=distance)
    expected = [list(range(number + 1, copies + 1, 5)) for number in range(5)]
    assert [matches.ranks[a:b].tolist() for a, b in zip(matches.start, matches.start[1:], strict=False)] == expected
    rows, far = top_matches(features, trial, [4, 0], 3, distance=distance)
    assert rows.tolist() == [[5, 6, 7]] * 2
    assert far[:, 0] == pytest.approx(far[:, 2])


@given(st.integers(0, 2**32 - 1), st.sampled_from(distances.DISTANCES))
@settings(max_examples=25, deadline=None)
def test_rank_lists_show_what_was_ranked(seed, distance):
    generator = np.random.default_rng(seed)
    identity = generator.integers(0, 4, 40)
    features = generator.normal(size=(40, 6)).astype(np.float32)
    (trial,) = random_trials(generator, 40, identity, 1)
    (matches,) = rank_trials(features, identity, [trial], distance=distance)
    rows, far = top_matches(features, trial, np.arange(len(trial.query)), 20, distance=distance)
    for q, key in enumerate(trial.query_key):
        shown = rows[q][rows[q] >= 0]
        assert len(shown) == min((trial.gallery_key != key).sum(), 20)
        places = (np.flatnonzero(identity[shown] == identity[trial.query[q]]) + 1).tolist()
        ranks = matches.ranks[matches.start[q] : matches.start[q + 1]]
        assert places == ranks[ranks <= 20].tolist()
        assert (np.diff(far[q, : len(shown)]) >= -1e-5).all() and np.isnan(far[q, len(shown) :]).all()


def test_large_and_small_features_keep_their_order():
    generator = np.random.default_rng(4)
    plain = generator.normal(size=(40, 8))
    identity = np.tile(np.arange(5), 8)
    trial = Trial(np.arange(20), np.arange(20, 40), np.full(20, -1), np.full(20, -1))
    for distance in distances.DISTANCES:
        (expected,) = rank_trials(plain, identity, [trial], distance=distance)
        for scale in (1e-200, 1e-25, 1e25, 1e200):
            scaled = plain * scale
            for features in (scaled, scaled.astype(np.float32)) if 1e-30 < scale < 1e30 else (scaled,):
                (found,) = rank_trials(features, identity, [trial], distance=distance)
                assert found.ranks.tolist() == expected.ranks.tolist()


def test_features_far_from_the_origin_keep_their_euclidean_order():
    generator = np.random.default_rng(5)
    plain = generator.normal(size=(40, 8))
    identity = np.tile(np.arange(5), 8)
    trial = Trial(np.arange(20), np.arange(20, 40), np.full(20, -1), np.full(20, -1))
    (expected,) = rank_trials(plain, identity, [trial], distance="euclidean")
    (found,) = rank_trials(plain + 1e4, identity, [trial], distance="euclidean")
    assert found.ranks.tolist() == expected.ranks.tolist()


def test_a_feature_of_zeros_stands_at_distance_one():
    features = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert distances.pairwise(features[:1], features).tolist() == [[0.0, 1.0, 2.0]]
    assert distances.pairwise(features[1:2], features).tolist() == [[1.0, 1.0, 1.0]]
