"""The verbs from Python: the same runs and reports as from the command line, and silence unless asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vireid
from tests.small import SECOND
from vireid.cli.main import main

SMALL = dict(assignment.split("=") for assignment in SECOND)
SINGLE = "sysu-mm01/all/single"


@pytest.fixture(scope="module")
def trained(worlds, tmp_path_factory):
    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    typed = {name: int(value) if value.isdecimal() else value for name, value in SMALL.items()}
    return vireid.train("agw", data=source, run=tmp_path_factory.mktemp("python") / "run", set=typed, workers=0)


def test_training_from_python_is_training_from_the_command_line(trained, runs):
    one, other = (
        torch.load(path / "last.pt", weights_only=True)["model"] for path in (trained.path, runs["sysu-mm01"])
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    facts = json.loads((trained.path / "run.json").read_text())
    assert facts["set"] == list(SECOND) and facts["command"].startswith("vireid.train(recipe='agw', data='sysu-mm01:")
    assert len(trained.epochs()) == 2


def test_a_run_can_be_tested_and_its_reports_read(trained, worlds, tmp_path):
    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    (report,) = vireid.test(trained, data=source, protocols=[SINGLE], workers=0)
    out = tmp_path / "r.json"
    arguments = [
        "test",
        str(trained.path),
        "--data",
        source,
        "--protocol",
        SINGLE,
        "--workers",
        "0",
        "--json",
        str(out),
    ]
    assert main(arguments) == 0
    assert json.loads(out.read_text()) == report.to_json() and isinstance(report, vireid.Report)
    assert len(vireid.test(str(trained.path), data=source, workers=0, flip=True)) == 4
    assert vireid.test(trained, data=source, protocols=SINGLE, workers=0) == [report]


def test_nothing_is_printed_unless_asked(worlds, tmp_path, capfd):
    source = f"regdb:{worlds['regdb']}"
    run = vireid.train("agw", data=source, run=tmp_path / "run", set=SMALL, workers=0)
    vireid.test(run, data=source, workers=0)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    vireid.test(run, data=source, workers=0, progress=True)
    assert "embedding" in capfd.readouterr().err


def test_reproduce_gives_rows_with_both_numbers(worlds, tmp_path):
    source, runs = f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "runs"
    (found,) = vireid.reproduce("agw", "sysu-mm01/all", data=source, runs=runs, set=SMALL, seeds="0", workers=0)
    assert found.row.published["rank1"] == 47.5
    assert found.ours is not None and 0 <= found.ours.metrics["rank1"] <= 100 and found.ours.generated


def test_embedding_takes_paths_pictures_and_arrays(trained, worlds):
    model = vireid.load(trained)
    records = vireid.records("sysu-mm01", worlds["sysu-mm01"]).where(split="test", modality=1)
    files = [records.file(sample) for sample in range(3)]
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    found = [model.embed(given, modality="infrared") for given in (files, [str(f) for f in files], pictures, arrays)]
    assert found[0].shape == (3, 256) and found[0].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found[0], axis=1), 1, atol=1e-5)
    assert all(np.array_equal(found[0], other) for other in found[1:])
    mixed = model.embed([files[0], pictures[1], arrays[2]], modality=["infrared", 1, vireid.Modality.INFRARED])
    assert np.array_equal(mixed, found[0])
    assert np.abs(model.embed(files, modality="visible") - found[0]).max() > 1e-4


def test_records_are_named_as_everywhere_else_or_in_two_words(worlds):
    world = worlds["regdb"]
    for found in (
        vireid.records(f"regdb:{world}", fold=2),
        vireid.records("regdb", world, fold=2),
        vireid.records("regdb", root=str(world), fold=2),
    ):
        assert found.layout == "regdb" and found.fold == 2
        assert found.fingerprint() == vireid.records(f"regdb:{world}", fold=2).fingerprint()
    assert vireid.records(f"regdb:{world}").fingerprint() != found.fingerprint()


#   what is wrong                 the call                                                       what the sentence says
MISTAKES = {
    "an unknown option":        (lambda d, r: vireid.train("agw", data=d, run=r, epochs=3), ["epochs", "set"]),
    "an unknown field":         (lambda d, r: vireid.train("agw", data=d, run=r, set={"epoch": 3}), ["'epoch'"]),
    "a value of a wrong type":  (lambda d, r: vireid.train("agw", data=d, run=r, set={"epochs": "x"}), ["epochs"]),
    "an option's wrong type":   (lambda d, r: vireid.train("agw", data=d, run=r, workers="many"), ["workers"]),
    "an unknown recipe":        (lambda d, r: vireid.train("awg", data=d, run=r), ["awg", "agw"]),
    "no run":                   (lambda d, r: vireid.test(r, data=d), ["run.json"]),
    "an unknown embedding":     (lambda d, r: vireid.test(r, data=d, embedding="nek"), ["nek", "neck"]),
    "no name of a run":         (lambda d, r: vireid.test(3, data=d), ["run", "3", "run directory"]),
    "protocols of no names":    (lambda d, r: vireid.test(r, data=d, protocols=3), ["protocols", "list of names"]),
    "an option of no class":    (lambda d, r: vireid.test(r, data=d, batch=0), ["batch cannot be 0", "1 or more"]),
    "a path of no type":        (lambda d, r: vireid.test(r, data=d, cache=3), ["cache cannot be 3", "a path or null"]),
    "both kinds of network":    (lambda d, r: vireid.test(r, data=d, untrained=True, checkpoint="best"), ["leave out"]),
    "features in no folder":    (lambda d, r: vireid.test(r, data=d, features=r / "f.npz"), ["f.npz", "no folder"]),
    "a model of no run":        (lambda d, r: vireid.load(3), ["run cannot be 3", "run directory"]),
    "a list of protocols":      (lambda d, r: scored(protocol=["regdb/v2i"]), ["one name", "regdb/v2i", "llcm/i2v"]),
    "no protocol":              (lambda d, r: scored(protocol=None), ["one name", "None"]),
    "records of no layout":     (lambda d, r: vireid.records("yard"), ["LAYOUT:PATH", "folder"]),
    "records of no name":       (lambda d, r: vireid.records(r), ["layout cannot be", "LAYOUT:PATH"]),
    "records named twice":      (lambda d, r: vireid.records(d, r), ["unknown layout"]),
    "a run to embed of no type": (lambda d, r: vireid.embed(3, r), ["run cannot be 3", "run directory"]),
    "pictures of no type":      (lambda d, r: vireid.embed(r, [r]), ["pictures cannot be", "a path"]),
    "an unknown embed option":  (lambda d, r: vireid.embed(r, r, which="best"), ["which", "checkpoint"]),
    "an unknown table":         (lambda d, r: vireid.reproduce("agw", "table77", data=d), ["table77"]),
}  # fmt: skip


def scored(**options):
    return vireid.score(np.ones((4, 2)), [1, 2, 1, 2], [1, 1, 2, 2], [0, 0, 1, 1], **options)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, worlds, tmp_path):
    call, words = MISTAKES[mistake]
    with pytest.raises(vireid.BadInput) as refusal:
        call(f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "none")
    assert "\n" not in str(refusal.value) and all(word in str(refusal.value) for word in words), refusal.value
    assert "Options" not in str(refusal.value)


def test_a_picture_that_cannot_be_embedded_is_named(trained, tmp_path):
    model = vireid.load(trained)
    (tmp_path / "text.jpg").write_text("no picture")
    for pictures, modality, word in (
        ([tmp_path / "text.jpg"], 1, "text.jpg"),
        ([tmp_path / "none.jpg"], 1, "none.jpg"),
        ([np.zeros((4, 4, 2), np.uint8)], 1, "H×W×3"),
        ([np.zeros((8, 8, 3), np.float32)], 1, "uint8"),
        ([np.zeros((8, 8, 3), np.uint8)], "infrarot", "infrared"),
        (None, 1, "pictures cannot be None; it takes a list"),
        (7, 1, "pictures cannot be 7; it takes a list"),
    ):
        with pytest.raises(vireid.BadInput, match=word):
            model.embed(pictures, modality=modality)
    assert isinstance(trained.path, Path)
