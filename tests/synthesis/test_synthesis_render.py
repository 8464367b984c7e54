"""The ray caster compared with the slow reference, and with rays worked by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.synthesis import World, render, world

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracles import synthesis as oracle


def scenes(monkeypatch, count: int, **factors) -> list[tuple[tuple, np.ndarray]]:
    """The arguments and results of the ray caster in `render_person`."""
    kept = []

    def recording(*given_):
        kept.append((given_, render.render(*given_)))
        return kept[-1][1]

    monkeypatch.setattr(world, "render", recording)
    people = World(count, seed=3, **factors)
    for index in range(count):
        world.render_person(people, index, camera=1 + index % 9, modality=index % 2, moment=index, size=(48, 24))
    return kept


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_fast_and_slow_pictures_agree(monkeypatch, difficulty):
    for (*tables, channels), fast in scenes(monkeypatch, 8, difficulty=difficulty):
        slow = oracle.render(*tables)
        assert channels == 3 or np.ptp(slow, axis=-1).max() < 1e-12  # one channel says all of an infrared scene
        different = np.abs(slow[..., :channels] - fast).max(axis=-1) > 1e-4
        assert different.mean() < 0.004  # by rounding, a ray may be on the other side of a pattern's edge
        assert 0.01 < fast.mean() < 10


def test_a_ray_worked_by_hand():
    # From z = 5 along -z to a ball of radius 1 at 0: 4. To a capsule of radius 0.5 upright at x = 0.3:
    # ρ = 0.5 at z = sqrt(0.25 - 0.09) = 0.4, so 4.6.
    assert render._ball(0.0, 0.0, 5.0, 0.0, 0.0, -1.0, 1.0) == pytest.approx(4.0)
    assert render._meet(0.3, 1.0, 5.0, 0.0, 0.0, -1.0, 2.0, 0.5, 0.5) == pytest.approx(4.6)
    assert render._meet(0.6, 1.0, 5.0, 0.0, 0.0, -1.0, 2.0, 0.5, 0.5) == render.FAR


@settings(max_examples=40, deadline=None)
@given(
    origin=st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(2.5, 6)),
    aim=st.tuples(st.floats(-1, 1), st.floats(-0.5, 2)),
    length=st.floats(0, 1.5),
    start=st.floats(0.1, 0.8),
    end=st.floats(0.1, 0.8),
)
def test_the_point_met_lies_on_the_swept_balls(origin, aim, length, start, end):
    o = np.array(origin)
    d = np.array([aim[0], aim[1], 0.0]) - o
    t = render._meet(*o, *d, length, start, end)
    share = np.linspace(0, 1, 601)  # the solid is the union of all balls between the two

    def depth(at: float) -> float:
        point = o + at * d
        centres = np.stack([0 * share, share * length, 0 * share], axis=1)
        return float((start + share * (end - start) - np.linalg.norm(point - centres, axis=1)).max())

    if t == render.FAR:
        assert max(depth(at) for at in np.linspace(0, 2, 60)) < 1e-3
    else:
        assert abs(depth(t)) < 1e-3
        assert max(depth(at) for at in np.linspace(0, t * 0.999, 25)) < 1e-3


def test_a_hem_cuts_and_a_nearer_part_hides():
    parts = np.zeros((2, render.PART))
    for index, (depth, high) in enumerate([(0.0, 1e6), (1.0, 0.0)]):
        parts[index, render.MAP : render.MAP + 9] = parts[index, render.FRAME : render.FRAME + 9] = np.eye(3).ravel()
        parts[index, render.ORIGIN + 2] = parts[index, render.FRAME_ORIGIN + 2] = depth
        parts[index, [render.START, render.END]] = 0.8
        parts[index, [render.LOW, render.HIGH, render.FACE_Z, render.FACE_Y]] = -1e6, high, 1e6, -1e6
    setting = np.zeros(render.SETTING)
    setting[render.CAMERA : render.WINDOW] = 0, 0, 5, 0, 0, -1, 1, 0, 0, 0, 1, 0
    setting[render.WINDOW : render.KEY] = -0.1, -0.1, 0.2, 0.2
    which, far = render.nearest(parts, setting, 20, 20)
    assert set(which[:10].ravel()) == {0}  # the nearer ball is cut away above its hem
    assert set(which[10:].ravel()) == {1}
    assert far[10, 10] == pytest.approx(3.2, abs=0.01)
