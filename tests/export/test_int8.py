"""int8 and OpenVINO: the files are smaller, their loss is measured, and too large a loss is refused."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vireid
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.evaluation.parity import patterns
from vireid.experiments import export as verb
from vireid.experiments.export import ExportOptions, check_losses, export
from vireid.export.runtime import LossFacts
from vireid.model import load

PROTOCOLS = ("sysu-mm01/all/single", "sysu-mm01/all/multi", "sysu-mm01/indoor/single", "sysu-mm01/indoor/multi")


@pytest.fixture
def asked(quick, worlds, tmp_path) -> ExportOptions:
    """int8, calibrated on the small world."""
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    return ExportOptions(quick.run, tmp_path / "new", int8=True, calibrate=data, accept_loss=True, workers=0)


def closeness(one: Path, other: Path) -> float:
    """The smallest cosine of the features of a few pictures by two models."""
    pictures, modality = patterns(8, load(one).size), [0, 1] * 4
    return float((load(one).embed(pictures, modality) * load(other).embed(pictures, modality)).sum(1).min())


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_is_smaller_and_says_what_it_loses(to, asked, quick):
    found = export(replace(asked, to=to))
    assert found.name == f"{to}-int8" and vireid.load(asked.out).runtime == f"{to}-int8"
    facts = found.facts.int8
    assert facts is not None and facts.data == asked.calibrate
    world = vireid.records(asked.calibrate)
    for word, number in (("visible", 0), ("infrared", 1)):
        there = (world.modality == number) & np.isin(world.split, ("train", "val"))
        assert facts.pictures[word] == there.sum()
        assert 0.9 < facts.cosines[word] < 0.999999
    assert tuple(one.protocol for one in facts.losses) == PROTOCOLS
    ours = vireid.test(quick.run, data=asked.calibrate, protocols=list(PROTOCOLS), workers=1)
    theirs = vireid.test(asked.out, data=asked.calibrate, protocols=list(PROTOCOLS), workers=1)
    assert [one.before for one in facts.losses] == pytest.approx([one.map for one in ours], abs=1e-9)
    assert [one.after for one in facts.losses] == pytest.approx([one.map for one in theirs], abs=1e-9)
    sizes = [sum(file.stat().st_size for file in folder.glob("visible.*")) for folder in (asked.out, quick.export)]
    assert sizes[0] < 0.4 * sizes[1]
    assert closeness(asked.out, quick.run) < 0.999999


def test_openvino_computes_what_pytorch_does(asked, quick):
    pytest.importorskip("openvino")
    found = export(replace(asked, to="openvino", int8=False, calibrate=None, accept_loss=False))
    assert sorted(found.facts.files) == ["infrared.bin", "infrared.xml", "visible.bin", "visible.xml"]
    assert max(found.facts.differences.values()) < 1e-9 and closeness(asked.out, quick.run) > 0.999999
    weights = bytearray((asked.out / "visible.bin").read_bytes())
    weights[100] ^= 1
    (asked.out / "visible.bin").write_bytes(weights)
    with pytest.raises(BadInput, match=r"visible\.bin is not the file that was exported"):
        vireid.load(asked.out)


def test_a_loss_above_one_point_is_refused():
    small, large = LossFacts("p/small", 50.0, 49.0), LossFacts("p/large", 50.0, 48.9)
    check_losses([LossFacts("p/gain", 50.0, 55.0), small])
    with pytest.raises(BadInput, match=r"int8 loses 1\.10 points of mAP by p/large \(50\.00 to 48\.90\), and 1 is"):
        check_losses([small, large, small])


def test_a_refused_loss_leaves_nothing_unless_it_is_accepted(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verb, "LOSS", -1000.0)  # every loss is too large
    given = ["export", str(asked.run), "--out", str(asked.out), "--int8", "--calibrate", asked.calibrate]
    assert main([*given, "--workers", "1"]) == 2
    assert "nothing is kept; --accept-loss keeps it" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    assert main([*given, "--workers", "1", "--accept-loss"]) == 0
    said = capsys.readouterr().out
    assert "int8: ranges from" in said and all(protocol in said for protocol in PROTOCOLS)


def unlabelled(worlds, folder: Path, kind: str) -> Path:
    """Pictures of both modalities without labels, as a folder with two folders or as a table."""
    sources = {word: sorted(worlds["sysu-mm01"].glob(f"{cam}/*/*.jpg"))[:5] for word, cam in CAMERAS.items()}
    for word, files in sources.items():
        (folder / word).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / word / f"{file.parent.name}-{file.name}")
    if kind == "folder":
        return folder
    with open(folder / "table.csv", "w", newline="") as table:
        lines = [(f"{word}/{file.name}", word) for word in CAMERAS for file in sorted((folder / word).iterdir())]
        csv.writer(table).writerows([("path", "modality"), *lines])
    return folder / "table.csv"


CAMERAS = {"visible": "cam1", "infrared": "cam3"}


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_pictures_without_labels_give_ranges_and_no_loss(kind, asked, worlds, tmp_path):
    pictures = str(unlabelled(worlds, tmp_path / "yard", kind))
    with pytest.raises(BadInput, match=r"have no labels, so the loss of mAP cannot be measured: .* --accept-loss"):
        export(replace(asked, calibrate=pictures, accept_loss=False))
    found = export(replace(asked, calibrate=pictures)).facts.int8
    assert found is not None and found.losses == () and found.pictures == {"visible": 5, "infrared": 5}


def test_only_one_modality_is_refused(asked, worlds, tmp_path):
    table = unlabelled(worlds, tmp_path / "yard", "table")
    table.write_text("".join(line for line in table.read_text().splitlines(True) if "infrared" not in line))
    with pytest.raises(BadInput, match="has no infrared pictures for calibration; both modalities are needed"):
        export(replace(asked, calibrate=str(table)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": None}, r"--int8 needs pictures for its ranges: --calibrate LAYOUT:PATH"),
        ({"int8": False}, "--calibrate is for --int8"),
        ({"int8": False, "calibrate": None}, "--accept-loss is for --int8"),
        ({"calibrate": "sysu-mm01:/no/such/folder"}, "/no/such/folder"),
        ({"calibrate": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message, asked, tmp_path):
    with pytest.raises(BadInput, match=message):
        export(replace(asked, **options))
    assert not any(tmp_path.iterdir())


@pytest.mark.process
def test_openvino_reports_to_nobody(tmp_path):
    """Its packages report each import to their maker. For that they make a folder in the home folder."""
    code = "from vireid.export.openvino import toolkit; toolkit(); toolkit('nncf')"
    alone = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=alone, check=True, cwd=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.process
def test_openvino_models_can_be_deleted_in_any_order(asked):
    """The older of two first. Then the end of a subprocess is a signal with a handler in Python."""
    found = export(replace(asked, to="openvino", int8=False, calibrate=None, accept_loss=False))
    code = (
        "import signal, subprocess, sys; from pathlib import Path; from vireid.export.openvino import opened\n"
        "first, second = opened(Path(sys.argv[1])), opened(Path(sys.argv[2]))\n"
        "del first; del second\n"
        "signal.signal(signal.SIGCHLD, lambda *of: print('seen'))\n"
        "subprocess.run(['true'])"
    )
    files = [found.file.parent / name for name in ("visible.xml", "infrared.xml")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr
