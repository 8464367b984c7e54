"""An index knows its model: which one it is, where it is, and which other files compute the same vectors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gallery.cameras import built, station
from vireid.data.errors import BadInput
from vireid.gallery.index import MODEL, open_index, state_folder
from vireid.gallery.store import open as open_store
from vireid.model import load


@pytest.fixture
def run(runs: dict[str, Path]) -> Path:
    return runs["sysu-mm01"]


def test_a_fingerprint_is_of_weights_recipe_size_and_arithmetic(runs: dict[str, Path], tmp_path: Path) -> None:
    one = load(runs["sysu-mm01"]).fingerprint
    shutil.copytree(runs["sysu-mm01"], tmp_path / "moved")
    assert load(tmp_path / "moved").fingerprint == one != load(runs["regdb"]).fingerprint
    bigger = replace(load(tmp_path / "moved"), recipe="other")
    assert bigger.fingerprint != one


def test_a_model_that_was_moved_or_replaced(runs: dict[str, Path], run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    built(tmp_path / "index", tmp_path / "run", station(tmp_path / "s", visible=2, infrared=1))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    with open_index(tmp_path / "index") as index, pytest.raises(BadInput, match=r"is not at .*run any more: name it"):
        _ = index.model
    with open_index(tmp_path / "index", model=tmp_path / "moved") as index:
        assert index.model.recipe == "agw"
    with (
        open_index(tmp_path / "index", model=runs["regdb"]) as index,
        pytest.raises(BadInput, match=r"is not the model that .*index was built with"),
    ):
        _ = index.model
    built(tmp_path / "index", tmp_path / "moved", tmp_path / "s")  # a build notes the new place
    with open_index(tmp_path / "index") as index:
        assert index.facts.path == str(tmp_path / "moved") and index.model.recipe == "agw"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"path": 1}'])
def test_an_index_with_altered_facts_is_refused(text: str, run: Path, tmp_path: Path) -> None:
    built(tmp_path / "index", run, station(tmp_path / "s", visible=1, infrared=1))
    with open_store(tmp_path / "index") as store:
        store.keep(MODEL, text)
    with pytest.raises(BadInput, match=r"what .*index says of its model"):
        open_index(tmp_path / "index")


def test_a_gallery_without_a_model_is_no_index(tmp_path: Path) -> None:
    open_store(tmp_path / "store", model="ab" * 32, width=4).close()
    with pytest.raises(BadInput, match="holds vectors and no model: vireid gallery build makes an index"):
        open_index(tmp_path / "store")
    with pytest.raises(BadInput, match="there is no gallery"):
        open_index(tmp_path / "nowhere")


def test_state_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder(tmp_path) == tmp_path
    found = state_folder("milvus://host:19530/station?consistency=bounded")
    assert found == tmp_path / "xdg" / "vireid" / "milvus_host_19530_station" and found.stat().st_mode & 0o777 == 0o700
    assert state_folder("milvus://host:19530/a", tmp_path / "given") == tmp_path / "given"
