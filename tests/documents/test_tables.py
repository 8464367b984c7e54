"""The tables of settings in the pages are those that docs/tables.py makes from the code."""

from __future__ import annotations

import sys

import pytest

from docs import tables
from tests.documents.pages import ROOT
from vireid.recipes import recipes

PAGES = [tables.SHARED, *(f"docs/papers/{name}.md" for name in recipes())]


def test_every_recipe_has_a_page_with_a_table():
    assert list(tables.pages()) == PAGES
    assert set(tables.of_a_paper()) < set(recipes()) and {"agw", "peca"} <= set(tables.of_a_paper())


@pytest.mark.parametrize("page", PAGES)
def test_the_table_on_a_page_is_made_from_the_code(page):
    text, wanted = tables.corrected(page)
    assert text == wanted, "run make tables"


def test_the_table_of_a_recipe_by_hand():
    lines = tables.recipe_table("agw").splitlines()
    assert lines[:3] == ["", "| field | value | source | meaning |", "| --- | --- | --- | --- |"]
    assert "| `epochs` | `81` | code | epochs 0 to 80. |" in lines
    assert any(line.startswith("| `gradient_clip` | `null` | ours |") for line in lines)  # chosen, and it is null
    assert any(line.startswith("| `schedule.milestones` | `[20, 50]` |") for line in lines)  # of a part that is chosen
    assert any(line.startswith("| `optimiser.lr` (Adam) | – |") for line in lines)  # of a part that is not
    assert any(line.startswith("| `exchange.cases` (ChannelExchange) | – |") for line in lines)


def test_the_shared_table_shows_defaults_and_not_one_recipes_values():
    lines = tables.shared_table().splitlines()
    assert any(line.startswith("| `epochs` | a whole number of 1 or more | – |") for line in lines)
    factor = "| `optimiser.trunk_factor` (Adam) | a number from 0 to 1000 | `1.0` |"
    assert any(line.startswith(factor) for line in lines)


def test_a_pipe_in_a_note_stays_in_its_cell():
    assert tables.table(["a"], [["|D − m|\nis"]]).splitlines()[3] == "| \\|D − m\\| is |"


def test_check_names_the_page_that_differs(tmp_path, monkeypatch, capsys):
    """In a copy of a page: `--check` says which one and changes nothing; without it the page is repaired."""
    page = tmp_path / "docs" / "fields.md"
    page.parent.mkdir()
    right = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    wrong = right.replace("`0.1`", "`0.2`", 1)
    assert wrong != right
    page.write_text(wrong, encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["tables.py", "docs/fields.md", *options])
        return tables.main(), page.read_text(encoding="utf-8")

    assert run("--check") == (1, wrong)
    assert capsys.readouterr().out == "docs/fields.md differs from the code; run make tables\n"
    assert run() == (0, right)
    assert run("--check") == (0, right)

    page.write_text(right.replace("<!-- end -->", ""), encoding="utf-8")
    assert run("--check")[0] == 1
    assert "docs/fields.md needs the lines <!-- fields --> and <!-- end -->, once each" in capsys.readouterr().err
