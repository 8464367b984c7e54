"""Put small faults into the package, one at a time, and see whether the tests notice them: `make mutants`.

Each fault goes into a copy of the package in a temporary folder. A test run that fails has killed the mutant; one that
passes has let it survive. Mutants that cannot change any result are listed with a reason in `mutants.yaml` and are not
counted. The choice of mutants depends on the seed and on the files, so the same call makes the same mutants.

    python tests/mutants.py --count 40 --only losses
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, Literal, get_args

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("recipes", "losses", "evaluation", "augment", "networks")
NEEDED = ("src", "tests", "docs", "pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

# File of `src/vireid` → the tests that see a fault in it, those that are closest first. The first pattern that fits
# the file counts. Tests after a `None` run only if those before it pass; `-k` holds for the tests between two `None`.
SWEEPS = ("tests/recipes/test_wiring.py", "tests/recipes/test_sweep.py", "tests/recipes/test_ical.py")
TESTS: dict[str, tuple[str | None, ...]] = {
    r"recipes/(\w+)\.yaml": ("tests/recipes/test_rows_against_papers.py", "tests/recipes/test_printed_numbers.py", None,
                             "tests/recipes/test_sweep.py", "tests/experiments/test_rows.py"),
    r"recipes/__init__\.py": ("tests/recipes/test_rows_file.py", None, "tests/recipes/test_sweep.py",
                              "tests/cli/test_options.py", "tests/training/test_model.py",
                              "tests/networks/test_weights.py", "tests/experiments/test_rows.py"),
    r"recipes/(\w+)\.py": (r"tests/recipes/test_\1*.py", None, "tests/recipes/test_rows_against_papers.py", *SWEEPS,
                           r"-k \1", None, "tests/training/test_loop.py", "tests/training/test_model.py"),
    r"losses/.*": ("tests/losses", "tests/recipes/test_ical.py", None, "tests/recipes"),
    r"evaluation/.*": ("tests/evaluation", None, "tests/experiments", "tests/cli/test_options.py", "tests/figures"),
    r"augment/.*": ("tests/augment", "tests/data/test_loading.py", None, "tests/recipes"),
    r"networks/cost\.py": ("tests/recipes/test_wrim_net_counts.py", None, "tests/cli", "tests/experiments"),
    r"networks/.*": ("tests/networks", None, "tests/recipes", "tests/training/test_model.py"),
}  # fmt: skip

UNMARKED = "not slow and not process"
State = Literal["killed", "survived", "timeout", "equivalent"]

# --- mutants ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One fault: in a file of the package, the bytes from `start` to `stop` are replaced.

    Attributes:
        file: below `src/vireid`.
        line: number of the first changed line.
        kind: what sort of fault.
        start, stop: bytes of the file.
        new: what stands there instead.
    """

    file: str
    line: int
    kind: str
    start: int
    stop: int
    new: str

    def apply(self, text: bytes) -> bytes:
        """The file with the fault."""
        return text[: self.start] + self.new.encode() + text[self.stop :]

    def change(self, text: bytes) -> str:
        """The changed lines before and after, without what is around them: `- old` and `+ new`."""
        before, after = text.decode().splitlines(), self.apply(text).decode().splitlines()
        changed = difflib.unified_diff(before, after, n=0, lineterm="")
        return "\n".join(f"{line[0]} {line[1:].strip()}" for line in itertools.islice(changed, 3, None))


COMPARISONS = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">",
               "is not": "is", "is": "is not", "not in": "in", "in": "not in"}  # fmt: skip
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "*", "**": "*", "&": "|"}


class Python:
    """Finds the mutants of a Python file. Docstrings, notes below fields, annotations and sentences do not change."""

    def __init__(self, file: str, text: bytes) -> None:
        self.file, self.text = file, text
        self.starts = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]
        self.found: list[Mutant] = []
        self.visit(ast.parse(text))

    def place(self, node: Any) -> tuple[int, int]:
        """The bytes from the start of a node to its end."""
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def source(self, node: Any) -> str:
        start, stop = self.place(node)
        return self.text[start:stop].decode()

    def add(self, kind: str, start: int, stop: int, new: str) -> None:
        line = self.text.count(b"\n", 0, start) + 1
        self.found.append(Mutant(self.file, line, kind, start, stop, new))

    def swap(self, kind: str, left: ast.AST, right: ast.AST, choices: dict[str, str]) -> None:
        """Replace the operator between two nodes."""
        start, stop = self.place(left)[1], self.place(right)[0]
        between = self.text[start:stop].decode()
        for old in sorted(choices, key=len, reverse=True):
            if (found := re.search(rf"(?<!\w){re.escape(old)}(?!\w)", between)) is not None:
                begin = start + len(between[: found.start()].encode())
                self.add(kind, begin, begin + len(old), choices[old])
                return

    def visit(self, node: ast.AST) -> None:
        handler = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if handler is not None:
            handler(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params", "format_spec"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, (ast.Raise, ast.Import, ast.ImportFrom)):
                    self.visit(child)

    def on_compare(self, node: ast.Compare) -> None:
        for left, right in itertools.pairwise([node.left, *node.comparators]):
            self.swap("comparison", left, right, COMPARISONS)

    def on_binop(self, node: ast.BinOp) -> None:
        if not isinstance(node.left, (ast.JoinedStr, ast.List)) and not self.source(node.left).startswith(("'", '"')):
            self.swap("operator", node.left, node.right, ARITHMETIC)

    def on_boolop(self, node: ast.BoolOp) -> None:
        words = {"and": "or", "or": "and"}
        for left, right in itertools.pairwise(node.values):
            self.swap("boolean", left, right, words)

    def on_unaryop(self, node: ast.UnaryOp) -> None:
        self.add("sign", self.place(node)[0], self.place(node.operand)[0], "")

    def on_constant(self, node: ast.Constant) -> None:
        value, place = node.value, self.place(node)
        if isinstance(value, bool):
            self.add("constant", *place, str(not value))
        elif isinstance(value, int):
            self.add("constant", *place, str(value + 1))
        elif isinstance(value, float):
            self.add("constant", *place, str(value * 2 if value else 1.0))

    def on_call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            start, stop = self.place(keyword)
            rest = re.match(rb"\s*,?\s*", self.text[stop:])
            self.add("dropped argument", start, stop + (rest.end() if rest else 0), "")
        if len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args[:2]):
            first, second = node.args[:2]
            between = self.text[self.place(first)[1] : self.place(second)[0]].decode()
            new = self.source(second) + between + self.source(first)
            # Arguments of different kinds would only raise an exception, and these functions are symmetric.
            symmetric = self.source(node.func).rpartition(".")[2] in ("min", "max", "minimum", "maximum", "transpose")
            if type(first) is type(second) and self.source(first) != self.source(second) and not symmetric:
                self.add("swapped arguments", self.place(first)[0], self.place(second)[1], new)

    def on_expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add("deleted statement", *self.place(node), "pass")

    def on_augassign(self, node: ast.AugAssign) -> None:
        self.add("deleted statement", *self.place(node), "pass")

    def on_assign(self, node: ast.Assign) -> None:
        # Without an attribute that `__init__` sets, nothing runs. Such mutants would only make the figure look better.
        if not re.match(r"self\.\w+ =", self.source(node)) and all(
            isinstance(target, (ast.Subscript, ast.Attribute)) for target in node.targets
        ):
            self.add("deleted statement", *self.place(node), "pass")

    def on_if(self, node: ast.If) -> None:
        self.add("condition", *self.place(node.test), f"not ({self.source(node.test)})")

    on_ifexp = on_if

    def on_annassign(self, node: ast.AnnAssign) -> None:
        """The default of a setting: another word of a `Literal`, or null instead of a part."""
        if node.value is None or not isinstance(node.target, ast.Name):
            return
        words = re.findall(r'"(\w+)"', self.source(node.annotation))
        value = self.source(node.value)
        for word in words:
            if value.strip("\"'") in words and f'"{word}"' != value:
                self.add("default", *self.place(node.value), f'"{word}"')
        if "None" in self.source(node.annotation) and isinstance(node.value, ast.Call):
            self.add("default", *self.place(node.value), "None")


class Rows:
    """Finds the mutants of a file of rows: printed numbers, settings of a row, and protocols."""

    def __init__(self, file: str, text: bytes) -> None:
        self.found: list[Mutant] = []
        where = 0
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            said = b"" if line.lstrip().startswith((b"#", b"note")) else line
            for kind, start, stop, new in self.changes(said.decode()):
                begin, end = (where + len(said.decode()[:at].encode()) for at in (start, stop))
                self.found.append(Mutant(file, number, kind, begin, end, new))
            where += len(line)

    @staticmethod
    def changes(line: str) -> Iterator[tuple[str, int, int, str]]:
        for block in re.finditer(r"printed: \[([^\]]*)\]", line):
            for one in re.finditer(r"\d+\.\d+", block[1]):
                start = block.start(1) + one.start()
                digit = start + one[0].index(".") + 1
                yield "printed number", digit, digit + 1, str((int(line[digit]) + 1) % 10)
        begin = line.index("set:") if "set:" in line else 0 if line.lstrip().startswith("- ") else len(line)
        for one in re.compile(r'"?(?<=[\[ ,"])[a-z_][\w.]*=((?:\[[^\]]*\])|[^\s,\]"]+)"?(, )?').finditer(line, begin):
            if begin:
                yield "row setting", one.start(), one.end(), ""
            for digits in re.finditer(r"\d+(?:\.\d+)?", one[1]):
                start, value = one.start(1) + digits.start(), digits[0]
                new = str(int(value) + 1) if "." not in value else str(round(float(value) * 2 or 1.0, 4))
                yield "row setting", start, start + len(value), new
            if (swap := {"separate": "shared", "shared": "separate"}.get(one[1])) is not None:
                yield "row setting", one.start(1), one.end(1), swap
        for old, new in (("v2i", "i2v"), ("i2v", "v2i"), ("/all/", "/indoor/"), ("/indoor/", "/all/"),
                         ("/single", "/multi"), ("/multi", "/single")):  # fmt: skip
            for one in re.finditer(rf"(?<=protocol: ).*?({old})", line):
                yield "protocol", one.start(1), one.end(1), new


def mutants(package: Path, only: str) -> list[Mutant]:
    """Every mutant of the rooms, of files below `src/vireid` that begin with `only`."""
    found: list[Mutant] = []
    for room in ROOMS:
        for path in sorted((*(package / room).rglob("*.py"), *(package / room).rglob("*.yaml"))):
            file = path.relative_to(package).as_posix()
            if file.startswith(only.removeprefix("src/vireid/")):
                finder = Python if path.suffix == ".py" else Rows
                found += finder(file, path.read_bytes()).found
    return found


def chosen(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` mutants in a random order, at most one of each line, so that long expressions do not weigh more."""
    source = random.Random(seed)
    lines: dict[tuple[str, int], list[Mutant]] = {}
    for one in found:
        lines.setdefault((one.file, one.line), []).append(one)
    picked = [source.choice(of_line) for of_line in lines.values()]
    source.shuffle(picked)
    return picked[:count]


# --- tests ------------------------------------------------------------------------------------------------------------


def tests_for(file: str, tree: Path) -> list[list[str]]:
    """The stages of tests of a file; the next stage runs only if the one before passes."""
    for pattern, tests in TESTS.items():
        if (fits := re.fullmatch(pattern, file)) is not None:
            stages: list[list[str]] = [[]]
            for test in tests:
                if test is None:
                    stages.append([])
                elif test.startswith("-k "):
                    stages[-1] += ["-k", fits.expand(test.removeprefix("-k "))]
                else:
                    wanted = fits.expand(test)
                    stages[-1] += sorted(str(path.relative_to(tree)) for path in tree.glob(wanted))
            return [stage for stage in stages if stage]
    raise KeyError(f"no tests are named for {file}; add a pattern to TESTS")


@dataclass
class Result:
    """What became of a mutant."""

    mutant: Mutant
    change: str
    state: State
    by: str = ""
    seconds: float = 0.0


class Tree:
    """A copy of the repository that mutants are put into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", "_build")
        for name in NEEDED:
            source = ROOT / name
            copy = partial(shutil.copytree, ignore=ignored) if source.is_dir() else shutil.copy
            copy(source, folder / name)
        self.clock = int(time.time())

    def write(self, file: Path, text: bytes) -> None:
        """Write a file with a time of its own, by which Python sees that it must compile the file again."""
        file.write_bytes(text)
        self.clock += 1
        os.utime(file, (self.clock, self.clock))

    def run(self, tests: list[str], seconds: float) -> tuple[State, str]:
        """Run tests until the first failure: the state and the name of the test that failed."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}
        options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no", "--no-header", "--timeout=200", "-m", UNMARKED]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return "timeout", tests[0]
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise SystemExit(f"no tests in {' '.join(tests)}")
        if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
            raise SystemExit(f"somebody ended the test run of {' '.join(tests)}")
        return ("survived", "") if done.returncode == 0 else ("killed", failed[0] if failed else "an aborted test run")

    def judge(self, mutant: Mutant, seconds: float) -> Result:
        """Put a mutant in, run its tests, and take it out."""
        file = self.folder / "src" / "vireid" / mutant.file
        text, begun = file.read_bytes(), time.monotonic()
        result = Result(mutant, mutant.change(text), "survived")
        self.write(file, mutant.apply(text))
        try:
            for tests in tests_for(mutant.file, self.folder):
                result.state, result.by = self.run(tests, seconds)
                if result.state != "survived":
                    break
        finally:
            self.write(file, text)
        result.seconds = round(time.monotonic() - begun, 1)
        return result


# --- the program ------------------------------------------------------------------------------------------------------


def equivalents() -> set[tuple[str, str]]:
    """(file, change) of the mutants that change no result. The reasons stand in the file."""
    file = Path(__file__).with_suffix(".yaml")
    said = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    return {(one["file"], one["change"].strip()) for one in said}


def is_runnable(mutant: Mutant, text: bytes) -> bool:
    """Whether the file can still be parsed and means something else."""
    changed = mutant.apply(text)
    if mutant.file.endswith(".yaml"):
        return yaml.safe_load(changed) != yaml.safe_load(text)
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    except SyntaxError:
        return False


def told(result: Result, number: int, count: int) -> str:
    by = f" by {result.by}" if result.by else ""
    where = f"src/vireid/{result.mutant.file}:{result.mutant.line}"
    said = result.change.replace("\n", "\n    ")
    return (
        f"[{number}/{count}] {result.state}{by} in {result.seconds:.0f} s: {where} ({result.mutant.kind})\n    {said}"
    )


def summary(results: list[Result]) -> str:
    """The counts, and the percentage of the mutants that were seen among those that are not equivalent.

    A test run that did not end in time has shown nothing, so it counts as not seen. A single test that hangs does not
    come to that: pytest stops it and it fails.
    """
    counts = {state: sum(one.state == state for one in results) for state in get_args(State)}
    seen, all_of_them = counts["killed"], len(results) - counts["equivalent"]
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    return (
        f"{words}: {seen} of {all_of_them} that are not equivalent were seen, {100 * seen / max(all_of_them, 1):.1f} %"
    )


def known(file: Path | None) -> dict[tuple[str, str], Result]:
    """The mutants that an earlier call killed, by (file, change). The others are run again, as tests may be new."""
    if file is None or not file.is_file():
        return {}
    stored = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [Result(**{**one, "mutant": Mutant(**one["mutant"])}) for one in stored]
    return {(one.mutant.file, one.change): one for one in found if one.state == "killed"}


def clean(tree: Tree, picked: list[Mutant], seconds: float) -> None:
    """Run the tests of the chosen files without a fault. A test that fails here would kill every mutant."""
    stages = {tuple(stage) for mutant in picked for stage in tests_for(mutant.file, tree.folder)}
    for stage in sorted(stages):
        state, by = tree.run(list(stage), seconds * 4)
        if state != "survived":
            raise SystemExit(f"these tests do not pass without a fault: {state} {by}")


def main() -> int:
    """Make the mutants, judge them, print what became of them."""
    parser = argparse.ArgumentParser(description="Put small faults into the package and see whether the tests notice.")
    parser.add_argument("--count", type=int, default=120, help="how many mutants (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="which mutants (default: 0)")
    parser.add_argument("--only", default="", metavar="PATH", help="only files that begin so: losses, recipes/agw.py")
    parser.add_argument("--processes", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument("--seconds", type=float, default=1800, help="limit of one test run (default: 1800)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="a line for each result; what was killed there is not run again"
    )
    parser.add_argument("--list", action="store_true", help="print the chosen mutants and run nothing")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a fault first")
    given = parser.parse_args()
    package = ROOT / "src" / "vireid"
    runnable = [one for one in mutants(package, given.only) if is_runnable(one, (package / one.file).read_bytes())]
    picked = chosen(runnable, given.count, given.seed)
    equal, before, results = equivalents(), known(given.json), []
    print(f"{len(picked)} of {len(runnable)} mutants, seed {given.seed}", flush=True)
    if given.list:
        for one in picked:
            print(f"src/vireid/{one.file}:{one.line} ({one.kind})\n{one.change((package / one.file).read_bytes())}")
        return 0
    with tempfile.TemporaryDirectory(prefix="vireid-mutants-") as folder:
        trees: Queue[Tree] = Queue()
        for number in range(given.processes):
            trees.put(Tree(Path(folder) / str(number)))
        if not given.unchecked and picked:
            clean(trees.queue[0], picked, given.seconds)

        def judged(mutant: Mutant) -> Result:
            change = mutant.change((package / mutant.file).read_bytes())
            if (mutant.file, change) in equal:
                return Result(mutant, change, "equivalent")
            if (mutant.file, change) in before:
                return before[mutant.file, change]
            tree = trees.get()
            try:
                return tree.judge(mutant, given.seconds)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(given.processes) as pool:
            for number, result in enumerate(pool.map(judged, picked), 1):
                results.append(result)
                print(told(result, number, len(picked)), flush=True)
                if given.json and (result.mutant.file, result.change) not in before:
                    with given.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
    print(summary(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
