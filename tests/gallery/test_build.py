"""An index is made of folders and tables, and later builds read only what is new."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.gallery.cameras import PAST, built, everything, picture, rows, save, station, write
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.index import open_index
from vireid.gallery.journal import Journal
from vireid.gallery.row import id_of
from vireid.gallery.store import open as open_store
from vireid.gallery.stores.embedded import FolderStore
from vireid.model import load

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


@pytest.fixture
def run(runs: dict[str, Path]) -> Path:
    return runs["sysu-mm01"]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    return station(tmp_path / "station")


# --- what is built ----------------------------------------------------------------------------------------------------


def test_a_row_says_what_the_folder_says_and_has_the_models_vector(index: Path, run: Path, cameras: Path) -> None:
    save(cameras / "visible" / "loose.jpg", 77)
    found = built(index, run, cameras)
    assert (found.listed, found.embedded, found.unchanged, found.visible, found.infrared) == (11, 11, 0, 7, 4)
    assert not found.unreadable and not found.gone and not found.duplicates and not found.updated
    model, there = load(run), rows(index)
    assert {(row.path, row.camera) for row in there.values() if "loose" in row.path} == {
        ("visible/loose.jpg", "visible")
    }
    for path, row in there.items():
        file = cameras / path
        kind = VISIBLE if path.startswith("visible") else INFRARED
        assert row.id == id_of(str(cameras.resolve()), path)
        assert row.content == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (row.modality, row.camera) == (kind, Path(path).parent.name)
        assert (row.time, row.tracklet, row.person) == (None, None, None)
        assert row.vector is not None and np.allclose(row.vector, model.embed(file, kind)[0], atol=1e-5)


def test_a_table_gives_camera_time_tracklet_and_person(index: Path, run: Path, tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.jpg", number)
    lines = [
        "Path, Camera, Modality, Time, Tracklet, Person, weather",
        "0.jpg, north gate, rgb, 1772323200.25, t1, anna, rain",
        "1.jpg, 2, thermal, 2026-03-01T03:11:09+01:00, , -1,",
        f"{tmp_path / '2.jpg'}, , , 2026-03-01 02:11:09.5, , ,",
        '"3.jpg", 2, infrared, , , unlabelled',
    ]
    table = tmp_path / "own.csv"
    table.write_text("\n".join(lines))
    built(index, run, table, camera="spare", modality="visible")
    there = rows(index)
    said = {path: (r.camera, r.modality, r.time, r.tracklet, r.person) for path, r in there.items()}
    assert said == {
        "0.jpg": ("north gate", VISIBLE, 1772323200250, "t1", "anna"),
        "1.jpg": ("2", INFRARED, 1772331069000, None, None),
        "2.jpg": ("spare", VISIBLE, 1772331069500, None, None),
        "3.jpg": ("2", INFRARED, None, None, None),
    }
    assert {row.source for row in there.values()} == {str(table.resolve())}


def test_the_test_pictures_of_a_data_set_are_a_source(index: Path, run: Path, worlds: dict[str, Path]) -> None:
    from vireid import datasets

    found = built(index, run, f"sysu-mm01:{worlds['sysu-mm01']}")
    records = datasets.read("sysu-mm01", worlds["sysu-mm01"]).where(split="test")
    expected = {
        (str(p), str(c), int(m), str(i))
        for p, c, m, i in zip(records.path, records.camera, records.modality, records.identity, strict=True)
    }
    assert {(r.path, r.camera, int(r.modality), r.person) for r in rows(index).values()} == expected
    assert found.listed == len(records)


def test_a_folder_of_one_modality_and_several_sources(index: Path, run: Path, tmp_path: Path) -> None:
    station(tmp_path / "a")
    found = built(index, run, tmp_path / "a/visible/gate", tmp_path / "a/visible", modality="visible")
    assert found.listed == 9 and found.duplicates == 3
    cameras = {(row.source.rpartition("/")[2], row.path): row.camera for row in _all(index)}
    assert cameras["gate", "001.jpg"] == "gate" and cameras["visible", "gate/001.jpg"] == "gate"
    built(index, run, tmp_path / "a/infrared", modality="infrared", camera="all one", name="night")
    night = [row for row in _all(index) if row.source == "night"]
    assert len(night) == 4 and {(row.camera, row.modality) for row in night} == {("all one", INFRARED)}


def _all(index: Path) -> list:
    with open_store(index) as store:
        return list(store.iterate())


def test_thumbnails_are_small_upright_and_without_metadata(index: Path, run: Path, tmp_path: Path) -> None:
    turned = picture(5, size=(600, 300)).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret place"
    made = io.BytesIO()
    turned.save(made, "JPEG", exif=exif, comment=b"secret comment", quality=95)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "turned.jpg", made.getvalue())
    save(tmp_path / "a" / "tall.png", 6, size=(3000, 3), grey=True)
    save(tmp_path / "a" / "small.png", 7, size=(20, 10))
    built(index, run, tmp_path / "a", modality="visible")
    small = {row.path: thumbnail for row, _, thumbnail in everything(index).values()}
    assert b"secret" not in small["turned.jpg"] and b"Exif" not in small["turned.jpg"]
    opened = {path: Image.open(io.BytesIO(data or b"")) for path, data in small.items()}
    assert {path: one.size for path, one in opened.items()} == {
        "turned.jpg": (128, 256),
        "tall.png": (1, 256),
        "small.png": (10, 20),
    }
    assert opened["tall.png"].mode == "L"
    upright = np.asarray(picture(5, size=(256, 128)).convert("RGB")).astype(int)
    assert np.abs(np.asarray(opened["turned.jpg"].convert("RGB")) - upright).mean() < 12


# --- building again ---------------------------------------------------------------------------------------------------


def test_a_second_build_opens_no_file_that_has_its_size_and_time(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    before = everything(index)
    for file in (cameras / "visible" / "gate").iterdir():
        write(file, os.urandom(file.stat().st_size))  # would be unreadable, if anybody looked
    found = built(index, run, cameras)
    assert (found.embedded, found.unchanged, found.unreadable) == (0, 10, {}) and everything(index) == before


def test_a_touched_picture_is_read_and_not_embedded(
    index: Path, run: Path, cameras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(index, run, cameras)
    before = everything(index)
    for file in (cameras / "visible").rglob("*.jpg"):
        os.utime(file, (PAST + 5, PAST + 5))
    monkeypatch.setattr("vireid.gallery.reading.decoded", None)
    found = built(index, run, cameras)
    assert (found.embedded, found.unchanged) == (0, 10) and everything(index) == before
    monkeypatch.setattr("vireid.gallery.reading.read_file", None)  # now the journal has the new times
    assert built(index, run, cameras).unchanged == 10


def test_a_changed_picture_replaces_its_row(index: Path, run: Path, cameras: Path) -> None:
    """It has the size of the old one, and another time."""
    changed = "visible/gate/001.jpg"
    old, new = ((save(cameras / name, n)).read_bytes() for n, name in ((1, changed), (555, "visible/gate/other.jpg")))
    (cameras / "visible/gate/other.jpg").unlink()
    write(cameras / changed, old.ljust(9000, b"\0"))
    built(index, run, cameras)
    before = everything(index)
    write(cameras / changed, new.ljust(9000, b"\0"), time=PAST + 1)
    save(cameras / "visible/gate/new.jpg", 556)
    found = built(index, run, cameras)
    assert (found.listed, found.embedded, found.unchanged, found.visible) == (11, 2, 9, 7)
    after = everything(index)
    fresh = id_of(str(cameras.resolve()), changed)
    assert {id for id in before if after[id] != before[id]} == {fresh}
    assert all(new != old for new, old in zip(after[fresh], before[fresh], strict=True))


def test_other_columns_reach_the_row_without_the_picture(index: Path, run: Path, tmp_path: Path) -> None:
    table, file = tmp_path / "t.csv", save(tmp_path / "0.jpg", 0)
    save(tmp_path / "1.jpg", 1)
    table.write_text("path,camera,modality,time\n0.jpg,a,visible,5\n1.jpg,a,visible,5\n")
    built(index, run, table)
    before = everything(index)
    write(file, os.urandom(file.stat().st_size))
    for line in ("b,visible,5,,", "a,visible,6,,", "a,visible,,,", "a,visible,5,t,", "a,visible,5,,p", "a,visible,5,,"):
        table.write_text(f"path,camera,modality,time,tracklet,person\n0.jpg,{line}\n1.jpg,a,visible,5,,\n")
        found = built(index, run, table)
        assert (found.embedded, found.updated, found.unchanged) == (0, 1, 2)
        row = rows(index)["0.jpg"]
        shown = [row.camera, "visible", "" if row.time is None else f"{row.time // 1000}", row.tracklet, row.person]
        assert [one or "" for one in shown] == line.split(",")
    assert everything(index) == before


def test_another_modality_or_scaling_needs_another_vector(index: Path, run: Path, tmp_path: Path) -> None:
    folder, deep = tmp_path / "deep", io.BytesIO()
    folder.mkdir()
    grey = np.asarray(picture(3, grey=True)).astype(np.uint16) * 9
    Image.fromarray(grey).save(deep, "PNG")
    write(folder / "0.png", deep.getvalue())
    built(index, run, folder, modality="infrared")
    first = everything(index)
    assert built(index, run, folder, modality="visible").embedded == 1
    second = everything(index)
    assert [row.modality for row, _, _ in second.values()] == [VISIBLE]
    (folder / "pictures.yaml").write_text("scaling: window:0-2295\n")
    found = built(index, run, folder, modality="visible")
    assert (found.embedded, found.updated) == (1, 0)
    third = everything(index)
    assert len({*(value[1] for found in (first, second, third) for value in found.values())}) == 3
    assert built(index, run, folder, modality="visible").unchanged == 1


def test_unreadable_pictures_are_told_each_time_and_tried_when_they_change(
    index: Path, run: Path, cameras: Path
) -> None:
    whole = (cameras / "visible/gate/001.jpg").read_bytes()
    cut = write(cameras / "visible/gate/cut.jpg", whole[: len(whole) // 2])
    write(cameras / "visible/gate/empty.jpg", b"")
    text = write(cameras / "visible/gate/text.jpg", b"no picture".ljust(9000))
    os.symlink(cameras / "nowhere", cameras / "visible/gate/link.jpg")
    os.mkfifo(cameras / "visible/gate/pipe.jpg")
    long = "x" * 200
    deep = cameras.joinpath("visible", *[long] * 6, "deep.jpg")
    save(deep, 9)
    name = b"\xff.jpg"
    with open(os.path.join(os.fsencode(cameras / "visible"), name), "wb") as file:
        file.write(whole)
    reasons = {
        "visible/gate/cut.jpg": "is damaged, cut short",
        "visible/gate/empty.jpg": "is empty",
        "visible/gate/text.jpg": "is not a picture",
        "visible/gate/link.jpg": "does not exist",
        "visible/gate/pipe.jpg": "is not a file",
        "visible/\\udcff.jpg": "its name is not UTF-8",
        deep.relative_to(cameras).as_posix(): "1 to 1024 bytes",
    }
    with pytest.raises(BadInput, match="camera must be text of 1 to 64 characters"):
        built(index, run, cameras)
    for _ in range(2):
        found = built(index, run, cameras, camera="all")
        (told,) = found.unreadable.values()
        assert set(told) == set(reasons)
        assert all(why in told[path] for path, why in reasons.items())
        assert found.visible + found.infrared == 10
    good = save(cameras / "other.jpg", 8).read_bytes()
    (cameras / "other.jpg").unlink()
    write(text, good.ljust(9000, b"\0"))  # size and time as before: not looked at
    assert len(built(index, run, cameras, camera="all").unreadable[str(cameras.resolve())]) == 7
    write(cut, good, time=PAST + 1)
    found = built(index, run, cameras, camera="all")
    assert found.embedded == 1 and "visible/gate/cut.jpg" not in found.unreadable[str(cameras.resolve())]


def test_a_picture_that_became_unreadable_keeps_its_row(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    before = everything(index)
    file = cameras / "visible/gate/001.jpg"
    whole = file.read_bytes()
    write(file, b"damaged", time=PAST + 1)
    found = built(index, run, cameras)
    assert len(found.unreadable[str(cameras.resolve())]) == 1 and everything(index) == before
    write(file, whole, time=PAST + 2)
    found = built(index, run, cameras)
    assert (found.embedded, found.unchanged, found.unreadable) == (0, 10, {}) and everything(index) == before


def test_pictures_that_are_gone_are_counted_and_kept(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    for number in (1, 3):
        (cameras / f"visible/gate/00{number}.jpg").unlink()
    found = built(index, run, cameras)
    assert found.gone == {str(cameras.resolve()): 2} and (found.listed, found.visible) == (8, 6)


def test_equal_pictures_have_a_row_each_and_are_counted(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    for name in ("a", "b"):
        shutil.copy2(cameras / "visible/gate/001.jpg", cameras / f"visible/gate/{name}.jpg")
    save(cameras / "visible/gate/c.jpg", 90)
    save(cameras / "visible/gate/d.jpg", 90)
    found = built(index, run, cameras, batch=64)
    assert (found.embedded, found.duplicates, found.visible) == (4, 3, 10)
    there = rows(index)
    assert there["visible/gate/a.jpg"].content == there["visible/gate/001.jpg"].content


def test_a_file_that_changes_within_the_clocks_grain_is_looked_at_again(index: Path, run: Path, cameras: Path) -> None:
    """Two writes in one tick of the clock: the second one has the size and the time of the first."""
    file, now = cameras / "visible/gate/001.jpg", time.time() + 100
    one, other = (save(cameras / f"{n}.png", n).read_bytes() for n in (1, 2))
    size = max(len(one), len(other))
    write(file, one.ljust(size, b"\0"), time=now)
    built(index, run, cameras / "visible", modality="visible")
    write(file, other.ljust(size, b"\0"), time=now)
    assert built(index, run, cameras / "visible", modality="visible").embedded == 1


# --- what may go wrong ------------------------------------------------------------------------------------------------


def test_a_lost_journal_costs_time_only(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    before = everything(index)
    (index / "journal-0.sqlite").unlink()
    found = built(index, run, cameras)
    assert found.embedded == 10 and everything(index) == before and not found.gone


def test_a_lost_row_is_made_again_although_the_journal_has_it(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    before = everything(index)
    with open_store(index) as store:
        store.delete(list(before)[:3])
    assert built(index, run, cameras).embedded == 3
    assert everything(index).keys() == before.keys()


@pytest.mark.parametrize("after", range(1, 7))
def test_an_index_built_in_two_goes_is_equal_to_the_last_bit(
    after: int, index: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped before and after each of the first three times that rows are stored."""
    cameras = station(tmp_path / "station", visible=10, infrared=9)
    write(cameras / "visible/gate/bad.jpg", b"bad")
    monkeypatch.setattr("vireid.gallery.build.BATCHES", 1)
    built(tmp_path / "straight", run, cameras, batch=3, name="s")
    calls = []

    def stop(self: FolderStore, rows: list) -> None:
        calls.append(len(rows))
        if len(calls) * 2 - 1 == after:
            raise KeyboardInterrupt
        upsert(self, rows)
        if len(calls) * 2 == after:
            raise KeyboardInterrupt

    upsert = FolderStore.upsert
    monkeypatch.setattr(FolderStore, "upsert", stop)
    with pytest.raises(KeyboardInterrupt):
        built(index, run, cameras, batch=3, name="s")
    with Journal(index) as journal:
        paths = journal.paths("s")
    assert len(paths) <= 3 * len(calls) and set(paths) - {"visible/gate/bad.jpg"} <= set(rows(index))
    monkeypatch.setattr(FolderStore, "upsert", upsert)
    built(index, run, cameras, batch=3, name="s")
    assert everything(index) == everything(tmp_path / "straight")


def test_another_model_is_refused_and_nothing_is_changed(
    index: Path, runs: dict[str, Path], run: Path, cameras: Path
) -> None:
    built(index, run, cameras)
    before = everything(index)
    with pytest.raises(BadInput, match="holds vectors of the model"):
        built(index, runs["regdb"], cameras)
    assert everything(index) == before


def test_one_process_builds_at_a_time(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    with open_store(index) as store:
        store.keep("note", "x")
        with pytest.raises(BadInput, match="another process writes into the gallery"):
            built(index, run, cameras)
    assert built(index, run, cameras).unchanged == 10


def test_every_file_of_an_index_is_private(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in index.iterdir()}
    assert set(modes.values()) == {0o600} and stat.S_IMODE(index.stat().st_mode) == 0o700, modes


def test_the_calibration_beside_the_model_comes_into_the_index(index: Path, run: Path, cameras: Path) -> None:
    built(index, run, cameras)
    with open_index(index) as found:
        assert found.calibration is None and found.facts.path == str(run.resolve())
        assert dataclasses.asdict(found.facts)["runtime"] == ""


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table, says",
    [
        ("path,camera\n0.jpg,1", r"lacks the columns modality; present: path, camera"),
        ("path,modality\n0.jpg,rgb", r"lacks the columns camera"),
        ("path,camera,modality\n0.jpg,,rgb", r"line 2: 'camera' is empty; fill it, or give one for all"),
        ("path,camera,modality\n0.jpg,1,", r"line 2: 'modality' is empty"),
        ("path,camera,modality\n,1,rgb", r"line 2: 'path' is empty"),
        ("path,camera,modality\n0.jpg,1,sonar", r"line 2: unknown modality 'sonar'"),
        ("path,camera,modality,time\n0.jpg,1,rgb,noon", r"line 2: time takes a date or a time such as"),
        ("path,camera,modality,time\n0.jpg,1,rgb,2h", r"line 2: time '2h' is neither seconds"),
        ("path,camera,modality,time\n0.jpg,1,rgb,1e300", r"line 2: time '1e300' is not in the years 1 to 9998"),
        ("path,camera,modality,time\n0.jpg,1,rgb,inf", r"line 2: time 'inf' is not in the years"),
        ("path,camera,modality\n0.jpg,1,rgb\n0.jpg,2,ir", r"line 3 has the picture 0.jpg of line 2 again"),
        (f"path,camera,modality\n0.jpg,{'c' * 65},rgb", r"camera must be text of 1 to 64 characters"),
        (f"path,camera,modality,person\n0.jpg,1,rgb,{'p' * 65}", r"person must be text of 1 to 64 characters"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(table: str, says: str, tmp_path: Path, run: Path) -> None:
    save(tmp_path / "0.jpg", 0)
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(BadInput, match=says):
        built(tmp_path / "index", run, tmp_path / "t.csv")
    assert not (tmp_path / "index").exists()


def test_folders_and_options_that_cannot_be_used_are_refused(tmp_path: Path, run: Path, worlds: dict) -> None:
    cameras, index = station(tmp_path / "s"), tmp_path / "index"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    refused = {
        "the pictures of .*gate need a modality": (cameras / "visible/gate", {}),
        "has the folder infrared, and visible was given": (cameras, {"modality": "visible"}),
        "unknown modality 'x'": (cameras, {"modality": "x"}),
        "camera must be text of 1 to 64": (cameras, {"camera": ""}),
        "holds no pictures": (tmp_path / "empty", {"modality": "visible"}),
        "does not exist": (tmp_path / "nowhere", {"modality": "visible"}),
        "is a picture: name its folder": (cameras / "visible/gate/001.jpg", {"modality": "visible"}),
        "has up to 1024 bytes": (cameras, {"name": "n" * 2000}),
        "is a labelled data set, which says modality": (f"sysu-mm01:{worlds['sysu-mm01']}", {"camera": "1"}),
        "is its own state folder": (cameras, {"state": tmp_path / "state"}),
    }
    for says, (source, options) in refused.items():
        with pytest.raises(BadInput, match=says):
            built(index, run, source, **options)
    save(cameras / "loose.jpg", 1)
    with pytest.raises(BadInput, match=r"has loose.jpg, which is in no folder visible or infrared"):
        built(index, run, cameras)
    with pytest.raises(BadInput, match="is named twice"):
        built(index, run, cameras / "visible", cameras / "visible", modality="visible")
    with pytest.raises(BadInput, match="--name is the name of one source, and there are 2"):
        built(index, run, cameras, cameras, name="x")
    with pytest.raises(BadInput, match="a build needs a source"):
        built(index, run)
    assert not index.exists()
