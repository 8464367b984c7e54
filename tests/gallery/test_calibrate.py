"""`vireid gallery calibrate`: of whom it takes pairs, whom it refuses, and what it writes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.station import station
from tests.small import SECOND
from vireid import datasets
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.records import Records
from vireid.data.size import Size
from vireid.evaluation.calibration import Calibration, calibrate_pairs
from vireid.evaluation.pairs import KINDS
from vireid.experiments.train import TrainOptions, train
from vireid.gallery.calibrate import (
    LEAST,
    CalibrateOptions,
    calibrate,
    pair_keys,
    people_with_pairs,
    summary,
    untrained_people,
)
from vireid.gallery.index import calibration_beside, load_model, make_index, open_index
from vireid.model import load
from vireid.synthesis.world import World, write_world
from vireid.training.run import open_run

STRANGERS, TRAINED = 22, 6


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A world with 22 people to calibrate on."""
    folder = tmp_path_factory.mktemp("world") / "sysu"
    people = World(TRAINED + STRANGERS, seed=11)
    write_world(folder, people, layout="sysu-mm01", size=Size(64, 32), pictures=1, tested=STRANGERS, workers=1)
    return folder


@pytest.fixture(scope="module")
def run(world, tmp_path_factory) -> Path:
    """A run whose features tell people apart, because its trunk knows people in general."""
    folder = tmp_path_factory.mktemp("run") / "agw"
    settings = (*SECOND, "weights=world", "epochs=1", "epoch_length=1")
    train(TrainOptions("agw", f"sysu-mm01:{world}", folder, set=settings, workers=0))
    return folder


@pytest.fixture
def own(run, tmp_path) -> Path:
    """A copy of the run, to write into."""
    return shutil.copytree(run, tmp_path / "run")


def table(file: Path, records: Records, split: dict[int, str], **columns: np.ndarray) -> str:
    """A table of some of the pictures, for the layout `folder`."""
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "identity", "camera", "modality", "split", *columns])
        for n in range(len(records)):
            person = int(records.identity[n])
            if person in split:
                word = ("visible", "infrared")[records.modality[n]]
                more = [column[n] for column in columns.values()]
                writer.writerow([records.file(n), person, records.camera[n], word, split[person], *more])
    return f"folder:{file}"


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_calibration_is_that_of_the_features_that_a_gallery_holds(own, world, tmp_path, capsys):
    arguments = ["gallery", "calibrate", str(own), "--data", f"sysu-mm01:{world}", "--workers", "0", "--seed", "3"]
    index = tmp_path / "index"
    station(index, own, world).close()
    told = tmp_path / "told.json"
    assert main([*arguments, "--fmr", "0.05", "1e-9", "--index", str(index), "--json", str(told)]) == 0
    printed = capsys.readouterr().out
    records = datasets.read("sysu-mm01", world).where(split="test")
    features = np.zeros((len(records), 0), np.float32)
    for modality in (0, 1):
        chosen = np.flatnonzero(records.modality == modality)
        made = load(own).embed([records.file(int(n)) for n in chosen], modality)
        features = np.zeros((len(records), made.shape[1]), np.float32) if not features.size else features
        features[chosen] = made
    place = np.where(records.camera == 3, 2, records.camera)
    expected = calibrate_pairs(features, records.identity, records.modality, key=records.identity * 10 + place, seed=3)
    found = Calibration.read(own / "calibration.json")
    assert set(found.pairs) == {"visible", "infrared", "across"}
    for kind, one in found.pairs.items():
        assert (one.same, one.different, one.people, one.matched) == (
            *(expected[kind].same, expected[kind].different),
            STRANGERS,
            STRANGERS,
        )
        assert one.slope == pytest.approx(expected[kind].slope, rel=1e-3)
        assert np.allclose(one.threshold(0.05).cosine, expected[kind].threshold(0.05).cosine, atol=1e-4)
    assert found.model == load(own).fingerprint and found.seed == 3 and found.people == STRANGERS
    assert found.command.startswith("vireid gallery calibrate") and found.data == f"sysu-mm01:{world}"
    assert any("only 22 people" in text for text in found.warnings)
    with open_index(index) as opened:
        assert opened.calibration == found
    said = json.loads(told.read_text())
    across = found.pairs["across"]
    assert said["pairs"]["across"]["thresholds"][0]["cosine"] == across.threshold(0.05).cosine
    assert said["pairs"]["across"]["thresholds"][1] == {"fmr": 1e-9, "needs": 30_000_000_000}
    assert "false" not in json.dumps(said["pairs"])
    assert f"{across.threshold(0.05).cosine:.3f}" in printed and "30,000,000,000 pairs" in printed
    assert "only 22 people" in printed and "kept in" in printed and f"{across.different:,}" in printed


def test_a_new_index_takes_the_calibration_that_lies_beside_its_model(own, world, tmp_path):
    found = calibrate(CalibrateOptions(own, f"sysu-mm01:{world}", workers=0))
    with make_index(tmp_path / "index", own) as index:
        assert index.calibration == found
    with open_index(tmp_path / "index") as index:
        assert index.calibration == found
    again = calibrate(CalibrateOptions(own, f"sysu-mm01:{world}", workers=0))
    assert again == found


def test_another_checkpoint_needs_another_calibration(own, world, tmp_path):
    calibrate(CalibrateOptions(own, f"sysu-mm01:{world}", workers=0))
    before = load_model(own).fingerprint
    assert calibration_beside(own, before) is not None
    train(TrainOptions(None, None, own, resume=True, extend=("epochs=2",), workers=0))
    now = load_model(own).fingerprint
    assert now != before
    with pytest.raises(BadInput, match=r"calibration\.json was made with another checkpoint.*calibrate again"):
        calibration_beside(own, now)
    with pytest.raises(BadInput, match="calibrate again"):
        make_index(tmp_path / "index", own)
    calibrate(CalibrateOptions(own, f"sysu-mm01:{world}", workers=0))
    assert calibration_beside(own, now) is not None


def test_an_index_of_another_model_is_refused_before_anything_is_written(own, runs, worlds, world, tmp_path, capsys):
    station(tmp_path / "index", runs["sysu-mm01"], worlds["sysu-mm01"]).close()
    arguments = ["gallery", "calibrate", str(own), "--data", f"sysu-mm01:{world}", "--index", str(tmp_path / "index")]
    assert main(arguments) == 2
    assert "holds vectors of another model" in capsys.readouterr().err
    assert not (own / "calibration.json").exists()
    with open_index(tmp_path / "index") as index:
        assert index.calibration is None
    assert main([*arguments[:-1], str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists() and not (own / "calibration.json").exists()


def test_a_failed_calibration_leaves_the_old_one(own, world, monkeypatch):
    asked = CalibrateOptions(own, f"sysu-mm01:{world}", workers=0)
    before = calibrate(asked)
    monkeypatch.setattr("vireid.gallery.calibrate.calibrate_pairs", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calibrate(asked)
    assert Calibration.read(own / "calibration.json") == before


@pytest.mark.slow
def test_an_exported_model_is_calibrated_like_its_run(own, world, tmp_path):
    pytest.importorskip("onnxruntime")
    from vireid.experiments.export import ExportOptions, export

    export(ExportOptions(run=own, out=tmp_path / "onnx"))
    found = [
        calibrate(CalibrateOptions(folder, f"sysu-mm01:{world}", workers=0)) for folder in (own, tmp_path / "onnx")
    ]
    assert found[0].model == found[1].model and (tmp_path / "onnx" / "calibration.json").is_file()
    for kind, one in found[0].pairs.items():
        assert found[1].pairs[kind].slope == pytest.approx(one.slope, rel=0.01)
    with pytest.raises(BadInput, match="was trained on"):
        calibrate(CalibrateOptions(tmp_path / "onnx", f"sysu-mm01:{world}", split="val"))


# --- whom it refuses --------------------------------------------------------------------------------------------------


def test_people_who_were_trained_on_are_refused(own, world, tmp_path):
    run, records = open_run(own), datasets.read("sysu-mm01", world)
    trained = np.unique(records.where(split=("train", "val")).identity)
    val = len(np.unique(records.where(split="val").identity))
    with pytest.raises(BadInput, match=f"was trained on {val} of the {val} people .* split val.*use --split test"):
        untrained_people(run, f"sysu-mm01:{world}", "val")
    # The same pictures in a table, and the files alone tell.
    people = {int(one): "test" for one in np.unique(records.identity)}
    source = table(tmp_path / "all.csv", records, people)
    with pytest.raises(BadInput, match=f"was trained on {len(trained)} of the {len(people)} people"):
        untrained_people(run, source, "test")
    strangers = {one: "test" for one in people if one not in trained}
    found, unknown = untrained_people(run, table(tmp_path / "some.csv", records, strangers), "test")
    assert len(np.unique(found.identity)) == STRANGERS and unknown == ()


def test_validation_people_who_were_held_out_may_calibrate(world, tmp_path):
    settings = (*SECOND, "epochs=1", "epoch_length=1")
    asked = TrainOptions("agw", f"sysu-mm01:{world}", tmp_path, set=settings, workers=0, validate_every=1)
    run = train(asked)
    found, unknown = untrained_people(run, f"sysu-mm01:{world}", "val")
    assert len(found) and set(found.split) == {"val"} and unknown == ()
    with pytest.raises(BadInput, match=f"{len(np.unique(found.identity))} people have visible and infrared pictures"):
        calibrate(CalibrateOptions(tmp_path, f"sysu-mm01:{world}", split="val"))


def test_what_cannot_be_checked_is_said(own, world, tmp_path):
    shutil.copytree(world, tmp_path / "copy")
    values = json.loads((own / "run.json").read_text())
    values["data"] |= {"root": "/gone", "source": "/gone", "fingerprint": "0", "people": []}
    (own / "run.json").write_text(json.dumps(values))
    found = calibrate(CalibrateOptions(own, f"sysu-mm01:{tmp_path / 'copy'}", workers=0))
    assert any("whether the people here were trained on is not known" in text for text in found.warnings)


@pytest.mark.parametrize("people", [LEAST - 1, LEAST])
def test_at_least_twenty_people(own, world, tmp_path, people):
    records = datasets.read("sysu-mm01", world).where(split="test")
    chosen = {int(one): "test" for one in np.unique(records.identity)[:people]}
    asked = CalibrateOptions(own, table(tmp_path / "some.csv", records, chosen), workers=0)
    if people < LEAST:
        with pytest.raises(BadInput, match=r"19 people have visible and infrared pictures to compare.*needs 20"):
            calibrate(asked)
        assert not (own / "calibration.json").exists()
    else:
        assert calibrate(asked).people == LEAST


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fmr", "2"], "fmr"),
        (["--fmr", "x"], "--fmr"),
        (["--split", "train"], "unknown split 'train'; choices: test, val"),
        (["--checkpoint", "best"], "best.pt"),
        (["--batch", "0"], "batch"),
        (["--data", "folder:/nowhere"], "/nowhere"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(own, world, options, sentence, capsys):
    arguments = ["gallery", "calibrate", str(own), "--data", f"sysu-mm01:{world}", *options]
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and sentence in capsys.readouterr().err
    assert not (own / "calibration.json").exists()


def test_what_is_no_run_is_refused(tmp_path, world):
    with pytest.raises(BadInput, match="not a run directory"):
        calibrate(CalibrateOptions(tmp_path / "none", f"sysu-mm01:{world}"))


# --- pairs ------------------------------------------------------------------------------------------------------------


def pictures(layout: str, *lines: tuple[int, int, int], tracklet: list[int] | None = None) -> Records:
    """Records of (person, camera, modality)."""
    person, camera, modality = (np.array(column) for column in zip(*lines, strict=True))
    path = np.array([f"{n}.png" for n in range(len(lines))], dtype=object)
    split = np.full(len(lines), "test")
    return Records(layout, Path(), path, person, camera, modality, split, tracklet=tracklet)  # type: ignore[arg-type]


def paired(records: Records) -> set[tuple[int, int]]:
    keys = pair_keys(records)
    assert (keys >= 0).all()
    return {(i, j) for i in range(len(keys)) for j in range(i + 1, len(keys)) if keys[i] != keys[j]}


def test_strangers_at_one_camera_are_a_pair_and_one_person_at_one_camera_is_none():
    records = pictures("folder", (1, 1, 0), (1, 1, 0), (1, 2, 0), (2, 1, 0))
    assert paired(records) == {(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}


def test_two_cameras_of_one_room_are_one_place_in_sysu_and_not_elsewhere():
    lines = ((1, 2, 0), (1, 3, 1), (1, 6, 1), (2, 3, 1))
    assert paired(pictures("sysu-mm01", *lines)) == {(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)}
    assert (0, 1) in paired(pictures("folder", *lines))


def test_one_number_in_both_modalities_is_one_camera_in_llcm_only():
    lines = ((1, 5, 0), (1, 5, 1), (1, 6, 1))
    assert paired(pictures("llcm", *lines)) == {(0, 2), (1, 2)}
    assert paired(pictures("folder", *lines)) == {(0, 1), (0, 2), (1, 2)}


def test_tracklets_of_one_camera_are_pairs_where_all_pictures_are_in_one():
    lines = ((1, 1, 0), (1, 1, 0), (1, 1, 0), (2, 1, 0), (2, 1, 0))
    told = paired(pictures("folder", *lines, tracklet=[0, 0, 1, 0, -1]))
    assert {(0, 2), (1, 2)} <= told and not {(0, 1), (3, 4)} & told


def test_regdb_has_pairs_across_the_modalities_only(worlds):
    records = datasets.read("regdb", worlds["regdb"]).where(split="test")
    people = len(np.unique(records.identity))
    assert people_with_pairs(records, pair_keys(records)) == {"visible": 0, "infrared": 0, "across": people}


def test_people_with_pairs_are_counted_as_calibrating_counts_them():
    random = np.random.default_rng(1)
    for layout in ("folder", "llcm"):
        lines = np.stack([random.integers(0, 6, 24), random.integers(1, 3, 24), random.integers(0, 2, 24)], axis=1)
        records = pictures(layout, *map(tuple, lines.tolist()))
        keys = pair_keys(records)
        features = np.eye(6)[records.identity] + 0.01 * random.normal(size=(24, 6))
        found = calibrate_pairs(features, records.identity, records.modality, key=keys, resamplings=0)
        counted = people_with_pairs(records, keys)
        assert {kind: counted[kind] for kind in found} == {kind: one.matched for kind, one in found.items()}
        assert not any(counted[kind] for kind in KINDS if kind not in found)


def test_a_kind_that_few_people_have_is_missing_and_named(own, world, tmp_path):
    """Infrared pictures of one camera only: nothing is known of two infrared pictures of one person."""
    everything = datasets.read("sysu-mm01", world).where(split="test")
    records = everything.take(everything.camera != 3)
    source = table(tmp_path / "one.csv", records, {int(one): "test" for one in np.unique(records.identity)})
    found = calibrate(CalibrateOptions(own, source, workers=0))
    assert set(found.pairs) == {"visible", "across"}
    assert any("infrared pairs are not calibrated: 0 people have infrared pictures of two" in w for w in found.warnings)
    assert set(summary(found, (0.01,))["pairs"]) == {"visible", "across"}
    assert Calibration.read(own / "calibration.json") == found


def test_unlabelled_pictures_do_not_count(own, world, tmp_path):
    records = datasets.read("sysu-mm01", world).where(split="test")
    people = {int(one): "test" for one in np.unique(records.identity)}
    plain = calibrate(CalibrateOptions(own, table(tmp_path / "a.csv", records, people), workers=0))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    trained = datasets.read("sysu-mm01", world).where(split="train").file(0)
    (tmp_path / "b.csv").write_text("\n".join([*lines, f"{trained},unlabelled,1,visible,test"]) + "\n")
    found = calibrate(CalibrateOptions(own, f"folder:{tmp_path / 'b.csv'}", workers=0))
    assert (found.pairs, found.people, found.content) == (plain.pairs, plain.people, plain.content)
