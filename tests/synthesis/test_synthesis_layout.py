"""The three layouts: correct folders and counts, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.synthesis import World, plan, write_world

TINY = Size(16, 8)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def numbers(text: str) -> list[int]:
    assert text.count("\n") <= 1
    return [int(word) for word in text.strip().split(",")]


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_same_seed_same_bytes_whatever_the_workers(tmp_path, layout):
    trees = []
    for name, seed, workers in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        write_world(tmp_path / name, World(3, seed=seed), layout=layout, size=TINY, pictures=2, workers=workers)
        trees.append(digest(tmp_path / name))
    assert trees[0] == trees[1]
    pictures = [[tree[name] for name in tree if name.endswith((".jpg", ".bmp"))] for tree in (trees[0], trees[2])]
    assert not set(pictures[0]) & set(pictures[1])
    assert len(set(pictures[0])) == len(pictures[0]) > 0  # and no picture twice


def test_sysu_tree(tmp_path):
    calls = []
    summary = write_world(
        tmp_path / "w", World(10), layout="sysu-mm01", size=TINY, pictures=2, workers=1,
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    root = tmp_path / "w"
    ids = {name: numbers((root / f"exp/{name}_id.txt").read_text()) for name in ("train", "val", "test", "available")}
    assert [len(ids[name]) for name in ("train", "val", "test")] == [6, 2, 2]
    assert sorted(ids["train"] + ids["val"] + ids["test"]) == ids["available"] == list(range(1, 11))
    for camera in range(1, 7):
        folders = sorted(path.name for path in (root / f"cam{camera}").iterdir())
        assert folders == [f"{number:04d}" for number in range(1, 11)]
        assert sorted(p.name for p in (root / f"cam{camera}/0001").iterdir()) == ["0001.jpg", "0002.jpg"]
    with Image.open(root / "cam3/0001/0001.jpg") as image:
        assert (image.mode, image.size) == ("RGB", (8, 16))
        pixels = np.asarray(image)
        assert (pixels[..., 0] == pixels[..., 2]).all()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}  # no metadata
    assert summary["pictures"] == 120 and summary["visible"] == 80 and calls[-1] == (120, 120)


def test_regdb_tree(tmp_path):
    root = tmp_path / "w"
    write_world(root, World(7), layout="regdb", size=TINY, pictures=3, workers=1)
    splits = []
    for fold in range(1, 11):
        seen = {}
        for split, people in (("train", 4), ("test", 3)):
            found = {}
            for word in ("visible", "thermal"):
                lines = [line.split() for line in (root / f"idx/{split}_{word}_{fold}.txt").read_text().splitlines()]
                assert all((root / path).is_file() for path, _ in lines)
                assert Counter(int(label) for _, label in lines) == dict.fromkeys(range(people), 3)
                found[word] = {int(path.split("/")[1]): int(label) for path, label in lines}
            assert found["visible"] == found["thermal"]  # labels match across modalities
            seen[split] = set(found["visible"])
        assert seen["train"] | seen["test"] == set(range(1, 8)) and not seen["train"] & seen["test"]
        splits.append(tuple(sorted(seen["train"])))
    assert len(set(splits)) > 5
    assert len({path.stat().st_size for path in (root / "Thermal").rglob("*.bmp")}) == 1
    with Image.open(next((root / "Thermal").rglob("*.bmp"))) as image:
        assert image.mode == "L"


def test_llcm_tree(tmp_path):
    root = tmp_path / "w"
    write_world(root, World(9), layout="llcm", size=TINY, pictures=2, workers=1)
    test = numbers((root / "idx/test_id.txt").read_text())
    assert len(test) == 3
    for split, people in (("train", 6), ("test", 3)):
        for word, cameras in (("vis", set(range(1, 10))), ("nir", {1, 2, 4, 5, 6, 7, 8, 9})):
            lines = [line.split() for line in (root / f"idx/{split}_{word}.txt").read_text().splitlines()]
            assert sorted({int(label) for _, label in lines}) == list(range(people))
            for path, _ in lines:
                assert (root / path).is_file()
                *folders, name = path.split("/")
                number, camera, _, _, kind = name.removesuffix(".jpg").split("_")
                assert kind == word and int(camera[1:]) in cameras
                assert (int(number) in test) == (split == "test")
                cell = [f"test_{word}", f"cam{int(camera[1:])}", number]
                assert folders == (cell if split == "test" else [word, number])


def cells(chosen, split: str, modality: int) -> Counter:
    return Counter((p.number, p.camera) for p in chosen.pictures if p.split == split and p.modality == modality)


def test_sysu_published_counts():
    chosen = plan(World(1), "sysu-mm01", published_counts=True)
    for split, visible, infrared, people in (("train", 20284, 9929, 296), ("val", 1974, 1980, 99)):
        assert (cells(chosen, split, 0).total(), cells(chosen, split, 1).total()) == (visible, infrared)
        assert len(numbers(chosen.texts[f"exp/{split}_id.txt"])) == people
    assert len(numbers(chosen.texts["exp/available_id.txt"])) == 491
    test = cells(chosen, "test", 0) + cells(chosen, "test", 1)
    expected = {1: (56, 1374, 13), 2: (56, 1565, 18), 3: (93, 1883, 20), 4: (94, 1918, 20), 5: (95, 1918, 20),
                6: (96, 1920, 20)}  # fmt: skip
    for camera, counts in expected.items():
        own = [count for (_, other), count in test.items() if other == camera]
        assert (len(own), sum(own), min(own)) == counts
    ids = numbers(chosen.texts["exp/test_id.txt"])
    assert len(ids) == 96 and ids[0] >= 6 and ids[-1] <= 333
    # The exclusion of the protocol: camera 2 is excluded for queries of camera 3.
    indoor = sum(
        count for (number, camera), count in test.items()
        if (camera == 3 and (number, 1) in test) or (camera == 6 and ((number, 1) in test or (number, 2) in test))
    )  # fmt: skip
    assert indoor == 2208


def test_regdb_published_counts():
    chosen = plan(World(1), "regdb", published_counts=True)
    assert len(chosen.pictures) == 412 * 20
    assert len(chosen.texts) == 40 and all(text.count("\n") == 2060 for text in chosen.texts.values())


def test_llcm_published_counts():
    chosen = plan(World(1), "llcm", published_counts=True)
    found = {(split, kind): cells(chosen, split, kind) for split in ("train", "test") for kind in (0, 1)}
    assert [found[key].total() for key in (("train", 0), ("train", 1), ("test", 0), ("test", 1))] == [
        16946, 13975, 8680, 7166]  # fmt: skip
    assert len({number for number, _ in found["train", 0]}) == 713
    visible, infrared = found["test", 0], found["test", 1]
    assert (len(visible), len(infrared)) == (484, 619)
    people = {number for number, _ in visible}
    assert len(people) == 351 and people == {number for number, _ in infrared}
    assert {camera for _, camera in visible} == set(range(1, 10))
    assert {camera for _, camera in infrared} == set(range(1, 10)) - {3}
    # "Same identity and same camera" affects 102 visible and 75 infrared queries; 10 visible ones have no match.
    shared = visible.keys() & infrared.keys()
    assert (sum(visible[cell] for cell in shared), sum(infrared[cell] for cell in shared)) == (102, 75)
    alone = [cell for cell in shared if sum(number == cell[0] for number, _ in infrared) == 1]
    assert sum(visible[cell] for cell in alone) == 10
    assert all(sum(number == cell[0] for number, _ in visible) > 1 for cell in shared)


def test_numbers_on_disk_do_not_follow_the_people():
    chosen = plan(World(60, seed=1), "sysu-mm01", pictures=1)
    pairs = sorted({(picture.identity, picture.number) for picture in chosen.pictures})
    assert len(pairs) == 60
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.4


def test_published_counts_ignore_the_world_s_own(tmp_path):
    chosen = plan(World(1), "regdb", published_counts=True, pictures=3)
    assert chosen.identities == 412 and chosen.summary()["visible"] == 4120


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match="did you mean 'sysu-mm01'"):
        write_world(tmp_path / "a", World(5), layout="sysu")
    for layout, people in (("sysu-mm01", 2), ("regdb", 1), ("llcm", 1)):
        with pytest.raises(BadInput, match=layout):
            write_world(tmp_path / "a", World(people), layout=layout)
    with pytest.raises(BadInput, match="pictures"):
        plan(World(5), "regdb", pictures=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(BadInput, match="not an empty folder"):
        write_world(tmp_path / "full", World(5), layout="regdb")
    with pytest.raises(BadInput, match="size"):
        write_world(tmp_path / "a", World(5), layout="regdb", size=Size(4, 2))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("layout", "least"), [("sysu-mm01", 3), ("regdb", 2), ("llcm", 2)])
def test_the_smallest_world_has_somebody_in_every_split(layout, least):
    chosen = plan(World(least), layout, pictures=1)
    assert {picture.split for picture in chosen.pictures} <= {"train", "val", "test", "all"}
    assert all(text.strip() for text in chosen.texts.values())
    assert chosen.identities == least


@pytest.mark.parametrize("layout", ["sysu-mm01", "llcm"])
def test_the_number_of_test_identities_can_be_chosen(tmp_path, layout):
    world = World(30, seed=3)
    made = {tested: plan(world, layout, pictures=1, tested=tested) for tested in (None, 20)}
    found = {tested: one.summary()["splits"]["test"]["identities"] for tested, one in made.items()}
    assert found == {None: round(30 * 96 / 491) if layout == "sysu-mm01" else round(30 * 351 / 1064), 20: 20}
    assert len({picture.number for picture in made[20].pictures if picture.split != "test"}) == 10
    write_world(tmp_path, replace(world, identities=6), layout=layout, size=TINY, pictures=1, tested=4, workers=1)
    assert len(np.unique(datasets.read(layout, tmp_path).where(split="test").identity)) == 4


@pytest.mark.parametrize(
    "layout, tested, more, sentence",
    [
        ("regdb", 3, {}, "regdb tests on half of them"),
        ("llcm", 3, {"published_counts": True}, "published counts fix them"),
        ("sysu-mm01", 9, {}, "9 test identities of 10: layout sysu-mm01 needs 1 to 8"),
        ("llcm", 0, {}, "0 test identities of 10: layout llcm needs 1 to 9"),
    ],
)
def test_test_identities_that_cannot_be_are_refused(layout, tested, more, sentence):
    with pytest.raises(BadInput, match=sentence):
        plan(World(10), layout, tested=tested, **more)
