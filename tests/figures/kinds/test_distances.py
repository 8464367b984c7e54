"""Distances of pairs: the densities, which pairs, and the numbers beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vireid.figures
from tests.oracles import separation as oracle
from vireid.data.errors import BadInput
from vireid.evaluation.pairs import overlap, pair_distances
from vireid.figures.drawing import Look
from vireid.figures.kinds import DoesNotApply
from vireid.figures.kinds.distances import density
from vireid.figures.of_runs import draw
from vireid.figures.subject import Where, subjects


@pytest.fixture
def pictures():
    """Eight people with four pictures of each modality; infrared pictures are moved in one direction."""
    generator = np.random.default_rng(0)
    identity, modality = np.repeat(np.arange(8), 8), np.tile([0, 1], 32)
    features = generator.normal(size=(8, 16))[identity] + 0.3 * generator.normal(size=(64, 16))
    return features + 2.0 * modality[:, None] * np.eye(16)[0], identity, modality


@pytest.mark.parametrize("place, spread", [(0.05, 0.05), (0.8, 0.2), (1.98, 0.1)])
def test_a_density_is_that_of_the_slow_loop_and_has_area_one(place: float, spread: float) -> None:
    values = np.clip(np.random.default_rng(0).normal(place, spread, 300), 0, 2)
    x, y = density(values)
    quarter, three = np.percentile(values, (25, 75))
    width = 0.9 * min(values.std(), (three - quarter) / 1.34) * 300**-0.2
    slow = [oracle.density(values.tolist(), at, width) for at in x[::10]]
    assert y[::10] == pytest.approx(slow, abs=0.02 * y.max())
    assert y.sum() * (x[1] - x[0]) == pytest.approx(1.0, abs=1e-9)


def test_a_density_of_equal_values_is_narrow_and_finite() -> None:
    x, y = density(np.full(5, 0.5))
    assert np.isfinite(y).all() and abs(x[y.argmax()] - 0.5) < 0.01
    assert y[np.abs(x - 0.5) > 0.05].max() < 1e-6 * y.max()


def test_the_numbers_are_those_of_the_pairs(pictures):
    key = np.arange(64) % 3
    found, pairs = vireid.figures.distances(*pictures, key=key), pair_distances(*pictures, key=key)
    numbers = found.numbers[""]
    for kind, one in pairs.items():
        expected = overlap(one.same, one.different)
        assert numbers[kind]["pairs"] == {"same": len(one.same), "different": len(one.different)}
        for name in ("same_mean", "different_std", "d_prime", "equal_error_rate"):
            assert numbers[kind][name] == getattr(expected, name)
        for which in numbers[kind]["density"]:
            mean = (numbers["distance"] * numbers[kind]["density"][which]).sum() * 2 / len(numbers["distance"])
            assert mean == pytest.approx(getattr(expected, f"{which}_mean"), abs=0.02)


def test_the_gap_and_the_table_are_written_into_the_figure(pictures):
    found = vireid.figures.distances(*pictures)
    numbers, svg = found.numbers[""], found.image(Look(), "svg").decode()
    within = (numbers["visible"]["same_mean"] + numbers["infrared"]["same_mean"]) / 2
    gap = numbers["modality_gap"]["same"]
    assert gap["distance"] == pytest.approx(numbers["across"]["same_mean"] - within) and gap["distance"] > 0.02
    assert f">Δ {gap['distance']:.3f} ({gap['deviations']:.1f} σ)<" in svg
    for kind in ("visible", "infrared", "across"):
        assert f">{numbers[kind]['d_prime']:.2f}<" in svg
        assert f">{numbers[kind]['equal_error_rate']:.1f} %<" in svg
    assert "all pairs" in found.caption


def test_a_draw_is_said_and_seeded(pictures):
    first, again, other = (vireid.figures.distances(*pictures, pairs=20, seed=seed) for seed in (3, 3, 4))
    assert "at most 20 pairs of each kind, drawn at random (seed 3)" in first.caption
    assert first.numbers[""]["across"]["pairs"] == {"same": 20, "different": 20}
    assert first.numbers[""]["across"]["same_mean"] == again.numbers[""]["across"]["same_mean"]
    assert first.numbers[""]["across"]["same_mean"] != other.numbers[""]["across"]["same_mean"]


@pytest.mark.parametrize("look", [Look(), Look("dark", "page")])
def test_one_to_five_networks_can_be_drawn(pictures, look):
    features, identity, modality = pictures
    for names in ("a", "abc" if look.width == "column" else "abcde"):
        found = vireid.figures.distances(dict.fromkeys(names, features), identity, modality)
        assert list(found.numbers) == list(names)
        assert found.image(look).startswith(b"\x89PNG")


def test_a_kind_of_pairs_that_does_not_exist_is_left_out(pictures):
    """All infrared pictures have one key, as those of one camera would."""
    features, identity, modality = pictures
    found = vireid.figures.distances(features, identity, modality, key=np.where(modality == 1, 3, -1))
    numbers = found.numbers[""]
    assert numbers["infrared"]["density"] == {} and numbers["infrared"]["d_prime"] is None
    within = numbers["visible"]["same_mean"]
    assert numbers["modality_gap"]["same"]["distance"] == pytest.approx(numbers["across"]["same_mean"] - within)
    assert ">–<" in found.image(Look(), "svg").decode()


def test_what_cannot_be_drawn(pictures):
    features, identity, modality = pictures
    with pytest.raises(DoesNotApply, match="no pairs of a visible and an infrared picture of one person"):
        vireid.figures.distances(features, 2 * identity + modality, modality)
    with pytest.raises(DoesNotApply, match="no pairs of a visible and an infrared picture of two people"):
        vireid.figures.distances(features, np.zeros(64, int), modality)
    with pytest.raises(BadInput, match="pairs cannot be 0; it takes a whole number of 1 or more"):
        vireid.figures.distances(*pictures, pairs=0)


@pytest.mark.parametrize(
    ("layout", "excluded"), [("sysu-mm01", "Pairs of one place are left out"), ("llcm", "Pairs of one"), ("regdb", "")]
)
def test_a_run_is_drawn_of_the_pairs_that_its_protocol_compares(runs, worlds, layout: str, excluded: str) -> None:
    """Across the modalities, these are the pairs of queries and gallery pictures that a trial compares."""
    data = f"{layout}:{worlds[layout]}"
    (found,) = draw([runs[layout]], data=data, figures=["distances"], names=["AGW"], workers=0)
    (one,) = subjects([runs[layout]], Where(data, workers=0))
    identity, compared = one.records.identity, set()
    for trial in one.trials:
        for query, query_key in zip(trial.query, trial.query_key, strict=True):
            for picture, key in zip(trial.gallery, trial.gallery_key, strict=True):
                if query_key == -1 or query_key != key:
                    compared.add((query, picture))
    same = sum(identity[query] == identity[picture] for query, picture in compared)
    assert found.numbers["AGW"]["across"]["pairs"] == {"same": same, "different": len(compared) - same}
    assert excluded in found.caption and ("left out" in found.caption) == bool(excluded)
    assert one.rules.name in found.caption
    mean = np.mean([1 - one.features[a] @ one.features[b] for a, b in compared if identity[a] == identity[b]])
    assert found.numbers["AGW"]["across"]["same_mean"] == pytest.approx(mean, abs=1e-4)


def test_tracklets_are_compared_picture_by_picture(runs: dict[str, Path], worlds: dict[str, Path]) -> None:
    """A key of a tracklet is the key of all its pictures."""
    from vireid.data.protocol import Trial
    from vireid.figures.kinds.distances import keys

    (one,) = subjects([runs["regdb"]], Where(f"regdb:{worlds['regdb']}", workers=0))
    sides = (np.array([0, 2]), np.array([5, 7]))
    sets = ((np.array([0, 1]), np.array([2, 3])), (np.array([5, 6]), np.array([7])))
    vars(one)["_drawn"] = (one.records, one.rules, [Trial(*sides, np.array([4, 9]), np.array([8, 4]), *sets)])
    assert keys(one)[:9].tolist() == [4, 4, 9, 9, -1, 8, 8, 4, -1]
