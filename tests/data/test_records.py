"""Records: their columns and their order, and that they refuse columns that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vireid.data.errors import BadInput
from vireid.data.records import Records


def make(**changes):
    columns = {
        "path": ["b", "a", "c"],
        "identity": [9, 4, 9],
        "camera": [1, 3, 2],
        "modality": [0, 1, 0],
        "split": ["train", "val", "test"],
    }
    return Records(layout="folder", root=Path("somewhere"), **(columns | changes))


def test_columns_and_order():
    records = make(time=[1, 2, float("nan")])
    assert len(records) == 3
    assert (records.identity.dtype, records.modality.dtype, records.time.dtype) == (np.int64, np.int8, np.float64)
    assert records.take([2, 0]).path.tolist() == ["c", "b"]
    assert records.take([2, 0]).time.tolist()[1] == 1.0
    assert records.where(split=("train", "test")).path.tolist() == ["b", "c"]
    assert records.where(modality=1).path.tolist() == ["a"]
    assert records.file(1) == Path("somewhere/a")


def test_labels_ascend_with_the_identity():
    labels, identities = make().labels()
    assert labels.tolist() == [1, 0, 1] and identities.tolist() == [4, 9]


@pytest.mark.parametrize(
    "change",
    [
        {"path": ["b", "a", "d"]},
        {"path": ["a", "b", "c"]},
        {"identity": [9, 4, 8]},
        {"camera": [1, 3, 3]},
        {"modality": [1, 1, 0]},
        {"split": ["train", "val", "val"]},
    ],
)
def test_the_fingerprint_sees_every_column(change):
    assert make().fingerprint() == make().fingerprint()
    assert make(**change).fingerprint() != make().fingerprint()


def test_the_fingerprint_does_not_see_the_root():
    moved = Records(
        "folder", Path("elsewhere"), *(getattr(make(), n) for n in ("path", "identity", "camera", "modality", "split"))
    )
    assert moved.fingerprint() == make().fingerprint()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"identity": [1, 2]}, "column 'identity' has shape"),
        ({"camera": [[1, 2, 3]]}, "column 'camera' has shape"),
        ({"modality": [0, 1, 2]}, "modality 2; choices: 0 .visible., 1 .infrared."),
        ({"split": ["train", "val", "query"]}, "split 'query'; choices: train, val, test"),
    ],
)
def test_refusals(change, says):
    with pytest.raises(BadInput, match=says):
        make(**change)
