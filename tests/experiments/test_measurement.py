"""Measurements are typed: what is kept comes back, and anything else is refused with one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.measurement import Measurement, measurements
from vireid.experiments.test import TestOptions, test
from vireid.training.run import open_run

SINGLE = "sysu-mm01/all/single"


@pytest.fixture
def run(runs, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(runs["sysu-mm01"], copy, ignore=shutil.ignore_patterns("reports"))
    return copy


def measured(run, worlds, **options):
    asked = TestOptions(run, f"sysu-mm01:{worlds['sysu-mm01']}", protocols=(SINGLE,), workers=0, **options)
    return test(asked)


def test_what_is_kept_comes_back_whole(run, worlds):
    (plain,) = measured(run, worlds, breakdown=True)
    (flipped,) = measured(run, worlds, flip=True, embedding="pooled", rerank="query-expansion")
    (untrained,) = measured(run, worlds, untrained=True)
    assert measurements(open_run(run)) == [flipped, plain, untrained]
    assert plain.plain and not flipped.plain and not untrained.plain
    assert flipped.marks == ("flip", "pooled", "query-expansion") and untrained.marks == ()
    assert plain.breakdown and plain.examples and not untrained.examples
    assert all(0 < len(one.answers) <= 10 for one in plain.examples)
    for one in plain.examples:  # in this layout the folder of a picture is its identity
        for answer in one.answers:
            assert answer.correct == (answer.path.split("/")[1] == one.query.split("/")[1])
    assert any(answer.correct for one in plain.examples for answer in one.answers)


#   what is wrong                 what was done to the stored values                    what the sentence says
WRONG = {
    "another format":           (lambda s: s.update(format=1),        ["format 1", "vireid test again"]),
    "no format":                (lambda s: s.pop("format"),        ["format 1", "vireid test again"]),
    "a field is missing":       (lambda s: s["measured"].pop("epochs"),        ["measured.epochs"]),
    "a field is unknown":       (lambda s: s.update(colour="red"),        ["colour"]),
    "a wrong type":             (lambda s: s["measured"].update(epochs="eighty"),      ["measured.epochs"]),
    "a report field missing":   (lambda s: s["report"].pop("rank1"),        ["rank1"]),
    "a report's wrong type":    (lambda s: s["report"].update(map="high"),        ["map"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_report_of_another_form_is_refused_by_name(case, run, worlds, capsys):
    change, words = WRONG[case]
    measured(run, worlds)
    (file,) = (run / "reports").iterdir()
    stored = json.loads(file.read_text())
    change(stored)
    file.write_text(json.dumps(stored))
    with pytest.raises(BadInput) as refusal:
        Measurement.read(file)
    assert str(file) in str(refusal.value) and all(word in str(refusal.value) for word in words)
    assert main(["report", str(run), "--out", str(run / "page.html")]) == 2
    assert main(["rows", "agw", "--runs", str(run.parent)]) == 0  # a broken file is said, and hides no other row
    assert f"left out: {refusal.value}" in capsys.readouterr().err


def test_a_run_of_another_form_is_refused_by_name(run, capsys):
    stored = json.loads((run / "run.json").read_text())
    for change, word in (({"seed": "zero"}, "seed"), ({"format": 99}, "99"), ({"colour": 1}, "colour")):
        (run / "run.json").write_text(json.dumps({**stored, **change}))
        assert main(["test", str(run), "--data", "sysu-mm01:x"]) == 2
        error = capsys.readouterr().err
        assert "run.json" in error and word in error and error.count("\n") == 1
    config = {**stored["config"], "epochs": "eighty"}
    (run / "run.json").write_text(json.dumps({**stored, "config": config}))
    assert main(["train", "agw", "--data", "sysu-mm01:x", "--run", str(run), "--set", *SECOND]) == 2


def test_every_option_does_what_the_report_says(run, worlds, tmp_path):
    """The numbers are those of the features and the re-ranking that the options name."""
    from vireid.evaluation.scoring import read_features, score

    def features(name, **options):
        file = tmp_path / f"{name}.npz"
        (found,) = measured(run, worlds, features=file, **options)
        return read_features(file), found.report

    plain, report = features("plain")
    for rerank in ("k-reciprocal", "query-expansion"):
        (reranked,) = measured(run, worlds, rerank=rerank)
        expected = score(**plain, protocol=SINGLE, rerank=rerank)
        assert reranked.report.map == pytest.approx(expected.map) and reranked.report.map != pytest.approx(report.map)
    for name, options, tolerance in (("bf16", {"precision": "bf16"}, 0.05), ("flip", {"flip": True}, 2.0)):
        changed, other = features(name, **options)
        difference = np.abs(changed["features"] - plain["features"]).max()
        assert 1e-6 < difference < tolerance, name
        assert other.map == pytest.approx(score(**changed, protocol=SINGLE).map)
