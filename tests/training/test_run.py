"""Run directories: made once, held by one process, read with care."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vireid.data.errors import BadInput
from vireid.training.run import create, held, open_run, surroundings


def test_a_run_is_made_once(tmp_path):
    run = create(tmp_path / "a" / "b", {"recipe": "agw"})
    assert open_run(run.path).facts == {"recipe": "agw"}
    with pytest.raises(BadInput, match=r"holds a run already.*--resume"):
        create(run.path, {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("do not lose")
    with pytest.raises(BadInput, match="not an empty directory"):
        create(tmp_path / "full", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        create(tmp_path / "file", {})
    assert (tmp_path / "full" / "thesis.tex").read_text() == "do not lose"


def test_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(BadInput, match=r"no run\.json"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": ')
    with pytest.raises(BadInput, match="cannot be read"):
        open_run(tmp_path)


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
    run = create(tmp_path / "run", {})
    run.log.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert [line["epoch"] for line in run.epochs()] == [0, 1]


def test_surroundings_say_what_a_reader_needs_to_repeat_it():
    facts = surroundings()
    assert set(facts) == {"started", "versions", "git_commit", "hardware"}
    assert facts["versions"]["torch"] and facts["hardware"]["cores"] >= 1
