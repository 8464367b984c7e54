"""Typed facts as JSON: back as they were, or one sentence."""

from __future__ import annotations

import math
import os
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from vireid.data.errors import BadInput
from vireid.data.stored import as_json, check_output, from_values, read_json, write_json, write_text, writing


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...]
    score: float | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner | None
    versions: dict[str, str | None]


FACTS = Outer(3, Inner(("a", "b"), 0.5), {"torch": "2", "none": None})


def test_values_come_back(tmp_path):
    write_json(tmp_path / "f.json", as_json(FACTS))
    assert from_values(Outer, read_json(tmp_path / "f.json"), "f.json") == FACTS
    assert as_json({"a": math.nan, "b": (math.inf, 1.5)}) == {"a": None, "b": [None, 1.5]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": "3"}, "has a wrong 'count'"),
        ({"count": 3.5}, "has a wrong 'count'"),
        ({"inner": {}}, "lacks the field 'inner.names'"),
        ({"inner": {"names": "ab"}}, "has a wrong 'inner.names'"),
        ({"colour": 1}, "has an unknown field 'colour'"),
        ({"inner": {"names": ["a"], "score": None, "colour": 1}}, "has an unknown field 'inner.colour'"),
    ],
)
def test_other_values_are_refused_by_name(change, sentence):
    with pytest.raises(BadInput) as refusal:
        from_values(Outer, {**as_json(FACTS), **change}, "run.json")
    assert str(refusal.value).startswith(f"run.json {sentence}") and "\n" not in str(refusal.value)
    with pytest.raises(BadInput, match="lacks the field 'count'"):
        from_values(Outer, {}, "run.json")


def test_files_that_cannot_be_read(tmp_path):
    write_text(tmp_path / "text.json", "{")
    with pytest.raises(BadInput, match=r"text\.json is not JSON"):
        read_json(tmp_path / "text.json")
    with pytest.raises(BadInput, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["text.json"]


def test_a_pipe_is_written_into_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert read == ['{\n  "a": 1\n}\n']
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_kept_and_the_file_behind_it_is_written(tmp_path, there):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "target.json", tmp_path / "link.json"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink() and not target.is_symlink() and target.read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["target.json"]


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "f"
    write_text(file, "old")

    def fail():
        with writing(file) as opened:
            opened.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["f"]


def test_standard_output_in_a_file_keeps_what_was_printed_before(tmp_path):
    """`vireid … --json out.txt > out.txt`: both the table and the JSON are there."""
    out = tmp_path / "out.txt"
    program = (
        "import pathlib, sys; from vireid.data.stored import write_text; "
        "print('printed', flush=True); write_text(pathlib.Path(sys.argv[1]), 'written'); print(' after')"
    )
    with open(out, "w") as stream:
        subprocess.run([sys.executable, "-c", program, str(out)], stdout=stream, check=True)
    assert out.read_text() == "printed\nwritten after\n"


def test_what_cannot_be_written_is_known_before(tmp_path):
    (tmp_path / "file").touch()
    assert check_output(tmp_path / "file") == tmp_path / "file"
    assert check_output(tmp_path / "new.json") == tmp_path / "new.json"
    (tmp_path / "link").symlink_to(tmp_path / "none" / "x")
    for path, words in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none" / "x", "there is no folder"),
        (tmp_path / "file" / "x", "there is no folder"),
        (tmp_path / "link", "there is no folder"),
    ):
        with pytest.raises(BadInput, match=words):
            check_output(path)
    with pytest.raises(OSError, match="Is a directory"):
        write_text(tmp_path, "x")
