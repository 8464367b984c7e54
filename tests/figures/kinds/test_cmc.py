"""CMC and precision–recall of runs against their reports, and what is drawn of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.small import SECOND
from vireid.cli.main import main
from vireid.evaluation.curves import curves
from vireid.figures.drawing import Look
from vireid.figures.kinds import cmc
from vireid.figures.subject import Subject, Where, subjects

RANKS = (1, 5, 10, 20)


@pytest.fixture(scope="module")
def about(runs, worlds) -> dict[str, Subject]:
    """A run on its world, by layout."""
    return {layout: subjects([runs[layout]], Where(f"{layout}:{worlds[layout]}", workers=0))[0] for layout in worlds}


@pytest.fixture(scope="module")
def others(runs, worlds, tmp_path_factory) -> list[Subject]:
    """Three runs on one world: two seeds of a configuration with another one between them."""
    world, folder = f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path_factory.mktemp("cmc")
    for name, changed in (("longer", "epochs=3"), ("again", "seed=1")):
        given = ["train", "agw", "--data", world, "--run", str(folder / name), "--workers", "0"]
        assert main([*given, "--set", *SECOND, changed]) == 0
    return subjects([runs["sysu-mm01"], folder / "longer", folder / "again"], Where(world, workers=0))


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_a_line_has_the_numbers_of_the_report_to_the_last_digit(about, layout):
    one = about[layout]
    (figure,) = cmc.figures([one], cmc.Choices())
    report, numbers = one.evaluation.report, figure.numbers[one.name]
    assert [numbers[f"rank{k}"] for k in RANKS] == [getattr(report, f"rank{k}") for k in RANKS]
    assert [numbers["cmc"]["mean"][k - 1] for k in RANKS] == [getattr(report, f"rank{k}") for k in RANKS]
    assert numbers["map"] == pytest.approx(report.map, abs=1e-10)
    assert numbers["precision"]["mean"].mean() == pytest.approx(report.map, abs=1e-10)
    if len(report.trials) > 1:
        first = [trial["rank1"] for trial in report.trials]
        assert (numbers["cmc"]["low"][0], numbers["cmc"]["high"][0]) == (min(first), max(first))
        assert f"{one.name}: 10 trials" in figure.caption
    else:
        assert "low" not in numbers["cmc"] and "band" not in figure.caption
    assert ("ranks count identities" in figure.caption) == (report.cmc == "identity")
    assert figure.caption.endswith(one.says())


def test_runs_of_several_seeds_are_one_line_with_a_band_over_seeds(others):
    (figure,) = cmc.figures(others, cmc.Choices())
    first, longer, again = others
    assert list(figure.numbers) == ["agw: epochs=2", "longer"]
    found = figure.numbers["agw: epochs=2"]
    both = [one.evaluation.report.rank1 for one in (first, again)]
    assert both[0] != both[1]
    assert found["cmc"]["low"][0] == pytest.approx(min(both)) and found["cmc"]["high"][0] == pytest.approx(max(both))
    assert found["rank1"] == pytest.approx(np.mean(both))
    assert found["map"] == pytest.approx(np.mean([one.evaluation.report.map for one in (first, again)]))
    assert figure.numbers["longer"]["rank1"] == longer.evaluation.report.rank1
    assert "agw: epochs=2: 2 runs, longer: 10 trials." in figure.caption
    assert all(one.says() in figure.caption for one in others)


def test_a_group_has_the_name_that_all_of_its_runs_were_given(others):
    same = [Subject(one.run, name, one.where) for one, name in zip(others, ("A", "B", "A"), strict=True)]
    for one, like in zip(same, others, strict=True):
        vars(one)["model"] = like.model
    assert [(name, len(members)) for name, members in cmc.grouped(same)] == [("A", 2), ("B", 1)]


def test_runs_before_their_last_epoch_are_not_grouped_with_finished_ones(others):
    from dataclasses import replace

    first, _, again = others
    earlier = Subject(again.run, "earlier", again.where)
    vars(earlier)["model"] = replace(again.model, epochs=1)
    assert [name for name, _ in cmc.grouped([first, earlier])] == [first.name, "earlier"]


LINES = (np.array([[40.0, 60, 70, 80, 90], [50, 80, 90, 100, 100]]), np.array([[80.0, 20], [60, 40]]))


@pytest.mark.parametrize(
    "band, low, high",
    [("range", [40, 60, 70, 80, 90], [50, 80, 90, 100, 100]), ("std", [40, 60, 70, 80, 90], [50, 80, 90, 100, 100])],
)
def test_the_band_of_two_curves(band, low, high):
    """The population standard deviation of two numbers is half of their difference, so both bands are equal."""
    found = cmc.cmc({"one": LINES}, band=band).numbers["one"]
    assert found["cmc"]["mean"].tolist() == [45, 70, 80, 90, 95]
    np.testing.assert_allclose(found["cmc"]["low"], low)
    np.testing.assert_allclose(found["cmc"]["high"], high)
    assert (found["rank1"], found["rank5"], found["map"]) == (45, 95, 50)


def test_one_standard_deviation_of_three_curves():
    lines = np.array([[10.0], [20.0], [60.0]])
    found = cmc.cmc({"one": (lines, lines)}, band="std").numbers["one"]["precision"]
    assert found["mean"] == 30 and found["high"] - 30 == pytest.approx(21.602, abs=1e-3)
    assert "low" not in cmc.cmc({"one": (lines, lines)}, band="none").numbers["one"]["precision"]


@pytest.mark.parametrize("width", ["column", "page"])
def test_names_and_values_stand_in_the_figure(width):
    name = "a configuration with a name that is much longer than a line of the legend can be"
    drawn = cmc.cmc({"one": LINES, name: LINES}).image(Look(width=width), "svg").decode()
    assert ">one<" in drawn and drawn.count(">R1 45.0 · R5 95.0 · mAP 50.0<") == 2
    assert ">recall, %<" in drawn and ">CMC, %<" in drawn and name not in drawn
    for words in ("a configuration with a name", "legend can be"):
        assert words in drawn


@pytest.mark.parametrize("panel, other", [("cmc", ">recall, %<"), ("precision", ">rank<")])
def test_one_panel_alone(about, panel, other):
    (figure,) = cmc.figures([about["llcm"]], cmc.Choices(panels=panel, ranks=5))
    assert other not in figure.image(Look(), "svg").decode()
    assert ({"cmc", "precision"} & set(figure.numbers[about["llcm"].name])) == {panel}
    if panel == "cmc":
        assert len(figure.numbers[about["llcm"].name]["cmc"]["mean"]) == 5


def test_a_band_and_the_dash_of_each_line_are_drawn(about):
    from vireid.figures.drawing import matplotlib, style

    one = about["sysu-mm01"]
    lines = curves(one.evaluation)
    with matplotlib().rc_context(style(Look())):
        made = cmc.cmc({"one": lines, "two": lines}).draw(Look())
    left = made.axes[0]
    assert [line.get_linestyle() for line in left.lines] == ["-", "--"]
    assert [line.get_marker() for line in left.lines] == ["o", "^"]
    assert len(left.collections) == 2  # the bands
    np.testing.assert_allclose(left.lines[0].get_ydata(), lines[0].mean(axis=0))


def test_without_pictures_it_is_left_out(runs, capsys, tmp_path: Path):
    given = ["figures", str(runs["regdb"]), "--out", str(tmp_path), "--format", "svg"]
    assert main(given) == 0
    assert "cmc, distances, ranked, tsne: pictures are needed: --data LAYOUT:PATH" in capsys.readouterr().err
