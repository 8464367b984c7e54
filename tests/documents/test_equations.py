"""Equation → function → test: the tables on the papers' pages hold for the code and leave no equation out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from tests.documents.pages import ROOT, resolved
from vireid.recipes import recipes

HEADER = "| equation | function | test |"

# How many equations are numbered in each paper. AGW's page has names instead of numbers: its code, which made the
# printed numbers, differs from its equations.
MAIN = {"peca": range(1, 12), "fusion_dml": range(1, 14), "wrim_net": range(1, 10)}
SUPPLEMENT = {"wrim_net": range(1, 4)}

LIST = r"\d+(?:(?:,? and |, | to )\d+)*"
# In a cell: "5", "5 and 11, the sum", "7 to 10", "supplement 1".
CELL = re.compile(rf"(?P<supplement>supplement,? )?(?:equations? )?(?P<list>{LIST})\b")
# In a docstring: "equations 7 to 10", "supplement, equation 1", "equation 1 of the supplement".
NAMED = re.compile(
    rf"(?P<before>supplement(?:'s)?,? )?equations? (?P<list>{LIST})\b(?P<after> of (?:the|its) supplement)?",
    re.IGNORECASE,
)


def expanded(text: str) -> set[int]:
    """The numbers of a list, ranges filled in.

    >>> sorted(expanded("1, 3 and 7 to 9"))
    [1, 3, 7, 8, 9]
    """
    found: set[int] = set()
    for part in re.split(r",? and |, ", text):
        first, _, last = part.partition(" to ")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def named_in(docstring: str) -> set[tuple[bool, int]]:
    """(whether it is the supplement's, number) of every equation that a docstring names."""
    text = " ".join(docstring.split())
    return {
        (bool(found["before"] or found["after"]), number)
        for found in NAMED.finditer(text)
        for number in expanded(found["list"])
    }


def numbers(cell: str) -> set[tuple[bool, int]]:
    """The same for a cell of the first column; empty where it has a name instead of a number."""
    found = CELL.match(cell)
    return {(bool(found["supplement"]), number) for number in expanded(found["list"])} if found else set()


def entries(name: str) -> Iterator[tuple[str, str, str]]:
    """(equation, function, test) of every line of the table on a recipe's page."""
    lines = (ROOT / "docs" / "papers" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    starts = [place for place, line in enumerate(lines) if line == HEADER]
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            equation, function, test = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            yield equation, function, test


@pytest.mark.parametrize("name", recipes())
def test_each_page_has_a_table(name):
    assert list(entries(name)), f"docs/papers/{name}.md needs a table with the header {HEADER}"


@pytest.mark.parametrize("name", recipes())
def test_each_function_exists_and_names_its_equation(name):
    wrong = []
    for equation, cell, _ in entries(name):
        named = re.fullmatch(r"`([\w.]+)`", cell)
        if named is None:
            wrong.append(f"{equation}: '{cell}' is not one dotted name in backticks")
            continue
        try:
            function = resolved(named[1])
        except AttributeError as error:
            wrong.append(f"{equation}: {named[1]} does not exist ({error})")
            continue
        docstring = inspect.getdoc(function) or ""
        if missing := sorted(numbers(equation) - named_in(docstring)):
            wanted = ", ".join(f"{'supplement, ' if extra else ''}equation {number}" for extra, number in missing)
            wrong.append(f"{equation}: the docstring of {named[1]} does not name {wanted}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", recipes())
def test_each_test_exists(name):
    wrong = []
    for equation, _, cell in entries(name):
        tests = re.findall(r"`([^`]+)`", cell)
        for test in tests:
            file, _, function = test.partition("::")
            path = ROOT / file
            if not function or not path.is_file() or f"def {function}(" not in path.read_text(encoding="utf-8"):
                wrong.append(f"{equation}: there is no test {test}")
        if not tests:
            wrong.append(f"{equation}: no test is named")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(MAIN))
def test_no_equation_is_missing(name):
    listed = set().union(*(numbers(equation) for equation, _, _ in entries(name)))
    wanted = {(False, number) for number in MAIN[name]} | {(True, number) for number in SUPPLEMENT.get(name, ())}
    assert listed == wanted


def test_how_numbers_are_read():
    assert numbers("5 and 11, the sum") == {(False, 5), (False, 11)}
    assert numbers("7 to 9") == {(False, 7), (False, 8), (False, 9)}
    assert numbers("2, six patterns") == {(False, 2)}
    assert numbers("supplement 1") == numbers("supplement, equation 1") == {(True, 1)}
    assert numbers("non-local block, `z = x + 1`") == set()
    assert named_in("The loss (equations 7 to\n    9); the sum of equation 11.") == {(False, n) for n in (7, 8, 9, 11)}
    assert named_in("Equations 1, 2 and 4.") == {(False, 1), (False, 2), (False, 4)}
    assert named_in("Equation 7, and supplement, equation 2.") == {(False, 7), (True, 2)}
    assert named_in("equation 3 of the supplement") == {(True, 3)}
    assert named_in("equation 12") == {(False, 12)}  # and so not equation 1
