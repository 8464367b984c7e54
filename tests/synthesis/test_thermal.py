"""Thermal pictures show heat: bright skin, no prints, no shadows, nothing that depends on light or dye."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vireid.data.modality import Modality
from vireid.datasets import read
from vireid.synthesis import World, render_person, thermal
from vireid.synthesis.world import person, write_world

SIZE = (96, 48)
WORLD = World(24, seed=5, infrared="thermal", occlusion=0.0)


def picture(world: World, identity: int, modality: Modality = Modality.INFRARED) -> np.ndarray:
    return render_person(world, identity, camera=3, modality=modality, moment=0, size=SIZE)


def test_share_of_heat_reaches_one_at_the_default_gap():
    assert World(2).strengths().sensor_gap == 0.5 and thermal.share(0.5) == 1.0


def test_without_a_sensor_gap_a_thermal_camera_is_a_near_infrared_one():
    for identity in range(3):
        near = replace(WORLD, infrared="near", sensor_gap=0.0)
        assert np.array_equal(picture(replace(WORLD, sensor_gap=0.0), identity), picture(near, identity))


def test_visible_pictures_do_not_depend_on_the_infrared_camera():
    near = replace(WORLD, infrared="near")
    assert np.array_equal(picture(WORLD, 1, Modality.VISIBLE), picture(near, 1, Modality.VISIBLE))
    assert not np.array_equal(picture(WORLD, 1), picture(near, 1))


def test_skin_is_warmer_than_cloth_and_thin_cloth_warmer_than_thick():
    everybody = [thermal.warmed(person(WORLD, identity), 1.0) for identity in range(WORLD.identities)]
    for one in everybody:
        outfit = one.outfit
        cloth = [outfit.upper.material, outfit.lower.material, outfit.shoes.material, outfit.bag.material]
        assert one.skin.infrared == pytest.approx(thermal.SKIN)
        assert max(material.infrared for material in cloth) < thermal.SKIN
        assert outfit.upper.second.infrared == outfit.upper.material.infrared
        assert outfit.upper.pattern.infrared == outfit.upper.print.infrared == outfit.lower.pattern.infrared == 0.0
        assert min(material.infrared for material in cloth) > 0.0
    assert thermal.UPPER["t-shirt"] > thermal.UPPER["hooded"] > thermal.UPPER["coat"]


def test_a_print_and_a_pattern_do_not_show(monkeypatch):
    """Two people who differ only in print, pattern and colours have the same thermal picture."""
    own = person(WORLD, 4)
    upper, other = own.outfit.upper, person(WORLD, 9).outfit.upper
    assert upper.print != other.print
    painted = replace(
        upper,
        print=replace(other.print, kind="ring", infrared=1.0),
        pattern=replace(other.pattern, kind="checks", infrared=1.0),
        material=replace(upper.material, visible=(0.9, 0.1, 0.1)),
    )
    changed = replace(own, outfit=replace(own.outfit, upper=painted))
    before, seen = picture(WORLD, 4), picture(WORLD, 4, Modality.VISIBLE)
    monkeypatch.setattr("vireid.synthesis.world.person", lambda world, identity: changed)
    assert np.array_equal(before, picture(WORLD, 4))
    assert not np.array_equal(seen, picture(WORLD, 4, Modality.VISIBLE))


def test_nothing_is_lit_so_all_directions_of_a_surface_are_about_equal():
    numbers = np.random.default_rng(0).random(57)
    thermal.glow(numbers, 1.0)
    from vireid.synthesis import render as at

    assert numbers[at.ACTIVE] == numbers[at.SHADOW] == 0.0
    assert np.ptp([*numbers[at.SKY : at.GROUND], *numbers[at.GROUND : at.ACTIVE]]) == 0.0
    assert np.allclose(numbers[at.KEY_LIGHT : at.SKY], thermal.GRAZING)
    assert np.allclose(numbers[at.KEY : at.KEY_LIGHT], -numbers[at.FORWARD : at.RIGHT])


@pytest.mark.parametrize("layout, kind", [("regdb", "thermal"), ("sysu-mm01", "near"), ("llcm", "near")])
def test_the_layout_decides_the_camera(tmp_path, layout, kind):
    """The file that marks a world says so, and another camera can be asked for."""
    world = World(6, seed=2)
    for name, asked, expected in (("usual", world, kind), ("asked", replace(world, infrared="near"), "near")):
        write_world(tmp_path / name, asked, layout=layout, size=(32, 16), pictures=1, workers=1)  # type: ignore[arg-type]
        assert f'"infrared": "{expected}"' in (tmp_path / name / "GENERATED.json").read_text()
        assert len(read(layout, tmp_path / name))


def test_people_are_brighter_than_the_background():
    """In thermal pictures of RegDB the person stands out; in near-infrared ones that depends on clothes and lamp."""
    for identity in range(6):
        pixels = picture(WORLD, identity)[..., 0].astype(float)
        middle, border = pixels[20:80, 18:30], np.concatenate([pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
        assert middle.mean() > 1.5 * border.mean()
