"""Curves of parameter studies that `reproduce` and `sweep` write: which rows make one, and what it shows."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from vireid.data.errors import BadInput
from vireid.experiments.rows import Comparison, Ours
from vireid.figures.sweep import of_rows, swept, write_curves
from vireid.recipes import Row


def test_rows_that_vary_a_parameter_are_grouped_and_sorted():
    names = ["f/tau=0.25", "f/tau=0.05", "f/m=4", "f/m=-1"]
    assert swept(names) == {
        "f/tau": [(0.05, "f/tau=0.05"), (0.25, "f/tau=0.25")],
        "f/m": [(-1.0, "f/m=-1"), (4.0, "f/m=4")],
    }


@pytest.mark.parametrize("odd", ["f/full", "f/mode=hinge", "f/m=nan", "f/m=", "f"])
def test_one_row_of_another_kind_makes_it_no_sweep(odd):
    assert swept(["f/m=1", odd]) == {}


def _row(name: str, rank1: float | None, *, generated: bool = False) -> Comparison:
    ours = None
    if rank1 is not None:
        metrics = {"rank1": rank1, "map": rank1}
        ours = Ours("regdb/v2i", metrics, {}, {}, (0,), (1, 2), 10, (), generated, "2 cores", ("run",), "2026-01-01")
    return Comparison("recipe", name, Row(None), ours)


def _points(figure) -> list[tuple[float, float]]:
    (points,) = figure.numbers["lines"].values()
    return [(point["value"], point["metrics"]["map"]) for point in points]


def test_reproduced_rows_become_one_figure_for_each_parameter():
    found = [_row("f/a=2", 10.0), _row("f/a=1", 20.0), _row("f/a=3", None), _row("f/b=0", 30.0), _row("f/b=1", 5.0)]
    figures = of_rows(found)
    assert {one.name: _points(one) for one in figures} == {
        "curves-f-a": [(1, 20.0), (2, 10.0)],
        "curves-f-b": [(0, 30.0), (1, 5.0)],
    }
    more = of_rows([*found, _row("table1/full", 3.0)])
    assert [one.name for one in more] == ["curves-f-a", "curves-f-b"], "other tables do not matter"
    assert "regdb/v2i" in figures[0].caption and "2 of 10 folds, seed 0" in figures[0].caption
    assert "generated" not in figures[0].caption


def test_single_points_are_no_curve():
    assert of_rows([_row("f/a=0", 10.0), _row("f/b=1", 20.0)]) == []
    assert of_rows([_row("f/a=0", 10.0), _row("f/full", 20.0)]) == []


@pytest.mark.parametrize("generated, on, printed", [(False, 1, [55.0]), (True, 1, []), (False, 0, [])])
def test_the_papers_numbers_stand_beside_real_pictures_of_their_protocol_only(generated, on, printed):
    row = Row(None, {"rank1": 60.0, "map": 55.0, "minp": None}, ("llcm/i2v", "regdb/v2i")[on])
    found = [_row("f/a=0", 10.0, generated=generated), replace(_row("f/a=1", 20.0, generated=generated), row=row)]
    (figure,) = of_rows(found)
    assert [point["metrics"]["map"] for point in figure.numbers["printed"]] == printed
    assert ("generated pictures" in figure.caption) == generated


def test_curves_are_written_and_said(tmp_path):
    said: list[str] = []
    write_curves(tmp_path / "new", of_rows([_row("f/a=0", 10.0), _row("f/a=1", 20.0)]), said.append)
    names = ["curves-f-a.png", "curves-f-a.svg", "figures.json"]
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == names
    assert said == [f"curves: {tmp_path / 'new' / name}" for name in names]
    write_curves(tmp_path / "none", [], said.append)
    assert not (tmp_path / "none").exists()


def test_without_matplotlib_the_verbs_go_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what Python does for a package that cannot be imported
    said: list[str] = []
    write_curves(tmp_path / "new", of_rows([_row("f/a=0", 10.0), _row("f/a=1", 20.0)]), said.append)
    assert said == ["no curves: figures need matplotlib and scikit-learn: pip install 'vireid[figures]'"]
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        write_curves(tmp_path / "file" / "a", of_rows([_row("f/a=0", 10.0), _row("f/a=1", 20.0)]), print)
