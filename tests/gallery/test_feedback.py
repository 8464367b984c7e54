"""What people said of matches."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.errors import BadInput
from vireid.gallery.feedback import HEADER, Feedback
from vireid.gallery.spreadsheet import table

A, B, C = (hashlib.sha256(name).hexdigest() for name in (b"a", b"b", b"c"))
SEARCH = "0" * 32


def exported(feedback: Feedback, file: Path) -> list[list[str]]:
    feedback.export(file)
    return list(csv.reader(io.StringIO(file.read_bytes().decode())))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]),
            st.sampled_from([B, C]),
            st.sampled_from(["same", "different", "none"]),
            st.sampled_from(["ward", "night"]),
        ),
        max_size=20,
    )
)
def test_the_last_verdict_of_each_person_counts(tmp_path_factory: pytest.TempPathFactory, said: list) -> None:
    folder = tmp_path_factory.mktemp("feedback")
    expected = {}
    with Feedback(folder, clock=lambda: 1_800_000_000) as feedback:
        for query, picture, verdict, who in said:
            feedback.put(SEARCH, query, picture, verdict, who)
            expected.pop((query, picture, who), None)
            if verdict != "none":
                expected[query, picture, who] = verdict
        rows = [[q, p, v, w, "2027-01-15T08:00:00Z"] for (q, p, w), v in sorted(expected.items())]
        assert exported(feedback, folder / "feedback.csv") == [list(HEADER), *rows]
        for who in ("ward", "night"):
            assert feedback.said(A, who) == {p: v for (q, p, w), v in expected.items() if (q, w) == (A, who)}


def test_a_verdict_is_there_when_put_returns(tmp_path: Path) -> None:
    with Feedback(tmp_path) as feedback:
        feedback.put(SEARCH, A, B, "same", "ward")
        with Feedback(tmp_path) as other:
            (one,) = other.all()
            assert (one.query, one.picture, one.verdict, one.who, one.search) == (A, B, "same", "ward", SEARCH)


def test_threads_may_write_together(tmp_path: Path) -> None:
    with Feedback(tmp_path) as feedback, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: feedback.put(SEARCH, A, f"{n:064x}", "same", "ward"), range(200)))
        assert len(list(feedback.all())) == 200


@pytest.mark.parametrize("wrong", [{"query_content": "A" * 64}, {"picture_content": "abc"}, {"verdict": "maybe"}])
def test_what_is_no_verdict_is_refused(wrong: dict, tmp_path: Path) -> None:
    given = {"search": SEARCH, "query_content": A, "picture_content": B, "verdict": "same", "who": "ward", **wrong}
    with Feedback(tmp_path) as feedback:
        with pytest.raises(BadInput):
            feedback.put(**given)
        assert list(feedback.all()) == []


def test_verdicts_on_a_picture_that_leaves_go_with_it(tmp_path: Path) -> None:
    with Feedback(tmp_path) as feedback:
        for query, picture in ((A, B), (A, C), (C, B), (B, A)):
            feedback.put(SEARCH, query, picture, "same", "ward")
        assert feedback.forget([C, "0" * 64]) == 2
        assert {(one.query, one.picture) for one in feedback.all()} == {(A, B), (B, A)}
        assert C.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_all_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Feedback(tmp_path) as feedback:
            feedback.put(SEARCH, A, B, "same", "ward")
            feedback.export(tmp_path / "feedback.csv")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600} and "feedback.csv" in modes
    (tmp_path / "feedback.sqlite").chmod(0o666)
    with pytest.raises(BadInput, match="chmod 600"):
        Feedback(tmp_path)


def test_an_export_does_not_follow_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "feedback.csv").symlink_to(victim)
    with Feedback(tmp_path) as feedback, pytest.raises(BadInput):
        feedback.export(tmp_path / "feedback.csv")
    assert victim.read_bytes() == b"precious"


def test_an_export_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with Feedback(tmp_path) as feedback:
        with pytest.raises(BadInput, match="cannot be written"):
            feedback.export(tmp_path / "nothing" / "feedback.csv")
        with pytest.raises(BadInput):
            feedback.export(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_no_cell_begins_like_a_formula_and_nothing_is_lost(text: str) -> None:
    made = table(["a", "b"], [[text, 1]])
    _, (cell, number) = csv.reader(io.StringIO(made, newline=""))
    assert number == "1"
    assert cell in (text, f"'{text}")
    assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_numbers_are_written_as_they_are() -> None:
    assert table(["a"], [[-1.5], [None], ["-1.5"]]) == 'a\r\n-1.5\r\n""\r\n\'-1.5\r\n'
