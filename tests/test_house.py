"""The limits of the house: the length of functions and files, the number of parameters, the names of rooms."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vireid.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "vireid"
FILES = sorted(SOURCE.rglob("*.py"))

LINES_OF_A_FUNCTION = 60
LINES_OF_A_FILE = 550
LINES_OF_A_VERB_GROUP = 220
LINES_OF_A_VERB = 45
PARAMETERS = 8
KERNELS = {"njit", "jit", "vectorize", "guvectorize", "compiled"}  # `compiled`: vireid.evaluation.counting
NO_SUBJECT = {"utils", "util", "common", "helpers", "helper", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: Path) -> Iterator[tuple[str, Function]]:
    """(where it stands, its tree) of every function and method of a file, inner ones included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield f"{name(file)}:{node.lineno} {node.name}", node


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def is_kernel(function: Function) -> bool:
    """Whether numba compiles it: `@njit`, `@njit(…)` or `@numba.njit(…)`."""
    called = [made.func if isinstance(made, ast.Call) else made for made in function.decorator_list]
    words = {made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "") for made in called}
    return bool(words & KERNELS)


def length(function: Function) -> int:
    """Lines from `def` to the last one, the docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many parameters it has, without `self`, `cls`, `*args` and `**kwargs`."""
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([one for one in named if one.arg not in ("self", "cls")])


def test_functions_are_short():
    found = {
        where: length(function)
        for file in FILES
        for where, function in functions(file)
        if length(function) > LINES_OF_A_FUNCTION and not is_kernel(function)
    }
    assert not found, f"more than {LINES_OF_A_FUNCTION} lines: {found}"


def test_files_are_short():
    """Of the package, the tests, the benchmarks and the pages' generator."""
    others = [file for folder in ("tests", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py")]
    found = {str(file): lines(file) for file in (*FILES, *others) if lines(file) > LINES_OF_A_FILE}
    assert not found, f"more than {LINES_OF_A_FILE} lines: {found}"


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_is_one_short_file(recipe):
    file = SOURCE / "recipes" / f"{recipe}.py"
    assert file.is_file()
    assert lines(file) <= LINES_OF_A_FILE


def test_the_command_line_is_thin():
    """The work is done in `experiments`, so a file of verbs and each of their functions stay short."""
    files = sorted((SOURCE / "cli").rglob("*.py"))
    assert files
    long = {name(file): lines(file) for file in files if lines(file) > LINES_OF_A_VERB_GROUP}
    for file in files:
        found = {where: length(one) for where, one in functions(file) if one.name != "register"}
        long |= {where: many for where, many in found.items() if many > LINES_OF_A_VERB}
    assert not long, long


@pytest.mark.parametrize("room", ["experiments", "cli"])
def test_functions_take_few_parameters(room):
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    found = {
        where: parameters(function)
        for file in files
        for where, function in functions(file)
        if parameters(function) > PARAMETERS
    }
    assert not found, f"more than {PARAMETERS} parameters: {found}"


def test_every_room_and_file_has_a_subject():
    names = {part for file in FILES for part in file.relative_to(SOURCE).with_suffix("").parts}
    assert "recipes" in names
    assert not names & NO_SUBJECT


def test_every_room_has_its_place_in_the_import_order():
    """A room that no contract names could import anything."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    ordered = {room.strip().removeprefix("vireid.") for layer in layers for room in layer.split("|")}
    rooms = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    files = {file.stem for file in SOURCE.glob("*.py")} - {"__init__"}
    assert ordered == rooms | files


def test_the_checks_of_this_file_see_what_they_are_for():
    """A function with too many lines and parameters, and a kernel."""
    long = "def f(self, a, b, *c, d, e=1, **g):\n" + "    a = b\n" * LINES_OF_A_FUNCTION
    (function,) = ast.parse(long).body
    assert isinstance(function, ast.FunctionDef)
    assert (length(function), parameters(function), is_kernel(function)) == (61, 4, False)
    for decorator in ("njit", "njit(cache=True)", "numba.njit(parallel=True)"):
        (kernel,) = ast.parse(f"@{decorator}\ndef g(): pass").body
        assert isinstance(kernel, ast.FunctionDef)
        assert is_kernel(kernel)
