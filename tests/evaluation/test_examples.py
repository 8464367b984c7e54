"""The choice of queries and of mistakes against loops over everything."""

from __future__ import annotations

import numpy as np
import pytest

from vireid.data.protocol import Trial
from vireid.evaluation.examples import choose, mistakes
from vireid.evaluation.ranking import rank_trials

PRECISION = np.array([0.5, 1.0, np.nan, 1.0, 0.1, 0.1, 0.9, 0.3])
PEOPLE = np.array([1, 1, 9, 2, 3, 3, 2, 4])


def test_the_best_and_the_worst_of_different_people():
    best = choose(PRECISION, PEOPLE, "best", 3)
    assert set(best[:2]) == {1, 3} and best[2] == 7  # 6 is of person 2, who is shown already
    worst = choose(PRECISION, PEOPLE, "worst", 9)
    assert worst[0] in (4, 5) and worst[1:].tolist() == [7, 0, 6]


def test_equal_queries_come_in_an_order_of_the_seed():
    found = {tuple(choose(PRECISION, PEOPLE, "best", 2, seed=seed)) for seed in range(20)}
    assert found == {(1, 3), (3, 1)}


def test_random_queries_depend_on_the_seed_only_and_have_a_true_match():
    drawn = [choose(PRECISION, PEOPLE, "random", 2, seed=seed) for seed in range(40)]
    assert np.array_equal(drawn[3], choose(PRECISION, PEOPLE, "random", 2, seed=3))
    assert np.unique(drawn).tolist() == [0, 1, 3, 4, 5, 6, 7]
    assert all(len(set(PEOPLE[one])) == 2 for one in drawn)


def slow(features, identity, trial, by):
    """Every query whose nearest picture shows somebody else: (query, wrong, right, rank), the surest first."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = []
    for query, key in zip(trial.query, trial.query_key, strict=True):
        seen = [g for g, k in zip(trial.gallery, trial.gallery_key, strict=True) if key == -1 or k != key]
        order = sorted(seen, key=lambda g: (-round(float(unit[query] @ unit[g]), 12), g))
        true = [g for g in order if identity[g] == identity[query]]
        if not true or order[0] == true[0]:
            continue
        near, far = (float(unit[query] @ unit[g]) for g in (order[0], true[0]))
        sure = near if by == "similarity" else near - far
        found.append((sure, (query, order[0], true[0], order.index(true[0]) + 1), near, far))
    kept, people = [], set()
    for one in sorted(found, key=lambda one: -one[0]):
        if identity[one[1][0]] not in people:
            people.add(identity[one[1][0]])
            kept.append(one)
    return kept


@pytest.mark.parametrize("by", ["similarity", "margin"])
@pytest.mark.parametrize("seed", range(6))
def test_mistakes_are_those_of_the_slow_loop(seed, by):
    rng = np.random.default_rng(seed)
    identity = rng.integers(0, 8, 70)
    features = rng.normal(size=(70, 5)) + 0.7 * rng.normal(size=(8, 5))[identity]
    trial = Trial(np.arange(30), np.arange(30, 70), rng.integers(-1, 3, 30), rng.integers(-1, 3, 40))
    (matches,) = rank_trials(features, identity, [trial])
    wanted = slow(features, identity, trial, by)
    assert len(wanted) > 3
    found = mistakes(features, identity, trial, matches, 3, by=by)
    assert [(m.query, m.wrong, m.right, m.rank) for m in found] == [one[1] for one in wanted[:3]]
    values = [(m.similarity, m.true_similarity) for m in found]
    np.testing.assert_allclose(values, [one[2:] for one in wanted[:3]], atol=1e-6)


def test_a_query_without_a_true_match_makes_no_mistake():
    """Query 0 sees no picture at all, query 1 none of its person, query 2 is right."""
    features = np.eye(4, 2)[[0, 0, 1, 1]] + 0.1
    trial = Trial(np.arange(3), np.array([3]), np.array([5, -1, -1]), np.array([5]))
    identity = np.array([1, 2, 1, 1])
    (matches,) = rank_trials(features, identity, [trial])
    assert mistakes(features, identity, trial, matches, 5, by="margin") == []
