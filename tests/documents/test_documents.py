"""The documents are run: their code, their commands, their links and their lists are checked against the package."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.tables import of_a_paper
from tests.documents.pages import NAMES, PAGES, ROOT, blocks, fences, prose, resolves
from tests.outside import forgotten
from vireid.cli.main import main, parser
from vireid.data.protocol import protocol_names
from vireid.recipes import recipe, recipes
from vireid.training.configuration import describe

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^()\s]+)\)")
SHELL = {"bash", "sh", "console"}
COMMANDS_TOO = "<!-- the commands of this page are run -->"


@pytest.fixture
def own_rooms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A page starts in an empty folder. It may load plug-ins; afterwards the rooms are as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with forgotten():
        yield


@pytest.mark.parametrize("name", [n for n, page in zip(NAMES, PAGES, strict=True) if any(blocks(page, {"python"}))])
def test_python_blocks_run(name, own_rooms):
    """Blocks of one page share a namespace and start in an empty folder. A page may ask for its commands to be run."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    with_commands = COMMANDS_TOO in (ROOT / name).read_text(encoding="utf-8")
    for language, line, code in fences(ROOT / name, {"python", *(SHELL if with_commands else ())}):
        if language != "python":
            for arguments in commands(code):
                # Processes that load pictures take longer to start than the few pictures of a page take to load.
                quick = ["--workers", "0"] if arguments[0] in ("train", "test", "embed") else []
                assert main([*arguments, *quick]) == 0, f"{name}:{line}: vireid {shlex.join(arguments)}"
            continue
        # Empty lines before the code put the page's own line numbers into a traceback.
        exec(compile("\n" * (line - 1) + code, name, "exec"), namespace)


def test_the_important_pages_have_code_that_runs():
    """So that the test above cannot become empty without anybody noticing."""
    running = {name for name, page in zip(NAMES, PAGES, strict=True) if any(blocks(page, {"python"}))}
    wanted = {
        "README.md",
        "docs/extend/loss.md",
        "docs/extend/dataset.md",
        "docs/extend/recipe.md",
        "docs/extend/augmentation.md",
        "docs/protocols.md",
        "docs/own_pictures.md",
    }
    assert wanted <= running
    assert COMMANDS_TOO in (ROOT / "docs" / "own_pictures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_and_pictures_exist(name):
    page = ROOT / name
    missing = []
    for found in LINK.finditer(prose(page)):
        target, _, anchor = unquote(found["target"]).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page.parent / target if target else page
        if not file.exists():
            missing.append(found["target"])
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            missing.append(f"{found['target']} (headings: {', '.join(anchors(file))})")
    assert not missing


def anchors(page: Path) -> list[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of every `vireid …` command in a piece of shell, wherever it stands in a line."""
    code = re.sub(r"\\\n", " ", code)
    lines, until = [], None
    for line in code.splitlines():
        if until is not None:  # inside a here-document
            until = None if line.strip() == until else until
            continue
        if begun := re.search(r"<<-?\s*['\"]?(\w+)", line):
            until = begun[1]
        lines.append(line)
    values: dict[str, str] = {}
    for line in lines:
        if assigned := re.fullmatch(r"(\w+)=\"?([^\"]*)\"?", line):
            values[assigned[1]] = assigned[2]
        # A loop's variable counts: 1 stands for it.
        words = re.sub(r"\$\{?(\w+)\}?", lambda variable: values.get(variable[1], "1"), line)
        lexer = shlex.shlex(words, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        found: list[str] | None = None
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()<>"):
                if found is not None:
                    yield found
                found = None
            elif found is not None:
                found.append(word)
            elif word == "vireid":
                found = []


COMMANDS = [
    pytest.param(arguments, id=f"{name}:{line}:{' '.join(arguments)[:60]}")
    for name, page in zip(NAMES, PAGES, strict=True)
    for line, code in blocks(page, SHELL)
    for arguments in commands(code)
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_parse(arguments):
    if "--help" in arguments:
        arguments = [word for word in arguments if word != "--help"]
        assert not arguments or arguments[0] in verbs(parser())
        return
    options = parser().parse_args(arguments)
    assert options.verb is not None or options.version
    assert ("--set" in arguments) == bool(getattr(options, "set", ())), "check_names would not see the fields"
    check_names(options)


def check_names(options: argparse.Namespace) -> None:
    """Recipes, rows, layouts, protocols and fields that a command names must exist."""
    from vireid.data.protocol import parse_protocol
    from vireid.datasets import parse_source
    from vireid.evaluation.report import expanded
    from vireid.experiments.sweep import axes
    from vireid.recipes import find_row
    from vireid.training.configuration import with_fields

    if getattr(options, "data", None):
        parse_source(options.data)
    for protocol in expanded(getattr(options, "protocol", None) or ()):
        parse_protocol(protocol)
    if getattr(options, "recipe", None) and options.recipe.partition(":")[0] in recipes():
        _, _, row = find_row(options.recipe)
        with_fields(row.config, getattr(options, "set", ()))
        for field, values in axes(getattr(options, "over", ())).items():
            for value in values:
                with_fields(row.config, [f"{field}={value}"])
        if getattr(options, "table", None):
            rows = recipe(options.recipe).ROWS
            assert any(
                row == options.table or row.startswith((f"{options.table}/", f"{options.table}=")) for row in rows
            )


def test_a_command_that_does_not_exist_is_found():
    assert [*commands("cd x && vireid train agw \\\n --run $d; echo vireids | cat")] == [["train", "agw", "--run", "1"]]
    assert [*commands('a="b c"\nvireid test $a')] == [["test", "b", "c"]]
    assert [*commands("cat > a.sh <<'END'\nvireid nonsense\nEND\nvireid demo")] == [["demo"]]
    with pytest.raises(ValueError, match="unknown verb 'trian'"):
        parser().parse_args(["trian"])


def verbs(top: argparse.ArgumentParser) -> set[str]:
    """The first words that the program takes."""
    actions = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    return set(actions[0].choices)


def test_every_verb_is_explained_somewhere():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [verb for verb in verbs(parser()) if f"vireid {verb}" not in text]


def test_the_protocols_page_lists_every_protocol():
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"<!-- every protocol -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert re.findall(r"^\| `([^`]+)` \|", listed, re.MULTILINE) == protocol_names()


def test_the_architecture_page_lists_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"<!-- every room -->\n(.*?)<!-- end -->", text, re.DOTALL)
    rooms = {init.parent.name for init in (ROOT / "src" / "vireid").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", listed, re.MULTILINE)) == rooms


@pytest.mark.parametrize("name", recipes())
def test_every_field_of_a_recipe_is_on_its_papers_page(name):
    """Fields of parts too; the table is made by docs/tables.py, which test_tables.py compares with the code."""
    page = ROOT / "docs" / "papers" / f"{name}.md"
    assert page.is_file(), f"write docs/papers/{name}.md"
    text = page.read_text(encoding="utf-8")
    assert not [f.path for f in describe(recipe(name).PAPER) if f"`{f.path}`" not in text]


PRINTED = {"AGW": "agw", "WRIM-Net": "wrim_net", "PECA": "peca", "Feature fusion + mutual learning": "fusion_dml"}
COLUMNS = (
    "sysu-mm01/all/single", "sysu-mm01/indoor/single", "regdb/v2i", "regdb/i2v", "llcm/i2v", "llcm/v2i"
)  # fmt: skip


def test_the_readme_prints_what_the_rows_hold():
    """Rank-1 / mAP of each paper, to the digits printed; a dash only where no row has a number."""
    assert set(PRINTED.values()) == set(of_a_paper())
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, module in PRINTED.items():
        (line,) = re.findall(rf"^\| {re.escape(name)}, as printed[¹ ]*\|(.*)\|$", text, re.MULTILINE)
        for on, cell in zip(COLUMNS, line.split("|"), strict=True):
            rows = [row.published for row in recipe(module).ROWS.values() if row.on == on and "rank1" in row.published]
            if cell.strip() == "–":
                assert not rows, f"{name}, {on}: there are printed numbers"
                continue
            shown = [number.strip() for number in cell.split("/")]
            held = [
                [_to_digits_of(cut, row[key]) for cut, key in zip(shown, ("rank1", "map"), strict=True)] for row in rows
            ]
            assert shown in held, f"{name}, {on}: {shown} is none of {held}"


def _to_digits_of(shown: str, value: float | None) -> str:
    """The number with as many decimals as are shown, halves upwards as on paper."""
    decimals = len(shown.partition(".")[2])
    return "" if value is None else f"{value + 1e-9:.{decimals}f}"


@pytest.mark.parametrize("name", NAMES)
def test_names_in_code_type_exist(name):
    """`vireid.room.thing` resolves, `src/…`, `tests/…` and `docs/…` are files, `tests/…::test_x` is in its file."""
    wrong = []
    for word in re.findall(r"`([^`\n]+)`", prose(ROOT / name)):
        if re.fullmatch(r"vireid(\.\w+)+(\(.*\))?", word) and not resolves(word.partition("(")[0]):
            wrong.append(word)
        elif re.fullmatch(r"(src|tests|docs|benchmarks)/(?!_build)[\w/.-]+(::\w+)?", word):
            file, _, test = word.partition("::")
            found = ROOT / file
            if not found.exists() or (test and f"def {test}(" not in found.read_text(encoding="utf-8")):
                wrong.append(word)
    assert not wrong


MACHINE_PATH = re.compile(r"(?<![\w.])/(work|tmp|home|root|opt|mnt|Users)/\w|shared/(architecture|protocols|methods)")


def test_no_machine_paths():
    """Documents and sources speak of no particular machine. A program's own temporary folder is Python's business."""
    kinds = {".md", ".py", ".toml", ".txt", ".html", ".cfg", ".cff", ".yaml", ".yml", ""}
    places = ("src", "docs", "benchmarks", "tests", ".ci", ".github")
    files = [file for place in places for file in (ROOT / place).rglob("*") if file.is_file()]
    files += [file for file in ROOT.iterdir() if file.is_file()]
    found = []
    for file in files:
        if file.suffix not in kinds or "__pycache__" in file.parts or "_build" in file.parts or file == Path(__file__):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {hit[0]}" for hit in MACHINE_PATH.finditer(text)]
    assert not found
