"""Masks of the person, rendered again from a world on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.pictures import read_picture
from vireid.data.size import Size
from vireid.synthesis import World, render, render_person
from vireid.synthesis.masks import masks
from vireid.synthesis.world import _scene, render_mask, write_world

SIZE = (64, 32)


@pytest.mark.parametrize("identity", range(6))
def test_other_clothes_change_the_picture_where_the_mask_is(identity: int) -> None:
    """The colour of clothes changes nothing else of a picture, so what it changes is the person."""
    plain, coloured = (World(6, seed=3, occlusion=0.0, colour_shortcut=value) for value in (0.0, 1.0))
    how = {"camera": 1, "modality": Modality.VISIBLE, "moment": 0, "size": SIZE}
    pictures = [render_person(world, identity, **how).astype(float) for world in (plain, coloured)]
    mask = render_mask(plain, identity, **how)
    assert mask.shape == SIZE and mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 0.25, 0.5, 0.75, 1}
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 12
    assert not changed[mask == 0].any()
    assert changed[mask == 1].mean() > 0.4


def test_what_stands_in_front_and_other_people_do_not_belong_to_the_person() -> None:
    """The mask is where the nearest part of the person is nearer than the nearest one of anything else."""
    world = World(20, seed=5, occlusion=1.0)
    hidden = strangers = 0
    for identity in range(20):
        scene = _scene(world, identity, 2, Modality.VISIBLE, 1)
        parts, rays = scene.tables[0], (2 * SIZE[0], 2 * SIZE[1])
        _, own = render.nearest(parts[: scene.own], scene.setting, *rays)
        _, other = render.nearest(parts[scene.own :], scene.setting, *rays)
        expected = (own < render.FAR) & (own <= other)
        found = render_mask(world, identity, camera=2, modality=Modality.VISIBLE, moment=1, size=SIZE)
        np.testing.assert_allclose(found, expected.reshape(SIZE[0], 2, SIZE[1], 2).mean(axis=(1, 3)))
        hidden += int(((own < render.FAR) & ~expected).sum())
        strangers += int(((other < render.FAR) & ~expected).sum())
    assert hidden > 500 and strangers > hidden


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_the_masks_of_a_world_on_disk_are_those_of_its_people(worlds: dict[str, Path], layout: str) -> None:
    records = datasets.read(layout, worlds[layout])
    chosen = records.take(np.arange(0, len(records), 7)[:12])
    found = masks(worlds[layout], list(chosen.path), (48, 24))
    assert found.shape == (len(chosen), 48, 24) and found.dtype == np.float32
    assert set(chosen.modality.tolist()) == {0, 1}
    assert ((found.mean(axis=(1, 2)) > 0.05) & (found.mean(axis=(1, 2)) < 0.6)).all()
    for place, path in enumerate(chosen.path):  # the person differs from the background beside it
        picture = read_picture(worlds[layout] / path, Size(48, 24)).astype(float).mean(axis=2)
        edge = np.abs(np.diff(picture, axis=1))
        outline = np.abs(np.diff(found[place], axis=1)) > 0.5
        assert edge[outline].mean() > edge[~outline].mean()


def test_the_folder_says_what_its_plan_was_made_from(tmp_path: Path) -> None:
    """In LLCM, the number of test people changes which cameras and paths the later people have."""
    world, root = World(12, seed=2), tmp_path / "world"
    write_world(root, world, layout="llcm", size=Size(32, 16), pictures=2, tested=5, workers=1)
    records = datasets.read("llcm", root)
    assert len(masks(root, list(records.path), (32, 16))) == len(records)


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_an_older_world_does_not_say_its_plan(worlds: dict[str, Path], layout: str, tmp_path: Path) -> None:
    root = shutil.copytree(worlds[layout], tmp_path / "older")
    facts = json.loads((root / "GENERATED.json").read_text())
    assert facts.pop("plan") == {"pictures": 3, "published_counts": False, "tested": None}
    (root / "GENERATED.json").write_text(json.dumps(facts))
    paths = list(datasets.read(layout, root).path[:30:3])
    np.testing.assert_array_equal(masks(root, paths, SIZE), masks(worlds[layout], paths, SIZE))


def test_a_picture_of_somebody_else_is_refused(worlds: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(worlds["sysu-mm01"], tmp_path / "world")
    files = [root / "cam1" / f"{number:04d}" / "0001.jpg" for number in (1, 2)]
    shutil.copy(files[0], files[1])
    masks(root, ["cam1/0001/0001.jpg"], SIZE)
    with pytest.raises(BadInput, match=r"0002/0001\.jpg is not the picture that the generated world"):
        masks(root, ["cam1/0001/0001.jpg", "cam1/0002/0001.jpg"], SIZE)
    shutil.copy(files[0], root / "cam1" / "0001" / "mine.jpg")
    with pytest.raises(BadInput, match=r"mine\.jpg is not the picture"):
        masks(root, ["cam1/0001/mine.jpg"], SIZE)
    (root / "GENERATED.json").unlink()
    with pytest.raises(BadInput, match="is not a generated world"):
        masks(root, ["cam1/0001/0001.jpg"], SIZE)
