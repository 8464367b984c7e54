"""Features of pictures without labels: which pictures, which features, and what the file says of them."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vireid
from vireid.cli.main import main
from vireid.data.pictures import read_picture
from vireid.experiments.embed import listed

SINGLE = "sysu-mm01/all/single"


@pytest.fixture(scope="module")
def model(runs):
    return vireid.load(runs["sysu-mm01"])


@pytest.fixture
def yard(worlds, tmp_path) -> Path:
    """Seven pictures in folders of several depths, and files that are no pictures."""
    sources = sorted(worlds["sysu-mm01"].glob("cam1/*/*.jpg"))
    places = ("b.jpg", "a/z.JPG", "a/b/c/d/e/f/g/h/i/j/k/deep.jpg", "a-b/1.jpg", "night/2.jpg", "night/1.jpg", "c.jpeg")
    for source, place in zip(sources, places, strict=False):
        (tmp_path / "yard" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tmp_path / "yard" / place)
    yard = tmp_path / "yard"
    (yard / "notes.txt").write_text("no picture")
    (yard / "._b.jpg").write_bytes(b"hidden")
    (yard / ".trash").mkdir()
    shutil.copyfile(sources[0], yard / ".trash" / "old.jpg")
    (yard / "night" / "up").symlink_to(yard)
    (yard / "a" / "night").symlink_to(yard / "night")
    return yard


SORTED = ["a-b/1.jpg", "a/b/c/d/e/f/g/h/i/j/k/deep.jpg", "a/z.JPG", "b.jpg", "c.jpeg", "night/1.jpg", "night/2.jpg"]


def command(run: Path, pictures: Path, out: Path, *options: object) -> list[str]:
    given = ["embed", str(run), str(pictures), "--out", str(out), "--workers", "0", *map(str, options)]
    return given if "--modality" in given or pictures.suffix == ".csv" else [*given, "--modality", "infrared"]


def contents(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a features file and its header, read as any program could: without pickle and without vireid."""
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(str(arrays.pop("header")))


def test_a_folder_is_searched_at_any_depth_and_each_folder_once(runs, model, yard, tmp_path):
    out = tmp_path / "f.npz"
    assert main(command(runs["sysu-mm01"], yard, out, "--json", tmp_path / "s.json")) == 0
    arrays, header = contents(out)
    assert set(arrays) == {"features", "path", "modality"}
    assert arrays["path"].tolist() == SORTED and arrays["modality"].tolist() == [1] * 7
    assert arrays["features"].dtype == np.float32
    files = [yard / path for path in SORTED]
    np.testing.assert_allclose(arrays["features"], model.embed(files, "infrared"), atol=1e-6)
    assert header["root"] == str(yard.resolve()) and header["run"] == str(runs["sysu-mm01"].resolve())
    assert (header["model"], header["checkpoint"], header["epochs"]) == ("agw", "last", 2)
    assert (header["size"], header["embedding"], header["flip"]) == ([64, 32], "neck", False)
    assert len(header["weights_sha256"]) == 64 and header["warnings"] == header["unreadable"] == []
    assert header["command"].startswith("vireid embed ") and header["vireid"]
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary == {"out": str(out), "pictures": 7, "width": 256, **header}


def test_one_picture_may_be_given_by_its_name(runs, model, yard, tmp_path):
    found = vireid.embed(runs["sysu-mm01"], yard / "night" / "2.jpg", modality="rgb", workers=0)
    assert found.path.tolist() == ["2.jpg"] and found.root == (yard / "night").resolve()
    np.testing.assert_allclose(found.features, model.embed(yard / "night" / "2.jpg", "rgb"), atol=1e-6)


@pytest.mark.parametrize("embedding", ["pooled", "both"])
def test_embedding_and_flip_are_those_of_a_test(embedding, runs, model, yard):
    """Against the network itself, picture by picture."""
    import torch

    from vireid.augment.normalise import normalise

    found = vireid.embed(runs["sysu-mm01"], yard, modality="ir", embedding=embedding, flip=True, workers=0)
    for path, feature in zip(found.path, found.features, strict=True):
        image = normalise(torch.from_numpy(read_picture(yard / path, model.size).copy()).permute(2, 0, 1)[None])
        with torch.inference_mode():
            sides = []
            for one in (image, image.flip(3)):
                pooled = model.network.embed_pooled(one, torch.tensor([1]))
                neck = model.network.embed(one, torch.tensor([1]))
                sides.append(pooled if embedding == "pooled" else torch.cat((neck, pooled), 1) / 2**0.5)
            expected = torch.nn.functional.normalize(sides[0] + sides[1])[0].numpy()
        np.testing.assert_allclose(feature, expected, atol=1e-5)


def write_table(file: Path, columns: dict[str, list]) -> Path:
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return file


def test_a_labelled_table_scores_as_the_test_set_that_it_lists(runs, worlds, tmp_path):
    """The way over a table and `vireid score` gives the numbers of `vireid test`, in words that people use."""
    records = vireid.records(f"sysu-mm01:{worlds['sysu-mm01']}").where(split="test")
    table = write_table(
        tmp_path / "test.csv",
        {
            "Path": [str(records.file(n).absolute()) for n in range(len(records))],
            "modality": np.where(records.modality == 0, "RGB", "ir").tolist(),
            "camera": [f"cam{number}" for number in records.camera],
            "identity": records.identity.tolist(),
            "time": ["" if n % 2 else n / 2 for n in range(len(records))],
        },
    )
    out, report = tmp_path / "f.npz", tmp_path / "r.json"
    assert main(command(runs["sysu-mm01"], table, out)) == 0
    arrays, _ = contents(out)
    assert arrays["path"].tolist() == [str(records.file(n).absolute()) for n in range(len(records))]
    assert np.array_equal(arrays["identity"], records.identity) and np.array_equal(arrays["camera"], records.camera)
    assert arrays["time"][:4].tolist()[::2] == [0, 1] and np.isnan(arrays["time"][1::2]).all()
    assert main(["score", str(out), "--protocol", SINGLE, "--json", str(report)]) == 0
    (expected,) = vireid.test(runs["sysu-mm01"], data=f"sysu-mm01:{worlds['sysu-mm01']}", protocols=SINGLE, workers=0)
    scored = json.loads(report.read_text())
    for name in ("rank1", "rank10", "map", "minp", "queries", "gallery"):
        assert scored[name] == pytest.approx(getattr(expected, name), abs=1e-6), name


def test_a_table_needs_only_paths(runs, yard, tmp_path):
    """They are relative to the folder of the table. Its order is kept, and the option fills cells that are empty."""
    order = SORTED[::-1]
    shutil.copytree(yard, tmp_path / "copy", symlinks=False, ignore=shutil.ignore_patterns("up"))
    table = write_table(tmp_path / "copy" / "t.csv", {"path": [p.replace("/", "\\") for p in order]})
    found = vireid.embed(runs["sysu-mm01"], table, modality="thermal", workers=0)
    assert found.path.tolist() == order and found.modality.tolist() == [1] * 7
    assert (found.identity, found.camera, found.time) == (None, None, None)
    words = ["visible", "", "IR", "", "", "", ""]
    people = ["anna", "", "ben", "anna", "unlabelled", "-1", ""]
    write_table(table, {"path": order, "modality": words, "identity": people})
    found = vireid.embed(runs["sysu-mm01"], table, modality="rgb", workers=0)
    assert found.modality.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert found.identity is not None and found.identity.tolist() == [0, -1, 1, 0, -1, -1, -1]
    assert found.camera is None and "2 identity names were numbered in sorted order" in found.header["notes"]


def spoil(yard: Path) -> dict[str, str]:
    """Make pictures unreadable in every way; returns what is said of each."""
    whole = (yard / "b.jpg").read_bytes()
    (yard / "0.jpg").write_text("no picture at all")
    (yard / "empty.png").touch()
    (yard / "pipe.jpg").symlink_to(yard / "gone.jpg")
    (yard / "half.jpg").write_bytes(whole[: len(whole) // 2])
    Path(os.fsdecode(os.fsencode(yard) + b"/\xff.jpg")).write_bytes(whole)
    return {
        "0.jpg": "is not a picture in a known format",
        "empty.png": "is empty",
        "pipe.jpg": "does not exist",
        "half.jpg": "is damaged, cut short",
        "\\udcff.jpg": "its name is not UTF-8",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_that_cannot_be_read_are_named_and_left_out_if_asked(workers, runs, model, yard, tmp_path, capsys):
    said = spoil(yard)
    out = tmp_path / "f.npz"
    out.write_bytes(b"an older file")
    before = sorted(tmp_path.rglob("*"))
    given = command(runs["sysu-mm01"], yard, out, "--batch", "3", "--workers", workers)
    assert main(given) == 2
    error = capsys.readouterr().err
    assert "4 of 12 pictures in" in error and "0.jpg (is not a picture in a known format)" in error
    assert "--skip-unreadable leaves such pictures out" in error and "Traceback" not in error
    assert out.read_bytes() == b"an older file" and sorted(tmp_path.rglob("*")) == before
    assert main([*given, "--skip-unreadable", "--cache", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    arrays, header = contents(out)
    assert arrays["path"].tolist() == SORTED
    np.testing.assert_allclose(arrays["features"], model.embed([yard / path for path in SORTED], "ir"), atol=1e-6)
    listed = {one["path"]: one["reason"] for one in header["unreadable"]}
    assert set(listed) == set(said) and all(listed[path].startswith(reason) for path, reason in said.items())
    assert all(f"  {path}: {reason}" in printed for path, reason in said.items())


def test_a_picture_that_is_damaged_inside_stops_the_work_by_its_name(runs, yard, tmp_path, capsys):
    whole = (yard / "b.jpg").read_bytes()
    (yard / "half.jpg").write_bytes(whole[: len(whole) // 2])
    assert main(command(runs["sysu-mm01"], yard, tmp_path / "f.npz")) == 2
    error = capsys.readouterr().err
    assert "half.jpg is damaged" in error and "--skip-unreadable leaves such pictures out" in error
    assert not (tmp_path / "f.npz").exists()


def test_a_cache_that_cannot_be_written_is_not_a_picture_that_cannot_be_read(runs, yard, tmp_path, monkeypatch):
    """A full disk must not end as a file in which pictures are missing."""
    import vireid.data.cache as cache

    written, write_all = [], cache._write_all

    def full(*given):
        written.append(given)
        if len(written) > 5:
            raise OSError(28, "No space left on device")
        write_all(*given)

    monkeypatch.setattr(cache, "_write_all", full)
    with pytest.raises(vireid.BadInput, match=r"^the picture cache .*No space left") as refusal:
        vireid.embed(runs["sysu-mm01"], yard, modality="ir", workers=0, cache=tmp_path / "cache", skip_unreadable=True)
    assert "--skip-unreadable" not in str(refusal.value)


def test_from_python_the_features_are_those_of_the_command(runs, yard, tmp_path):
    out = tmp_path / "f.npz"
    found = vireid.embed(str(runs["sysu-mm01"]), str(yard), modality="infrared", out=out, workers=0)
    arrays, header = contents(out)
    assert isinstance(found, vireid.Embedded) and header == found.header
    assert header["command"].startswith("vireid.embed(run=")
    assert all(np.array_equal(arrays[name], column) for name, column in found.columns().items())
    again = vireid.embed(runs["sysu-mm01"], yard, modality="infrared", workers=0)
    assert np.array_equal(again.features, found.features)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f.npz", "yard"]


def test_an_unfinished_run_is_said(runs, yard, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["sysu-mm01"], run, ignore=shutil.ignore_patterns("reports"))
    facts = json.loads((run / "run.json").read_text())
    facts["config"]["epochs"] = 9
    (run / "run.json").write_text(json.dumps(facts))
    found = vireid.embed(run, yard / "b.jpg", modality="ir", workers=0)
    assert found.header["warnings"] == ["the run is not finished: 2 of 9 epochs"]


def test_parquet_holds_the_same_or_the_missing_package_is_named(runs, yard, tmp_path, capsys):
    out = tmp_path / "f.parquet"
    code = main(command(runs["sysu-mm01"], yard, out))
    if importlib.util.find_spec("pyarrow") is None:
        assert code == 2 and not out.exists()
        assert "needs the package pyarrow" in capsys.readouterr().err
        return
    table = importlib.import_module("pyarrow.parquet").read_table(out)
    assert table.column("path").to_pylist() == SORTED and np.array(table.column("features").to_pylist()).shape[0] == 7
    assert json.loads(table.schema.metadata[b"vireid"])["model"] == "agw"


def table_of(text: str):
    def write(folder: Path) -> Path:
        (folder / "t.csv").write_text(text)
        return folder / "t.csv"

    return write


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def of_text(folder: Path) -> Path:
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").touch()
    return folder / "texts"


#   what is wrong                     the pictures                         the modality, what the sentence says
MISTAKES = {
    "a folder that is not there":     (lambda f: f / "none",                  "ir", ["none does not"]),
    "an empty folder":                (empty,                                 "ir", ["is empty"]),
    "a folder without pictures":      (of_text,                               "ir", ["holds no pictures"]),
    "a folder without a modality":    (of_text,                               None, ["need a modality"]),
    "an unknown modality":            (of_text,                               "infrarot", ["'infrared'"]),
    "the auxiliary modality":         (of_text,                               "auxiliary", ["modality", "visible"]),
    "a table without paths":          (table_of("file\na.jpg\n"),             "ir", ["columns path"]),
    "a table without pictures":       (table_of("path\n"),                    "ir", ["no lines"]),
    "a table without modalities":     (table_of("path\na.jpg\n"),             None, ["line 2", "modality"]),
    "an empty path":                  (table_of("path,modality\n,ir\n"),      None, ["line 2", "'path'"]),
    "a word that is no modality":     (table_of("path,modality\na.jpg,uv\n"), None, ["line 2", "'uv'"]),
    "a time that is none":            (table_of("path,time\na.jpg,noon\n"),   "ir", ["line 2", "noon"]),
    "two modalities":                 (table_of("path,modality\na.jpg,ir\n"), "rgb", ["leave out"]),
    "a file that is not there":       (table_of("path\na.jpg\n"),             "ir", ["1 of 1", "a.jpg"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, runs, tmp_path):
    pictures, modality, words = MISTAKES[mistake]
    out = tmp_path / "f.npz"
    with pytest.raises(vireid.BadInput) as refusal:
        vireid.embed(runs["sysu-mm01"], pictures(tmp_path), modality=modality, out=out, workers=0)
    assert "\n" not in str(refusal.value) and all(word in str(refusal.value) for word in words), refusal.value
    assert not out.exists()


def test_not_one_readable_picture_is_a_mistake_although_such_are_skipped(runs, tmp_path):
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(vireid.BadInput, match=r"1 of 1 pictures in .* cannot be read: a\.jpg"):
        vireid.embed(runs["sysu-mm01"], tmp_path, modality="ir", workers=0, skip_unreadable=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    with pytest.raises(vireid.BadInput, match=r"1 of 1 pictures in .* cannot be read: a\.jpg"):
        vireid.embed(runs["sysu-mm01"], tmp_path, modality="ir", workers=0, skip_unreadable=True)


def test_a_description_beside_the_pictures_states_their_scaling(yard):
    (yard / "pictures.yaml").write_text("scaling: percentile")
    records, known = listed(yard, "thermal")
    assert records.scaling == "percentile" and not known
