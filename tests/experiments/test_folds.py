"""One model for each of RegDB's folds: trained once, whatever stops the command in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.small import SECOND
from vireid import datasets
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.folds import chosen


def command(worlds, runs, out, folds="1-2", *sets):
    where = ["--data", f"regdb:{worlds['regdb']}", "--runs", str(runs), "--folds", folds, "--json", str(out)]
    return ["folds", "agw", *where, "--workers", "0", "--set", *SECOND, "epochs=1", *sets]


def files(folder, name):
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob(f"*/{name}")}


@pytest.fixture(scope="module")
def done(worlds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    assert main(command(worlds, folder / "runs", folder / "out.json")) == 0
    return folder


def test_each_fold_is_its_own_model_tested_on_its_own_people(done, worlds):
    found = json.loads((done / "out.json").read_text())
    assert [one["trial"] for one in found["trials"]] == [1, 2]
    for one in found["trials"]:
        facts = json.loads((done / "runs" / f"fold-{one['trial']:02d}" / "run.json").read_text())
        assert facts["data"]["fold"] == one["trial"]
        for report in one["reports"]:
            slug = report["protocol"].replace("/", "-")
            kept = json.loads((done / "runs" / f"fold-{one['trial']:02d}" / "reports" / f"{slug}.json").read_text())
            split = datasets.read("regdb", worlds["regdb"], fold=one["trial"]).where(split="test")
            assert kept["report"] == report and kept["measured"]["fingerprint"] == split.fingerprint()
    for protocol in ("regdb/v2i", "regdb/i2v"):
        for metric, said in found["summary"][protocol].items():
            reports = [report for one in found["trials"] for report in one["reports"]]
            values = [report[metric] for report in reports if report["protocol"] == protocol]
            assert len(values) == 2
            assert (said["mean"], said["std"]) == pytest.approx((np.mean(values), np.std(values)))


def test_a_second_call_does_only_what_is_missing(done, worlds, capsys):
    runs = done / "runs"
    first, weights = json.loads((done / "out.json").read_text()), files(runs, "last.pt")
    reports = files(runs, "reports/*.json")
    assert main(command(worlds, runs, done / "again.json")) == 0
    printed = capsys.readouterr().out
    assert json.loads((done / "again.json").read_text()) == first
    assert files(runs, "last.pt") == weights and files(runs, "reports/*.json") == reports
    mean = first["summary"]["regdb/v2i"]["rank1"]
    assert f"{mean['mean']:.2f} ± {mean['std']:.2f}" in printed and "mean over 2 folds" in printed
    # Half a report is no report: that fold is tested again, and not trained again.
    half = runs / "fold-02" / "reports" / "regdb-i2v.json"
    half.write_text(half.read_text()[:100])
    assert main(command(worlds, runs, done / "again.json")) == 0
    assert json.loads((done / "again.json").read_text()) == first and files(runs, "last.pt") == weights


def test_two_folds_at_once_are_the_same_folds(done, worlds, tmp_path, capsys):
    """Each in a process of its own, begun together; the reports are those of one after the other."""
    assert main([*command(worlds, tmp_path / "runs", tmp_path / "out.json"), "--jobs", "2"]) == 0
    lines = [line.split(" → ")[0] for line in capsys.readouterr().err.splitlines()]
    begun = [lines.index(f"training {place} of 2: fold {place}") for place in (1, 2)]
    assert begun[1] == begun[0] + 1 and lines[begun[1] + 1].startswith("1 done in")
    ours, theirs = (json.loads((folder / "out.json").read_text()) for folder in (tmp_path, done))
    assert ours["summary"] == theirs["summary"]
    assert [one["reports"] for one in ours["trials"]] == [one["reports"] for one in theirs["trials"]]


def test_a_fold_that_fails_does_not_stop_the_others(done, worlds, tmp_path, capsys):
    runs = tmp_path / "runs"
    (runs / "fold-01").mkdir(parents=True)
    (runs / "fold-01" / "notes.txt").write_text("something else")
    assert main(command(worlds, runs, tmp_path / "out.json")) == 2
    printed = capsys.readouterr()
    assert "fold 1: " in printed.err and "fold-01" in printed.err and "fold 2: " not in printed.err
    assert (runs / "fold-02" / "reports" / "regdb-v2i.json").exists()


def test_a_report_on_other_data_is_measured_again(done, worlds):
    runs, kept = done / "runs", done / "runs" / "fold-01" / "reports" / "regdb-v2i.json"
    weights, whole = files(runs, "last.pt"), json.loads(kept.read_text())
    other = {**whole, "measured": {**whole["measured"], "fingerprint": "other"}}
    kept.write_text(json.dumps({**other, "report": {**whole["report"], "rank1": 99.5}}))
    assert main(command(worlds, runs, done / "again.json")) == 0
    assert json.loads(kept.read_text())["report"] == whole["report"] and files(runs, "last.pt") == weights


@pytest.mark.process
def test_killed_in_the_middle_it_ends_as_if_it_had_not_been(done, worlds, tmp_path):
    arguments = [sys.executable, "-m", "vireid.cli.main", *command(worlds, tmp_path / "runs", tmp_path / "out.json")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        second = tmp_path / "runs" / "fold-02" / "run.json"
        ends = time.monotonic() + 120
        while not second.exists() and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.005)
        assert second.exists()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    finished = files(tmp_path / "runs", "last.pt")["fold-01"]
    assert main(command(worlds, tmp_path / "runs", tmp_path / "out.json")) == 0
    one, other = (json.loads((folder / "out.json").read_text()) for folder in (done, tmp_path))
    assert one["summary"] == other["summary"]
    assert files(tmp_path / "runs", "last.pt")["fold-01"] == finished


ALL = list(range(1, 11))


@pytest.mark.parametrize(("text", "numbers"), [(None, ALL), ("1-10", ALL), ("3", [3]), ("7, 1,2-3", [1, 2, 3, 7])])
def test_which_folds(text, numbers):
    assert chosen(text, "regdb", 10) == numbers


@pytest.mark.parametrize("text", ["0-3", "1-11", "3-1", "one", "", "1-", "-3", "1-999999999999"])
def test_folds_that_are_none(text):
    with pytest.raises(BadInput, match=r"^--folds '.*1.*10"):
        chosen(text or ",", "regdb", 10)


def test_mistakes_are_one_sentence(done, worlds, tmp_path, capsys):
    assert main(command(worlds, done / "runs", tmp_path / "x.json", "1-2", "seed=3")) == 2
    sentence = "fold-01 holds a run of another recipe, configuration, fold or data; choose another --runs"
    assert sentence in capsys.readouterr().err
    sysu = ["trials", "agw", "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--runs", str(tmp_path)]
    assert main(sysu) == 2
    assert "sysu-mm01 has one fold" in capsys.readouterr().err


def test_the_old_names_of_the_verb_and_its_option_still_work(done, worlds, capsys):
    where = ["--data", f"regdb:{worlds['regdb']}", "--runs", str(done / "runs"), "--workers", "0"]
    assert main(["trials", "agw", *where, "--trials", "1", "--set", *SECOND, "epochs=1"]) == 0
    assert "mean over 1 fold" in capsys.readouterr().out
