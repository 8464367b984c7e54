"""How far features separate people and modalities, on features whose answer is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score

from tests.oracles import separation as oracle
from vireid.data.errors import BadInput
from vireid.evaluation.separation import centroids, draw_people, probe, separation, silhouette


def features_of(people: int, pictures: int, *, offset: float = 0.0, around: float = 0.5, seed: int = 0):
    """Features, identities and modalities of people with as many pictures of each modality. `offset` parts them."""
    generator = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people) + 100, 2 * pictures)
    modality = np.tile(np.repeat([0, 1], pictures), people)
    features = generator.normal(size=(people, 16))[identity - 100] + around * generator.normal(size=(len(identity), 16))
    features[:, 0] += offset * (2 * modality - 1)
    order = generator.permutation(len(identity))
    return features[order], identity[order], modality[order]


def test_the_silhouette_is_scikit_learns():
    features, identity, _ = features_of(7, 3)
    expected = silhouette_score(features, identity, metric="cosine")
    assert silhouette(features, identity) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_silhouettes_are_those_of_the_slow_loop(offset):
    """Some people have one picture, or pictures of one modality only."""
    features, identity, modality = features_of(6, 3, offset=offset, around=1.0)
    kept = ~((identity == 100) & (modality == 1)) & (np.arange(len(identity)) != np.flatnonzero(identity == 101)[0])
    kept &= (identity != 102) | (np.cumsum(identity == 102) == 1)
    features, identity, modality = features[kept], identity[kept], modality[kept]
    assert (identity == 102).sum() == 1
    lists = features.tolist(), identity.tolist(), modality.tolist()
    assert silhouette(features, identity) == pytest.approx(oracle.silhouette(*lists[:2]), abs=1e-6)
    assert silhouette(features, identity, modality) == pytest.approx(oracle.silhouette(*lists), abs=1e-6)


def test_silhouettes_of_equal_pictures_and_of_nothing():
    one = np.ones((4, 3))
    assert silhouette(one, np.array([1, 1, 2, 2])) == 0.0
    assert np.isnan(silhouette(one, np.array([1, 1, 1, 1])))
    assert np.isnan(silhouette(one, np.array([1, 2, 3, 4])))


def test_the_silhouette_across_sees_what_the_plain_one_hides():
    """In each modality, the people are apart, but infrared person k lies at visible person k + 1."""
    centre = np.eye(6)
    identity, modality = np.repeat(np.arange(6), 8), np.tile(np.repeat([0, 1], 4), 6)
    features = centre[(identity + modality) % 6] + 0.02 * np.random.default_rng(0).normal(size=(48, 6))
    assert silhouette(features, identity, modality) < -0.9
    assert silhouette(features, identity) > silhouette(features, identity, modality) + 0.3


def test_centroids_by_hand():
    """Visible pictures at 90° and infrared ones at 0° with 60° to both sides: by hand, on the circle."""
    angles = np.radians([90, 90, 60, -60])
    features = 3.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distance, spread = centroids(features, np.array([0, 0, 1, 1]))
    assert distance == pytest.approx(np.sqrt(1 + 0.25), abs=1e-6)  # (0, 1) and (½, 0)
    assert spread == pytest.approx((0 + np.sqrt(0.75)) / 2, abs=1e-6)


def test_a_probe_finds_the_modality_where_there_is_one_and_chance_where_there_is_none():
    assert probe(*features_of(20, 6, offset=30.0))[0] == 100.0
    values = [probe(*features_of(40, 6, seed=seed))[0] for seed in range(5)]
    assert np.mean(values) == pytest.approx(50.0, abs=3.0)


def test_a_probe_is_tested_on_people_it_was_not_fitted_on():
    """Each picture tells who it shows, and nothing else: fitted on the same people, the probe would learn them."""
    generator = np.random.default_rng(0)
    cells = generator.normal(size=(40, 2, 64))  # one direction for each person and modality
    identity, modality = np.repeat(np.arange(40), 8), np.tile(np.repeat([0, 1], 4), 40)
    features = cells[identity, modality]
    fitted = LogisticRegression(max_iter=1000).fit(features, modality).score(features, modality)
    assert fitted > 0.7
    assert probe(features, identity, modality)[0] < 60.0


def test_both_modalities_count_equally_in_the_probe():
    """Of 9 pictures of a person, 4 visible ones look like the infrared one: 50 % of visible and 100 % of infrared."""
    identity, modality = np.repeat(np.arange(10), 9), np.tile([0] * 8 + [1], 10)
    features = np.eye(2)[np.tile([0] * 4 + [1] * 5, 10)]
    assert probe(features, identity, modality) == (75.0, 90)


def test_the_probe_is_seeded():
    given = features_of(20, 4)
    assert probe(*given, seed=3) == probe(*given, seed=3)
    assert len({probe(*given, seed=seed)[0] for seed in range(4)}) > 1


def test_people_are_drawn_with_both_modalities_and_no_more_pictures_than_asked():
    _, identity, modality = features_of(9, 5)
    kept = (identity != 104) | (modality == 0)
    identity, modality = identity[kept], modality[kept]
    found = draw_people(identity, modality, people=6, pictures=3, seed=0)
    assert (np.diff(found) > 0).all()
    cells, sizes = np.unique(np.stack([identity[found], modality[found]]), axis=1, return_counts=True)
    assert cells.shape[1] == 12 and (sizes == 3).all() and 104 not in cells[0]
    draws = [draw_people(identity, modality, people=6, pictures=3, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    everything = draw_people(identity, modality, people=99, pictures=99, seed=0)
    assert np.array_equal(everything, np.flatnonzero(identity != 104))
    seen = {n for seed in range(40) for n in draw_people(identity, modality, people=6, pictures=3, seed=seed).tolist()}
    assert seen == set(everything.tolist())


def test_all_numbers_of_a_network():
    features, identity, modality = features_of(8, 4, offset=2.0)
    alone = np.r_[identity, 500, -1, -1]  # a person with one visible picture, and two unknown people
    more = np.concatenate([features, features[:3] * 0.5 + 1.0])
    kinds = np.r_[modality, 0, 0, 1]
    found = separation(more, alone, kinds)
    assert (found.pictures, found.people, found.probe_pictures) == (65, 8, 64)
    assert found.silhouette == pytest.approx(silhouette(more[:65], alone[:65]))
    assert found.silhouette_across == pytest.approx(silhouette(more[:65], alone[:65], kinds[:65]))
    assert (found.centroid_distance, found.spread) == centroids(features, modality)
    assert found.centroid_ratio == pytest.approx(found.centroid_distance / found.spread)
    assert found.probe == probe(features, identity, modality)[0]


def test_tensors_and_words_are_welcome_and_scale_does_not_matter():
    features, identity, modality = features_of(6, 3, offset=1.0)
    words = np.array(["rgb", "thermal"])[modality]
    given = torch.from_numpy(features * np.linspace(1, 9, len(features))[:, None])
    plain, scaled = separation(features, identity, modality), separation(given, torch.from_numpy(identity), words)
    for name in ("silhouette", "silhouette_across", "probe", "centroid_distance", "spread"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), abs=1e-5)


def test_features_without_any_spread_have_no_ratio():
    features = np.eye(2)[np.tile([0, 1], 4)]
    found = separation(features, np.repeat([1, 2], 4), np.tile([0, 1], 4))
    assert found.centroid_ratio == np.inf and found.probe == 100.0


def test_people_of_one_modality_are_refused():
    features, identity, modality = features_of(3, 2)
    with pytest.raises(BadInput, match="needs two people with pictures of both modalities; there are 0"):
        separation(features, identity * 2 + modality, modality)


def test_it_is_said_what_is_missing_without_scikit_learn(monkeypatch):
    for name in ("sklearn", "sklearn.model_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r"scikit-learn: pip install 'vireid\[figures\]'"):
        separation(*features_of(3, 2))
