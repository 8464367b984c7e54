"""The dataset doctor on data sets with one kind of problem each."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vireid import datasets
from vireid.cli.main import main

LAYOUTS = ("sysu-mm01", "regdb", "llcm", "folder")


def kinds(checkup):
    return {(p.kind, p.path) for p in checkup.problems}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("decode", [False, True])
def test_a_healthy_tree(layout, decode, trees, tmp_path):
    calls = []
    root = trees[layout](tmp_path / "data")
    checkup = datasets.check(layout, root, decode=decode, progress=lambda done, total: calls.append((done, total)))
    assert {kind for kind, _ in kinds(checkup)} <= {"unlisted"}  # SYSU's tree has one identity in no list
    assert checkup.usable == checkup.counts["pictures"] == len(datasets.read(layout, root))
    assert checkup.failures == checkup.to_json()["failures"] == []
    assert calls[-1] == (checkup.usable, checkup.usable) and calls == sorted(calls)


def test_counts_and_differences(trees, tmp_path):
    checkup = datasets.check("sysu-mm01", trees["sysu-mm01"](tmp_path / "data"))
    assert checkup.counts["train identities"] == 2
    assert checkup.counts["test visible pictures"] == 2 * 4 * 2
    assert checkup.counts["test infrared identity-camera pairs"] == 2 * 2
    assert checkup.counts["test camera 3 pictures"] == 4
    assert checkup.counts["picture files"] == 72
    assert "train identities: 2 found, 296 expected" in checkup.differences
    assert len(checkup.differences) == len(checkup.expected) - 1  # six cameras are as expected
    assert datasets.check("folder", trees["folder"](tmp_path / "own")).differences == []


@pytest.mark.parametrize("layout", ["sysu-mm01", "llcm", "regdb"])
def test_expected_counts_use_names_that_counts_has(layout, trees, tmp_path):
    checkup = datasets.check(
        layout,
        trees[layout](tmp_path / "data", foldered=True) if layout == "llcm" else trees[layout](tmp_path / "data"),
    )
    assert all(checkup.counts[name] > 0 for name in checkup.expected)


def test_expected_counts_agree_with_each_other():
    from vireid.datasets import llcm, sysu_mm01

    e = sysu_mm01.EXPECTED
    assert sum(e[f"{s} identities"] for s in ("train", "val", "test")) == e["identities"]
    assert sum(e[f"test camera {c} pictures"] for c in (1, 2, 4, 5)) == e["test visible pictures"]
    assert sum(e[f"test camera {c} pictures"] for c in (3, 6)) == e["test infrared pictures"]
    assert sum(e[f"test camera {c} identities"] for c in (1, 2, 4, 5)) == e["test visible identity-camera pairs"]
    assert e["train visible pictures"] + e["val visible pictures"] == 22_258
    assert e["train infrared pictures"] + e["val infrared pictures"] == 11_909
    pictures = [n for name, n in llcm.EXPECTED.items() if name.endswith("pictures")]
    assert sum(pictures) == 46_767


def test_ill_files_are_named(trees, tmp_path):
    root = trees["folder"](tmp_path / "data", ".jpg")
    visible = root / "train" / "visible" / "3"
    (visible / "b.jpg").write_bytes(b"")
    (visible / "cam3_a.jpg").write_text("<html>404</html>")
    shutil.copy(root / "train/visible/9/b.jpg", root / "train/infrared/9/b.jpg")
    shutil.rmtree(root / "test" / "infrared" / "7")
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(big).save(root / "test/visible/7/b.jpg")
    whole = (root / "test/visible/7/b.jpg").read_bytes()
    (root / "test/visible/7/b.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "test" / "stray.jpg").write_bytes(whole)
    expected = {
        ("empty", "train/visible/3/b.jpg"),
        ("not a picture", "train/visible/3/cam3_a.jpg"),
        ("duplicate", "train/infrared/9/b.jpg"),
        ("one modality", "identity 7"),
        ("unlisted", "test"),
    }
    quick = datasets.check("folder", root)
    assert kinds(quick) == expected
    assert quick.usable == 14 - 2
    thorough = datasets.check("folder", root, decode=True)
    assert kinds(thorough) - kinds(quick) == {("unreadable", "test/visible/7/b.jpg")}
    assert thorough.usable == 14 - 3
    assert (quick.failures, thorough.failures) == (["2 pictures cannot be read"], ["3 pictures cannot be read"])


def test_missing_entries_are_all_listed(trees, tmp_path):
    root = trees["regdb"](tmp_path / "data")
    shutil.rmtree(root / "Thermal" / "1")
    checkup = datasets.check("regdb", root)
    missing = [p for p in checkup.problems if p.kind == "missing"]
    assert [(p.path, p.detail) for p in missing] == [
        (f"Thermal/1/male_back_t_0000{n}_1.bmp", "named by idx/train_thermal_1.txt") for n in (1, 2)
    ]
    assert checkup.usable == 14
    root = trees["sysu-mm01"](tmp_path / "sysu")
    (root / "exp" / "test_id.txt").write_text("6,10,333")
    assert ("missing", "identity 0333") in kinds(datasets.check("sysu-mm01", root))


def test_unlisted_pictures_are_counted_by_folder(trees, picture, tmp_path):
    root = trees["llcm"](tmp_path / "data", foldered=True)
    picture(root / "vis" / "0009" / "0009_c01_s1_f1_vis.jpg", 1000)
    picture(root / "vis" / "0009" / "0009_c01_s1_f2_vis.jpg", 1001)
    checkup = datasets.check("llcm", root)
    # The lists name the copies of the test pictures below vis and nir, although the records use the other copies.
    assert [(p.path, p.detail) for p in checkup.problems] == [
        ("vis/0009", "2 pictures without an entry, such as 0009_c01_s1_f1_vis.jpg")
    ]


def test_a_line_given_twice_is_a_duplicate(picture, tmp_path):
    picture(tmp_path / "a.png", 0)
    picture(tmp_path / "b.png", 1)
    lines = ["a.png,1,0,visible", "b.png,1,1,infrared", "a.png,2,0,visible", "gone.png,1,1,infrared"]
    (tmp_path / "records.csv").write_text("\n".join(["path,identity,camera,modality", *lines]))
    assert kinds(datasets.check("folder", tmp_path)) == {
        ("duplicate", "a.png"),
        ("missing", "gone.png"),
        ("one modality", "identity 2"),
    }


def test_json_and_remarks_tell_the_same(trees, tmp_path):
    root = trees["sysu-mm01"](tmp_path / "data")
    for name in ("0001.jpg", "0002.jpg"):
        (root / "cam1" / "0001" / name).write_bytes(b"")
    checkup = datasets.check("sysu-mm01", root)
    told = json.loads(json.dumps(checkup.to_json()))
    assert told["usable"] == 58 and told["layout"] == "sysu-mm01" and told["counts"] == checkup.counts
    assert {"kind": "empty", "path": "cam1/0001/0001.jpg", "detail": "has no bytes"} in told["problems"]
    text = "\n".join(checkup.remarks(shown=1))
    assert "2 empty files:" in text and "… and 1 more" in text
    assert "differs: train identities: 2 found, 296 expected" in text
    assert checkup.counts["cameras"] == checkup.expected["cameras"] == 6 and "differs: cameras" not in text
    assert "58 of 60 pictures are usable (no picture was decoded)" in text


def write_table(root, lines):
    (root / "records.csv").write_text("\n".join(["path,identity,camera,modality,split", *lines]))


def test_people_in_more_than_one_split_are_a_failure(picture, tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.png", n)
    write_table(tmp_path, ["0.png,7,0,rgb,train", "1.png,7,0,ir,val", "2.png,8,0,rgb,test", "3.png,-1,0,ir,train"])
    checkup = datasets.check("folder", tmp_path)
    assert ("shared identity", "identity 7") in kinds(checkup)
    assert checkup.failures == ["1 identities are in more than one split"]
    assert (checkup.counts["identities"], checkup.counts["unlabelled pictures"]) == (2, 1)
    assert checkup.counts["train infrared pictures"] == 0  # the unlabelled one is not counted as a person's
    assert "  identity 7: has pictures in train and val" in checkup.remarks()


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0, 4095, "reach only 4,095 of 65,535: with scaling 'full' they will be nearly black"),
        (28_900, 31_200, "lie between 28,900 and 31,200 of 65,535: with scaling 'full' they will be nearly uniform"),
        (0, 65_535, None),
    ],
)
def test_pictures_that_use_few_of_16_bits_are_noted(low, high, says, picture, tmp_path):
    picture(tmp_path / "rgb.png", 0)
    deep = np.random.default_rng(0).integers(low, high, (20, 10), dtype=np.uint16, endpoint=True)
    deep[0, :2] = low, high
    Image.fromarray(deep).save(tmp_path / "ir.png")
    write_table(tmp_path, ["rgb.png,1,0,rgb,test", "ir.png,1,0,ir,test"])
    notes = datasets.check("folder", tmp_path).notes
    if says is None:
        assert notes == ()
        return
    (note,) = notes
    assert says in note and "1 of 1 sampled infrared pictures" in note and f"scaling: window:{low}-{high}" in note
    for rule in (f"window:{low}-{high}", "percentile"):
        (tmp_path / "pictures.yaml").write_text(f"scaling: {rule}\n")
        assert datasets.check("folder", tmp_path).notes == ()
    (tmp_path / "pictures.yaml").write_text("scaling: window:50000-60000\n")
    assert "nearly black" in datasets.check("folder", tmp_path).notes[0]


@pytest.mark.parametrize("fault", ["a missing file", "an empty file", "people in two splits"])
def test_the_command_writes_its_json_and_then_fails(fault, trees, tmp_path, capsys):
    root = trees["folder"](tmp_path / "data")
    written = tmp_path / "found.json"
    assert main(["data", "check", f"folder:{root}", "--json", str(written)]) == 0
    lines = ["train/visible/3/b.png,3,0,rgb,train", "test/visible/7/b.png,7,0,rgb,test"]
    if fault == "a missing file":
        lines.append("gone.png,7,0,rgb,test")
    elif fault == "an empty file":
        (root / "test/visible/7/b.png").write_bytes(b"")
    else:
        lines.append("test/visible/12/b.png,3,0,rgb,test")
    write_table(root, lines)
    assert main(["data", "check", f"folder:{root}", "--json", str(written)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()[-1:]
    wanted = (
        "1 identities are in more than one split" if fault == "people in two splits" else "1 pictures cannot be read"
    )
    assert sentence == f"vireid: folder:{root}: {wanted}; they are listed above"
    assert json.loads(written.read_text())["failures"] == [wanted]
