"""What is pruned leaves every file of the index, and nothing else does."""

from __future__ import annotations

import datetime
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.cameras import built, everything, rows, save, station, write
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery import prune as pruning
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import open_index
from vireid.gallery.journal import Journal
from vireid.gallery.prune import Pruned, PruneOptions, expire, prune
from vireid.gallery.row import Row, Where
from vireid.gallery.store import open as open_store

HOUR = 3_600_000
START = 1_772_330_000_000


@pytest.fixture
def run(runs: dict[str, Path]) -> Path:
    return runs["sysu-mm01"]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


def timed(folder: Path, count: int = 12) -> Path:
    """A table of pictures that no other folder has: each third without time, the others an hour apart; two people."""
    lines, first = ["path,camera,modality,time,person"], 100 * ord(folder.name[0])
    for n in range(count):
        save(folder / f"{folder.name}-{n:03d}.jpg", first + n)
        time = "" if n % 3 == 0 else f"{START // 1000 + 3600 * n}"
        lines.append(f"{folder.name}-{n:03d}.jpg,gate,{'visible' if n % 2 else 'infrared'},{time},person-{n % 2}")
    (folder / "own.csv").write_text("\n".join(lines))
    return folder / "own.csv"


def left_in(folder: Path, removed: dict[str, tuple[Row, bytes, bytes | None]]) -> list[tuple[str, str]]:
    """(file, what) of each trace that removed rows have left: id, path, content, vector, thumbnail."""
    found = []
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        data = file.read_bytes()
        for id, (row, vector, thumbnail) in removed.items():
            parts = {
                "id": id.encode(),
                "path": row.path.encode(),
                "content": row.content.encode(),
                "vector": vector[:64],
                "codes": np.frombuffer(vector, np.float32)[:8].tobytes(),
                # The head of a thumbnail is the same in all of them.
                "thumbnail": (thumbnail or b"\0" * 900)[-120:-20],
            }
            found += [(file.name, what) for what, one in parts.items() if one in data]
    return found


def test_the_search_for_traces_finds_them(index: Path, run: Path, tmp_path: Path) -> None:
    built(index, run, timed(tmp_path / "p"))
    there = everything(index)
    traces = left_in(index, there)
    assert {what for _, what in traces} == {"id", "path", "content", "vector", "codes", "thumbnail"}
    assert {file for file, _ in traces} >= {"gallery.sqlite", "journal-0.sqlite", "visible-0.float32"}
    with open_store(index) as store:  # deleting alone leaves most of them
        store.delete(there)
    assert {what for _, what in left_in(index, there)} >= {"path", "vector"}


WAYS = {
    "source": ({"source": "a"}, lambda row: row.source == "a"),
    "person": ({"person": "person-1"}, lambda row: row.person == "person-1"),
    "both": ({"person": "person-1", "source": "a"}, lambda row: row.person == "person-1" and row.source == "a"),
    "time": (
        {"older_than": datetime.datetime.fromtimestamp(START / 1000 + 5 * 3600, datetime.UTC).isoformat()},
        lambda row: row.time is not None and row.time < START + 5 * HOUR,
    ),
    "ids": ({"ids_from": "ids.txt"}, lambda row: row.path.endswith(("3.jpg", "4.jpg"))),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_byte_of_a_pruned_picture_is_left(
    way: str, index: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        built(index, run, timed(tmp_path / name), name=name)
    before = everything(index)
    options, chosen = WAYS[way]
    removed = {id: one for id, one in before.items() if chosen(one[0])}
    kept = {id: one for id, one in before.items() if id not in removed}
    assert removed and kept
    (tmp_path / "ids.txt").write_text("\n".join(removed) + "\n")
    without = sum(row.time is None for row, _, _ in before.values()) if way == "time" else 0
    dry = prune(PruneOptions(index, dry_run=True, **options))
    assert dry == Pruned(len(removed), 0, without, 0, True, False) and everything(index) == before
    assert prune(PruneOptions(index, **options)) == Pruned(len(removed), 0, without, 0, False, False)
    assert everything(index) == kept
    assert left_in(index, removed) == []
    with Journal(index) as journal:
        known = {(source, path) for source in ("a", "b") for path in journal.paths(source)}
    assert known == {(row.source, row.path) for row, _, _ in kept.values()}


def test_gone_pictures_are_those_that_a_source_does_not_have_now(index: Path, run: Path, tmp_path: Path) -> None:
    cameras, table = station(tmp_path / "s"), timed(tmp_path / "t")
    write(cameras / "visible/gate/bad-one.jpg", b"bad")
    built(index, run, cameras)
    built(index, run, table)
    before = everything(index)
    (cameras / "visible/gate/001.jpg").unlink()
    (cameras / "visible/gate/bad-one.jpg").unlink()
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if "-004" not in line))  # not in the table any more
    (table.parent / "t-007.jpg").unlink()  # in the table, and not on disk
    found = prune(PruneOptions(index, gone=True))
    assert found == Pruned(3, 1, 0, 0, False, False)
    after = everything(index)
    removed = {id: one for id, one in before.items() if id not in after}
    assert sorted(row.path for row, _, _ in removed.values()) == [
        "t-004.jpg",
        "t-007.jpg",
        "visible/gate/001.jpg",
    ]
    assert left_in(index, removed) == []
    assert not [one for one in index.iterdir() if b"bad-one" in one.read_bytes()]
    assert not built(index, run, cameras).gone


def test_nothing_is_gone_while_a_source_is_not_there(index: Path, run: Path, tmp_path: Path) -> None:
    """A disk that is not mounted: its folder is empty, or is not there."""
    cameras = station(tmp_path / "s")
    built(index, run, cameras)
    before = everything(index)
    shutil.move(cameras, tmp_path / "elsewhere")
    for make in (lambda: None, lambda: cameras.mkdir()):
        make()
        with pytest.raises(BadInput, match=r"cannot be listed, so nothing was removed: .*prune .* --source"):
            prune(PruneOptions(index, gone=True))
    for file in index.glob("journal-*"):
        file.unlink()
    with pytest.raises(BadInput, match="stands in the journal of the machine that built it"):
        prune(PruneOptions(index, gone=True))
    assert everything(index) == before


def test_a_whole_source_leaves_the_journal_too(index: Path, run: Path, tmp_path: Path) -> None:
    built(index, run, station(tmp_path / "very-private"))
    name = str((tmp_path / "very-private").resolve())
    write(tmp_path / "very-private/visible/gate/bad.jpg", b"bad")
    built(index, run, tmp_path / "very-private")
    assert prune(PruneOptions(index, source=name)).rows == 10
    assert not rows(index)
    assert not [one.name for one in index.iterdir() if b"very-private" in one.read_bytes()]
    with pytest.raises(BadInput, match="unknown source"):
        prune(PruneOptions(index, source=name))


def test_what_is_asked_is_checked(index: Path, run: Path, tmp_path: Path) -> None:
    built(index, run, timed(tmp_path / "p"), name="a")
    (tmp_path / "ids").write_text("abc\n")
    wrong = {
        "say what to remove: --gone, --older-than": {},
        "--older-than takes a date or a time": {"older_than": "yesterday"},
        "unknown source 'b'; choices: a": {"source": "b"},
        "should have one id on each line": {"ids_from": tmp_path / "ids"},
        "nowhere cannot be read": {"ids_from": tmp_path / "nowhere"},
    }
    for says, options in wrong.items():
        with pytest.raises(BadInput, match=says):
            prune(PruneOptions(index, **options))
    assert len(rows(index)) == 12


def test_while_another_process_writes_nothing_is_forgotten(index: Path, run: Path, tmp_path: Path) -> None:
    built(index, run, timed(tmp_path / "p"), name="a")
    with open_store(index) as store, open_index(index) as opened:
        store.keep("note", "x")
        with pytest.raises(BadInput, match="another process writes"):
            prune(PruneOptions(index, person="person-1"))
        with pytest.raises(BadInput, match="another process writes"):
            expire(opened, START + 100 * HOUR)
        with Journal(index) as journal:
            assert len(journal.paths("a")) == 12


@pytest.mark.parametrize("at", ["journal", "delete", "journal bytes", "bytes"])
def test_an_interrupted_pruning_is_finished_by_the_next(
    at: str, index: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vireid.gallery.stores.embedded import FolderStore

    table = timed(tmp_path / "p")
    built(index, run, table)
    before = everything(index)
    removed = {id: one for id, one in before.items() if one[0].person == "person-1"}
    places = {
        "journal": (Journal, "forget"),
        "delete": (FolderStore, "delete"),
        "journal bytes": (Journal, "compact"),
        "bytes": (FolderStore, "compact"),
    }

    def stopped(*given: object) -> None:
        if at != "delete" or list(given[1]):  # type: ignore[call-overload]
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(*places[at], stopped)
        with pytest.raises(KeyboardInterrupt):
            prune(PruneOptions(index, person="person-1"))
    prune(PruneOptions(index, person="person-1"))
    assert left_in(index, removed) == []
    assert everything(index) == {id: one for id, one in before.items() if id not in removed}


# --- what people said -------------------------------------------------------------------------------------------------

UPLOADED = "ab" * 32
"""The content of a query that is no picture of the gallery."""


def _say(index: Path, rows: list[Row]) -> None:
    """A verdict on each row, and one in which it is the query."""
    with Feedback(index) as feedback:
        for row in rows:
            feedback.put("search", UPLOADED, row.content, "same", "anna")
            feedback.put("search", row.content, "cd" * 32, "different", "anna")


def test_what_was_said_of_removed_pictures_goes_with_them(
    index: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(index, run, timed(tmp_path / "p"))
    rows = [row for row, _, _ in everything(index).values()]
    going = [row for row in rows if row.person == "person-1"]
    _say(index, rows)
    assert prune(PruneOptions(index, person="person-1", dry_run=True)).verdicts == 0
    assert main(["gallery", "prune", str(index), "--person", "person-1"]) == 0
    assert f"feedback on them, which was removed too: {2 * len(going)}" in capsys.readouterr().out
    with Feedback(index) as feedback:
        kept = {row.content for row in rows} - {row.content for row in going}
        assert feedback.contents() == kept | {UPLOADED, "cd" * 32}
    in_files = b"".join(file.read_bytes() for file in index.glob("feedback*"))
    assert going and kept and not any(row.content.encode() in in_files for row in going)
    assert all(content.encode() in in_files for content in kept)  # so the line above looks at the right bytes


def test_what_was_said_of_a_renamed_picture_stays(index: Path, run: Path, tmp_path: Path) -> None:
    cameras = station(tmp_path / "s", visible=3, infrared=1)
    built(index, run, cameras)
    before = everything(index)
    _say(index, [row for row, _, _ in before.values()])
    first = sorted((cameras / "visible/gate").iterdir())[0]
    first.rename(first.with_name("renamed.jpg"))
    built(index, run, cameras)
    assert prune(PruneOptions(index, gone=True)) == Pruned(1, 0, 0, 0, False, False)
    with Feedback(index) as feedback:
        assert {row.content for row, _, _ in before.values()} <= feedback.contents()


def test_what_was_said_expires_with_the_pictures(index: Path, run: Path, tmp_path: Path) -> None:
    built(index, run, timed(tmp_path / "p"))
    before = everything(index)
    _say(index, [row for row, _, _ in before.values()])
    with open_index(index) as opened:
        assert expire(opened, START + 5 * HOUR) == 3
    gone = {row.content for id, (row, _, _) in before.items() if id not in everything(index)}
    with Feedback(index) as feedback:
        assert gone and not gone & feedback.contents()


# --- expire -----------------------------------------------------------------------------------------------------------


def test_expired_rows_go_and_a_builder_may_write_afterwards(index: Path, run: Path, tmp_path: Path) -> None:
    table = timed(tmp_path / "p")
    built(index, run, table)
    before = everything(index)
    with open_index(index) as opened:
        assert expire(opened, START) == 0
        assert expire(opened, START + 5 * HOUR) == 3
        assert expire(opened, START + 5 * HOUR) == 0
        after = everything(index)
        removed = {id: one for id, one in before.items() if id not in after}
        assert sorted(row.path for row, _, _ in removed.values()) == [f"p-00{n}.jpg" for n in (1, 2, 4)]
        assert left_in(index, removed) == []
        assert opened.store.count() == 9
        assert built(index, run, table).embedded == 3  # they are still in the source


def test_rows_expire_while_searches_go_on(index: Path, run: Path, tmp_path: Path) -> None:
    """Each search sees whole rows: the hits' scores are those of their vectors, and each hit can be got."""
    built(index, run, timed(tmp_path / "p", 60))
    before = everything(index)
    vectors = {id: np.frombuffer(vector, np.float32) for id, (_, vector, _) in before.items()}
    wrong, stop, searches = [], threading.Event(), [0]

    def search(opened: pruning.Index) -> None:
        query = next(iter(vectors.values()))
        while not stop.is_set():
            try:
                for modality in (Modality.VISIBLE, Modality.INFRARED):
                    (hits,) = opened.store.search(query[None], 60, Where(modality=modality))
                    off = [hit for hit in hits if abs(hit.score - vectors[hit.id].astype(float) @ query) > 1e-6]
                    wrong.extend(off)
                searches[0] += 1
            except Exception as error:
                wrong.append(error)
                return

    with open_index(index) as opened:
        threads = [threading.Thread(target=search, args=(opened,)) for _ in range(2)]
        for one in threads:
            one.start()
        try:
            gone = sum(expire(opened, START + hour * HOUR) for hour in range(0, 61, 12))
        finally:
            stop.set()
            for one in threads:
                one.join()
        assert not wrong and searches[0] > 5
        assert gone == 40 and opened.store.count() == 20
    removed = {id: one for id, one in before.items() if one[0].time is not None}
    assert left_in(index, removed) == []


def test_bytes_that_a_reader_held_are_removed_by_the_next_call(
    index: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vireid.gallery.private.WAIT", 50)
    monkeypatch.setattr(pruning, "TRIES", 1)
    built(index, run, timed(tmp_path / "p"))
    before = everything(index)
    with open_index(index) as opened:
        with opened.store._reading() as sql:  # type: ignore[attr-defined]
            sql.execute("SELECT count(*) FROM rows").fetchone()
            with pytest.raises(BadInput, match="is being read, so deleted rows are still on disk"):
                expire(opened, START + 5 * HOUR)
        removed = {id: one for id, one in before.items() if id not in everything(index)}
        assert left_in(index, removed)
        assert expire(opened, START + 5 * HOUR) == 0
        assert left_in(index, removed) == []
        with open_store(index) as store:
            store.keep("note", "another may write")
