"""Several processes build one index: each takes its part, and together they make what one would."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests import processes
from tests.gallery import servers
from tests.gallery.cameras import built, rows, save, station, write
from vireid.gallery.journal import Journal
from vireid.gallery.store import open as open_store

pytestmark = pytest.mark.process


def build_part(url: str, run: str, cameras: str, state: str) -> dict:
    found = built(url, Path(run), cameras, batch=4, name="s", state=Path(state))
    return {name: getattr(found, name) for name in ("listed", "embedded", "unchanged", "unreadable", "gone", "visible")}


def test_a_folder_takes_one_process(runs: dict[str, Path], tmp_path: Path) -> None:
    options = ["--model", str(runs["sysu-mm01"]), str(station(tmp_path / "station"))]
    started = processes.start(
        2, tmp_path / "log", processes.program, ["gallery", "build", str(tmp_path / "i"), *options]
    )
    assert 2 in processes.wait(started)
    assert "i is a folder, which one process writes: start one, or use milvus://" in processes.said(tmp_path / "log", 0)
    assert not (tmp_path / "i").exists()


@pytest.mark.slow
@pytest.mark.skipif(not servers.LITE.exists(), reason="milvus-lite is not installed")
def test_two_processes_build_what_one_does(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    run, cameras, state = runs["sysu-mm01"], station(tmp_path / "station", visible=20, infrared=10), tmp_path / "state"
    write(cameras / "visible/gate/bad.jpg", b"bad")
    built(tmp_path / "index", run, cameras, name="s")
    with servers.lite(tmp_path / "data") as (port, _):
        given = (f"milvus://127.0.0.1:{port}/s?thumbnails={tmp_path / 'small'}", str(run), str(cameras), str(state))
        one, other = processes.together(2, tmp_path / "first", build_part, *given)
        assert one == other and one["listed"] == 31 and one["embedded"] == 30 and one["visible"] == 20
        assert one["unreadable"] == {"s": {"visible/gate/bad.jpg": "is not a picture in a known format"}}
        parts = []
        for rank in (0, 1):
            (tmp_path / f"only-{rank}").mkdir()
            # If two processes close a journal at the same moment, its last lines stay in the -wal file beside it.
            for file in state.glob(f"journal-{rank}.sqlite*"):
                shutil.copy(file, tmp_path / f"only-{rank}")
            with Journal(tmp_path / f"only-{rank}") as journal:
                parts.append(set(journal.paths("s")))
        assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 31 and min(map(len, parts)) > 5
        _compare(given[0], tmp_path / "index")
        # Three processes where there were two, and then one: the journals of all count.
        save(cameras / "visible/gate/001.jpg", 500, time=1.71e9)
        for number, world in enumerate((3, 1)):
            (cameras / f"infrared/cellar/00{number}.png").unlink()
            found = processes.together(world, tmp_path / f"world{world}", build_part, *given)[0]
            assert (found["embedded"], found["unchanged"]) == ((1, 28) if number == 0 else (0, 28))
            assert found["gone"] == {"s": number + 1}


@pytest.mark.slow
@pytest.mark.skipif(not servers.LITE.exists(), reason="milvus-lite is not installed")
def test_two_processes_that_are_killed_are_followed_by_others(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    run, cameras, state = runs["sysu-mm01"], station(tmp_path / "station", visible=60, infrared=40), tmp_path / "state"
    built(tmp_path / "index", run, cameras, name="s")
    with servers.lite(tmp_path / "data") as (port, _):
        given = (f"milvus://127.0.0.1:{port}/s?thumbnails={tmp_path / 'small'}", str(run), str(cameras), str(state))
        for number in range(3):
            started = processes.start(2, tmp_path / f"killed{number}", build_part, *given)
            deadline = time.monotonic() + 60
            while not (state / "journal-1.sqlite").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3 + 0.3 * number)
            for one in started:
                one.kill()
            processes.wait(started)
        found = processes.together(2, tmp_path / "end", build_part, *given)[0]
        assert found["listed"] == 100 and not found["gone"]
        _compare(given[0], tmp_path / "index")


def _compare(url: str, index: Path) -> None:
    """The rows are equal; vectors are as close as other batches allow."""
    there, expected = rows(url), rows(index)
    assert there == expected
    for path, row in there.items():
        vector = expected[path].vector
        assert row.vector is not None and vector is not None and np.allclose(row.vector, vector, atol=1e-5)
    with open_store(url) as one, open_store(index) as other:
        assert all(one.thumbnail(row.id) == other.thumbnail(row.id) for row in there.values())
