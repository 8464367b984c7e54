"""The audit log: complete, private, and forgetful when it should be."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vireid.data.errors import BadInput
from vireid.gallery import private
from vireid.gallery.service.audit import DAY, Audit, Span, checked_reason

CONTENT = hashlib.sha256(b"a picture").hexdigest()
IDS = [f"{n:032x}" for n in range(3)]


class Clock:
    """Seconds since 1970 that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_says_who_was_shown_what(tmp_path: Path) -> None:
    with Audit(tmp_path, clock=Clock()) as audit:
        audit.record("ward 3", CONTENT, {"cameras": ["1", "é"], "top": 20}, IDS, "missing person 17")
        audit.record("night", CONTENT, {}, [])
    with Audit(tmp_path) as audit:
        one, two = audit.entries()
        assert (one.number, one.time, one.who) == (1, 1_800_000_000_000, "ward 3")
        assert (one.filters, one.shown, one.reason) == (
            {"cameras": ["1", "é"], "top": 20},
            tuple(IDS),
            "missing person 17",
        )
        assert (two.number, two.filters, two.shown, two.reason) == (2, {}, (), None)
        assert [entry.number for entry in audit.entries(Span(who="night"))] == [2]
        assert [entry.number for entry in audit.entries(Span(until=1_800_000_000_000))] == []


def test_many_entries_are_read_in_order(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit, ThreadPoolExecutor(64) as threads:
        list(threads.map(lambda n: audit.record(f"n{n}", str(n), {}, []), range(1500)))
        found = list(audit.entries())
        assert [one.number for one in found] == list(range(1, 1501))
        assert sorted(int(one.who[1:]) for one in found) == list(range(1500))


def test_equal_queries_are_found_with_the_key_only(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with Audit(tmp_path / "one") as one, Audit(tmp_path / "other") as other:
        for audit in (one, other):
            audit.record("a", CONTENT, {}, [])
            audit.record("b", "0" * 64, {}, [])
            audit.record("c", CONTENT, {}, [])
        assert [entry.who for entry in one.searches_for(CONTENT)] == ["a", "c"]
        assert one.hashed(CONTENT) == one.hashed(CONTENT.encode())
        ours, theirs = ({entry.query for entry in audit.entries()} for audit in (one, other))
        assert len(ours) == len(theirs) == 2 and not ours & theirs
        assert not ours & {CONTENT, hashlib.sha256(CONTENT.encode()).hexdigest()}
    assert CONTENT.encode() not in everything(tmp_path)


def everything(folder: Path) -> bytes:
    """The bytes of all files below a folder."""
    return b"\0".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_an_entry_is_in_the_file_when_record_returns(tmp_path: Path) -> None:
    """Another connection, as another process has it, sees it, while the log stays open."""
    with Audit(tmp_path) as audit:
        for n in range(5):
            audit.record("a", str(n), {}, [])
            with Audit(tmp_path) as reader:
                assert len(list(reader.entries())) == n + 1


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        assert audit._sql.execute("PRAGMA synchronous").fetchone()[0] == 2


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_all_files_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Audit(tmp_path) as audit:
            audit.record("a", CONTENT, {}, [])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes) == {"audit.sqlite", "audit.sqlite-wal", "audit.sqlite-shm", "audit.key"}
    assert set(modes.values()) == {0o600}


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("name", ["audit.sqlite", "audit.key"])
def test_a_log_that_others_may_read_is_refused(name: str, tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        audit.record("a", CONTENT, {}, [])
    (tmp_path / name).chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        Audit(tmp_path)


@pytest.mark.parametrize("name", ["audit.sqlite", "audit.key", "audit.sqlite-wal"])
def test_links_are_refused_and_not_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(BadInput):
        Audit(folder)
    assert victim.read_bytes() == b"precious"
    victim.unlink()
    with pytest.raises(BadInput):
        Audit(folder)
    assert not victim.exists()


def test_another_database_and_a_damaged_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "audit.sqlite").touch(mode=0o600)
    with sqlite3.connect(tmp_path / "audit.sqlite") as sql:
        sql.execute("CREATE TABLE entries (a)")
    sql.close()
    with pytest.raises(BadInput, match="something else"):
        Audit(tmp_path)
    (tmp_path / "audit.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(BadInput, match="cannot be used"):
        Audit(tmp_path)
    (tmp_path / "audit.sqlite").unlink()
    (tmp_path / "audit.key").touch(mode=0o600)
    with pytest.raises(BadInput, match="32 bytes"):
        Audit(tmp_path)


def test_altered_entries_are_told_and_nothing_else(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        audit.record("a", CONTENT, {}, [])
        audit._sql.execute("UPDATE entries SET shown = 'no JSON'")
        with pytest.raises(BadInput, match="cannot be read"):
            list(audit.entries())


# --- forgetting -------------------------------------------------------------------------------------------------------


def test_old_entries_leave_no_byte(tmp_path: Path) -> None:
    clock = Clock()
    with Audit(tmp_path, keep_days=90, clock=clock) as audit:

        def old(n: int) -> None:
            audit.record(f"old{n:05d}x", str(n), {"cameras": [f"old{n:05d}y"]}, [f"old{n:05d}z"] * 9, f"old{n:05d}w")

        with ThreadPoolExecutor(64) as threads:  # they share commits
            list(threads.map(old, range(3000)))
        clock.now += 50 * 86_400
        for n in range(50):
            audit.record(f"new{n:05d}x", str(n), {}, [], "kept")
        clock.now += 39 * 86_400
        assert audit.expire() == 0
        assert everything(tmp_path).count(b"old") >= 3000
        clock.now += 2 * 86_400
        assert audit.expire() == 3000
        assert len(list(audit.entries())) == 50
        assert b"old0" not in everything(tmp_path)
        assert b"new00049x" in everything(tmp_path)
        audit.record("later", "", {}, [])
        assert [entry.number for entry in audit.entries()][-1] == 3051  # numbers are not given twice


def test_an_entry_stays_for_exactly_as_long_as_was_said(tmp_path: Path) -> None:
    clock = Clock()
    with Audit(tmp_path, keep_days=0.5, clock=clock) as audit:
        audit.record("a", "", {}, [])
        assert audit.expire(clock.now + 43_200) == 0
        assert audit.expire(clock.now + 43_200.001) == 1


def test_bytes_that_a_reader_holds_are_told_and_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "WAIT", 50)
    clock = Clock()
    with Audit(tmp_path, clock=clock) as audit:
        audit.record("secret1", "", {}, [])
        reader = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entries").fetchall()
        with pytest.raises(BadInput, match="still in"):
            audit.expire(clock.now + 91 * 86_400)
        assert list(audit.entries()) == []
        reader.execute("COMMIT")
        reader.close()
        assert audit.expire(clock.now + 91 * 86_400) == 0
        assert b"secret1" not in everything(tmp_path)


@pytest.mark.parametrize("days", [0, -1, float("nan"), 1e9])
def test_a_log_keeps_its_entries_for_some_time(days: float, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="up to 36500 days"):
        Audit(tmp_path, keep_days=days)
    assert not list(tmp_path.iterdir())


# --- writing together -------------------------------------------------------------------------------------------------


def test_entries_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    commits = []
    with Audit(tmp_path) as audit, ThreadPoolExecutor(64) as threads:
        audit._sql.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        other = sqlite3.connect(tmp_path / "audit.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # the disk is slow
        waiting = [threads.submit(audit.record, "a", str(n), {}, []) for n in range(64)]
        until = time.monotonic() + 20
        while len(audit._waiting) < 63 and time.monotonic() < until:
            time.sleep(0.01)
        other.execute("COMMIT")
        other.close()
        for one in waiting:
            one.result()
        assert len(list(audit.entries())) == 64
        assert len(commits) <= 3


def test_who_waits_with_a_failed_write_is_told(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        audit.record("a", "", {}, [])
        audit._sql.execute("PRAGMA query_only = ON")
        with ThreadPoolExecutor(8) as threads:
            for one in [threads.submit(audit.record, "a", str(n), {}, []) for n in range(8)]:
                with pytest.raises(BadInput, match="cannot be written"):
                    one.result()
        audit._sql.execute("PRAGMA query_only = OFF")
        audit.record("b", "", {}, [])
        assert [entry.who for entry in audit.entries()] == ["a", "b"]


WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from vireid.gallery.service.audit import Audit
audit = Audit(Path(sys.argv[1]))
def write(n):
    audit.record("a", "", {"n": n}, [])
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
with ThreadPoolExecutor(8) as threads:
    list(threads.map(write, range(100_000)))
"""


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    expected: list[int] = []
    for _ in range(3):
        before = len(expected)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(150):
            expected.append(int(writer.stdout.readline()))
        writer.send_signal(signal.SIGKILL)
        expected += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait()
        assert len(expected) > before
    with Audit(tmp_path) as audit:
        found = [entry.filters["n"] for entry in audit.entries()]
    for n in set(expected):
        assert found.count(n) >= expected.count(n)
    assert len(found) - len(expected) <= 3 * 8  # written, and not yet told


@pytest.mark.process
def test_processes_that_begin_together_share_one_key(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from vireid.gallery.service.audit import Audit\n"
    code += "a = Audit(Path(sys.argv[1]))\n"
    code += "sys.stdin.readline(); a.record('a', 'same', {}, []); print(a.hashed('same'))"
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    found = {one.communicate("\n")[0] for one in many}
    assert len(found) == 1 and len(found.pop().strip()) == 64
    with Audit(tmp_path) as audit:
        assert len(audit.searches_for("same")) == 4


def test_a_closed_log_tells_so(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    audit.close()
    with pytest.raises(BadInput):
        audit.record("a", "", {}, [])


# --- export -----------------------------------------------------------------------------------------------------------


def test_the_export_has_all_entries(tmp_path: Path) -> None:
    with Audit(tmp_path, clock=Clock()) as audit:
        audit.record("a", CONTENT, {"cameras": ["1"]}, IDS, 'said "hello", and more')
        audit.record("b", CONTENT, {}, [])
        assert audit.export(tmp_path / "audit.csv") == 2
        assert audit.export(tmp_path / "audit.jsonl", "jsonl") == 2
        assert audit.export(tmp_path / "b.jsonl", "jsonl", Span(who="b")) == 1
        rows = list(csv.DictReader(io.StringIO((tmp_path / "audit.csv").read_text())))
        assert rows[0]["time"] == "2027-01-15T08:00:00Z" and rows[0]["shown"] == " ".join(IDS)
        assert rows[0]["reason"] == 'said "hello", and more' and json.loads(rows[0]["filters"]) == {"cameras": ["1"]}
        assert rows[1]["reason"] == "" and rows[1]["query"] == audit.hashed(CONTENT)
        lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        assert [line["shown"] for line in lines] == [IDS, []]
        if os.name == "posix":
            assert stat.S_IMODE((tmp_path / "audit.csv").stat().st_mode) == 0o600
        with pytest.raises(BadInput, match="csv, jsonl"):
            audit.export(tmp_path / "audit.xml", "xml")  # type: ignore[arg-type]


def test_a_reason_cannot_become_a_formula(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        for reason in ("=HYPERLINK(1)", "+1", "-1", "@A1", "  =1"):
            audit.record("a", "", {}, [], reason)
        audit.export(tmp_path / "audit.csv")
        for row in csv.reader(io.StringIO((tmp_path / "audit.csv").read_text())):
            assert all(cell[:1] not in ("=", "+", "-", "@") for cell in row)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "a\0b", "x" * 501, "\u202eabc", "a\x1b[2J"])
def test_reasons_are_one_short_line(reason: str) -> None:
    with pytest.raises(BadInput, match="1 to 500"):
        checked_reason(reason)
    assert checked_reason(" missing, 17 – Zoë ") == "missing, 17 – Zoë"


def test_reading_does_not_stop_writing(tmp_path: Path) -> None:
    with Audit(tmp_path) as audit:
        for n in range(3):
            audit.record("a", str(n), {}, [])
        reader = audit.entries()
        next(reader)
        thread = threading.Thread(target=audit.record, args=("b", "", {}, []))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert DAY == 86_400_000
