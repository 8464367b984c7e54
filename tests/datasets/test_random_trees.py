"""Readers on random folders: they return valid records or raise BadInput with one sentence, never another error."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.records import SPLITS

# Folder names that layouts look for, similar names, and other names.
WORDS = st.sampled_from(
    [
        "cam1", "cam3", "cam7", "exp", "idx", "Visible", "Thermal", "vis", "nir", "test_vis", "train", "test", "val",
        "visible", "infrared", "thermal", "0001", "1", "12", "x", "人", " ", "a b", "-1", "1e9", "records.csv",
        "9" * 30,
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "0001.jpg", "1.bmp", "a.PNG", "0001_c01_s1_f2_vis.jpg", "0001_c04_s1_f2_nir.jpg", "cam2_x.png", "train_id.txt",
        "test_id.txt", "val_id.txt", "train_visible_1.txt", "test_thermal_1.txt", "train_vis.txt", "test_nir.txt",
        "records.csv", "notes", ".hidden.jpg", ".jpg",
    ]
)  # fmt: skip
TEXTS = st.sampled_from(
    [
        "", "1", "1,2\n", "0001", "x y z", "Visible/1/1.bmp 0\n", "vis/1/a.PNG 0\nvis/1/a.PNG 1\n", "1 2 3", "\ufeff1",
        "../../x.jpg 0\n", "path,identity,camera,modality\nx/0001.jpg,1,1,visible\n", "\0", "é" * 50, "9" * 40,
    ]
)  # fmt: skip
FILES = st.dictionaries(st.tuples(st.lists(WORDS, max_size=4).map(tuple), NAMES), TEXTS, max_size=12)

# The smallest data set of each layout. A random tree lacks some of its files and has other files.
WHOLE = {
    "sysu-mm01": {
        **{((f"cam{c}", f"000{i}"), "0001.jpg"): "" for c in (1, 3) for i in (1, 2)},
        (("exp",), "train_id.txt"): "1", (("exp",), "val_id.txt"): "2", (("exp",), "test_id.txt"): "3",
    },
    "regdb": {
        **{((folder, i), "1.bmp"): "" for folder in ("Visible", "Thermal") for i in "12"},
        **{
            (("idx",), f"{split}_{word}_1.txt"): f"{word.capitalize()}/{i}/1.bmp 0\n"
            for split, i in (("train", 1), ("test", 2)) for word in ("visible", "thermal")
        },
    },
    "llcm": {
        **{((word, f"000{i}"), f"000{i}_c01_s1_f2_{word}.jpg"): "" for word in ("vis", "nir") for i in (1, 2)},
        **{
            (("idx",), f"{split}_{word}.txt"): f"{word}/000{i}/000{i}_c01_s1_f2_{word}.jpg 0\n"
            for split, i in (("train", 1), ("test", 2)) for word in ("vis", "nir")
        },
    },
    "folder": {((split, word, "1"), "a.PNG"): "" for split in ("train", "test") for word in ("visible", "infrared")},
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    strangers=FILES,
    missing=st.lists(st.integers(0, 8), max_size=2),
    layout=st.sampled_from(datasets.layouts()),
    fold=st.integers(1, 2),
)
def test_any_tree_gives_records_or_one_sentence(strangers, missing, layout, fold):
    files = {entry: text for k, (entry, text) in enumerate(WHOLE[layout].items()) if k not in missing} | strangers
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for (parents, name), text in files.items():
            place = root.joinpath(*parents)
            try:
                place.mkdir(parents=True, exist_ok=True)
                (place / name).write_text(text, encoding="utf-8")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                continue  # the same name twice, as a file and as a folder
        for look in (datasets.read, datasets.check):
            try:
                found = look(layout, root, fold=fold)
            except BadInput as refused:
                assert "\n" not in str(refused)
                assert missing or strangers or (layout, fold) == ("regdb", 2) or fold > datasets.folds(layout)
                continue
            if look is datasets.read:
                assert len(found) and set(found.split) <= set(SPLITS) and np.isin(found.modality, (0, 1)).all()
                assert all(found.file(record).is_file() for record in range(len(found)))
                assert found.fingerprint() == look(layout, root, fold=fold).fingerprint()
