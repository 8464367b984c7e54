"""The directory of an exported model is used as a run is, and what it cannot do is said in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vireid
from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.evaluation.parity import patterns
from vireid.experiments.measurement import measurements
from vireid.export.runtime import Exported
from vireid.training.run import open_run

SINGLE = "sysu-mm01/all/single"


@pytest.fixture
def copy(agw, tmp_path) -> Path:
    """An export that a test may change."""
    return Path(shutil.copytree(agw.export, tmp_path / "copy", ignore=shutil.ignore_patterns("reports", "queries")))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Five pictures of the size of the test's networks."""
    return patterns(5, vireid.data.size.Size(64, 32))


def test_it_embeds_both_modalities_in_one_batch_as_the_run_does(agw, pictures):
    run, export = vireid.load(agw.run), vireid.load(str(agw.export))
    mixed = [1, 0, 1, 1, 0]
    found = export.embed(pictures, mixed)
    np.testing.assert_allclose(found, run.embed(pictures, mixed), atol=1e-5)
    assert found.dtype == np.float32 and not np.allclose(found, export.embed(pictures, 0), atol=1e-3)
    assert export.embed([], 0).shape == (0, 0)
    assert (export.size, export.scaling, export.epochs) == (run.size, run.scaling, run.epochs)
    ranked = export.rank(pictures[:2], pictures, query_modality="infrared", gallery_modality="infrared", top=1)
    assert ranked.index[:, 0].tolist() == [0, 1]


def test_a_report_is_kept_with_the_export_and_marked(agw, copy, worlds, capsys):
    before = sorted((agw.run / "reports").glob("*")) if (agw.run / "reports").exists() else []
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    assert main(["test", str(copy), "--data", data, "--protocol", SINGLE, "--flip", "--workers", "0"]) == 0
    assert f"{SINGLE} (flip, onnx)" in capsys.readouterr().out
    (kept,) = measurements(open_run(copy))
    assert kept.measured.runtime == "onnx" and not kept.plain
    assert [file.name for file in (copy / "reports").iterdir()] == ["sysu-mm01-all-single-flip-onnx.json"]
    assert before == (sorted((agw.run / "reports").glob("*")) if (agw.run / "reports").exists() else [])
    assert main(["report", str(copy), "--format", "text"]) == 0
    assert "onnx" in capsys.readouterr().out


def test_embed_takes_it_and_names_its_files(agw, worlds, tmp_path):
    folder = worlds["sysu-mm01"] / "cam3"
    here = vireid.embed(agw.run, folder, modality="infrared", workers=1)
    there = vireid.embed(agw.export, folder, modality="infrared", workers=1)
    assert (here.path == there.path).all()
    np.testing.assert_allclose(here.features, there.features, atol=1e-5)
    assert (here.header["runtime"], there.header["runtime"]) == ("", "onnx")
    assert here.header["weights_sha256"] != there.header["weights_sha256"]


@pytest.mark.parametrize("file", ["visible.onnx", "infrared.onnx"])
def test_a_file_that_was_changed_or_is_missing_is_refused(copy, file):
    changed = bytearray((copy / file).read_bytes())
    changed[len(changed) // 2] ^= 1
    (copy / file).write_bytes(changed)
    with pytest.raises(BadInput, match=rf"{file} is not the file that was exported \(its SHA-256 differs\)"):
        vireid.load(copy)
    (copy / file).unlink()
    with pytest.raises(BadInput, match=rf"{file} is missing; run vireid export again"):
        vireid.load(copy)


CHANGES = {
    "another format": ({"format": 9}, "has format 9, this version of vireid reads 1"),
    "no format": ({"format": None}, "has format None"),
    "an unknown runtime": ({"to": "pickle"}, "unknown format in .*'pickle'; choices: onnx, openvino"),
    "an unknown field": ({"more": 1}, "unknown field 'more'"),
    "a wrong size": ({"size": "64x32"}, "wrong 'size'"),
    "a missing hash": ({"files": {}}, r"has hashes of no file and not of visible\.onnx, infrared\.onnx"),
    "a path": ({"files": {"../visible.onnx": "0" * 64, "infrared.onnx": "0" * 64}}, "has hashes of"),
    "no run": ({"run": None}, "export.json"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_list_of_files_is_refused(copy, change):
    values, message = CHANGES[change]
    stored = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**stored, **values}))
    with pytest.raises(BadInput, match=message):
        vireid.load(copy)


def test_a_file_that_is_no_model_is_one_sentence(tmp_path):
    from vireid.export import onnx

    (tmp_path / "visible.onnx").write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"visible\.onnx cannot be read by onnxruntime: "):
        onnx.opened(tmp_path / "visible.onnx")


def test_what_only_the_run_has_is_refused(agw, worlds):
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    with pytest.raises(BadInput, match=r"computes features only; this needs the run that it was exported from"):
        _ = vireid.load(agw.export).network
    for options, message in (
        ({"untrained": True}, "the network before its first step needs the run itself"),
        ({"checkpoint": "best"}, "was exported from the checkpoint last, not best"),
        ({"embedding": "pooled"}, "leave out pooled"),
        ({"embedding": "both", "precision": "bf16"}, "leave out both and bf16"),
    ):
        with pytest.raises(BadInput, match=message):
            vireid.test(agw.export, data=data, protocols=SINGLE, workers=1, **options)


def test_nothing_can_be_trained_or_exported_into_it_or_from_it(agw, worlds, capsys):
    there = {file.name: file.read_bytes() for file in agw.export.iterdir() if file.is_file()}
    data, export = f"sysu-mm01:{worlds['sysu-mm01']}", str(agw.export)
    for arguments, message in (
        (["train", "agw", "--data", data, "--run", export, "--set", *SECOND], "is not an empty directory"),
        (["train", "agw", "--data", data, "--run", export, "--resume", "--set", *SECOND], "is not an empty directory"),
        (["export", str(agw.run), "--out", export], "is not an empty directory; choose another --out"),
        (["export", export, "--out", f"{export}-2"], "this needs the run that it was exported from"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in agw.export.iterdir() if file.is_file()} == there


def test_the_command_says_what_it_wrote(quick, tmp_path, capsys):
    (tmp_path / "new").mkdir()  # empty
    out, said = tmp_path / "new", tmp_path / "said.json"
    assert main(["export", str(quick.run), "--out", str(out), "--json", str(said)]) == 0
    assert f"{out}: visible.onnx 5.2 MB, infrared.onnx 5.2 MB" in capsys.readouterr().out
    assert json.loads(said.read_text()) == json.loads((out / "export.json").read_text())
    assert "vireid export" in json.loads(said.read_text())["command"]
    found = Exported(out)
    assert found.name == "onnx" and max(found.facts.differences.values()) < 1e-9
    assert {file.name for file in tmp_path.iterdir()} == {"new", "said.json"}  # nothing unfinished is left
    assert found(torch.zeros(0, 3, 64, 32, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)).shape == (0, 256)


def test_a_recipe_from_a_plugin_is_not_needed_to_use_its_export(copy, pictures, worlds):
    """`export.json` says that the recipe came from a plug-in. The run itself would ask for it."""
    stored = json.loads((copy / "export.json").read_text())
    facts = {"name": "mine", "file": "/gone/mine.py", "sha256": "0" * 64, "holds": ["recipe mine"], "package": ""}
    stored["run"] |= {"recipe": "mine", "plugins": [facts]}
    (copy / "export.json").write_text(json.dumps(stored))
    assert vireid.load(copy).embed(pictures, 1).shape == (5, 256)
    assert vireid.test(copy, data=f"sysu-mm01:{worlds['sysu-mm01']}", protocols=SINGLE, workers=1)
