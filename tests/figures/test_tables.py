"""One table in four formats: the same cells, and nothing of a cell is markup."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.evaluation.report import METRICS, Report, expanded
from vireid.figures.tables import Code, Document, Table, escaped, format_of, of_reports, render

NASTY = r"a|b *c* `d` <e> \f {g} h_i 5 % #1 $2 & ~ ^ ± → “"
TABLE = Table(
    "the <first> table", ("name", "on", "R1"), (("plain", Code("x|y"), "-2.50"), (NASTY, "", "1.00 ± 2.00")), left=2
)
NUMBERS = ({"name": "plain", "rank1": 1 / 3, "seeds": (0, 1)}, {"name": NASTY, "map": None, "flip": True})
DOCUMENT = Document((TABLE, Table("", ("a",), (("b",),))), NUMBERS, ("a note | of <one> 50 % line",))


def test_markdown_keeps_the_number_of_columns_whatever_is_in_a_cell():
    text = render(DOCUMENT, "markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert columns == [4] * 4 + [2] * 3
    assert "`x\\|y`" in text and "\\*c\\*" in text and "<e>" not in text and "### the &lt;first> table" in text
    assert lines[1] == "| --- | --- | ---: |"
    assert "- a note \\| of &lt;one> 50 % line" in text


def test_latex_has_the_rules_of_booktabs_and_no_command_of_a_cell():
    text = render(DOCUMENT, "latex")
    assert text.startswith("% needs \\usepackage{booktabs}\n")
    for word in ("table", "tabular"):
        assert text.count(f"\\begin{{{word}}}") == text.count(f"\\end{{{word}}}") == 2
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 2
    assert "\\begin{tabular}{llr}" in text and "\\caption{the $<$first$>$ table}" in text
    (line,) = [line for line in text.splitlines() if "textbackslash" in line]
    assert len(re.findall(r"(?<!\\)&", line)) == 2 and line.endswith(" \\\\")
    assert "plain & \\texttt{x$|$y} & $-$2.50 \\\\" in text
    assert "\\noindent{\\footnotesize a note $|$ of $<$one$>$ 50 \\% line\\par}" in text
    balanced(text)


def balanced(text: str) -> None:
    """Braces that are not escaped close each other, and dollars come in pairs, outside comments."""
    body = text.partition("\n")[2]
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", body):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0 and len(re.findall(r"(?<!\\)\$", body)) % 2 == 0


@pytest.mark.parametrize("sign", list('#$%&_{}~^\\<>|"±×→–−·…θλ'))
def test_no_special_sign_reaches_latex_as_it_is(sign):
    text = escaped(f"a{sign}b")
    assert text.startswith("a") and text.endswith("b") and text != f"a{sign}b"
    assert text.isascii()
    balanced(f"\n{text}")
    assert not re.search(rf"(?<!\\){re.escape(sign)}", re.sub(r"\$[^$]*\$|\{\}|\\[a-z]+", "", text))


def test_a_line_of_latex_that_begins_with_a_bracket_is_no_argument():
    text = render(Document((Table("", ("[a]", "b"), (("[1, 2]", "x"),)),), ()), "latex")
    assert "{}[1, 2] & x" in text and "{}[a] & b" in text


def test_csv_has_every_number_in_full():
    text = render(DOCUMENT, "csv")
    first, second = csv.DictReader(io.StringIO(text))
    assert list(first) == ["name", "rank1", "seeds", "map", "flip"]
    assert float(first["rank1"]) == 1 / 3 and first["seeds"] == "0; 1" and first["map"] == ""
    assert second["name"] == NASTY and second["map"] == "" and second["flip"] == "true"
    assert "\r" not in text


def test_text_stands_in_columns():
    lines = render(DOCUMENT, "text").splitlines()
    assert lines[0] == "the <first> table"
    ends = {len(line) for line in lines[1:4]}
    assert len(ends) == 1, "numbers end in one column"
    assert lines[2].startswith("  plain ") and "x|y" in lines[2]


def test_the_ending_of_a_file_says_its_format():
    names = {"a.txt": "text", "a.csv": "csv", "a.md": "markdown", "a.tex": "latex", "a.HTM": "html", "a": "latex"}
    assert {name: format_of(Path(name), html=True, usual="latex") for name in names} == names
    for name, html in (("a.html", False), ("a.pdf", True)):
        with pytest.raises(BadInput, match=r"no format has the ending.*--format.*\.csv"):
            format_of(Path(name), html=html, usual="text")
    with pytest.raises(BadInput, match="unknown format 'latx'; did you mean 'latex'"):
        render(DOCUMENT, "latx")


def test_a_report_is_a_line_and_a_row_of_numbers():
    values = {name: 10.0 + place for place, name in enumerate(METRICS)}
    trials = ({"rank1": 9.0}, {"rank1": 11.0})
    one = Report(
        "regdb/v2i", **values, trials=trials, std=dict.fromkeys(METRICS, 1.0), valid_queries=3, queries=4, gallery=5
    )
    plain = replace(one, trials=trials[:1], chance_rank1=2.0, warnings=("careful", "again"))
    made = of_reports([one, plain], ["regdb/v2i (flip)", "regdb/v2i"], ["a note"])
    first, second = made.tables[0].lines
    assert first[:2] == ("regdb/v2i (flip)", "10.00 ± 1.00") and first[-4:] == ("–", "3", "5", "2")
    assert second[1] == "10.00" and second[-4] == "2.00"
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [row["trials"] for row in rows] == ["2", "1"] and rows[1]["warnings"] == "careful; again"
    assert rows[0]["chance_rank1"] == "" and float(rows[1]["map"]) == 14.0 and math.isnan(one.chance_rank1)


def test_a_layout_stands_for_its_usual_protocols(tmp_path, capsys):
    assert expanded(["sysu-mm01"]) == [
        f"sysu-mm01/{mode}/{shot}" for mode in ("all", "indoor") for shot in ("single", "multi")
    ]
    assert expanded(["regdb/i2v", "regdb", "nothing"]) == ["regdb/i2v", "regdb/v2i", "nothing"]
    made = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    columns = {"identity": [1, 2] * 4, "camera": [1] * 4 + [2] * 4, "modality": [0] * 4 + [1] * 4}
    np.savez(tmp_path / "f.npz", features=made, **columns)
    command = ["score", str(tmp_path / "f.npz"), "--protocol", "regdb", "--out", str(tmp_path / "s.csv")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text())))
    assert [row["protocol"] for row in rows] == ["regdb/v2i", "regdb/i2v"]
    assert all(f"{float(row['map']):.2f}" in printed for row in rows)
    assert main([*command[:4], "--format", "latex"]) == 0
    assert "\\texttt{regdb/i2v}" in capsys.readouterr().out
    assert main([*command[:3], "regbd"]) == 2
    assert "unknown protocol 'regbd'" in capsys.readouterr().err
