"""Each sentence on the troubleshooting page is one that the code still says."""

from __future__ import annotations

import ast
import re

import pytest

from tests.documents.pages import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "…"  # stands for a value, in a sentence on the page and between the constant pieces of an f-string


def listed() -> list[str]:
    """The first column of the table."""
    (table,) = re.findall(r"<!-- every message -->\n(.*?)<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def mistakes(trees: list[ast.Module]) -> set[str]:
    """`BadInput` and the classes made from it."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {"BadInput"} | {kind.name for kind in classes if "BadInput" in map(name, kind.bases)}


def told(trees: list[ast.Module]) -> list[str]:
    """The messages of every `BadInput(…)`, with a gap for each value."""
    kinds = mistakes(trees)
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [template(call.args[0]) for call in calls if call.args and name(call.func) in kinds]


def name(expression: ast.expr) -> str:
    """`f` of `f` and of `module.f`."""
    return expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")


def template(node: ast.expr) -> str:
    """The text of a string or f-string; anything else is a gap."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    return GAP


def pieces(sentence: str) -> list[str]:
    """The constant pieces of a sentence."""
    return [piece for piece in sentence.split(GAP) if piece]


def says(message: str, sentence: str) -> bool:
    """Whether a message holds all pieces of a sentence, in their order."""
    place = 0
    for piece in pieces(sentence):
        found = message.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return True


SENTENCES = listed()
MESSAGES = told([ast.parse(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "src").rglob("*.py"))])


@pytest.mark.parametrize("sentence", SENTENCES)
def test_the_code_still_says_it(sentence):
    assert any(says(message, sentence) for message in MESSAGES)


def test_the_table_is_complete_and_useful():
    """Enough sentences, each once, each with enough words to be recognised, each line with three columns."""
    assert len(SENTENCES) >= 20
    assert len(set(SENTENCES)) == len(SENTENCES)
    assert all(len(re.findall(r"\w+", sentence)) >= 1 and pieces(sentence) for sentence in SENTENCES)
    table = PAGE.read_text(encoding="utf-8").partition("<!-- every message -->")[2].partition("<!-- end -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == len(SENTENCES) + 2
    assert all(line.count(" | ") == 2 for line in lines)


def test_how_a_sentence_is_compared():
    (call,) = ast.parse('BadInput(f"{root} has no {name}, " f"which {what!r} needs")', mode="eval").body.args  # type: ignore[attr-defined]
    assert template(call) == "… has no …, which … needs"
    assert says(template(call), "… has no …, which … needs")
    assert says(template(call), "… has no …, which this … needs") is False
    assert says(template(call), "… needs … has no") is False
