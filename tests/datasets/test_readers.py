"""The readers of all layouts: order and columns, and that the name of the root changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vireid import datasets
from vireid.data.errors import BadInput

LAYOUTS = ("sysu-mm01", "regdb", "llcm", "folder")
SUFFIXES = {"sysu-mm01": ".jpg", "regdb": ".bmp", "llcm": ".jpg", "folder": ".png"}


def table(records):
    return list(
        zip(
            records.path,
            records.identity.tolist(),
            records.camera.tolist(),
            records.modality.tolist(),
            records.split.tolist(),
            strict=True,
        )
    )


def test_layouts_are_found_by_file_name():
    assert set(LAYOUTS) <= set(datasets.layouts())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_moved_root_changes_nothing(layout, trees, tmp_path):
    plain = trees[layout](tmp_path / "data")
    tricky = tmp_path / "camera" / "cam7" / "0009" / "vis" / "c2" / "infrared" / "my data"
    shutil.copytree(plain, tricky)
    here, there = datasets.read(layout, plain), datasets.read(layout, str(tricky))
    assert table(here) == table(there)
    assert here.fingerprint() == there.fingerprint()
    assert all(there.file(record).is_file() for record in range(len(there)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".jpeg", ".bmp"])
def test_another_extension_changes_the_paths_only(layout, suffix, trees, tmp_path):
    usual = datasets.read(layout, trees[layout](tmp_path / "usual"))
    other = datasets.read(layout, trees[layout](tmp_path / "other", suffix))
    for (path, *rest), (other_path, *other_rest) in zip(table(usual), table(other), strict=True):
        assert (other_path, other_rest) == (path.removesuffix(SUFFIXES[layout]) + suffix, rest)


@pytest.mark.parametrize("layout", ["regdb", "llcm"])
def test_pictures_converted_after_the_lists_were_written_are_found(layout, trees, tmp_path):
    root = trees[layout](tmp_path / "data")
    usual = datasets.read(layout, root)
    for path in usual.path:
        (root / path).rename((root / path).with_suffix(".png"))
    converted = datasets.read(layout, root)
    assert [Path(p).stem for p in converted.path] == [Path(p).stem for p in usual.path]
    assert converted.identity.tolist() == usual.identity.tolist()
    assert all(p.endswith(".png") for p in converted.path)


def test_sysu_rows(trees, tmp_path):
    records = datasets.read("sysu-mm01", trees["sysu-mm01"](tmp_path / "data"))
    assert len(records) == 6 * 5 * 2
    assert table(records)[:3] == [
        ("cam1/0001/0001.jpg", 1, 1, 0, "train"),
        ("cam1/0001/0002.jpg", 1, 1, 0, "train"),
        ("cam1/0002/0001.jpg", 2, 1, 0, "train"),
    ]
    keys = list(zip(records.camera.tolist(), records.identity.tolist(), records.path, strict=True))
    assert keys == sorted(keys)
    assert set(records.camera[records.modality == 1]) == {3, 6}
    assert {s: sorted(set(records.identity[records.split == s].tolist())) for s in ("train", "val", "test")} == {
        "train": [1, 2],
        "val": [3],
        "test": [6, 10],
    }
    assert any("1 identities are in none of the three lists" in note for note in records.notes)
    assert records.fold is None and records.time is None


def test_regdb_records(trees, tmp_path):
    root = trees["regdb"](tmp_path / "data")
    first, second = datasets.read("regdb", root), datasets.read("regdb", root, fold=2)
    assert (first.fold, second.fold) == (1, 2)
    assert set(first.identity[first.split == "train"].tolist()) == {1, 2}
    # Labels restart at 0 in each list; identities must not.
    assert set(second.identity[second.split == "train"].tolist()) == {2, 3}
    assert set(second.identity[second.split == "test"].tolist()) == {1, 4}
    assert table(second)[0] == ("Visible/2/male_back_v_00001_2.bmp", 2, 1, 0, "train")
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize("foldered", [False, True])
def test_llcm_records_of_a_camera_are_sorted_by_name(foldered, trees, tmp_path):
    records = datasets.read("llcm", trees["llcm"](tmp_path / "data", foldered=foldered))
    assert len(records) == 2 * 4 * 2 * 3
    cells = {}
    for path, identity, camera, modality, split in table(records):
        cells.setdefault((split, identity, camera, modality), []).append(Path(path).name)
    assert len(cells) == 16
    # Sorted by characters, as in a directory listing: f1000, f250, f30.
    assert all(names == sorted(names) for names in cells.values())
    assert cells["test", 3, 4, 0] == [f"0003_c04_s170446_f{f}_vis.jpg" for f in (1000, 250, 30)]
    assert set(records.identity[records.split == "test"].tolist()) == {3, 12}
    assert all(p.startswith("test_") == foldered for p in records.path[records.split == "test"])


def test_llcm_folders_and_lists_give_the_same_records(trees, tmp_path):
    listed = datasets.read("llcm", trees["llcm"](tmp_path / "a"))
    foldered = datasets.read("llcm", trees["llcm"](tmp_path / "b", foldered=True))
    assert [(Path(p).name, *rest) for p, *rest in table(listed)] == [
        (Path(p).name, *rest) for p, *rest in table(foldered)
    ]


def test_folder_records(trees, picture, tmp_path):
    root = trees["folder"](tmp_path / "data")
    picture(root / "test" / "infrared" / "7" / "deeper" / "x-C12-scam4.png", 99)
    records = datasets.read("folder", root)
    found = {path: rest for path, *rest in table(records)}
    assert found["train/visible/3/cam3_a.png"] == [3, 3, 0, "train"]
    assert found["train/visible/9/b.png"] == [9, 0, 0, "train"]
    assert found["test/infrared/12/b.png"] == [12, 1, 1, "test"]
    assert found["test/infrared/7/deeper/x-C12-scam4.png"] == [7, 12, 1, "test"]
    assert records.split.tolist() == sorted(records.split.tolist(), key=("train", "val", "test").index)


def test_identity_names_get_stable_numbers(picture, tmp_path):
    for seed, name in enumerate(["zoe", "ada", "17"]):
        picture(tmp_path / "test" / "visible" / name / "1.png", seed)
        picture(tmp_path / "test" / "infrared" / name / "1.png", seed + 10)
    records = datasets.read("folder", tmp_path)
    numbers = {path.split("/")[2]: int(i) for path, i in zip(records.path, records.identity, strict=True)}
    assert numbers == {"17": 0, "ada": 1, "zoe": 2}
    assert any("3 identity names" in note for note in records.notes)


def test_hidden_and_other_files_are_not_records(trees, tmp_path):
    root = trees["sysu-mm01"](tmp_path / "data")
    before = datasets.read("sysu-mm01", root)
    (root / "cam1" / "0001" / "._0001.jpg").write_bytes(b"x")
    (root / "cam1" / "0001" / "Thumbs.db").write_bytes(b"x")
    (root / "cam1" / ".DS_Store").write_bytes(b"x")
    (root / "cam1" / "stray.jpg").write_bytes(b"x")
    after = datasets.read("sysu-mm01", root)
    assert table(after) == table(before)
    assert any("1 pictures are not at" in note for note in after.notes)


def test_an_identity_with_one_modality_is_kept_and_noted(trees, tmp_path):
    root = trees["folder"](tmp_path / "data")
    shutil.rmtree(root / "test" / "infrared" / "7")
    records = datasets.read("folder", root)
    assert 7 in records.identity[records.split == "test"]
    assert "1 identities have pictures of one modality only: 7 (test)" in records.notes


@pytest.mark.parametrize("source", ["sysu-mm01:/data/x", "folder:C:\\people\\x.csv", " regdb : x"])
def test_parse_source(source):
    layout, _, path = source.partition(":")
    if layout in datasets.layouts():
        assert datasets.parse_source(source) == (layout, Path(path))
    else:
        with pytest.raises(BadInput, match="did you mean 'regdb'"):
            datasets.parse_source(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("regdb", "LAYOUT:PATH"),
        ("regdb:", "LAYOUT:PATH"),
        ("", "folder, llcm"),
        ("sysu:/x", "did you mean 'sysu-mm01'"),
    ],
)
def test_parse_source_refuses(source, says):
    with pytest.raises(BadInput, match=says):
        datasets.parse_source(source)


def refusal(layout, root, **options):
    with pytest.raises(BadInput) as refused:
        datasets.read(layout, root, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_an_empty_and_a_wrong_root_are_refused(layout, trees, tmp_path):
    assert "does not exist" in refusal(layout, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(layout, tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("x")
    assert str(tmp_path / "text") in refusal(layout, tmp_path / "text")
    for other in set(LAYOUTS) - {layout}:
        root = trees[other](tmp_path / other)
        assert f"looks like the layout {other}" in refusal(layout, root)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_root_one_folder_too_high_is_recognised(layout, trees, tmp_path):
    root = trees[layout](tmp_path / "download" / "inside")
    assert f"did you mean {root}?" in refusal(layout, tmp_path / "download")


def test_lists_that_name_missing_files_name_the_first_and_count(trees, tmp_path):
    regdb = trees["regdb"](tmp_path / "regdb")
    shutil.rmtree(regdb / "Thermal" / "1")
    message = refusal("regdb", regdb)
    assert "idx/train_thermal_1.txt names Thermal/1/male_back_t_00001_1.bmp" in message and "2 in all" in message
    llcm = trees["llcm"](tmp_path / "llcm")
    (llcm / "nir/0003/0003_c01_s170446_f30_nir.jpg").unlink()
    assert "idx/test_nir.txt names nir/0003/0003_c01_s170446_f30_nir.jpg (1 in all)" in refusal("llcm", llcm)


@pytest.mark.parametrize(("fold", "layout"), [(0, "regdb"), (11, "regdb"), (2, "llcm"), (-1, "sysu-mm01")])
def test_folds_out_of_range(fold, layout, trees, tmp_path):
    assert f"no fold {fold}; choices: 1" in refusal(layout, trees[layout](tmp_path / "d"), fold=fold)


def test_broken_lists_are_refused(trees, tmp_path):
    root = trees["sysu-mm01"](tmp_path / "sysu")
    (root / "exp" / "val_id.txt").write_text("3,two")
    assert "not 'two'" in refusal("sysu-mm01", root)
    (root / "exp" / "val_id.txt").write_text("3,1")
    assert "identity 1 is in both" in refusal("sysu-mm01", root)
    (root / "exp" / "val_id.txt").unlink()
    assert "has no exp/val_id.txt" in refusal("sysu-mm01", root)
    root = trees["regdb"](tmp_path / "regdb")
    (root / "idx" / "test_visible_1.txt").write_text("Visible/1/a.bmp\n")
    assert "line 1: expected 'path label'" in refusal("regdb", root)
    (root / "idx" / "test_visible_1.txt").write_text("")
    assert "is empty" in refusal("regdb", root)
    (root / "idx" / "test_visible_1.txt").write_bytes(b"\xff\xfe\x00\x80 0")
    assert "not a text file" in refusal("regdb", root)
    (root / "idx" / "test_visible_1.txt").write_text((root / "idx" / "train_visible_1.txt").read_text())
    assert "identity 1 both in its training and its test lists" in refusal("regdb", root)


def test_folder_refuses_unknown_words(trees, picture, tmp_path):
    root = trees["folder"](tmp_path / "a")
    picture(root / "train" / "heat" / "3" / "x.png", 0)
    assert "unknown modality 'heat'; did you mean 'thermal'? Choices: visible, vis, rgb," in refusal("folder", root)
    root = trees["folder"](tmp_path / "b")
    picture(root / "tests" / "visible" / "3" / "x.png", 0)
    assert "unknown split folder 'tests'; did you mean 'test'?" in refusal("folder", root)


def test_list_with_byte_order_mark_and_windows_line_ends(trees, tmp_path):
    root = trees["regdb"](tmp_path / "data")
    usual = datasets.read("regdb", root)
    for file in (root / "idx").iterdir():
        text = file.read_text().replace("/", "\\").replace("\n", "\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert table(datasets.read("regdb", root)) == table(usual)


def test_overlong_identity_numbers_fit_in_64_bits(picture, tmp_path):
    for modality in ("visible", "infrared"):
        picture(tmp_path / "test" / modality / ("9" * 30) / "a.png", 0)
    assert datasets.read("folder", tmp_path).identity.tolist() == [0, 0]
    assert datasets.read("folder", tmp_path).identity.dtype == np.int64


def test_folders_of_modalities_alone_are_a_test_set(picture, tmp_path):
    root = tmp_path / "own"
    for word in ("RGB", "thermal"):
        for name in ("anna/c2_1.png", "unlabelled/1.png", "loose.png"):
            picture(root / word / name, 0)
    records = datasets.read("folder", root)
    assert records.split.tolist() == ["test"] * 4
    assert sorted(zip(records.path, records.identity.tolist(), records.camera.tolist(), strict=True)) == [
        ("RGB/anna/c2_1.png", 0, 2), ("RGB/unlabelled/1.png", -1, 0),
        ("thermal/anna/c2_1.png", 0, 2), ("thermal/unlabelled/1.png", -1, 1),
    ]  # fmt: skip
    assert "the folders name no split; all pictures count as test" in records.notes
    assert "2 pictures are not at <modality>/<identity>/<name> and are left out" in records.notes
    picture(root / "notes" / "anna" / "x.png", 0)  # another folder: this is not the layout
    assert "has neither records.csv nor folders" in refusal("folder", root)
