"""The journal keeps what a build did, forgets without a trace, and says what is wrong with it."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.journal import Entry, Journal, Known

entries = st.builds(
    Entry,
    size=st.integers(-1, 2**40),
    modified=st.integers(-1, 2**62),
    content=st.sampled_from(("", "ab" * 32, "cd" * 32)),
    modality=st.sampled_from((Modality.VISIBLE, Modality.INFRARED)),
    scaling=st.sampled_from(("full", "window:0-9")),
    error=st.sampled_from(("", "is empty")),
)
keys = st.tuples(st.sampled_from(("a", "b\"'; DROP TABLE entries")), st.sampled_from(("1.jpg", "ü/2.jpg", "3\n.jpg")))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 2), st.dictionaries(keys, entries, max_size=4)),
        st.tuples(st.just("forget"), st.integers(0, 2), st.lists(keys, max_size=3)),
    ),
    max_size=8,
)


@settings(max_examples=12, deadline=None)
@given(steps=steps)
def test_it_is_a_dictionary_whoever_wrote_it(steps: list, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Three processes write one after another; each sees what all of them know, the newest of each picture."""
    folder, known = tmp_path_factory.mktemp("journal"), {}
    for what, rank, given_ in steps:
        with Journal(folder, rank) as journal:
            if what == "record":
                journal.record(given_)
                known |= given_
            else:
                journal.forget(given_)
                known = {key: one for key, one in known.items() if key not in given_}
            journal.compact()
        with Journal(folder) as journal:
            for source in {source for source, _ in [*known, ("a", "")]}:
                mine = {path: one for (name, path), one in known.items() if name == source}
                assert journal.entries(source, ["1.jpg", "ü/2.jpg", "3\n.jpg", "never"]) == mine
                assert journal.paths(source) == sorted(mine)
            failed = {(source, path, one.error) for (source, path), one in known.items() if one.error}
            assert set(journal.unreadable()) == failed


def test_many_paths_are_looked_up_at_once(tmp_path: Path) -> None:
    one = Entry(1, 2, "ab" * 32, Modality.VISIBLE, "full")
    with Journal(tmp_path, 0) as journal:
        journal.record({("s", f"{n}.jpg"): dataclasses.replace(one, size=n) for n in range(3500)})
        found = journal.entries("s", [f"{n}.jpg" for n in range(0, 7000, 2)])
        assert found == {f"{n}.jpg": dataclasses.replace(one, size=n) for n in range(0, 3500, 2)}


def test_sources_keep_when_they_were_built(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.keep_source(Known("s", "/a", "visible", None, None))
        assert journal.sources() == [Known("s", "/a", "visible", None, None)]
        journal.finished("s")
        built = journal.sources()[0].built
        assert built is not None
        journal.keep_source(Known("s", "/moved", None, "1", None))
        assert journal.sources() == [Known("s", "/moved", None, "1", built)]
        journal.forget_source("s")
        assert journal.sources() == []


def test_what_is_forgotten_leaves_no_byte(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        many = {
            ("home", f"secret-{n:04d}.jpg"): Entry(n, n, "ab" * 32, Modality.VISIBLE, "full", "e") for n in range(900)
        }
        journal.record(many)
        journal.forget(key for key in many if key[1] != "secret-0007.jpg")
        journal.compact()
        journal.record({("home", "other.jpg"): Entry(1, 1, "", Modality.VISIBLE, "full")})
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert data.count(b"secret-") == data.count(b"secret-0007.jpg") > 0


def test_it_is_private_and_damage_is_told(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.record({("s", "a"): Entry(1, 1, "", Modality.VISIBLE, "full")})
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert modes == {0o600}
    file = tmp_path / "journal-0.sqlite"
    with sqlite3.connect(file) as sql:
        sql.execute("DROP TABLE entries")
        sql.execute("CREATE TABLE entries (source, path)")
    sql.close()
    with Journal(tmp_path, 0) as journal, pytest.raises(BadInput, match="without this file, the next build repeats"):
        journal.entries("s", ["a"])
    file.write_bytes(b"no database" * 400)
    with pytest.raises(BadInput, match=r"journal-0.sqlite cannot be used"):
        Journal(tmp_path, 0)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        Journal(tmp_path, 0)
    assert not (tmp_path / "elsewhere").exists()


def test_looking_makes_no_file(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.sources() == [] and journal.entries("s", ["a"]) == {} and list(journal.unreadable()) == []
        journal.forget([("s", "a")])
        journal.compact()
    assert list(tmp_path.iterdir()) == []
