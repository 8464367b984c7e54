"""Recipes, data sets, protocols and augmentations from outside the package, through the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents.pages import ROOT
from tests.outside import forgotten
from tests.processes import program, said, start, wait
from tests.small import SECOND
from vireid import datasets, plugin, recipes
from vireid.augment import augmentations
from vireid.cli.main import main
from vireid.data import outside
from vireid.data.errors import BadInput
from vireid.data.protocol import protocol_names
from vireid.recipes import find_row
from vireid.training.configuration import describe, with_fields
from vireid.training.run import open_run

# A recipe, a data set, protocols and an augmentation in one file, which also says that it was executed.
YARD = '''
from pathlib import Path

from vireid.augment import Added
from vireid.data.modality import Modality
from vireid.data.protocol import Protocol, Side
from vireid.data.records import Records
from vireid.data.settings import Share, settings
from vireid.recipes import Row, agw

Path("executed").write_text("yes")


@settings
class Config(agw.Config):
    """AGW with another start."""

    extra: Share = 0.25
    """ours: nothing."""


PAPER, build = Config(), agw.build
ROWS = {"one": Row(PAPER)}

FOLDS, EXPECTED = 1, {"train identities": 3}
PROTOCOLS = [Protocol("my-yard/night", "my-yard", Side(Modality.INFRARED), Side(Modality.VISIBLE), cmc="image")]


def read(root, *, fold=1):
    paths = sorted(file.name for file in root.glob("*.png"))
    told = [path.split("_") for path in paths]
    return Records(
        layout="my-yard",
        root=root,
        path=paths,
        identity=[int(one[0]) for one in told],
        camera=[int(one[1]) for one in told],
        modality=[int(one[1]) % 2 for one in told],
        split=["train" if int(one[0]) < 3 else "test" for one in told],
    )


@settings
class Dark:
    """Less light."""

    by: Share = 0.5
    """ours: how much is left."""

    def draw(self, count, *, size, generator):
        return [self.by] * count

    def change(self, image, drawn):
        image.mul_(drawn)


AUGMENTATIONS = {"dark": Added(Dark(), "visible_before")}
'''


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the file; whatever a test loads is forgotten after it."""
    monkeypatch.chdir(tmp_path)
    Path("my_yard.py").write_text(YARD)
    with forgotten():
        yield tmp_path


def pictures() -> None:
    """6 people with 2 pictures at each of the cameras 0 (visible) and 1 (infrared)."""
    Path("pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in (f"{person}_{camera}_{n}" for person in range(6) for camera in (0, 1) for n in (0, 1)):
        Image.fromarray(rng.integers(256, size=(64, 32, 3), dtype=np.uint8)).save(f"pictures/{name}.png")


def train(recipe: str, run: str, *more: str) -> int:
    given = [recipe, "--data", "my-yard:pictures", "--run", run, "--workers", "0", *more]
    return main(["train", *given, "--set", *SECOND, "epochs=1", "epoch_length=1"])


def failed(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    return capsys.readouterr().err


def test_one_file_with_every_kind_trains_and_tests(capsys):
    pictures()
    before, after = ["--plugin", "my_yard.py"], ["--plugin=my_yard.py"]
    assert main([*before, "data", "check", "my-yard:pictures"]) == 0
    assert train("my_yard:one", "plain", *after, "--set", "extra=0.5") == 0
    assert train("my_yard+dark", "dark", *after, "--set", "dark.by=0.25") == 0
    assert main(["test", "dark", "--data", "my-yard:pictures", "--workers", "0", *after, "--json", "out.json"]) == 0
    assert json.loads(Path("out.json").read_text())["protocol"] == "my-yard/night"
    for verb in (["fields", "my_yard+dark"], ["rows", "my_yard"], ["cost", "my_yard", "--set", "trunk=tiny"]):
        assert main([*verb, *after]) == 0
    assert "dark.by = 0.5" in capsys.readouterr().out

    facts = open_run(Path("dark")).facts
    assert (facts.recipe, facts.config["dark"], facts.config["extra"]) == (
        "my_yard+dark", {"type": "Dark", "by": 0.25}, 0.25,
    )  # fmt: skip
    (one,) = facts.plugins
    assert set(one.holds) == {"recipe my_yard", "layout my-yard", "protocol my-yard/night", "augmentation dark"}
    assert (one.name, one.file, one.package) == ("my_yard", str(Path("my_yard.py").absolute()), "")
    assert one.sha256 == subprocess.run(["sha256sum", "my_yard.py"], capture_output=True, text=True).stdout[:64]
    assert Path("dark/plugins/my_yard.py").read_text() == YARD


def test_nothing_of_a_run_is_executed_without_being_named(capsys):
    pictures()
    assert train("my_yard+dark", "run", "--plugin", "my_yard.py") == 0
    test = ["test", "run", "--data", "my-yard:pictures", "--workers", "0"]
    assert main(test) == 0
    Path("executed").unlink()
    capsys.readouterr()
    with forgotten():
        outside._loaded.clear()
        for room in (recipes._outside, recipes._extended, datasets._outside):
            room.clear()
        for command in (test, ["report", "run"], ["train", "--resume", "--run", "run"]):
            told = failed(capsys, main(command))
            assert "add --plugin run/plugins/my_yard.py" in told and str(Path("my_yard.py").absolute()) in told
            assert open_run(Path("run")).facts.plugins[0].sha256[:12] in told and told.count("\n") == 1
        assert not Path("executed").exists()
        assert main([*test, "--plugin", "run/plugins/my_yard.py"]) == 0 and Path("executed").exists()
        assert "warning: my-yard/night: plug-in" not in capsys.readouterr().out


def test_a_run_that_was_tested_by_lists_is_reported_without_the_file(capsys):
    pictures()
    assert train("my_yard", "run", "--plugin", "my_yard.py") == 0
    text = "query: [3_1_0.png, 4_1_1.png]\ngallery: [3_0_0.png, 4_0_1.png, 5_0_0.png]\nexclude: camera\n"
    Path("night.yaml").write_text(text)
    test = ["test", "run", "--data", "my-yard:pictures", "--workers", "0", "--plugin", "my_yard.py"]
    assert main([*test, "--protocol", "lists:night.yaml", "--json", "out.json", "--features", "features.npz"]) == 0
    found = json.loads(Path("out.json").read_text())
    assert re.fullmatch(r"lists/night-\w{8}", found["protocol"]) and (found["queries"], found["gallery"]) == (2, 3)
    score = ["score", "features.npz", "--protocol", "lists:night.yaml", "--json", "again.json"]
    assert main(score) == 0
    again = json.loads(Path("again.json").read_text())
    assert {name: again[name] for name in ("protocol", "map")} == {name: found[name] for name in ("protocol", "map")}
    Path("night.yaml").unlink()
    assert main(["report", "run", "--plugin", "my_yard.py"]) == 0
    assert found["protocol"] in Path("run/report.html").read_text()


def test_another_version_of_the_file_is_told(capsys):
    pictures()
    assert train("my_yard", "run", "--plugin", "my_yard.py") == 0
    Path("my_yard.py").write_text(YARD + "\nCHANGED = True\n")
    test = ["test", "run", "--data", "my-yard:pictures", "--workers", "0", "--plugin", "my_yard.py"]
    assert main(test) == 0
    assert re.search(r"plug-in \S+my_yard.py \(sha256 \w{12}\) is not the one .* its copy is run/plugins/my_yard.py",
                     capsys.readouterr().out)  # fmt: skip
    told = failed(capsys, train("my_yard", "run", "--plugin", "my_yard.py", "--resume"))
    assert "begun with another my_yard.py" in told and "give --plugin run/plugins/my_yard.py" in told
    assert Path("run/plugins/my_yard.py").read_text() == YARD


def test_a_changed_file_is_executed_again_and_its_old_names_are_gone():
    assert plugin("my_yard.py") is plugin("my_yard.py")
    assert {"my_yard"} <= set(recipes()) and augmentations() == ("dark",) and "my-yard" in datasets.layouts()
    Path("my_yard.py").write_text(
        "from vireid.recipes import Row, agw\nPAPER, ROWS, build = agw.PAPER, {}, agw.build\n"
    )
    plugin("my_yard.py")
    assert find_row("my_yard")[2].config == recipes.recipe("agw").PAPER
    assert augmentations() == () and "my-yard" not in datasets.layouts() and "my-yard/night" not in protocol_names()
    with pytest.raises(BadInput, match=r"unknown augmentation 'dark'; choices: \(none\)"):
        find_row("agw+dark")


def test_an_augmentation_is_a_field_of_every_recipe():
    plugin("my_yard.py")
    for name in ("agw", "peca", "wrim_net", "fusion_dml"):
        paper = recipes.recipe(f"{name}+dark").PAPER
        (field,) = [one for one in describe(paper) if one.path == "dark.by"]
        assert (field.default, field.source) == (0.5, "ours")
        assert type(paper.augmentation().visible_before[-1]).__name__ == "Dark"
        without = with_fields(paper, {"dark": None}).augmentation()
        assert without == recipes.recipe(name).PAPER.augmentation()
        assert not any(row.published for row in recipes.recipe(f"{name}+dark").ROWS.values())
    both = with_fields(recipes.recipe("agw+dark").PAPER, ["views=2", "exchange=ChannelExchange"]).augmentation()
    assert both.second_view is not None and both.second_view.visible_before == both.visible_before != ()


GOOD = "from vireid.recipes import Row, agw\nPAPER, ROWS, build = agw.PAPER, {}, agw.build\n"
FLIP = "from vireid.augment.geometry import Flip\n"
BROKEN = {
    "a mistake in the code": ("x.py", GOOD + "\nname_that_is_missing\n", r"x.py, line 4: NameError: name 'name_that"),
    "wrong syntax": ("x.py", "def f(:\n", r"x.py, line 1: SyntaxError: invalid syntax"),
    "an end of the program": ("x.py", "raise SystemExit(0)", r"x.py, line 1: SystemExit: 0"),
    "a setting out of range": ("x.py", FLIP + "Flip(p=2)\n", "line 2: Flip: p"),
    "nothing": ("x.py", "a = 1\n", r"holds no recipe \(PAPER, ROWS, build\)"),
    "half a recipe": ("x.py", GOOD + "del build\n", r"recipe 'x' has no build"),
    "half a reader": ("x.py", "FOLDS = 1\n", r"layout 'x' has no read"),
    "rows that are none": ("x.py", GOOD + "ROWS = {'a': 1}\n", r"ROWS\['a'\] is no vireid.recipes.Row"),
    "a recipe of the package": ("agw.py", GOOD, r"the package has a recipe 'agw' already"),
    "a layout of the package": ("regdb.py", "FOLDS, EXPECTED, read = 1, {}, None", "the package has a layout 'regdb'"),
    "a protocol of the package": (
        "x.py", "from vireid.data.protocol import *\nPROTOCOLS = both_directions('regdb')", "'regdb/v2i' already",
    ),
    "a protocol of a place": (
        "x.py",
        "from vireid.data.protocol import Protocol, Side\n"
        "PROTOCOLS = [Protocol('regdb/x', 'regdb', Side(0), Side(1), exclusion='location')]",
        "for sysu-mm01 only",
    ),
    "an augmentation without a place": (
        "x.py",
        FLIP + "from vireid.augment import Added\nAUGMENTATIONS = {'a': Added(Flip(), 'b')}",
        "unknown place of an augmentation 'b'",
    ),
    "a name that is none": ("my-recipe.py", GOOD, "must be a Python name"),
    "no Python file": ("x.txt", GOOD, "must be a Python name and .py"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_cannot_be_used_is_one_sentence_and_leaves_nothing(case, capsys):
    name, text, says = BROKEN[case]
    Path(name).write_text(text)
    known = (recipes(), datasets.layouts(), protocol_names(), augmentations())
    told = failed(capsys, main(["rows", "agw", "--plugin", name]))
    assert re.search(says, told) and told.count("\n") == 1, told
    assert (recipes(), datasets.layouts(), protocol_names(), augmentations()) == known


def test_a_file_that_is_missing_and_one_of_the_same_name(capsys):
    assert "no.py cannot be read: No such file" in failed(capsys, main(["rows", "--plugin", "no.py"]))
    assert "expected one argument" in failed(capsys, main(["rows", "--plugin"]))
    plugin("my_yard.py")
    Path("other").mkdir()
    Path("other/my_yard.py").write_text(GOOD)
    with pytest.raises(BadInput, match="is loaded already under the name 'my_yard'"):
        plugin("other/my_yard.py")


@pytest.mark.slow
@pytest.mark.process
def test_a_loading_process_without_memory_knows_the_plug_in():
    """Where processes are started afresh instead of forked, as on macOS and Windows."""
    pictures()
    Path("start.py").write_text(
        "import multiprocessing, sys\nfrom vireid.cli.main import main\n"
        "if __name__ == '__main__':\n    multiprocessing.set_start_method('spawn')\n    sys.exit(main())\n"
    )
    small = [*SECOND, "epochs=1", "epoch_length=1"]
    command = ["train", "agw+dark", "--plugin", "my_yard.py", "--data", "my-yard:pictures", "--run", "run"]
    done = subprocess.run(
        [sys.executable, "start.py", *command, "--workers", "1", "--set", *small], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path("run/last.pt").exists()


@pytest.mark.process
def test_every_process_of_a_training_loads_the_plug_in(tmp_path):
    """Two processes that are launched with the same command."""
    pictures()
    command = ["train", "my_yard+dark", "--plugin", str(tmp_path / "my_yard.py"), "--data"]
    command += [f"my-yard:{tmp_path / 'pictures'}", "--run", str(tmp_path / "run"), "--workers", "0"]
    small = [*SECOND, "epochs=1", "epoch_length=1", "identities_per_batch=2"]
    folder = tmp_path / "processes"
    assert wait(start(2, folder, program, [*command, "--set", *small])) == [0, 0], said(folder, 0) + said(folder, 1)
    assert open_run(tmp_path / "run").facts.processes == 2
    assert Path("run/plugins/my_yard.py").read_text() == YARD


def test_entry_points_of_an_installed_package(tmp_path, monkeypatch, capsys):
    """A package as pip leaves it: its modules, and a folder with its name and entry points."""
    site = tmp_path / "site"
    (site / "yards-1.2.dist-info").mkdir(parents=True)
    (site / "yards-1.2.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: yards\nVersion: 1.2\n")
    lines = {
        "vireid.recipes": "my_yard = yards_mine\nbroken = yards_broken",
        "vireid.datasets": "my-yard = yards_mine",
        "vireid.protocols": "my-yard = yards_mine",
        "vireid.augment": "dark = yards_mine",
    }
    text = "\n".join(f"[{group}]\n{points}" for group, points in lines.items())
    (site / "yards-1.2.dist-info/entry_points.txt").write_text(text)
    (site / "yards_mine.py").write_text(YARD)
    (site / "yards_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "yards_mine", raising=False)
    outside.entry_points.cache_clear()
    try:
        assert {"my_yard", "broken"} <= set(recipes()) and not Path("executed").exists()
        pictures()
        assert train("my_yard+dark", "run") == 0
        assert main(["test", "run", "--data", "my-yard:pictures", "--workers", "0"]) == 0
        (one, *more) = open_run(Path("run")).facts.plugins
        assert (one.package, Path(one.file).name, more) == ("yards 1.2", "yards_mine.py", [])
        told = failed(capsys, main(["fields", "broken"]))
        assert "entry point vireid.recipes 'broken' of yards 1.2 cannot be loaded: ZeroDivisionError" in told
    finally:
        outside.entry_points.cache_clear()


SWEEP = """
import sys
import pytest, vireid

name = sys.argv[1].rpartition("/")[2].removesuffix(".py")
vireid.plugin(sys.argv[1])
taken = []


class Only:
    def pytest_collection_modifyitems(self, items):
        items[:] = [one for one in items if getattr(one, "callspec", None) and one.callspec.params.get("name") == name]
        taken.extend(items)


code = pytest.main([*sys.argv[2:], "-q", "-p", "no:cacheprovider"], plugins=[Only()])
assert len(taken) >= 10, taken
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("page", "name", "tests"),
    [
        ("recipe", "plain", "test_sweep.py"),
        pytest.param("loss", "centres", "test_sweep.py", marks=pytest.mark.slow),
        pytest.param("recipe", "plain", "test_wiring.py", marks=pytest.mark.slow),
        pytest.param("loss", "centres", "test_wiring.py", marks=pytest.mark.slow),
    ],
)
def test_the_examples_of_the_pages_pass_the_tests_of_recipes_as_they_stand(tmp_path, page, name, tests):
    text = (ROOT / "docs" / "extend" / f"{page}.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"^recipe = '''\n(.*?)\n'''\nPath\(\"{name}\.py\"\)", text, re.MULTILINE | re.DOTALL)
    (tmp_path / f"{name}.py").write_text(code)
    command = [sys.executable, "-c", SWEEP, str(tmp_path / f"{name}.py"), f"tests/recipes/{tests}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
