"""`vireid gallery records`: what a service kept becomes files, and what it did not keep is said."""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import pytest

from vireid.cli.main import main
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import state_folder
from vireid.gallery.service.audit import Audit

DAY = 86_400
START = 1_772_323_200  # 2026-03-01


@pytest.fixture
def kept(tmp_path) -> Path:
    """A folder with three searches of two people, a day apart, and two verdicts."""
    folder = tmp_path / "station"
    folder.mkdir(mode=0o700)
    now = [START]
    with Audit(folder, clock=lambda: now[0]) as log, Feedback(folder) as said:
        for day, who in enumerate(("anna", "ben", "anna")):
            now[0] = START + day * DAY
            log.record(who, "a" * 64, {"cameras": ["gate"]}, [f"{day:032x}"], f"case {day}")
        said.put("5" * 32, "a" * 64, "b" * 64, "same", "anna")
        said.put("5" * 32, "a" * 64, "c" * 64, "different", "ben")
    return folder


def test_both_files_hold_what_was_kept_and_are_private(kept, tmp_path, capsys):
    log, said = tmp_path / "audit.jsonl", tmp_path / "feedback.csv"
    assert main(["gallery", "records", str(kept), "--audit", str(log), "--feedback", str(said)]) == 0
    assert capsys.readouterr().out == f"{log}: 3 searches\n{said}: 2 verdicts\n"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["who"], one["reason"]) for one in entries] == [
        ("anna", "case 0"),
        ("ben", "case 1"),
        ("anna", "case 2"),
    ]
    with open(said, newline="") as file:
        assert sorted(line["verdict"] for line in csv.DictReader(file)) == ["different", "same"]
    if os.name == "posix":
        assert {stat.S_IMODE(file.stat().st_mode) for file in (log, said)} == {0o600}


def test_the_log_is_narrowed_by_name_and_time(kept, tmp_path):
    file = tmp_path / "audit.csv"

    def reasons(*words: str) -> list[str]:
        assert main(["gallery", "records", str(kept), "--audit", str(file), *words]) == 0
        with open(file, newline="") as found:
            return [line["reason"] for line in csv.DictReader(found)]

    assert reasons("--who", "anna") == ["case 0", "case 2"]
    assert reasons("--since", "2026-03-02") == ["case 1", "case 2"]
    assert reasons("--until", "2026-03-02") == ["case 0"]
    assert reasons("--who", "anna", "--since", "2026-03-02T00:00:01") == ["case 2"]


def test_an_index_in_milvus_keeps_them_in_its_folder_of_this_machine(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    url, file = "milvus://127.0.0.1:1/station", tmp_path / "audit.csv"
    usual = state_folder(url)
    usual.rmdir()
    kept.rename(usual)
    assert main(["gallery", "records", url, "--audit", str(file)]) == 0  # no server is asked
    assert file.read_text().count("case") == 3
    assert main(["gallery", "records", url, "--audit", str(file), "--state", str(usual)]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--audit FILE, --feedback FILE, or both"),
        (["--audit", "log.txt"], ".csv, .jsonl"),
        (["--feedback", "said.jsonl"], ".csv"),
        (["--feedback", "said.csv", "--who", "anna"], "are of the audit log"),
        (["--audit", "none/log.csv"], "there is no folder"),
        (["--audit", "log.csv", "--since", "yesterday"], "since takes a date"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(kept, words, said, capsys, monkeypatch):
    monkeypatch.chdir(kept.parent)
    assert main(["gallery", "records", str(kept), *words]) == 2
    assert said in capsys.readouterr().err
    assert [file.name for file in kept.parent.iterdir()] == ["station"]


def test_a_folder_that_was_never_served_is_not_changed(tmp_path, capsys):
    folder = tmp_path / "fresh"
    folder.mkdir()
    assert main(["gallery", "records", str(folder), "--audit", str(tmp_path / "a.csv")]) == 2
    assert "vireid gallery serve makes it" in capsys.readouterr().err
    assert not list(folder.iterdir())
