"""The generated world: it has the colour shortcut and the information to be learnt, and it leaks no identity."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.synthesis import World, attributes, contact_sheet, render_person
from vireid.synthesis.garment import Strengths, draw_material
from vireid.synthesis.person import draw_pose, skeleton
from vireid.synthesis.world import FACTORS, PRETRAINING_SEEDS, encoded, person, write_world

PEOPLE = 48
SIZE = (64, 32)
WORLD = World(PEOPLE, seed=1)


@pytest.fixture(scope="module")
def shots() -> dict[str, np.ndarray]:
    """Each person four times at two visible cameras and three times at two infrared ones."""
    taken = [
        (identity, camera, int(modality), render_person(
            WORLD, identity, camera=camera, modality=modality, moment=moment, size=SIZE))
        for identity in range(PEOPLE)
        for modality, cameras, moments in ((Modality.VISIBLE, (1, 4), 4), (Modality.INFRARED, (3, 6), 3))
        for camera in cameras
        for moment in range(moments)
    ]  # fmt: skip
    identity, camera, modality, pixels = zip(*taken, strict=True)
    sizes = [len(encoded(picture, "x.jpg", Modality(kind))) for picture, kind in zip(pixels, modality, strict=True)]
    columns = {"identity": identity, "camera": camera, "modality": modality, "pixels": pixels, "bytes": sizes}
    return {name: np.array(values) for name, values in columns.items()}


def rank1(features: np.ndarray, identity: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> float:
    """Share of queries with the same person in the nearest gallery picture, other than the query itself."""
    one, two = features[query], features[gallery]
    near = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1)[None] - 2 * one @ two.T
    near[np.flatnonzero(query)[:, None] == np.flatnonzero(gallery)[None]] = np.inf
    return float((identity[gallery][near.argmin(axis=1)] == identity[query]).mean())


def mean_colours(pixels: np.ndarray) -> np.ndarray:
    """Log mean colour of the upper and the lower body, N×6: what a network learns first."""
    _, height, width, _ = pixels.shape
    middle = pixels[:, :, int(0.34 * width) : int(0.66 * width)].astype(float)
    bands = [middle[:, int(a * height) : int(b * height)].mean(axis=(1, 2)) for a, b in ((0.2, 0.45), (0.5, 0.72))]
    return np.log(np.concatenate(bands, axis=1) + 8.0)


def hog(picture: np.ndarray, cells: tuple[int, int] = (12, 6), bins: int = 9) -> np.ndarray:
    """Histograms of gradient directions per cell, each of unit length."""
    down, across = np.gradient(picture.astype(float).mean(axis=-1))
    direction = np.mod(np.arctan2(down, across), np.pi)
    height, width = direction.shape
    line, column = np.indices((height, width))
    place = (line * cells[0] // height, column * cells[1] // width, np.minimum(direction * bins / np.pi, bins - 1))
    found = np.zeros((*cells, bins))
    np.add.at(found, tuple(index.astype(int) for index in place), np.hypot(down, across))
    return (found / (np.linalg.norm(found, axis=-1, keepdims=True) + 1e-6)).ravel()


def test_mean_colour_is_a_shortcut_within_visible_and_none_across(shots):
    features, identity = mean_colours(shots["pixels"]), shots["identity"]
    within = [shots["camera"] == camera for camera in (1, 4)]
    found = np.mean([rank1(features, identity, own, own) for own in within])
    across = rank1(features, identity, shots["modality"] == 1, shots["modality"] == 0)
    assert found > 0.30  # fifteen times chance, though half the people have look-alikes
    assert across < 0.08  # chance is 0.02


def test_infrared_is_no_grey_copy_and_pose_does_not_leak(shots):
    grey = shots["pixels"].astype(float).mean(axis=-1).reshape(len(shots["pixels"]), -1)
    grey = (grey - grey.mean(axis=1, keepdims=True)) / grey.std(axis=1, keepdims=True)
    gradients = np.array([hog(picture) for picture in shots["pixels"]])
    for features in (grey, gradients):
        assert rank1(features, shots["identity"], shots["modality"] == 1, shots["modality"] == 0) < 0.09


def test_file_sizes_say_nothing_across_modalities(shots):
    sizes = shots["bytes"][:, None].astype(float)
    assert rank1(sizes, shots["identity"], shots["modality"] == 1, shots["modality"] == 0) < 0.08


def test_no_linear_probe_reads_the_identity_from_the_border(shots):
    pixels, identity = shots["pixels"] / 255.0, shots["identity"]
    border = np.concatenate([pixels[:, :, :2], pixels[:, :, -2:]], axis=2).reshape(len(pixels), -1)
    right = []
    for camera in (1, 4):
        own = np.flatnonzero(shots["camera"] == camera)
        learn, test = own[np.arange(len(own)) % 4 < 3], own[3::4]
        # Ridge regression to one-hot identities in its dual form: a linear probe with a closed solution.
        mean = border[learn].mean(axis=0)
        kernel = (border[learn] - mean) @ (border[learn] - mean).T
        weights = np.linalg.solve(kernel + 5.0 * np.eye(len(learn)), np.eye(PEOPLE)[identity[learn]])
        guess = ((border[test] - mean) @ (border[learn] - mean).T @ weights).argmax(axis=1)
        right.append((guess == identity[test]).mean())
    assert np.mean(right) < 0.13


def test_true_attributes_find_nearly_everybody():
    truth = np.array([attributes(WORLD, identity) for identity in range(PEOPLE)])
    rng = np.random.default_rng(0)
    seen = np.concatenate([truth, truth]) + 0.07 * rng.standard_normal((2 * PEOPLE, truth.shape[1]))
    identity, query = np.tile(np.arange(PEOPLE), 2), np.repeat([True, False], PEOPLE)
    assert rank1(seen, identity, query, ~query) > 0.95
    assert truth.dtype == np.float64 and np.abs(truth).max() < 3


@pytest.mark.parametrize("factor", FACTORS)
def test_each_factor_can_be_switched_and_changes_pictures(factor):
    off, on = (World(6, seed=2, **{factor: value}) for value in (0.0, 1.0))
    different = [
        not np.array_equal(*(
            render_person(w, identity, camera=1, modality=kind, moment=moment, size=(32, 16)) for w in (off, on)))
        for identity in range(6) for kind in (0, 1) for moment in range(2)
    ]  # fmt: skip
    assert any(different)


def test_a_factor_leaves_other_draws_alone():
    for identity in range(9):
        vivid, pale = (person(World(9, colour_shortcut=value), identity) for value in (1.0, 0.2))
        assert vivid.body == pale.body
        assert vivid.outfit.bag.kind == pale.outfit.bag.kind
        assert vivid.outfit.upper.pattern == pale.outfit.upper.pattern


def test_no_colour_shortcut_leaves_grey_clothes_and_no_gap_a_grey_copy():
    strengths = World(1, colour_shortcut=0.0, sensor_gap=0.0).strengths()
    cloth = draw_material(np.random.default_rng(0), strengths)
    assert np.ptp(cloth.visible) == pytest.approx(0.0)
    assert cloth.infrared == pytest.approx(cloth.visible[0])


def test_infrared_reflectance_is_independent_of_colour():
    rng, strengths = np.random.default_rng(0), World(1, colour_shortcut=1.0, sensor_gap=1.0).strengths()
    cloths = [draw_material(rng, strengths) for _ in range(600)]
    luminance = [np.dot((0.2126, 0.7152, 0.0722), cloth.visible) for cloth in cloths]
    assert abs(np.corrcoef(luminance, [cloth.infrared for cloth in cloths])[0, 1]) < 0.12


def test_look_alikes_share_body_and_clothes_but_for_one_or_two_things():
    world = World(30, seed=4, look_alikes=1.0)
    for first in range(0, 30, 3):
        one, *others = (person(world, first + member) for member in range(3))
        truth = [attributes(world, first + member) for member in range(3)]
        for other, its in zip(others, truth[1:], strict=True):
            assert other.body == one.body
            assert other.outfit.upper.material == one.outfit.upper.material
            assert not np.allclose(its, truth[0])
        assert not np.allclose(truth[1], truth[2])
    alone = World(30, seed=4, look_alikes=0.0)
    assert len({person(alone, identity).body for identity in range(30)}) == 30


def test_the_same_picture_again_and_never_the_same_moment_in_two_modalities():
    again = [render_person(WORLD, 3, camera=2, modality=0, moment=1, size=SIZE) for _ in range(2)]
    assert np.array_equal(*again)
    world = World(1, sensor_gap=0.0)
    pair = [render_person(world, 0, camera=2, modality=kind, moment=1, size=SIZE).mean(axis=-1) for kind in (0, 1)]
    assert np.abs(np.corrcoef(hog(pair[0][..., None]), hog(pair[1][..., None]))[0, 1]) < 0.9


def test_infrared_pictures_are_grey_and_visible_ones_are_not(shots):
    infrared, visible = shots["pixels"][shots["modality"] == 1], shots["pixels"][shots["modality"] == 0]
    assert np.array_equal(infrared[..., 0], infrared[..., 1]) and np.array_equal(infrared[..., 0], infrared[..., 2])
    assert np.ptp(visible.astype(int), axis=-1).mean() > 10
    assert shots["pixels"].dtype == np.uint8 and shots["pixels"].shape[1:] == (*SIZE, 3)


def test_people_stand_on_the_floor_and_are_as_tall_as_they_are():
    strengths = WORLD.strengths()
    rng = np.random.default_rng(0)
    for identity in range(20):
        body = person(WORLD, identity).body
        pose = dataclasses.replace(draw_pose(rng, body, strengths.nuisance), stride=0.0)
        bones = skeleton(dataclasses.replace(body, stoop=0.0), dataclasses.replace(pose, nod=0.0))
        assert min(ankle[1] for ankle in bones.ankles) == pytest.approx(0.045 * body.height)
        assert bones.head[1] + body.head * body.height == pytest.approx(body.height, rel=0.05)


def test_factors_follow_the_difficulty_until_told_otherwise():
    assert World(1).strengths().colour_shortcut == pytest.approx(0.875)  # 1 - 0.5³
    assert World(1).strengths().sensor_gap == 0.5
    assert World(1).strengths().look_alikes == pytest.approx(0.5**1.3)
    assert World(1, difficulty=0.0).strengths() == Strengths(0, 0, 0, 0, 0, 0)
    assert World(1, difficulty=1.0, occlusion=0.25).strengths() == Strengths(1, 1, 1, 1, 0.25, 1)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"identities": 0}, "identities"),
        ({"identities": 2.5}, "identities"),
        ({"identities": 2, "seed": -1}, "seed"),
        ({"identities": 2, "difficulty": 1.2}, "difficulty"),
        ({"identities": 2, "difficulty": None}, "difficulty"),
        ({"identities": 2, "occlusion": "much"}, "occlusion"),
        ({"identities": 2, "sensor_gap": float("nan")}, "sensor_gap"),
    ],
)
def test_a_world_of_impossible_numbers_is_refused(given, word):
    with pytest.raises(BadInput, match=word):
        World(**given)


def test_impossible_pictures_are_refused():
    with pytest.raises(BadInput, match="0 to 1"):
        render_person(World(2), 2, camera=1, modality=0, moment=0, size=SIZE)
    with pytest.raises(BadInput, match="visible, infrared"):
        render_person(World(2), 0, camera=1, modality=Modality.AUXILIARY, moment=0, size=SIZE)
    with pytest.raises(BadInput, match="identities"):
        contact_sheet(World(2), identities=3)


def test_a_contact_sheet_has_visible_pictures_left_and_grey_ones_right():
    sheet = np.asarray(contact_sheet(World(2), identities=2, per_modality=2, size=(48, 24)))
    middle = sheet.shape[1] // 2
    left, right = sheet[:, :middle].astype(int), sheet[:, middle:].astype(int)
    assert np.ptp(right, axis=-1).max() == 0 < np.ptp(left, axis=-1).max()


def test_people_of_the_pretrained_weights_are_in_no_other_world(tmp_path):
    first, last = PRETRAINING_SEEDS.start, PRETRAINING_SEEDS.stop - 1
    for seed in (first, last):
        with pytest.raises(BadInput, match="are reserved"):
            write_world(tmp_path / "world", World(6, seed=seed), layout="sysu-mm01", workers=1)
    assert not (tmp_path / "world").exists()
    for seed in (first - 1, last + 1):
        write_world(tmp_path / str(seed), World(6, seed=seed), layout="regdb", size=Size(16, 8), pictures=1, workers=1)
