"""Cost against accuracy: the counts, one point for the seeds of a configuration, and labels that can be read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.figures.invented import invented, measured
from vireid.experiments.cost import cost as counted
from vireid.figures.drawing import Look
from vireid.figures.kinds.cost import cost, place
from vireid.figures.measured import Point
from vireid.figures.of_runs import draw

PROTOCOL = "sysu-mm01/all/single"
SMALL = ("trunk=tiny", "size=64x32")


@pytest.fixture(scope="module")
def found(runs, worlds, tmp_path_factory):
    """Two rows of WRIM-Net with two seeds each, and AGW with one."""
    folder = tmp_path_factory.mktemp("cost")
    like = measured(runs["sysu-mm01"], worlds["sysu-mm01"], "sysu-mm01", PROTOCOL)
    made = [
        invented(folder / f"{row}-{seed}", like, f"wrim_net:table3/{row}", {"map": value + seed}, seed=seed, set=SMALL)
        for row, value in (("baseline", 40.0), ("full", 50.0))
        for seed in (0, 1)
    ]
    return [*made, invented(folder / "small", like, "agw", {"map": 30.0, "rank1": 35.0}, set=SMALL)]


@pytest.mark.parametrize("of, scale", [("parameters_path", 1e6), ("macs_path", 1e9), ("parameters_stored", 1e6)])
def test_a_point_has_the_counts_of_the_runs_own_size_and_the_mean_over_seeds(found, of, scale):
    (figure,) = draw(found, figures=["cost"], set={"cost.of": of})
    points = figure.numbers["points"]
    assert list(points) == ["wrim_net:table3/baseline", "wrim_net:table3/full", "small"]
    for name, spec in (*((name, name) for name in list(points)[:2]), ("small", "agw")):
        assert points[name]["value"] == counted(spec, set=SMALL).counts[of] / scale
    assert [point["metrics"]["map"] for point in points.values()] == [40.5, 50.5, 30.0]
    assert points["small"]["bars"] == {} and points["wrim_net:table3/full"]["bars"]["map"] == pytest.approx(6.353)
    assert "at 64x32" in figure.caption and "without the classifier" in figure.caption


def test_configurations_of_one_row_are_told_apart(found, runs, worlds, tmp_path):
    like = measured(runs["sysu-mm01"], worlds["sysu-mm01"], "sysu-mm01", PROTOCOL)
    other = [
        invented(tmp_path / f"other-{seed}", like, "wrim_net:table3/full", {}, seed=seed, set=(*SMALL, "parts=3"))
        for seed in (0, 1)
    ]
    (figure,) = draw([*found[2:4], *other], figures=["cost"])
    assert list(figure.numbers["points"]) == ["parts=2", "parts=3"]


def test_each_metric_has_a_panel():
    points = {
        "a": Point(1.0, {"map": 40.0, "rank1": 50.0}),
        "b": Point(2.0, {"map": 30.0, "rank1": 60.0}, {"map": 2.0}),
    }
    made = cost(points, x="million", metrics=["map", "rank1"]).draw(Look())
    upper, lower = made.axes
    assert (upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()) == ("mAP, %", "Rank-1, %", "million")
    assert [one.lines[0].get_xydata().tolist() for one in upper.containers] == [[[1.0, 40.0]], [[2.0, 30.0]]]
    assert [bool(one.lines[2]) for one in upper.containers] == [False, True]
    assert len({one.lines[0].get_marker() for one in upper.containers}) == 2, "readable in grey"


# --- labels -----------------------------------------------------------------------------------------------------------


def boxes(axis) -> list[np.ndarray]:
    """Of the labels, in pixels: left, bottom, right, top."""
    return [np.array(text.get_window_extent().extents) for text in axis.texts]


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes share no more than a tenth of a pixel on a side."""
    return bool(((one[2:] <= other[:2] + 0.1) | (other[2:] <= one[:2] + 0.1)).any())


places = st.tuples(st.floats(20, 40).map(lambda x: round(x, 1)), st.floats(50, 60).map(lambda x: round(x, 1)))


@settings(max_examples=15, deadline=None)
@given(st.lists(places, min_size=1, max_size=8), st.sampled_from(["column", "page"]))
def test_labels_cover_neither_each_other_nor_a_point_and_stay_in_the_frame(at, width):
    """Also where points are close, or the same."""
    points = {f"wrim_net:row-{n}": Point(x, {"map": y}, {"map": 0.3}) for n, (x, y) in enumerate(at)}
    made = cost(points, x="million").draw(Look(width=width))
    made.draw_without_rendering()
    (axis,) = made.axes
    found = boxes(axis)
    assert [text.get_text() for text in axis.texts] == list(points)
    assert all(apart(one, other) for one, other in itertools.combinations(found, 2))
    middles = axis.transData.transform(at)
    assert not any((box[:2] < dot).all() and (dot < box[2:]).all() for box in found for dot in middles)
    frame = np.array(axis.get_window_extent().extents)
    assert all((box[:2] >= frame[:2] - 0.1).all() and (box[2:] <= frame[2:] + 0.1).all() for box in found)


def test_a_label_that_is_far_from_its_point_is_joined_to_it():
    near = {"alone": Point(1.0, {"map": 50.0})}
    crowd = {f"a long name of number {n}": Point(1.0, {"map": 50.0}) for n in range(8)}
    (lonely,) = cost(near, x="million").draw(Look()).axes
    (crowded,) = cost(crowd, x="million").draw(Look()).axes
    joins = [[one for one in axis.lines if len(one.get_xdata()) == 2] for axis in (lonely, crowded)]
    assert not joins[0] and joins[1]
    assert (lonely.get_xlim(), lonely.get_ylim()) == (crowded.get_xlim(), crowded.get_ylim()), (
        "nothing is moved by them"
    )


def test_if_no_place_is_free_the_one_that_covers_least_is_taken():
    frame, everything = np.array([0, 0, 100, 100]), np.array([0, 0, 100, 100])
    left = np.array([0, 0, 50, 100])
    x, _ = place((50, 50), (20, 10), [everything, left], frame, step=5)
    assert x >= 50, "right of the middle one thing is covered, left of it two"


def test_long_names_are_wrapped():
    name = "wrim_net: miim=[null,null,null,null], contrast=null, auxiliary=null"
    (axis,) = cost({name: Point(1, {"map": 2})}, x="million").draw(Look()).axes
    assert max(map(len, axis.texts[0].get_text().splitlines())) <= 26
