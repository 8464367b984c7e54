"""What a row and a filter accept."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tests.gallery.rows import row, unit
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.row import EARLIEST, LATEST, Where, checked_vectors, id_of, last_of_each


def test_an_id_is_half_a_sha256_of_source_and_path() -> None:
    assert id_of("gate", "a/b.jpg") == hashlib.sha256(b"gate\0a/b.jpg").digest()[:16].hex()
    assert id_of("gate", "é.jpg") == hashlib.sha256("gate\0é.jpg".encode()).hexdigest()[:32]


def test_where_source_and_path_meet_does_not_matter_to_the_id() -> None:
    assert len({id_of("a", "bc"), id_of("ab", "c"), id_of("abc", "x"), id_of("a", "b/c")}) == 4


def test_equal_pictures_in_two_places_have_two_ids_and_one_content() -> None:
    one, other = row(0, path="a.jpg"), row(0, path="b.jpg")
    assert one.id != other.id and one.content == other.content


@pytest.mark.parametrize(
    "columns, says",
    [
        ({"source": ""}, "source must be text of 1 to 1024 bytes"),
        ({"source": "a\nb"}, "source must be"),
        ({"path": "a\0b"}, "path must be"),
        ({"path": "é" * 513}, "path must be text of 1 to 1024 bytes"),
        ({"path": "bad\udcff.jpg"}, "path must be"),
        ({"content": "0" * 63}, "content must be a SHA-256"),
        ({"content": "A" * 64}, "content must be a SHA-256"),
        ({"camera": 3}, "camera must be text of 1 to 64 characters"),
        ({"camera": "c" * 65}, "camera must be"),
        ({"tracklet": ""}, "tracklet must be"),
        ({"person": "a\x7fb"}, "person must be"),
        ({"modality": Modality.AUXILIARY}, "visible or infrared"),
        ({"modality": "visible"}, "visible or infrared"),
        ({"time": 1.5}, "time must be milliseconds"),
        ({"time": LATEST}, "time must be milliseconds"),
        ({"thumbnail": b""}, "has 0 bytes"),
        ({"thumbnail": b"x" * 262145}, "has 262145 bytes"),
        ({"vector": np.full(4, 0.6, np.float32)}, "length one; one has the length 1.2"),
        ({"vector": np.array([1, np.nan], np.float32)}, "length one; one has the length nan"),
        ({"vector": np.array([np.inf, 0], np.float32)}, "length one; one has the length inf"),
        ({"vector": unit(2)}, "shape D, not 2×8"),
    ],
)
def test_a_wrong_column_is_refused_by_name(columns: dict, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        row(1, **columns)


def test_the_longest_texts_and_the_first_and_last_times_are_accepted() -> None:
    kept = row(1, path="p" * 1024, camera="é" * 64, time=EARLIEST, vector=np.array([1.0009, 0], np.float32))
    assert row(1, time=LATEST - 1).time == 253_370_764_799_999 and kept.time == -62_135_596_800_000


@pytest.mark.parametrize(
    "given, says",
    [
        ({"cameras": ("",)}, "camera must be text"),
        ({"ids": ("0" * 31,)}, "id of a picture must have 32 hexadecimal digits"),
        ({"contents": ("x" * 64,)}, "content must be a SHA-256"),
        ({"sources": ("a\0",)}, "source must be"),
        ({"since": "yesterday"}, "since cannot be 'yesterday'"),
        ({"until": 10**18}, "until must be milliseconds"),
        ({"modality": 2}, "visible or infrared"),
        ({"cameras": ("a",) * 10_001}, "up to 10000 values of camera, not 10001"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_filter_that_no_row_can_mean_is_refused(given: dict, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Where(**given)


def test_of_two_rows_with_one_id_the_last_one_counts() -> None:
    first, second = row(3, camera="old"), row(3, camera="new")
    assert [one.camera for one in last_of_each([first, row(4), second])] == ["new", "1"]


def test_a_row_without_a_vector_cannot_be_stored() -> None:
    without = row(3)
    object.__setattr__(without, "vector", None)
    with pytest.raises(BadInput, match=r"0003.jpg has no vector"):
        last_of_each([without])


def test_vectors_have_the_width_of_the_gallery() -> None:
    with pytest.raises(BadInput, match="shape N×16, not 3×8"):
        checked_vectors(unit(3), dimensions=2, width=16)
