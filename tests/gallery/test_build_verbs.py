"""What `vireid gallery build, info and prune` print and write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.gallery.cameras import save, station, write
from vireid.cli.main import main


def gallery(*words: str | Path) -> int:
    return main(["gallery", *map(str, words)])


def test_build_info_and_prune_say_what_they_did(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras, index, run = station(tmp_path / "s"), tmp_path / "index", runs["sysu-mm01"]
    write(cameras / "visible/gate/bad.jpg", b"bad")
    save(cameras / "visible/gate/twin.jpg", 1)
    build = ["build", index, "--model", run, cameras, "--workers", "1", "--json", tmp_path / "built.json"]
    assert gallery(*build) == 0
    said = capsys.readouterr()
    assert f"{index}: 7 visible and 4 infrared pictures\n12 listed: 11 embedded, 0 unchanged" in said.out
    assert "1 of the embedded pictures has the same bytes as another one" in said.out
    assert "1 picture cannot be read, and is tried again when it changes:" in said.out
    assert f"  {cameras}/visible/gate/bad.jpg: is not a picture in a known format" in said.out
    assert "checking: 12 of 12" in said.err and "embedding: 12 of 12" in said.err
    written = json.loads((tmp_path / "built.json").read_text())
    assert written["embedded"] == 11 and written["unreadable"][str(cameras)]["visible/gate/bad.jpg"]

    assert gallery("info", index, "--json", tmp_path / "info.json") == 0
    said = capsys.readouterr().out
    for line in (
        "model agw, PyTorch, ",
        f"not calibrated: vireid gallery calibrate {run}",
        "no picture has a time; ",
        "1 picture has the same bytes as another one",
        "cellar        0         4\n",
        "gate          4         0\n",
    ):
        assert line in said, said
    found = json.loads((tmp_path / "info.json").read_text())
    assert (found["visible"], found["infrared"], found["duplicates"], found["without_time"]) == (7, 4, 1, 11)
    (source,) = found["sources"]
    assert (source["rows"], source["unreadable"], source["place"]) == (11, 1, str(cameras))
    assert found["bytes"] == sum(file.stat().st_size for file in index.iterdir()) and found["recall"] is None

    (cameras / "visible/gate/001.jpg").unlink()
    assert gallery(*build) == 0
    assert (
        f"1 picture of {cameras} is not there any more: vireid gallery prune {index} --gone" in capsys.readouterr().out
    )
    assert gallery("prune", index, "--gone", "--dry-run") == 0
    assert f"{index}: 1 picture would be removed" in capsys.readouterr().out
    assert gallery("prune", index, "--gone", "--older-than", "2030-01-01") == 0
    said = capsys.readouterr().out
    assert "0 pictures were removed" in said and "1 picture has no time, so it is not older than anything" in said
    assert gallery("prune", index, "--gone") == 0
    assert gallery("prune", index) == 2
    assert "say what to remove" in capsys.readouterr().err
    assert gallery("info", tmp_path / "nowhere") == 2
    assert not (tmp_path / "nowhere").exists()
