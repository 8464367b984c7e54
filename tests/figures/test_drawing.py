"""Figures in every look, and the files that are written of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid.data.errors import BadInput
from vireid.figures.drawing import DPI, Figure, Look, canvas, plain, write


def _line(name: str = "training-line") -> Figure:
    def draw(look: Look):
        made, axis = canvas(look, 1.5)
        axis.plot([0, 1, 2], [1, 3, 2], color=look.colour(6))
        axis.set_xlabel("epoch")
        return made

    return Figure(name, "A line.", {"y": np.array([1.0, np.nan]), "n": np.int64(3)}, draw)


@pytest.mark.parametrize("width, millimetres", [("column", 84), ("page", 174)])
def test_a_png_has_the_width_of_its_column_at_300_dpi(width: str, millimetres: int) -> None:
    image = Image.open(io.BytesIO(_line().image(Look(width=width))))
    assert image.width == pytest.approx(millimetres / 25.4 * DPI, abs=2)


def test_a_dark_figure_has_a_dark_background_and_light_ink() -> None:
    found = {theme: Image.open(io.BytesIO(_line().image(Look(theme)))).convert("L") for theme in ("light", "dark")}
    assert found["light"].getpixel((2, 2)) == 255 and found["dark"].getpixel((2, 2)) < 40
    assert found["light"].getextrema()[0] < 60 and found["dark"].getextrema()[1] > 180


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_bytes(form: str) -> None:
    assert _line().image(Look(), form) == _line().image(Look(), form)


def test_text_in_an_svg_stays_text() -> None:
    assert b">epoch<" in _line().image(Look(), "svg")


def test_figures_json_holds_the_numbers_and_keeps_those_of_other_figures(tmp_path: Path) -> None:
    files = write([_line()], tmp_path, Look(formats=("png", "svg")))
    assert [file.name for file in files] == ["training-line.png", "training-line.svg", "figures.json"]
    write([_line("cmc")], tmp_path, Look(formats=("pdf",)))
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["training-line"]["numbers"] == {"y": [1.0, None], "n": 3}
    assert found["training-line"]["caption"] == "A line."
    assert found["cmc"]["files"] == ["cmc.pdf"]


def test_two_figures_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two figures are called cmc"):
        write([_line("cmc"), _line("cmc")], tmp_path)
    assert not (tmp_path / "figures.json").exists()


def test_plain_values() -> None:
    given = {1: (np.float32(0.5), float("inf")), "a": {"b": np.arange(2)}}
    assert plain(given) == {"1": [0.5, None], "a": {"b": [0, 1]}}
