"""Choosing an epoch: on held-out identities, said in the run; on the test set only when asked, said everywhere."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tests.small import SECOND
from vireid import datasets
from vireid.cli.main import main

EPOCHS = 4


def trained(world, directory, *options, layout="sysu-mm01", sets=()):
    arguments = ["train", "agw", "--data", f"{layout}:{world}", "--run", str(directory), "--workers", "0", *options]
    return main([*arguments, "--set", *SECOND, f"epochs={EPOCHS}", *sets])


@pytest.fixture(scope="module")
def world(worlds, tmp_path_factory):
    """The small world with two of its training identities kept for validation, as SYSU-MM01 keeps 99."""
    copy = tmp_path_factory.mktemp("validated") / "world"
    shutil.copytree(worlds["sysu-mm01"], copy)
    records = datasets.read("sysu-mm01", copy)
    if not len(records.where(split="val")):
        train = sorted(set(records.where(split="train").identity.tolist()))
        (copy / "exp" / "train_id.txt").write_text(",".join(map(str, train[:-2])))
        (copy / "exp" / "val_id.txt").write_text(",".join(map(str, train[-2:])))
    return copy


@pytest.fixture(scope="module")
def chosen(world, tmp_path_factory):
    run = tmp_path_factory.mktemp("chosen") / "run"
    assert trained(world, run, "--validate-every", "1") == 0
    return run


def test_validation_identities_are_held_out_and_the_run_says_so(world, chosen):
    records = datasets.read("sysu-mm01", world)
    facts = json.loads((chosen / "run.json").read_text())
    assert facts["data"]["identities"] == len(np.unique(records.where(split="train").identity))
    said = facts["validation"]
    assert (said["every"], said["on"], said["protocol"]) == (1, "val", "sysu-mm01/all/single")
    assert said["identities"] == len(np.unique(records.where(split="val").identity))
    assert "not trained on" in said["note"] and "protocol's own draw" in said["note"]


def test_the_best_epoch_is_kept_and_can_be_tested(world, chosen, tmp_path):
    lines = [json.loads(line)["validation"] for line in (chosen / "log.jsonl").read_text().splitlines()]
    values = [line["map"] for line in lines]
    best = int(np.argmax(values)) + 1  # the first of equal ones
    assert len(values) == EPOCHS and lines[-1]["best_epoch"] == best
    state = torch.load(chosen / "best.pt", weights_only=True)
    assert state["progress"]["epoch"] == best and state["validation"]["map"] == max(values)
    out = tmp_path / "r.json"
    arguments = ["test", str(chosen), "--data", f"sysu-mm01:{world}", "--workers", "0", "--json", str(out)]
    for which, epoch in (("best", best), ("last", EPOCHS)):
        assert main([*arguments, "--protocol", "sysu-mm01/all/single", "--checkpoint", which]) == 0
        name = "sysu-mm01-all-single" + ("-best" if which == "best" else "")
        measured = json.loads((chosen / "reports" / f"{name}.json").read_text())["measured"]
        assert (measured["checkpoint"], measured["epochs"]) == (which, epoch)
        warnings = json.loads(out.read_text())["warnings"]
        assert any("without the validation identities" in warning for warning in warnings)
        assert not any("best on test" in warning for warning in warnings)


def test_the_number_in_the_log_is_that_of_the_kept_weights(world, chosen):
    """Score the validation identities again, from best.pt, through the doors a user has."""
    import vireid
    from vireid.data.pictures import read_picture
    from vireid.evaluation.scoring import score
    from vireid.model import load

    model, records = load(chosen, checkpoint="best"), datasets.read("sysu-mm01", world).where(split="val")
    images = np.stack([read_picture(records.file(r), model.size).transpose(2, 0, 1) for r in range(len(records))])
    features = model.embed(images, records.modality.astype(np.int64))
    report = score(features, records.identity, records.camera, records.modality, protocol="sysu-mm01/all/single")
    kept = torch.load(chosen / "best.pt", weights_only=True)["validation"]
    assert isinstance(report, vireid.Report) and report.map == pytest.approx(kept["map"], abs=0.01)


def test_of_equal_epochs_the_first_is_the_best(world, chosen, tmp_path):
    """The same network measured twice is as good the second time, and not better."""
    from vireid.experiments import validate
    from vireid.experiments.embedding import Inference
    from vireid.model import load
    from vireid.training.progress import Quiet
    from vireid.training.run import Run

    model = load(chosen)
    _, validation = validate.plan(datasets.read("sysu-mm01", world), every=1, on=None, epochs=EPOCHS)
    how = Inference(model.size, workers=0)
    measure = validate.after_epoch(validation, model.network, Run(tmp_path, model.run.facts), how, Quiet())
    assert [measure(epoch)["validation"]["best_epoch"] for epoch in (0, 1, 2)] == [1, 1, 1]
    assert torch.load(tmp_path / "best.pt", weights_only=True)["progress"]["epoch"] == 1


def test_validating_does_not_change_training(world, chosen, tmp_path):
    assert trained(world, tmp_path / "seldom", "--validate-every", str(EPOCHS)) == 0
    often = torch.load(chosen / "last.pt", weights_only=True)
    seldom = torch.load(tmp_path / "seldom" / "last.pt", weights_only=True)
    assert all(torch.equal(often["model"][key], seldom["model"][key]) for key in often["model"])
    assert torch.load(tmp_path / "seldom" / "best.pt", weights_only=True)["progress"]["epoch"] == EPOCHS


def test_a_resumed_run_remembers_its_best(world, chosen, tmp_path, monkeypatch):
    """Stopped in the middle, where nothing but the files remains."""
    from vireid.training import loop

    begun = loop._stop_if_not_finite
    asked = 0

    def power_cut(*arguments):
        nonlocal asked
        asked += 1
        if asked == 8:  # epochs have three steps: in the middle of the third
            raise KeyboardInterrupt
        return begun(*arguments)

    monkeypatch.setattr(loop, "_stop_if_not_finite", power_cut)
    run = tmp_path / "run"
    assert trained(world, run, "--validate-every", "1") == 130
    assert trained(world, run, "--validate-every", "1", "--resume") == 0
    for name in ("best.pt", "last.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (chosen, run))
        assert one["progress"] == other["progress"]
        assert all(torch.equal(one["model"][key], other["model"][key]) for key in one["model"])


def test_the_test_set_chooses_only_when_asked_and_every_report_says_so(worlds, tmp_path, capsys):
    world, run = worlds["regdb"], tmp_path / "run"
    assert trained(world, run, "--validate-every", "2", layout="regdb") == 2
    assert "no validation identities; --validate-on test" in capsys.readouterr().err and not run.exists()
    assert trained(world, run, "--validate-every", "2", "--validate-on", "test", layout="regdb") == 0
    assert "best on test" in capsys.readouterr().err
    facts = json.loads((run / "run.json").read_text())
    assert facts["validation"]["on"] == "test" and facts["validation"]["note"].startswith("best on test")

    arguments = ["test", str(run), "--data", f"regdb:{world}", "--workers", "0", "--json", str(tmp_path / "r.json")]
    for which, flagged in (("best", True), ("last", False)):
        assert main([*arguments, "--checkpoint", which]) == 0
        assert ("warning: regdb/v2i: best on test" in capsys.readouterr().out) is flagged
        for report in json.loads((tmp_path / "r.json").read_text()):
            assert any("best on test" in warning for warning in report["warnings"]) is flagged
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "best on test" in (tmp_path / "page.html").read_text()


#   what is wrong                          options                                              what the sentence says
MISTAKES = {
    "never":                               (["--validate-every", "0"],                          ["0", "1 to 4"]),
    "after more epochs than there are":    (["--validate-every", "9"],                          ["9", "1 to 4"]),
    "on something without when":           (["--validate-on", "test"],                          ["--validate-every N"]),
    "on something unknown":                (["--validate-every", "1", "--validate-on", "tset"], ["'tset'", "test"]),
    "resumed with another choice":         (["--validate-every", "2", "--resume"],              ["--validate-every 1"]),
    "resumed without":                     (["--resume"],                                       ["--validate-every 1"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake, world, chosen, capsys):
    options, words = MISTAKES[mistake]
    before = (chosen / "best.pt").read_bytes()
    assert trained(world, chosen, *options) == 2
    error = capsys.readouterr().err
    (sentence,) = [line for line in error.splitlines() if line.startswith("vireid: ")]
    assert all(word in sentence for word in words), sentence
    assert (chosen / "best.pt").read_bytes() == before
