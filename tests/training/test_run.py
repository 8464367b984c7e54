"""Run directories: made once, locked by one process, read strictly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from tests.training.facts import DATA, VALIDATION, some_facts
from vireid.data.errors import BadInput
from vireid.training.run import DataFacts, Hardware, _git_commit, create, extend, held, open_run, surroundings


def test_a_run_is_made_once(tmp_path):
    run = create(tmp_path / "a" / "b", some_facts())
    assert open_run(run.path).facts == some_facts(started=run.facts.started)
    run.checkpoint.write_bytes(b"weights")
    with pytest.raises(BadInput, match=r"holds a run already.*--resume"):
        create(run.path, some_facts())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("do not lose")
    with pytest.raises(BadInput, match="not an empty directory"):
        create(tmp_path / "full", some_facts())
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        create(tmp_path / "file", some_facts())
    assert (tmp_path / "full" / "thesis.tex").read_text() == "do not lose"


@pytest.mark.parametrize("kept", ["last.pt", "best.pt", "reports", "log.jsonl"])
def test_a_run_that_saved_nothing_leaves_the_directory_free_and_any_other_does_not(tmp_path, kept):
    run = create(tmp_path / "run", some_facts())
    run.log.write_text("")  # as the journal leaves it before the first epoch
    (run.path / "notes.txt").write_text("do not lose")
    assert not run.saved
    again = create(run.path, some_facts(seed=7))
    assert open_run(run.path).facts.seed == 7 and (run.path / "notes.txt").read_text() == "do not lose"
    (run.path / kept).write_text('{"epoch": 0}\n')
    assert again.saved
    with pytest.raises(BadInput, match="holds a run already"):
        create(run.path, some_facts())
    assert open_run(run.path).facts.seed == 7


def test_a_run_that_cannot_be_read_is_not_replaced(tmp_path):
    (tmp_path / "run.json").write_text('{"recipe": ')
    with pytest.raises(BadInput, match="holds a run already"):
        create(tmp_path, some_facts())
    assert (tmp_path / "run.json").read_text() == '{"recipe": '


def test_an_extension_changes_the_number_of_epochs_and_is_recorded(tmp_path):
    run = create(tmp_path / "run", some_facts(set=("epochs=2", "seed=0")))
    before = run.settings
    longer = extend(run, {**run.facts.config, "epochs": 5}, "vireid train --extend epochs=5", same=True)
    longer = extend(longer, {**run.facts.config, "epochs": 9}, "vireid train --extend epochs=9", same=False)
    read = open_run(run.path)
    assert read.facts == longer.facts and read.facts.config["epochs"] == 9 and read.settings != before
    assert read.facts.set == ("seed=0", "epochs=9") and read.facts.command == run.facts.command
    assert [(one.before, one.after, one.command, one.same) for one in read.facts.extensions] == [
        (2, 5, "vireid train --extend epochs=5", True),
        (5, 9, "vireid train --extend epochs=9", False),
    ]
    assert run.facts.as_begun and not read.facts.as_begun


def test_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": ')
    with pytest.raises(BadInput, match=r"run\.json is not JSON"):
        open_run(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.raises(BadInput, match=r"no run\.json"):
        open_run(tmp_path)


# --- what run.json says -----------------------------------------------------------------------------------------------


def test_run_json_has_the_documented_layout_and_comes_back_typed(tmp_path):
    facts = some_facts(row="table1/a", validation=VALIDATION)
    run = create(tmp_path / "run", facts)
    said = json.loads((run.path / "run.json").read_text())
    assert list(said) == [
        *("recipe", "row", "set", "seed", "config", "command", "data", "validation", "processes", "normalisation"),
        *("started", "versions", "git_commit", "hardware", "extensions", "weights", "plugins", "format"),
    ]
    assert said["format"] == 2 and said["set"] == ["epochs=2"] and said["data"]["fold"] is None
    assert list(said["hardware"]) == ["system", "processor", "cores", "threads", "gpus"]
    assert open_run(run.path).facts == facts
    assert (facts.name, some_facts().name) == ("agw:table1/a", "agw")


def at(values: dict, path: str) -> tuple[dict, str]:
    *parents, name = path.split(".")
    for parent in parents:
        values = values[parent]
    return values, name


#    field               what it is             what the sentence says
SPOILT = [
    ("seed",             "0",                   "wrong 'seed'"),
    ("recipe",           None,                  "wrong 'recipe'"),
    ("set",              "epochs=2",            "wrong 'set'"),
    ("config",           [],                    "wrong 'config'"),
    ("data",             None,                  "wrong 'data'"),
    ("data.fold",        1.5,                   "wrong 'data.fold'"),
    ("data.generated",   "yes",                 "wrong 'data.generated'"),
    ("data.colour",      1,                     "'data.colour'"),
    ("data.trial",       1,                     "'data.trial'"),
    ("validation.every", True,                  "wrong 'validation.every'"),
    ("validation.best",  3,                     "'validation.best'"),
    ("hardware.gpus",    "none",                "wrong 'hardware.gpus'"),
    ("hardware.memory",  8,                     "'hardware.memory'"),
    ("colour",           1,                     "unknown field 'colour'"),
    ("format",           3,                     "has format 3"),
    ("format",           "2",                   "wrong 'format'|has format 2"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "sentence"), SPOILT)
def test_a_field_that_cannot_be_read_is_named(tmp_path, path, value, sentence):
    file = create(tmp_path / "run", some_facts(validation=VALIDATION)).path / "run.json"
    values = json.loads(file.read_text())
    parent, name = at(values, path)
    parent[name] = value
    file.write_text(json.dumps(values))
    with pytest.raises(BadInput, match=sentence) as refusal:
        open_run(tmp_path / "run")
    assert str(refusal.value).startswith(str(file)) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", ["recipe", "config", "hardware", "data.identities", "validation.on", "hardware.cores"])
def test_a_field_that_is_missing_is_named(tmp_path, path):
    file = create(tmp_path / "run", some_facts(validation=VALIDATION)).path / "run.json"
    values = json.loads(file.read_text())
    parent, name = at(values, path)
    del parent[name]
    file.write_text(json.dumps(values))
    with pytest.raises(BadInput, match=rf"run\.json lacks the field '{path}'"):
        open_run(tmp_path / "run")


def test_json_that_is_no_object_is_one_sentence(tmp_path):
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(BadInput, match=r"run\.json"):
        open_run(tmp_path)


def test_a_run_of_the_first_format_opens(tmp_path):
    wanted = some_facts(data=DataFacts(**{**vars(DATA), "fold": 3}))
    file = create(tmp_path / "run", wanted).path / "run.json"
    values = json.loads(file.read_text())
    del values["format"]
    values["data"]["trial"] = values["data"].pop("fold")
    values["config"]["optimiser"]["backbone_factor"] = values["config"]["optimiser"].pop("trunk_factor")
    file.write_text(json.dumps(values))
    assert open_run(tmp_path / "run").facts == wanted


# --- locks and logs ---------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_run_directory_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path):
    code = f"""
import time
from pathlib import Path
from vireid.training.run import held
with held(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match="in use by another process"), held(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    with held(tmp_path):
        pass


def test_a_log_line_that_a_killed_process_left_unfinished_is_passed_over(tmp_path):
    run = create(tmp_path / "run", some_facts())
    run.log.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert [line["epoch"] for line in run.epochs()] == [0, 1]


# --- surroundings -----------------------------------------------------------------------------------------------------


def test_surroundings_say_what_a_reader_needs_to_repeat_it():
    before = datetime.now(UTC)
    found = surroundings()
    assert set(vars(found)) == {"started", "versions", "git_commit", "hardware"}
    assert found.versions["torch"] == torch.__version__ and found.hardware.cores is not None
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.hardware.cores >= 1 and found.hardware.threads == torch.get_num_threads()
    assert 0 <= (datetime.fromisoformat(found.started) - before).total_seconds() + 1 < 60


def test_hardware_in_words_is_the_gpus_or_else_the_processor():
    assert Hardware("Linux x86_64", "Xeon", 2, 1, ()).words == "2 cores Xeon"
    assert Hardware("Linux x86_64", "Xeon", 2, 1, ("A100", "A100")).words == "A100, A100"


def test_the_git_commit_has_a_plus_where_files_differ_from_it(tmp_path):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        ).stdout

    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    assert _git_commit(package) is None
    git("init", "-q")
    assert _git_commit(package) is None  # no commit yet
    (package / "recipe.py").write_text("")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()[:12]
    (package / "recipe.pyc").write_text("")  # ignored
    (tmp_path / "notes.txt").write_text("")  # untracked, outside the package
    assert _git_commit(package) == commit
    (package / "recipes").mkdir()
    (package / "recipes" / "new.py").write_text("")
    assert _git_commit(package) == commit + "+"
    shutil.rmtree(package / "recipes")
    assert _git_commit(package) == commit
    other = tmp_path / "mine.py"
    other.write_text("")
    assert _git_commit(package) == commit and _git_commit(package, [other]) == commit + "+"
    assert _git_commit(package, [package / "recipe.py"]) == commit
    (package / "recipe.pyc").write_text("")
    assert _git_commit(package, [package / "recipe.pyc"]) == commit + "+"  # ignored, but used
    assert _git_commit(package, [Path("/nowhere/recipe.py")]) == commit + "+"
    (package / "recipe.py").write_text("changed")
    assert _git_commit(package) == commit + "+"
    assert _git_commit(Path("/usr/lib/site-packages/package")) is None
