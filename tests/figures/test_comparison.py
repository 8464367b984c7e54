"""The paper's numbers beside ours: what each line says, in text, Markdown and HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from vireid.evaluation.report import METRICS
from vireid.experiments.rows import Comparison, Ours
from vireid.figures.comparison import as_html, render
from vireid.recipes import Row

NUMBERS = {name: 10.0 * place for place, name in enumerate(METRICS, start=1)}
OURS = Ours(
    "regdb/v2i", NUMBERS, dict.fromkeys(METRICS, 1.25), dict.fromkeys(METRICS, 2.5), (0, 1), (1, 3), 10,
    ("epochs=3",), False, "2 cores", ("runs/a", "runs/b"), "2026-01-01", commits=("abc", "def"),
)  # fmt: skip
PRINTED = Row(None, {"rank1": 12.5, "map": None, "minp": 59.0}, "regdb/v2i", "Paper table 2", "mean of 10 folds")
FOUND = [
    Comparison("peca", "table2/v2i", PRINTED, OURS),
    Comparison("peca", "table2/<b>", PRINTED),
    Comparison("peca", "table2/sysu", replace(PRINTED, on="sysu-mm01/all/single"), skipped="printed for sysu-mm01"),
    Comparison("peca", "table9/broken", replace(PRINTED, published={}), failed="no space left"),
]


def as_text(found):
    return render(found, "text", "x")


def as_markdown(found):
    return render(found, "markdown", "x")


def cells(text: str) -> list[list[str]]:
    """The lines of the first table, without the spaces."""
    return [line.split() for line in text.splitlines()[1:7]]


def test_the_difference_is_ours_minus_the_papers():
    head, paper, ours, interval, difference, missing = cells(as_text(FOUND))
    assert head == ["row", "protocol", "R1", "mAP", "mINP"], "all metrics that the paper prints, and no other"
    assert paper == ["v2i", "regdb/v2i", "paper", "12.50", "not", "legible", "59.00"]
    assert ours == ["ours,", "2", "of", "10", "folds", "10.00", "±", "1.25", "50.00", "±", "1.25", "60.00", "±", "1.25"]
    assert interval == ["95", "%", "interval", "±", "2.50", "±", "2.50", "±", "2.50"]
    assert difference == ["difference", "-2.50", "–", "+1.00"]
    assert missing == ["<b>", "regdb/v2i", "paper", "12.50", "not", "legible", "59.00"]


def test_what_was_not_measured_is_said():
    text = as_text(FOUND)
    assert [line.split() for line in text.splitlines()].count(["ours", "–", "–", "–"]) == 1
    assert "peca:table2/sysu: skipped: printed for sysu-mm01" in text
    assert "peca:table9/broken: failed: no space left" in text
    assert "peca:table2/v2i, table2/<b>: mean of 10 folds" in text
    told = "ours: 2 of 10 folds, seeds 0, 1, on the data as given, with epochs=3; 2 cores, commit abc and def; runs"
    assert told in " ".join(text.split())


def test_a_generated_world_has_no_difference_from_a_paper():
    for form in (as_text, as_markdown, lambda found: as_html(found, "x")):
        assert "difference" in form(FOUND[:1])
        text = form([replace(FOUND[0], ours=replace(OURS, generated=True))])
        assert "difference" not in text and "generated, 2 of 10 folds" in text and "on a generated world" in text


def test_another_protocol_has_no_printed_numbers():
    other = replace(FOUND[0], ours=replace(OURS, protocol="regdb/i2v"))
    for form in (as_text, as_markdown, lambda found: as_html(found, "x")):
        text = form([other])
        assert "12.50" not in text and "10.00" in text and "regdb/i2v" in text and "difference" not in text


def test_markdown_has_the_same_lines():
    lines = as_markdown(FOUND).splitlines()
    assert lines[:2] == ["### peca:table2", ""] and "Paper table 2." in lines
    assert "| v2i | `regdb/v2i` | paper | 12.50 | not legible | 59.00 |" in lines
    assert "|  |  | difference | -2.50 | – | +1.00 |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables[:8]}) == 1


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.lines.append([])

    def handle_data(self, data):
        if self.lines and data.strip():
            self.lines[-1].append(data.strip())


def test_html_has_the_same_lines_and_nothing_of_a_name_is_markup():
    page = as_html(FOUND, "a <title>")
    parser = Cells()
    parser.feed(page)
    assert ["v2i", "regdb/v2i", "paper", "12.50", "not legible", "59.00"] in parser.lines
    assert ["difference", "-2.50", "–", "+1.00"] in parser.lines
    assert "<b>" not in page and "a <title>" not in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("kind", ["loss", "gain"])
def test_colours_follow_the_sign(kind):
    page = as_html(FOUND, "x")
    assert f"<td class={kind}>{'-2.50' if kind == 'loss' else '+1.00'}</td>" in page
