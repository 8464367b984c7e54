"""An index may be built with a run and go on with its export."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gallery.cameras import built, station
from tests.gallery.people import calibrated
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.evaluation.calibration import FILE
from vireid.gallery.index import calibration_beside
from vireid.gallery.store import open as open_store
from vireid.model import load


def test_a_float32_export_goes_on_with_the_index_of_its_run(agw: Any, tmp_path: Path) -> None:
    run, cameras, index = agw.run, station(tmp_path / "s", visible=4, infrared=2), tmp_path / "index"
    shutil.copytree(agw.export, tmp_path / "onnx")
    assert load(tmp_path / "onnx").fingerprint == load(run).fingerprint
    built(index, run, cameras)
    shutil.copytree(cameras / "visible/gate", cameras / "visible/lane")
    found = built(index, tmp_path / "onnx", cameras)
    assert (found.embedded, found.unchanged, found.duplicates) == (2, 6, 2)
    with open_store(index) as store:
        rows = {row.path: row for row in store.iterate(vectors=True)}
    one, other = (rows[f"visible/{camera}/001.jpg"].vector for camera in ("gate", "lane"))
    assert one is not None and other is not None and np.allclose(one, other, atol=1e-4)
    # An int8 export, and one of an older version which does not know its checkpoint, are models of their own.
    file = tmp_path / "onnx" / "export.json"
    facts = json.loads(file.read_text())
    older = {name: value for name, value in facts.items() if name != "weights"}
    int8 = {**facts, "int8": {"data": "", "pictures": {}, "cosines": {}, "losses": []}}
    for changed in (older, int8):
        file.write_text(json.dumps(changed))
        assert load(tmp_path / "onnx").fingerprint != load(run).fingerprint
        with pytest.raises(BadInput, match="holds vectors of the model"):
            built(index, tmp_path / "onnx", cameras)


def test_a_float32_export_has_the_calibration_of_its_checkpoint(
    quick: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(quick.run, run)
    made = calibrated()
    (run / FILE).write_text(replace(made, model=load(run).fingerprint).as_text())
    assert main(["export", str(run), "--out", str(tmp_path / "onnx")]) == 0
    assert (tmp_path / "onnx" / FILE).read_text() == (run / FILE).read_text()
    found = calibration_beside(tmp_path / "onnx", load(tmp_path / "onnx").fingerprint)
    assert found is not None and found.people == made.people
    (run / FILE).write_text(made.as_text())
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "other")]) == 0
    assert not (tmp_path / "other" / FILE).exists()
    assert f"{run / FILE} is of another checkpoint" in capsys.readouterr().err
