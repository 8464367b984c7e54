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


def test_precision_has_a_name_of_its_own_and_is_not_plain(run, worlds, capsys):
    (plain,) = measured(run, worlds)
    (half,) = measured(run, worlds, precision="bf16")
    assert not half.plain and half.marks == ("bf16",) and half.file_name != plain.file_name
    assert measurements(open_run(run)) == [half, plain]  # the plain report is still there


def test_the_printed_table_names_what_is_not_plain(run, worlds, capsys):
    arguments = ["test", str(run), "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--protocol", SINGLE, "--workers", "0"]
    shutil.copy(run / "last.pt", run / "best.pt")
    for options, shown in (
        ([], f"{SINGLE}  "),
        (["--untrained"], f"{SINGLE} (untrained)  "),
        (["--checkpoint", "best"], f"{SINGLE} (best checkpoint)  "),
        (
            ["--flip", "--embedding", "both", "--rerank", "query-expansion", "--precision", "bf16"],
            f"{SINGLE} (flip, both embedding, query-expansion, bf16)  ",
        ),
    ):
        assert main([*arguments, *options]) == 0
        assert f"\n{shown}" in capsys.readouterr().out
    assert main([*arguments, "--untrained", "--checkpoint", "best"]) == 2
    assert "leave out untrained or checkpoint best" in capsys.readouterr().err


def configured(run, **changes):
    """Change the configuration that `run.json` holds."""
    stored = json.loads((run / "run.json").read_text())
    stored["config"] |= changes
    (run / "run.json").write_text(json.dumps(stored))


def test_a_run_that_was_interrupted_is_tested_with_a_warning_and_is_not_plain(run, worlds):
    configured(run, epochs=500)  # what is on disk when a run of 500 epochs is killed after its second
    (early,) = measured(run, worlds)
    assert not early.plain and early.measured.planned == 500
    assert "the run is not finished: it was trained for 2 of 500 epochs" in early.report.warnings
    shutil.copy(run / "last.pt", run / "best.pt")
    (best,) = measured(run, worlds, checkpoint="best")
    assert any("2 of 500" in warning for warning in best.report.warnings)
    (untrained,) = measured(run, worlds, untrained=True)
    assert not any("not finished" in warning for warning in untrained.report.warnings)
    configured(run, epochs=2)
    (whole,) = measured(run, worlds)
    assert whole.plain and not any("not finished" in warning for warning in whole.report.warnings)


def test_the_best_epoch_of_a_finished_run_is_no_interrupted_run(run, worlds):
    import torch

    state = torch.load(run / "last.pt", weights_only=False)
    state["progress"]["epoch"] = 1  # the best of two epochs was the first
    torch.save(state, run / "best.pt")
    (best,) = measured(run, worlds, checkpoint="best")
    assert best.measured.epochs == 1 and not any("not finished" in warning for warning in best.report.warnings)


def test_a_run_of_other_pictures_is_tested_with_a_warning_and_is_not_plain(run, runs, worlds, tmp_path):
    across = tmp_path / "across"
    shutil.copytree(runs["llcm"], across, ignore=shutil.ignore_patterns("reports"))
    (other,) = measured(across, worlds)
    assert other.measured.trained_on == "llcm (generated)" and not other.plain
    assert any(warning.startswith("trained on llcm (generated)") for warning in other.report.warnings)

    (before,) = measured(run, worlds)
    stored = json.loads((run / "run.json").read_text())
    stored["data"]["fingerprint"] = "0" * 16
    (run / "run.json").write_text(json.dumps(stored))
    (other,) = measured(run, worlds)
    assert other.measured.trained_on == "other pictures of sysu-mm01 (generated)" and not other.plain
    assert other.title == f"{SINGLE} (other data)" and measurements(open_run(run)) == [other, before]

    (own,) = measured(shutil.copytree(runs["sysu-mm01"], tmp_path / "own"), worlds)
    assert own.plain and not any("trained on" in warning for warning in own.report.warnings)


def test_test_pictures_and_people_that_were_trained_on_are_named(worlds, tmp_path):
    """A table of own pictures: everybody is in the training split, and one test picture is too."""
    import csv

    from vireid import datasets
    from vireid.experiments.train import TrainOptions, train

    world = datasets.read("llcm", worlds["llcm"])
    own = tmp_path / "own"
    own.mkdir()
    (own / "pictures").symlink_to(worlds["llcm"])
    modality = {0: "visible", 1: "infrared"}
    lines = [
        ["pictures/" + path, identity, camera, modality[int(kind)], "train" if n % 2 else "test"]
        for n, (path, identity, camera, kind) in enumerate(
            zip(world.path, world.identity, world.camera, world.modality, strict=True)
        )
    ]
    for doubled, words in ((False, "test identities are training identities too"), (True, "1 of")):
        with open(own / "records.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "identity", "camera", "modality", "split"])
            table.writerows(lines + ([[*lines[0][:4], "train"]] if doubled else []))
        run = tmp_path / f"run-{doubled}"
        train(TrainOptions("agw", f"folder:{own}", run, set=SECOND, workers=0, allow_overlap=True))
        found = test(TestOptions(run, f"folder:{own}", workers=0, allow_overlap=True))
        assert all("overlap" in one.marks for one in found)
        assert all(any(words in warning for warning in one.report.warnings) for one in found)
        assert all(any("inflated" in warning for warning in one.report.warnings) for one in found)
