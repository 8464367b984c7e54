"""Files that an attacker altered or put there: an index, a model, links. And who may read what the program writes."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gallery import cameras
from tests.gallery.served import picture, served
from tests.gallery.station import station
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.index import Index, open_index
from vireid.gallery.row import Where
from vireid.gallery.search import Query, query_from, search
from vireid.model import Model, load

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
SOURCE = Path(__file__).resolve().parents[2] / "src" / "vireid"


@pytest.fixture(scope="module")
def made(worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("altered") / "index"
    station(folder, runs["sysu-mm01"], worlds["sysu-mm01"]).close()
    return folder


@pytest.fixture(scope="module")
def model(runs: dict[str, Path]) -> Model:
    return load(runs["sysu-mm01"])


@pytest.fixture()
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of an index, to be altered."""
    shutil.copytree(made, tmp_path / "index")
    return tmp_path / "index"


def opened(folder: Path, model: Model) -> Index:
    """An open index whose model is loaded already."""
    index = open_index(folder)
    index.__dict__["model"] = model
    return index


# --- who may read what is written -------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {str(one.relative_to(folder)): stat.S_IMODE(one.lstat().st_mode) for one in folder.rglob("*")}


@POSIX
def test_nobody_else_can_read_what_a_gallery_writes(runs: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the umask is: the index, its journal, the audit log and its key, feedback, exports, tokens."""
    before = os.umask(0)
    try:
        pictures = cameras.station(tmp_path / "station")
        state = tmp_path / "state"
        state.mkdir()
        index = state / "index"
        run = str(runs["sysu-mm01"])
        assert main(["gallery", "build", str(index), str(pictures), "--model", run, "--workers", "0"]) == 0
        new = ["gallery", "serve", str(index), "--tokens", str(state / "tokens.json"), "--new-token", "ward 3"]
        assert main(new) == 0
        with served(index) as service, service.client() as client:
            answer = client.post("/v1/searches", files={"image": picture()}).json()
            said = {"search": answer["search"], "picture": answer["matches"][0]["picture"], "verdict": "same"}
            assert client.put("/v1/feedback", json=said).status_code == 204
            service.service.engine.feedback.export(index / "feedback.csv")
            service.service.engine.audit.export(index / "audit.csv")
            found = modes(state)
        found = {**found, **modes(state)}
    finally:
        os.umask(before)
    assert {"index/gallery.sqlite", "index/audit.sqlite-wal", "index/audit.key", "index/feedback.csv"} <= set(found)
    assert [name for name in found if "journal" in name or "build" in name], found
    assert {name: oct(mode) for name, mode in found.items() if mode not in (0o600, 0o700)} == {}
    assert found["index"] == 0o700


# --- links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gallery.sqlite", "visible-0.float32", "infrared-0.int8", "gallery.sqlite-wal"])
def test_a_link_in_an_index_is_not_followed(name: str, folder: Path, model: Model, tmp_path: Path) -> None:
    file = folder / name
    if file.exists():
        file.rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_bytes(b"precious")
    before = (tmp_path / "elsewhere").read_bytes()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"link|cannot be used"), opened(folder, model) as index:
        first = next(index.store.iterate(Where()))
        search(index, [query_from(index, first.id)])
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("name", ["audit.sqlite", "audit.key", "feedback.sqlite", "audit.sqlite-wal"])
def test_a_service_writes_through_no_link(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (folder / name).symlink_to(tmp_path / "victim")
    assert main(["gallery", "serve", str(folder), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert name.removesuffix("-wal") in said and "Traceback" not in said
    assert (tmp_path / "victim").read_bytes() == b"precious"


# --- an altered index -------------------------------------------------------------------------------------------------


UNUSED = {
    "no facts of the model",
    "facts of the model",
    "deep facts of the model",
    "another model",
    "calibration",
    "calibration that is no JSON",
    "facts",
    "width",
}
"""What a running service has read already."""


def altered(folder: Path, command: str, *values: Any) -> None:
    with sqlite3.connect(folder / "gallery.sqlite") as sql:
        sql.execute(command, values)
    sql.close()


ALTERED: dict[str, tuple[Any, ...]] = {
    "place below zero": ("UPDATE rows SET place = -1 - place",),
    "place too large": ("UPDATE rows SET place = place + 100000",),
    "place that is text": ("UPDATE rows SET place = 'x' || place",),
    "checksum": ("UPDATE rows SET checksum = checksum + 1",),
    "time that is text": ("UPDATE rows SET time = 'yesterday'",),
    "time out of range": ("UPDATE rows SET time = 9223372036854775807",),
    "camera that is bytes": ("UPDATE rows SET camera = x'00ff'",),
    "camera that is long": ("UPDATE rows SET camera = ?", "x" * 10_000),
    "content": ("UPDATE rows SET content = 'none'",),
    "path with control characters": ("UPDATE rows SET path = 'a' || char(0, 27) || id",),
    "source that is no UTF-8": ("UPDATE rows SET source = CAST(x'ff41' AS TEXT)",),
    "id": ("UPDATE rows SET id = '<script>' || id",),
    "generation that is a path": ("UPDATE matrices SET generation = '../../0'",),
    "generation that is not there": ("UPDATE matrices SET generation = 9",),
    "count of vectors": ("UPDATE matrices SET vectors = 1000000000000",),
    "no matrices": ("DELETE FROM matrices",),
    "width": ("UPDATE facts SET width = width - 1",),
    "facts": ("DELETE FROM facts",),
    "facts of the model": ("UPDATE documents SET text = '[]' WHERE name = 'model'",),
    "deep facts of the model": ("UPDATE documents SET text = ? WHERE name = 'model'", "[" * 100_000),
    "another model": ("UPDATE facts SET model = ?", "0" * 64),
    "no facts of the model": ("DELETE FROM documents",),
    "calibration": ("INSERT INTO documents VALUES ('calibration', '{\"pairs\": 1}')",),
    "calibration that is no JSON": ("INSERT INTO documents VALUES ('calibration', 'x')",),
    "no table": ("DROP TABLE rows",),
    "other tables": ("ALTER TABLE rows RENAME COLUMN camera TO kamera",),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_index_is_refused(name: str, folder: Path, model: Model) -> None:
    """When it is opened or searched, with one sentence."""
    altered(folder, *ALTERED[name])
    with pytest.raises(BadInput) as refused, opened(folder, model) as index:
        vector = np.zeros(index.facts.width, np.float32)
        vector[0] = 1
        search(index, [Query(vector, Modality.VISIBLE)])
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ALTERED)
def test_an_index_that_is_altered_while_it_is_served_is_told(name: str, folder: Path, model: Model) -> None:
    """No answer has anything of it, none is an internal error, and the service goes on."""
    with served(opened(folder, model)) as service, service.client() as client:
        id = next(service.service.engine.store.iterate()).id
        assert client.post("/v1/searches", json={"picture": id}).status_code == 200
        altered(folder, *ALTERED[name])
        answers = [
            client.post("/v1/searches", files={"image": picture()}),
            client.post("/v1/searches", json={"picture": id}),
            client.get("/v1/facets"),
            client.get(f"/v1/pictures/{id}/thumbnail"),
            client.get("/metrics"),
        ]
        for answer in answers:
            assert answer.status_code in (200, 404, 503), answer.text
            assert str(folder) not in answer.text and "SELECT" not in answer.text
        if name not in UNUSED:
            assert answers[0].status_code == 503 and answers[0].headers["content-type"] == "application/problem+json"
        assert client.get("/healthz").status_code == 200


def test_altered_vectors_are_not_compared(folder: Path, model: Model) -> None:
    with served(opened(folder, model)) as service, service.client() as client:
        with open(folder / "visible-0.float32", "r+b") as file:
            data = bytearray(file.read())
            for at in range(0, len(data), 64):
                data[at] ^= 1
            file.seek(0)
            file.write(data)
        answer = client.post("/v1/searches", files={"image": picture()}, data={"search_in": "visible"})
        assert answer.status_code == 503 and "matches" not in answer.json()
        other = client.post("/v1/searches", files={"image": picture()}, data={"search_in": "infrared"})
        assert other.status_code == 200 and other.json()["matches"]


@pytest.mark.parametrize("name", ["visible-0.float32", "visible-0.int8", "gallery.sqlite"])
def test_files_that_are_cut_short_are_told(name: str, folder: Path, model: Model) -> None:
    os.truncate(folder / name, 100)
    with pytest.raises(BadInput), opened(folder, model) as index:
        search(index, [query_from(index, next(index.store.iterate()).id)])


def test_a_thumbnail_that_is_a_page_is_no_page(folder: Path, model: Model) -> None:
    altered(folder, "UPDATE thumbnails SET picture = ?", b"<html><script>alert(1)</script>")
    with served(opened(folder, model)) as service, service.client() as client:
        id = next(service.service.engine.store.iterate()).id
        answer = client.get(f"/v1/pictures/{id}/thumbnail")
        assert answer.headers["content-type"] == "image/jpeg" and answer.headers["x-content-type-options"] == "nosniff"


# --- an altered model -------------------------------------------------------------------------------------------------


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture()
def other_run(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the run, to be altered."""
    shutil.copytree(runs["sysu-mm01"], tmp_path / "run")
    return tmp_path / "run"


def test_a_pickle_in_the_place_of_a_checkpoint_is_not_executed(folder: Path, other_run: Path, tmp_path: Path) -> None:
    import torch

    trap = Trap(tmp_path / "sprung")
    (other_run / "last.pt").write_bytes(pickle.dumps(trap))
    with open_index(folder, model=other_run) as index, pytest.raises(BadInput):
        _ = index.model
    torch.save({"format": 2, "model": trap}, other_run / "last.pt")
    with open_index(folder, model=other_run) as index, pytest.raises(BadInput):
        _ = index.model
    assert not trap.folder.exists()


def test_other_weights_are_refused(folder: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gallery", "serve", str(folder), "--port", "0", "--model", str(runs["regdb"])]
    assert main(words) == 2
    assert "is not the model" in capsys.readouterr().err


def test_code_that_a_run_names_is_not_executed(folder: Path, other_run: Path, tmp_path: Path) -> None:
    code = tmp_path / "evil.py"
    code.write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\n")
    facts = json.loads((other_run / "run.json").read_text())
    facts["plugins"] = [{"name": "evil", "file": str(code), "sha256": "0" * 64, "holds": ["recipe agw"], "package": ""}]
    (other_run / "run.json").write_text(json.dumps(facts))
    with open_index(folder, model=other_run) as index, pytest.raises(BadInput, match=r"evil"):
        _ = index.model
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_an_altered_export_is_refused(folder: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from vireid.experiments.export import ExportOptions, export

    export(ExportOptions(run=runs["sysu-mm01"], out=tmp_path / "onnx"))
    file = tmp_path / "onnx" / "visible.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with open_index(folder, model=tmp_path / "onnx") as index, pytest.raises(BadInput, match="SHA-256 differs"):
        _ = index.model


def test_the_gallery_has_no_pickles_and_runs_no_text() -> None:
    """Nothing in the room unpickles or executes what it reads."""
    for file in sorted((SOURCE / "gallery").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [one.name for one in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "marshal", "shelve", "joblib", "dill"} & set(names), file
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                named = isinstance(node.func, ast.Name)
                assert not (named and called in ("eval", "exec", "__import__")), f"{file}:{node.lineno}"
                assert "allow_pickle" not in [one.arg for one in node.keywords], f"{file}:{node.lineno}"
                assert called not in ("system", "popen"), f"{file}:{node.lineno}"
