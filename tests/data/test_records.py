"""Records: their columns and their order, and that they refuse columns that do not fit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vireid.data.errors import BadInput
from vireid.data.records import UNLABELLED, Records, content_fingerprint


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


def test_the_fingerprint_sees_the_scaling():
    prints = {make(scaling=rule).fingerprint() for rule in ("full", "percentile", "window:0-4095", "window:0-4096")}
    assert len(prints) == 4
    assert make().with_scaling("percentile").scaling == "percentile"
    assert make(scaling="window:0-4095").with_scaling("percentile").scaling == "window:0-4095"
    assert make(scaling="percentile").take([0]).scaling == "percentile"


def test_unlabelled_records_have_no_label_and_are_nobody():
    records = make(identity=[9, UNLABELLED, UNLABELLED])
    labels, identities = records.labels()
    assert labels.tolist() == [0, -1, -1] and identities.tolist() == [9]
    assert records.labelled().path.tolist() == ["b"]
    assert records.shared_identities().tolist() == []
    assert make(identity=[UNLABELLED] * 3).labels()[1].tolist() == []


def test_people_in_several_splits():
    assert make().shared_identities().tolist() == [9]
    assert make().shared_identities("train", "val").tolist() == []
    assert make(split=["train", "val", "train"]).refuse_overlap(False) == 0
    assert make().refuse_overlap(True) == 1
    with pytest.raises(BadInput, match="1 identities are in more than one split, such as 9 in train and test"):
        make().refuse_overlap(False)


@pytest.fixture
def files(tmp_path):
    """200 files of ten bytes each."""
    for n in range(200):
        (tmp_path / f"{n}.bmp").write_bytes(n.to_bytes(10, "little"))
    return Records("folder", tmp_path, [f"{n}.bmp" for n in range(200)], *[[0] * 200] * 3, ["train"] * 200)


def test_the_content_fingerprint_sees_other_pictures(files, tmp_path):
    before = content_fingerprint(files)
    assert content_fingerprint(files) == before
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    there = replace(files, root=moved)
    assert content_fingerprint(there) == before
    (moved / "7.bmp").write_bytes(b"eleven byte")  # any other size is seen
    assert content_fingerprint(there) != before
    (moved / "7.bmp").write_bytes((7).to_bytes(10, "little"))
    assert content_fingerprint(there) == before
    for n in range(200):  # equal sizes in all files: another world of the same structure
        (moved / f"{n}.bmp").write_bytes((n + 1).to_bytes(10, "little"))
    assert content_fingerprint(there) != before


def test_of_equal_sizes_the_sample_is_compared_and_a_full_one_sees_each(files, tmp_path):
    files = files.take(range(20))
    sampled, full = content_fingerprint(files, sample=6), content_fingerprint(files, sample=20)
    seen = 0
    for n in range(20):
        (tmp_path / f"{n}.bmp").write_bytes(b"\xff" * 10)
        assert content_fingerprint(files, sample=20) != full
        seen += content_fingerprint(files, sample=6) != sampled
        (tmp_path / f"{n}.bmp").write_bytes(n.to_bytes(10, "little"))
    assert seen == 6


def test_files_that_cannot_be_read_have_a_content_fingerprint_too(files, tmp_path):
    before = content_fingerprint(files)
    (tmp_path / "3.bmp").unlink()
    (tmp_path / "4.bmp").unlink()
    os.mkfifo(tmp_path / "4.bmp")
    assert content_fingerprint(files, sample=200) not in (before, content_fingerprint(files))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"identity": [1, 2]}, "column 'identity' has shape"),
        ({"camera": [[1, 2, 3]]}, "column 'camera' has shape"),
        ({"modality": [0, 1, 2]}, "modality 2; choices: 0 .visible., 1 .infrared."),
        ({"scaling": "dark"}, "scaling 'dark' is not full"),
        ({"split": ["train", "val", "query"]}, "split 'query'; choices: train, val, test"),
    ],
)
def test_refusals(change, says):
    with pytest.raises(BadInput, match=says):
        make(**change)
