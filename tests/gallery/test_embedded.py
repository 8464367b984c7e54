"""The gallery in a folder: what a stopped writer leaves, who may write and read, what stays of deleted rows, damage."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.rows import MODEL, WIDTH, nearest, row, same, unit
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery import private
from vireid.gallery.row import Row, Where
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores import embedded
from vireid.gallery.stores.product import encode

ROOT = Path(__file__).resolve().parents[2]
VISIBLE = Where(modality=Modality.VISIBLE)


def made(folder: Path) -> Store:
    return open_gallery(folder, model=MODEL, width=WIDTH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery with rows 0 to 29."""
    with made(tmp_path / "gallery") as store:
        store.upsert([row(n) for n in range(30)])
    return tmp_path / "gallery"


def check(store: Store, expected: list[Row]) -> None:
    """All rows are there, with their vectors and thumbnails, and a search sees no others."""
    assert [one.id for one in store.iterate()] == sorted(one.id for one in expected)
    found = store.get([one.id for one in expected])
    assert all(same(found[one.id], one) for one in expected)
    assert all(store.thumbnail(one.id) == one.thumbnail for one in expected)
    for modality in (Modality.VISIBLE, Modality.INFRARED):
        where = Where(modality=modality)
        (hits,) = store.search(unit(1, seed=77), 1000, where)
        assert [(hit.id, hit.score) for hit in hits] == nearest(expected, unit(1, seed=77)[0], 1000, where)


# --- filters whose rows are kept in memory ----------------------------------------------------------------------------


def test_a_filter_that_was_used_before_sees_every_change(folder: Path) -> None:
    """In the store that writes and in one that only reads: after rows came, went, changed, and after `compact`."""
    where = Where(modality=Modality.VISIBLE, cameras=("2",))
    rows = {one.id: one for one in map(row, range(30))}
    coming, moving = row(100, modality=Modality.VISIBLE, camera="2"), row(102, modality=Modality.VISIBLE, camera="9")
    with made(folder) as writer, open_gallery(folder) as reader:

        def see() -> None:
            for store in (writer, reader):
                (hits,) = store.search(unit(1, seed=77), 1000, where)
                expected = nearest(list(rows.values()), unit(1, seed=77)[0], 1000, where)
                assert expected and [(hit.id, hit.score) for hit in hits] == expected

        def store(one: Row) -> None:
            writer.upsert([one])
            rows[one.id] = one
            see()

        def delete(id: str) -> None:
            writer.delete([id])
            del rows[id]
            see()

        see()
        store(coming)
        delete(coming.id)
        store(moving)
        store(row(102, modality=Modality.VISIBLE, camera="2"))
        store(moving)
        writer.compact()
        see()
        # As many rows and dead ones as before `compact`, and other places.
        count = len([one for one in rows.values() if one.modality == Modality.VISIBLE])
        delete(row(2).id)
        writer.compact()
        store(row(104, modality=Modality.VISIBLE, camera="2"))
        assert count == len([one for one in rows.values() if one.modality == Modality.VISIBLE])


def test_filters_do_not_fill_the_memory(folder: Path) -> None:
    with open_gallery(folder) as store:
        for since in range(50):
            store.search(unit(1), 3, Where(modality=Modality.VISIBLE, since=since))
        assert len(store._filtered) == embedded.KEPT  # type: ignore[attr-defined]


# --- writers that are stopped -----------------------------------------------------------------------------------------


def in_a_child(action: Callable[[], None]) -> int:
    """Run something in a forked process; its exit code."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextlib.contextmanager
def dies_at(call: int) -> Iterator[None]:
    """The process ends, as by kill -9, before the n-th time that it syncs, deletes, or commits."""
    done = 0

    def counted(known: Callable) -> Callable:
        def method(*arguments: object, **named: object) -> object:
            nonlocal done
            done += 1
            if done == call:
                os._exit(9)
            return known(*arguments, **named)

        return method

    class Connection(sqlite3.Connection):
        def execute(self, command: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
            ends = command == "COMMIT" or command.startswith(("VACUUM", "PRAGMA wal_checkpoint"))
            return (counted(super().execute) if ends else super().execute)(command, *values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        connect = sqlite3.connect
        patch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Connection, **named))
        yield


@pytest.mark.parametrize("what", ["upsert", "delete", "compact"])
def test_a_writer_that_dies_anywhere_leaves_the_old_or_the_new_state(folder: Path, tmp_path: Path, what: str) -> None:
    """At each place where it syncs, commits or deletes a file. The next writer cuts what it left."""
    with made(folder) as store:
        store.delete([row(n).id for n in range(10)])  # so that `compact` has something to do
    old = [row(n) for n in range(10, 30)]
    new = {
        "upsert": [row(n, camera="new", thumbnail=b"new") for n in range(5, 15)] + [row(n) for n in range(15, 30)],
        "delete": [row(n) for n in range(15, 30)],
        "compact": old,
    }[what]

    def act(where: Path, call: int) -> None:
        with dies_at(call), made(where) as store:
            if what == "upsert":
                store.upsert(new[:10])
            elif what == "delete":
                store.delete([row(n).id for n in range(15)])
            else:
                store.compact()

    code, call, states = 9, 0, []
    while code == 9:
        call += 1
        copy = tmp_path / f"copy{call}"
        shutil.copytree(folder, copy)
        code = in_a_child(lambda copy=copy, call=call: act(copy, call))
        with open_gallery(copy) as store:
            states.append(store.count(Where(cameras=("new",))) == 10 or what == "compact" or store.count() == 15)
            check(store, new if states[-1] else old)
        with open_gallery(copy) as store:  # the next writer
            store.upsert([row(50)])
            check(store, [*(new if states[-1] else old), row(50)])
            store.compact()
            vectors = store.facts().visible * 4 * WIDTH
            assert sum(file.stat().st_size for file in copy.glob("visible-*.float32")) == vectors
    assert code == 0 and call > 3 and states == sorted(states) and states[-1]


WRITER = """
import sys
from tests.gallery.rows import MODEL, WIDTH, row
from vireid.gallery.store import open
with open(sys.argv[1], model=MODEL, width=WIDTH) as store:
    n = int(sys.argv[2])
    while True:
        store.upsert([row(n + k) for k in range(7)])
        print(n + 6, flush=True)
        n += 7
"""


@pytest.mark.process
def test_acknowledged_rows_survive_kill_9(tmp_path: Path) -> None:
    """A writer is killed at random moments and started again; every row that it had acknowledged is there."""
    draw, acknowledged = np.random.default_rng(5), -1
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "gallery"), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read()
        acknowledged = int(said.split()[-1])  # a last line without its end was printed after the upsert as well
        with open_gallery(tmp_path / "gallery") as store:
            count = store.count()
            assert count % 7 == 0 and count in (acknowledged + 1, acknowledged + 8)
            check(store, [row(n) for n in range(count)])
    assert acknowledged > 20


# --- one writer, any readers ------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_may_read(folder: Path) -> None:
    with made(folder) as first, made(folder) as second:
        first.upsert([row(40)])
        with pytest.raises(BadInput, match="another process writes into the gallery"):
            second.upsert([row(41)])
        assert second.count() == 31
    with made(folder) as third:
        third.upsert([row(41)])
        assert third.count() == 32


@pytest.mark.process
def test_a_writer_in_another_process_is_refused_until_the_first_one_ends(folder: Path) -> None:
    """A killed process holds no lock; and a store that is closed in between does not let go of another one's lock."""
    command = [sys.executable, "-c", WRITER, str(folder), "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == "106\n"
        for _ in range(2):
            with made(folder) as store, pytest.raises(BadInput, match="another process writes into the gallery"):
                store.delete([row(0).id])
        process.kill()
        process.stdout.read()
    with made(folder) as store:
        store.delete([row(0).id])
        assert store.get([row(0).id, row(1).id]).keys() == {row(1).id}


def test_readers_see_whole_states_while_a_writer_writes_and_compacts(folder: Path) -> None:
    """Rows 0 to 29 change their camera all together: a reader that saw half of it would count both cameras."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with made(folder) as store:
                for n in range(400):
                    store.upsert([row(k, camera=f"c{n % 2}") for k in range(30)])
                    if n % 5 == 0:
                        store.compact()
                    if stop.is_set():
                        return
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with open_gallery(folder) as store:
            for _ in range(60):
                found = store.search(unit(3), 30, VISIBLE)
                assert [len({hit.id for hit in hits}) for hits in found] == [15, 15, 15]
                assert (
                    len({one.camera for one in store.get([row(n).id for n in range(30)]).values()} & {"c0", "c1"}) < 2
                )
                assert store.count() == 30
    finally:
        stop.set()
        writer.join()
    assert not failed, failed


def test_several_threads_may_search_one_store(folder: Path) -> None:
    found: list[object] = []
    with open_gallery(folder) as store:
        expected = store.search(unit(2), 10, VISIBLE)

        def search() -> None:
            found.extend(store.search(unit(2), 10, VISIBLE) for _ in range(20))

        threads = [threading.Thread(target=search) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert found == [expected] * 80


# --- personal data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_compact_leaves_no_byte_of_a_row_that_is_gone(folder: Path, how: str) -> None:
    """Neither vector nor code, thumbnail, path, person or tracklet, in any file of the gallery."""
    secret = row(
        1000, path="secret-path.jpg", person="secret-person", tracklet="secret-track", thumbnail=b"secret-jpeg"
    )
    assert secret.vector is not None
    traces = [secret.vector.tobytes(), encode(secret.vector[None])["code"].tobytes()]
    traces += [b"secret-path", b"secret-person", b"secret-track", b"secret-jpeg"]
    with made(folder) as store:
        store.upsert([secret])
        store.upsert([row(1001)])
        assert all(any(trace in file.read_bytes() for file in folder.iterdir()) for trace in traces)
        if how == "deleted":
            store.delete([secret.id])
            expected = [row(n) for n in (*range(30), 1001)]
        else:
            plain = row(1, path=secret.path, source=secret.source, camera="9")
            traces.remove(b"secret-path")
            store.upsert([plain])
            assert plain.id == secret.id
            expected = [*(row(n) for n in (*range(30), 1001)), plain]
        assert store.facts().dead == 1
        store.compact()
        assert store.facts().dead == 0
        left = [trace for trace in traces for file in folder.iterdir() if trace in file.read_bytes()]
        assert not left
        check(store, expected)
    assert not [trace for trace in traces for file in folder.iterdir() if trace in file.read_bytes()]


def test_compact_gives_the_space_back(folder: Path) -> None:
    with made(folder) as store:
        store.upsert([row(n, thumbnail=bytes(20_000)) for n in range(30, 60)])
        known = (folder / embedded.DATABASE).stat().st_size + (folder / f"{embedded.DATABASE}-wal").stat().st_size
        store.delete([row(n).id for n in range(30, 60)])
        store.compact()
        assert (folder / embedded.DATABASE).stat().st_size < known - 500_000
        assert (folder / "visible-1.float32").stat().st_size == 15 * 4 * WIDTH


def test_compact_says_if_a_reader_keeps_deleted_rows_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "WAIT", 50)
    with contextlib.closing(sqlite3.connect(folder / embedded.DATABASE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rows").fetchone()
        with made(folder) as store:
            store.delete([row(0).id])
            with pytest.raises(BadInput, match="still on disk: compact it again"):
                store.compact()
            reader.execute("COMMIT")
            store.compact()
            check(store, [row(n) for n in range(1, 30)])
    assert not list(folder.glob("visible-0.*"))


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_only_the_owner_may_read(tmp_path: Path) -> None:
    known = os.umask(0)
    try:
        with made(tmp_path / "gallery") as store:
            store.upsert([row(n) for n in range(4)])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "gallery").iterdir()}
            store.delete([row(0).id])
            store.compact()
            modes |= {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "gallery").iterdir()}
    finally:
        os.umask(known)
    assert stat.S_IMODE((tmp_path / "gallery").stat().st_mode) == 0o700
    assert len(modes) > 6 and set(modes.values()) == {0o600}


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    mode = tmp_path.stat().st_mode
    with pytest.raises(BadInput, match=r"is no gallery and not empty \(it has letter.txt\)"):
        made(tmp_path)
    assert tmp_path.stat().st_mode == mode and [one.name for one in tmp_path.iterdir()] == ["letter.txt"]


# --- damage and attacks -----------------------------------------------------------------------------------------------


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x20
    file.write_bytes(content)


def test_a_changed_vector_is_noticed_by_whoever_reads_it(folder: Path) -> None:
    flip(folder / "visible-0.float32", 4 * WIDTH * 3 + 1)  # of row 6, in the last digits of its first number
    for ask in (
        lambda store: store.get([row(6).id]),
        lambda store: list(store.iterate(vectors=True)),
        lambda store: store.search(unit(1), 30, VISIBLE),
        lambda store: (store.delete([row(0).id]), store.compact()),
    ):
        with (
            open_gallery(folder) as store,
            pytest.raises(BadInput, match="its vectors are not those that were written"),
        ):
            ask(store)
    with open_gallery(folder) as store:
        assert same(store.get([row(8).id])[row(8).id], row(8))


@pytest.mark.parametrize("name", ["visible-0.float32", "visible-0.int8"])
def test_a_file_that_is_too_short_or_gone_is_damage(folder: Path, name: str) -> None:
    os.truncate(folder / name, (folder / name).stat().st_size - 1)
    with open_gallery(folder) as store, pytest.raises(BadInput, match=r"bytes, and at least .* the gallery is damaged"):
        store.search(unit(1), 3, VISIBLE)
    (folder / name).unlink()
    with open_gallery(folder) as store, pytest.raises(BadInput, match=rf"damaged: there is no .*{name}"):
        store.search(unit(1), 3, VISIBLE)


@pytest.mark.parametrize("change", ["garbage", "cut", "other"])
def test_a_database_that_is_none_of_ours_is_refused(folder: Path, tmp_path: Path, change: str) -> None:
    database = folder / embedded.DATABASE
    if change == "garbage":
        database.write_bytes(b"garbage" * 1000)
    elif change == "cut":
        os.truncate(database, 5000)
    else:
        database.unlink()
        with contextlib.closing(sqlite3.connect(database)) as sql:
            sql.execute("CREATE TABLE facts (model, width)")
    with pytest.raises(BadInput, match=r"cannot be used|is no gallery of this version"), open_gallery(folder) as store:
        list(store.iterate())


@pytest.mark.parametrize(
    "command",
    [
        "UPDATE rows SET place = 10000",
        "UPDATE rows SET place = -1 WHERE id = (SELECT id FROM rows WHERE modality = 0 LIMIT 1)",
        "UPDATE rows SET place = 'x' WHERE id = (SELECT id FROM rows WHERE modality = 0 LIMIT 1)",
        "UPDATE rows SET checksum = 0",
        "UPDATE rows SET camera = ''",
        "UPDATE rows SET time = 'now'",
        "UPDATE matrices SET generation = '../../visible'",
        "UPDATE matrices SET vectors = 10000",
        "UPDATE facts SET width = 100000000",
        "UPDATE facts SET width = 'x'",
        "DELETE FROM matrices",
        "DELETE FROM facts",
    ],
)
def test_an_altered_database_is_refused_in_a_sentence(folder: Path, command: str) -> None:
    """No value of it is used as a place, a length or a name of a file before it was checked."""
    with contextlib.closing(sqlite3.connect(folder / embedded.DATABASE)) as sql, sql:
        if command.startswith("UPDATE rows SET place = 10000"):
            sql.execute("DROP INDEX rows_by_place")
        sql.execute(command)
    with pytest.raises(BadInput), open_gallery(folder) as store:
        store.search(unit(1), 30, Where(modality=Modality.VISIBLE, cameras=tuple("012")))
        list(store.iterate(vectors=True))


def test_a_generation_that_leads_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """It becomes part of a file's name, and the folder may hold anything."""
    (folder / "visible-").mkdir()
    for ending in ("float32", "int8"):
        shutil.copy(folder / f"visible-0.{ending}", tmp_path / f"outside.{ending}")
    with contextlib.closing(sqlite3.connect(folder / embedded.DATABASE)) as sql, sql:
        sql.execute("UPDATE matrices SET generation = '/../../outside' WHERE modality = 0")
    with open_gallery(folder) as store, pytest.raises(BadInput, match="is damaged"):
        store.search(unit(1), 3, VISIBLE)


@pytest.mark.parametrize(
    "name", ["gallery.sqlite", "gallery.sqlite-wal", "writer.lock", "visible-0.float32", "visible-0.int8"]
)
def test_a_link_in_the_gallery_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    """A gallery that somebody else made must not make us read, write or lock another file."""
    target = tmp_path / "elsewhere"
    known = (folder / name).read_bytes() if (folder / name).exists() else b"other"
    target.write_bytes(known)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(BadInput, match=r"altered|symbolic link"), made(folder) as store:
        store.search(unit(1), 3, VISIBLE)
    if name.startswith("visible"):
        with pytest.raises(BadInput), made(folder) as store:
            store.upsert([row(40)])
    assert target.read_bytes() == known


def test_a_row_that_changes_its_modality_leaves_the_other_one(folder: Path) -> None:
    moved = row(0, modality=Modality.INFRARED)
    with made(folder) as store:
        store.upsert([moved])
        check(store, [moved, *(row(n) for n in range(1, 30))])
        assert (store.facts().visible, store.facts().infrared, store.facts().dead) == (14, 16, 1)


def test_a_full_disk_is_told_and_loses_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with made(folder) as store:
        store.keep("note", "")  # it has tidied up
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(BadInput, match=r"cannot be used: .*No space left on device"):
            store.upsert([row(n) for n in range(20, 40)])
        monkeypatch.undo()
        check(store, [row(n) for n in range(30)])
        store.upsert([row(40)])
        check(store, [*(row(n) for n in range(30)), row(40)])
        assert (folder / "visible-0.float32").stat().st_size == 16 * 4 * WIDTH, "vectors of the failed call are left"
