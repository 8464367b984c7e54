"""Typed facts as JSON: back as they were, or one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from vireid.data.errors import BadInput
from vireid.data.stored import as_json, from_values, read_json, write_json, write_text


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
