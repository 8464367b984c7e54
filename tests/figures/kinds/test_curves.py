"""Curves over a number: which field is found, which runs are a line, the error bars, and the paper's numbers."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from tests.figures.invented import invented, measured
from vireid.data.errors import BadInput
from vireid.figures.drawing import Look
from vireid.figures.kinds import DoesNotApply
from vireid.figures.kinds.curves import PRINTED, curves
from vireid.figures.measured import Point
from vireid.figures.of_runs import draw

PROTOCOL = "sysu-mm01/all/single"


@pytest.fixture(scope="module")
def like(runs, worlds):
    return measured(runs["sysu-mm01"], worlds["sysu-mm01"], "sysu-mm01", PROTOCOL)


@pytest.fixture
def make(like, tmp_path):
    """`make(spec, mAP, field=value, …)` is a run; Rank-1 is 10 above the mAP."""

    def made(spec: str, value: float, *set: str, seed: int = 0, **more):
        name = "-".join([spec.replace(":", "-").replace("/", "-"), *set, str(seed), *map(str, more)])
        return invented(tmp_path / name, like, spec, {"map": value, "rank1": value + 10}, seed=seed, set=set, **more)

    return made


def points(figure) -> dict[str, list[tuple[float, float]]]:
    """Line → (value, mAP)."""
    return {line: [(p["value"], p["metrics"]["map"]) for p in drawn] for line, drawn in figure.numbers["lines"].items()}


def test_two_numbers_that_are_varied_one_after_the_other_are_two_curves(make):
    """As in figure 4 of the fusion paper: θ1 at θ2 = 1, then θ2 at θ1 = 0.6. The runs have nothing else in common."""
    first = [make("fusion_dml", 50 + k, f"mutual.theta1={k / 5}", "mutual.theta2=1.0") for k in (4, 0, 3)]
    second = [make("fusion_dml", 40 + k, f"mutual.theta2={k / 5}") for k in (0, 9)]
    by_name = {one.name: one for one in draw([*first, *second], figures=["curves"])}
    assert sorted(by_name) == ["curves-mutual-theta1", "curves-mutual-theta2"]
    assert points(by_name["curves-mutual-theta1"]) == {"": [(0.0, 50), (0.6, 53), (0.8, 54)]}
    assert points(by_name["curves-mutual-theta2"]) == {"": [(0.0, 40), (1.0, 53), (1.8, 49)]}
    assert "at mutual.theta2=1.0: fusion_dml" in by_name["curves-mutual-theta1"].caption
    assert "generated pictures, not real ones" in by_name["curves-mutual-theta1"].caption


def test_a_point_is_the_mean_over_seeds_with_the_interval_or_the_deviation(make):
    values = {0.25: (50.0, 52.0, 57.0), 0.75: (40.0, 41.0, 42.0)}
    found = [
        make("peca", value, f"modality.weight={weight}", seed=seed)
        for weight, each in values.items()
        for seed, value in enumerate(each)
    ]
    for bars, half in (
        ("interval", lambda each: 4.303 * statistics.stdev(each) / math.sqrt(3)),
        ("std", statistics.pstdev),
    ):
        (figure,) = draw(found, figures=["curves"], set={"curves.bars": bars})
        drawn = figure.numbers["lines"][""]
        for point, (weight, each) in zip(drawn, values.items(), strict=True):
            assert point["value"] == weight
            assert point["metrics"]["map"] == pytest.approx(statistics.mean(each))
            assert point["bars"]["map"] == pytest.approx(half(each))
        assert {"interval": "95 % interval", "std": "standard deviation"}[bars] in figure.caption
    (alone,) = draw(found[::3], figures=["curves"])
    assert all(not point["bars"] for point in alone.numbers["lines"][""])
    assert "no error bars" in alone.caption


def test_a_second_field_makes_several_lines_and_a_field_of_a_part_that_is_left_out_has_no_value(make):
    found = [make("peca", 50 + k, f"modality.weight={k}", f"gsl={gsl}") for k in (0, 1) for gsl in ("null", "GSL")]
    found.append(make("peca", 30, "modality=null"))
    (figure,) = draw(found, figures=["curves"])
    assert figure.name == "curves-modality-weight"
    assert sorted(map(len, points(figure).values())) == [2, 2]
    assert sorted(line.split(", ")[0] for line in points(figure)) == ["gsl=GSL", "gsl=null"]


def test_recipes_are_lines_of_their_own(make):
    found = [make(name, 50 + k, f"optimiser.lr={k / 100}") for name in ("agw", "peca") for k in (1, 2)]
    (figure,) = draw(found, figures=["curves"])
    assert points(figure) == {"agw": [(0.01, 51), (0.02, 52)], "peca": [(0.01, 51), (0.02, 52)]}


@pytest.mark.parametrize("generated, expected", [(True, []), (False, [(0.5, 74.89, 72.28)])])
def test_the_papers_numbers_are_drawn_for_real_pictures_only(make, generated, expected):
    found = [make(f"peca:figure6/lambda_m={k}", 50, generated=generated) for k in ("0.25", "0.50", "0.75")]
    (figure,) = draw(found, figures=["curves"])
    printed = [(p["value"], p["metrics"]["rank1"], p["metrics"]["map"]) for p in figure.numbers["printed"]]
    assert printed == expected


def test_the_papers_numbers_of_another_protocol_are_not_drawn(make):
    """Rows of RegDB, measured by a protocol of SYSU-MM01."""
    rows = [f"peca:figure6-regdb/lambda_m={k}" for k in ("0.25", "0.50")]
    (figure,) = draw([make(row, 50, generated=False) for row in rows], figures=["curves"])
    # The configuration is that of figure6/lambda_m=0.50 too, whose numbers are of this protocol.
    assert [p["metrics"]["rank1"] for p in figure.numbers["printed"]] == [74.89]


def test_why_there_is_no_curve(make, runs, like, tmp_path):
    with pytest.raises(DoesNotApply, match="no two of these runs differ in the value of one number only"):
        draw([make("agw", 50, seed=0), make("agw", 51, seed=1)], figures=["curves"])
    with pytest.raises(DoesNotApply, match="differ in the value of one number only"):
        draw([make("peca", 50, "modality.weight=0", "instance.temperature=0.2"), make("peca", 5)], figures=["curves"])
    flipped = [make("agw", 50, f"optimiser.lr={k / 100}", seed=5, flip=True) for k in (1, 2)]
    with pytest.raises(DoesNotApply, match="without flip and re-ranking: vireid test"):
        draw(flipped, figures=["curves"])


def test_a_field_without_a_curve_names_those_with_one(make):
    found = [make("agw", 50, f"optimiser.lr={k / 100}") for k in (1, 2)]
    with pytest.raises(BadInput, match=r"unknown field with a curve 'lr'.*optimiser\.lr"):
        draw(found, figures=["curves"], set={"curves.over": "lr"})
    (figure,) = draw(found, figures=["curves"], set={"curves.over": "optimiser.lr", "curves.label": "rate"})
    assert figure.numbers["x"] == "rate"


# --- the drawing ------------------------------------------------------------------------------------------------------


def line(*values: float, bar: float | None = 1.0) -> list[Point]:
    bars = {} if bar is None else {"rank1": bar, "map": bar}
    return [Point(value, {"rank1": 60 + value, "map": 50 - value}, bars) for value in values]


def test_each_metric_has_a_panel_with_every_line_and_its_bars():
    made = curves({"a": line(0, 1, 2), "b": line(1, 3, bar=None)}, x="k", printed=[Point(1, {"map": 44.0})]).draw(
        Look()
    )
    left, right = made.axes
    assert (left.get_title(), right.get_title(), left.get_xlabel()) == ("Rank-1, %", "mAP, %", "k")
    drawn = {one.get_label(): one for one in right.containers}
    assert drawn["a"].lines[0].get_ydata().tolist() == [50, 49, 48]
    (bars,) = drawn["a"].lines[2]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[49, 51], [48, 50], [47, 49]]
    assert drawn["b"].lines[2] == ()
    styles = [(one.lines[0].get_marker(), one.lines[0].get_linestyle()) for one in right.containers]
    assert len({marker for marker, _ in styles}) == len({dash for _, dash in styles}) == 2, "readable in grey"
    (paper,) = (one for one in right.lines if one.get_label() == PRINTED)
    assert paper.get_ydata().tolist() == [44.0] and paper.get_alpha() < 1
    (nowhere,) = (one for one in left.lines if one.get_label() == PRINTED)
    assert np.isnan(nowhere.get_ydata()).all()
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["a", "b", PRINTED]


def test_a_line_alone_has_no_legend_and_few_values_are_all_written_at_the_axis():
    made = curves({"": line(0.05, 0.1, 0.25)}, x="τ", metrics=["map"]).draw(Look())
    made.draw_without_rendering()
    (axis,) = made.axes
    assert not made.legends
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0.05", "0.1", "0.25"]


def test_values_that_are_too_close_to_be_written_all_leave_the_axis_to_round_numbers():
    """As λ2 in figure S1 of WRIM-Net."""
    made = curves({"": line(0.05, 0.1, 0.3, 0.5, 1.0)}, x="λ2").draw(Look())
    made.draw_without_rendering()
    shown = [text.get_window_extent() for text in made.axes[0].get_xticklabels() if text.get_text()]
    assert len(shown) >= 3 and all(one.x1 < other.x0 for one, other in itertools.pairwise(shown))


def test_a_long_name_stays_within_the_figure():
    made = curves({", ".join(f"part{n}.field=value{n}" for n in range(9)): line(0, 1), "b": line(0, 1)}, x="k").draw(
        Look()
    )
    made.draw_without_rendering()
    box = made.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= made.bbox.x1


def test_a_point_of_one_seed_beside_others_has_no_bar():
    points = [*line(0, 1), *line(2, bar=None)]
    (axis,) = curves({"": points}, x="k", metrics=["map"]).draw(Look()).axes
    (bars,) = axis.containers[0].lines[2]
    assert [len(segment) for segment in bars.get_segments()] == [2, 2, 0]


@pytest.mark.parametrize(
    "values, scale, found",
    [
        ((0.001, 0.01, 0.1), "auto", "log"),
        ((0.001, 0.01, 0.1), "linear", "linear"),
        ((0.0, 0.01, 0.1), "auto", "linear"),
        ((1.0, 2.0), "auto", "linear"),
        ((1.0, 2.0), "log", "log"),
    ],
)
def test_the_axis_is_logarithmic_for_values_of_several_magnitudes(values, scale, found):
    made = curves({"": line(*values)}, x="k", scale=scale).draw(Look())
    assert {axis.get_xscale() for axis in made.axes} == {found}


def test_an_interval_that_is_longer_than_the_scale_does_not_squeeze_the_curve():
    made = curves({"": line(0, 1, bar=600.0)}, x="k").draw(Look())
    for axis in made.axes:
        low, high = axis.get_ylim()
        assert -5 < low < 0 and 100 < high < 105


def test_what_cannot_be_drawn():
    with pytest.raises(BadInput, match="a curve needs points"):
        curves({}, x="k")
    with pytest.raises(BadInput, match="a logarithmic axis cannot show 0"):
        curves({"": line(0, 1)}, x="k", scale="log")
