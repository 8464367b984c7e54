"""Curves of parameter studies: which rows make one, and what the page shows."""

from __future__ import annotations

import math
import re

import pytest

from vireid.data.errors import BadInput
from vireid.experiments.rows import Comparison, Ours
from vireid.figures.sweep import swept, write_curve, write_curves
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


def _circles(page: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', page)]


def test_the_page_draws_every_value(tmp_path):
    out = write_curve(
        tmp_path / "new" / "tau.html", [(2, 60, 50), (1, 55, 45), (3, 50, 55)], parameter="τ <1>", notes=["a & b"]
    )
    page = out.read_text(encoding="utf-8")
    circles = _circles(page)
    assert len(circles) == 6
    rank1, mean = circles[:3], circles[3:]
    # Ascending in the value although given otherwise, evenly spaced, and higher is up (less y).
    assert rank1[1][0] - rank1[0][0] == pytest.approx(rank1[2][0] - rank1[1][0], abs=0.11)
    assert rank1[1][1] < rank1[0][1] < rank1[2][1]
    assert mean[2][1] < mean[1][1] < mean[0][1]
    assert "τ &lt;1&gt;" in page
    assert "a &amp; b" in page
    assert "<td>2</td><td>60.00</td><td>50.00</td>" in page
    assert [file.name for file in out.parent.iterdir()] == ["tau.html"]


def test_values_that_are_not_numbers_are_left_out(tmp_path):
    page = write_curve(tmp_path / "a.html", [(0, math.nan, 40), (1, 50, 41)], parameter="k").read_text("utf-8")
    assert len(_circles(page)) == 3


def test_a_page_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write"):
        write_curve(tmp_path / "file" / "a.html", [(0, 1, 2)], parameter="k")


def _row(name: str, rank1: float | None, *, generated: bool = False) -> Comparison:
    ours = None
    if rank1 is not None:
        metrics = {"rank1": rank1, "map": rank1}
        ours = Ours("regdb/v2i", metrics, {}, {}, (0,), (1, 2), 10, (), generated, "2 cores", ("run",), "2026-01-01")
    return Comparison("recipe", name, Row(None), ours)


def test_reproduced_rows_become_one_page_for_each_parameter(tmp_path):
    found = [_row("f/a=0", 10.0), _row("f/a=1", 20.0), _row("f/a=2", None), _row("f/b=0", 30.0), _row("f/b=1", 5.0)]
    pages = write_curves(tmp_path, found)
    assert pages == [tmp_path / "f" / "a.html", tmp_path / "f" / "b.html"]
    assert write_curves(tmp_path, [*found, _row("table1/full", 3.0)]) == pages, "other tables do not matter"
    text = pages[0].read_text("utf-8")
    assert len(_circles(text)) == 4
    assert "regdb/v2i; each point: 2 of 10 folds, seed 0" in text
    assert "generated" not in text


def test_generated_worlds_are_named_and_single_points_are_no_curve(tmp_path):
    assert write_curves(tmp_path, [_row("f/a=0", 10.0), _row("f/b=1", 20.0)]) == []
    assert write_curves(tmp_path, [_row("f/a=0", 10.0), _row("f/full", 20.0)]) == []
    page = write_curves(tmp_path, [_row("f/a=0", 10.0, generated=True), _row("f/a=1", 20.0)])[0]
    assert "generated world" in page.read_text("utf-8")
