"""t-SNE: what is drawn, of whom, and the numbers beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import vireid.figures
from vireid.data.errors import BadInput
from vireid.evaluation.separation import separation
from vireid.figures.drawing import Look
from vireid.figures.kinds import DoesNotApply
from vireid.figures.of_runs import draw
from vireid.figures.subject import Where, subjects


@pytest.fixture
def pictures():
    """Ten people with six pictures of each modality, who are far apart; people 0 to 2 have visible pictures only."""
    generator = np.random.default_rng(0)
    identity, modality = np.repeat(np.arange(13), 12), np.tile(np.repeat([0, 1], 6), 13)
    modality[identity < 3] = 0
    features = generator.normal(size=(13, 16))[identity] + 0.1 * generator.normal(size=(156, 16))
    return features, identity, modality


def test_it_draws_the_people_that_are_asked_for_and_keeps_them_together(pictures):
    found = vireid.figures.tsne(*pictures, people=5, pictures=4).numbers[""]
    assert found["points"].shape == (40, 2)
    people, times = np.unique(found["identity"], return_counts=True)
    assert len(people) == 5 and (people >= 3).all() and (times == 8).all()
    assert (np.bincount(found["modality"]) == 20).all()
    away = np.linalg.norm(found["points"][:, None] - found["points"], axis=2)
    np.fill_diagonal(away, np.inf)
    assert (found["identity"][away.argmin(axis=1)] == found["identity"]).all()


def test_the_numbers_are_of_all_pictures_not_only_of_those_drawn(pictures):
    found = vireid.figures.tsne(*pictures, people=3, pictures=2, seed=5)
    numbers, all_of_them = found.numbers[""], separation(*pictures, seed=5)
    for name in ("pictures", "people", "silhouette", "silhouette_across", "probe", "centroid_ratio"):
        assert numbers[name] == getattr(all_of_them, name)
    assert "156 pictures of 10 people" in found.caption and "of 3 people" in found.caption


def test_the_seed_decides_and_the_perplexity_is_said(pictures):
    first, again, other = (vireid.figures.tsne(*pictures, people=3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.numbers[""]["points"], again.numbers[""]["points"])
    assert first.image(Look()) == again.image(Look())
    assert set(first.numbers[""]["identity"]) != set(other.numbers[""]["identity"])
    assert "seed 1)" in first.caption and "perplexity 11.6667," in first.caption  # (3 × 12 − 1) / 3
    asked = vireid.figures.tsne(*pictures, people=3, perplexity=5)
    assert asked.numbers[""]["perplexity"] == 5 and "perplexity 5," in asked.caption


def test_features_are_compared_by_direction(pictures):
    features, identity, modality = pictures
    scaled = features * np.linspace(1, 3, len(features))[:, None]
    drawn = [vireid.figures.tsne(one, identity, modality).numbers[""]["points"] for one in (features, scaled)]
    groups = [np.linalg.norm(one[:, None] - one, axis=2).argsort(axis=1)[:, 1:8] for one in drawn]
    same = [len(set(a) & set(b)) for a, b in zip(*groups, strict=True)]
    assert np.mean(same) > 6  # of the seven nearest


def test_several_networks_show_the_same_people(pictures):
    features, identity, modality = pictures
    found = vireid.figures.tsne({"M4": features, "PECA": features[:, :8]}, identity, modality, pictures=3)
    assert list(found.numbers) == ["M4", "PECA"]
    assert np.array_equal(found.numbers["M4"]["identity"], found.numbers["PECA"]["identity"])
    svg = found.image(Look(), "svg").decode()
    for text in ("M4", "PECA", "silhouette across", "modality probe", "visible", "infrared"):
        assert f">{text}<" in svg
    for person in np.unique(found.numbers["M4"]["identity"]):
        assert svg.count(f">{person}<") >= 2  # in both panels


@pytest.mark.parametrize("look", [Look(), Look("dark", "page")])
def test_many_people_and_many_networks_can_be_drawn(pictures, look):
    features, identity, modality = pictures
    names = ["a name that is much too long for a panel of this width", *("bc" if look.width == "column" else "bcde")]
    found = vireid.figures.tsne(dict.fromkeys(names, features), identity, modality, people=10, pictures=2)
    assert found.image(look).startswith(b"\x89PNG")


def test_what_cannot_be_drawn(pictures, monkeypatch):
    features, identity, modality = pictures
    with pytest.raises(DoesNotApply, match="two people with pictures of both modalities; there are 0"):
        vireid.figures.tsne(features[:36], identity[:36], modality[:36])
    with pytest.raises(BadInput, match="people cannot be 1; it takes a whole number of 2 or more"):
        vireid.figures.tsne(*pictures, people=1)
    with pytest.raises(BadInput, match="identity has shape"):
        vireid.figures.tsne(features, identity[1:], modality)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(BadInput, match=r"need scikit-learn: pip install"):
        vireid.figures.tsne(*pictures)


def test_a_run_is_drawn_from_what_the_protocol_uses(runs: dict[str, Path], worlds: dict[str, Path]) -> None:
    run, data, protocol = runs["sysu-mm01"], f"sysu-mm01:{worlds['sysu-mm01']}", "sysu-mm01/indoor/single"
    asked = {
        "figures": ["tsne"],
        "set": ["tsne.people=2", "tsne.pictures=4"],
        "names": ["AGW"],
        "protocol": protocol,
        "workers": 0,
    }
    (found,) = draw([run], data=data, **asked)
    (one,) = subjects([run], Where(data, protocol, workers=0))
    assert len(one.samples) < len(one.records)  # two visible cameras are outdoors
    features, records = one.features[one.samples], one.records.take(one.samples)
    assert found.name == "tsne" and np.unique(found.numbers["AGW"]["identity"], return_counts=True)[1].tolist() == [
        8,
        8,
    ]
    expected = separation(features, records.identity, records.modality)
    assert found.numbers["AGW"]["silhouette"] == pytest.approx(expected.silhouette, abs=1e-4)
    assert found.numbers["AGW"]["pictures"] == len(one.samples)
    for text in ("AGW: agw", "seed 0", "last checkpoint", "protocol sysu-mm01/indoor/single", "generated pictures"):
        assert text in found.caption


def test_without_pictures_it_does_not_apply(runs: dict[str, Path]) -> None:
    with pytest.raises(DoesNotApply, match="--data"):
        draw([runs["regdb"]], figures=["tsne"])
    names = [one.name for one in draw([runs["regdb"]])]
    assert "training" in names and not {"tsne", "distances"} & set(names)
