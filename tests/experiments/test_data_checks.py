"""What a run and its reports say of the data: scaling of 16-bit pictures, changed files, people in several splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vireid
from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.measurement import measurements
from vireid.experiments.trainings import Pictures
from vireid.training.run import open_run

OPTIONS = {"set": {**dict(one.split("=") for one in SECOND), "epochs": 1, "epoch_length": 2}, "workers": 0}


def write(root: Path, *, seed: int = 0, scaling: str | None = "window:0-4095", people: int = 8) -> Path:
    """People with two pictures of each modality; infrared pictures have 12 bits in files of 16."""
    generator = np.random.default_rng(seed)
    lines = ["path,identity,camera,modality,split"]
    (root / "p").mkdir(parents=True)
    for person in range(people):
        for n in range(2):
            Image.fromarray(generator.integers(0, 256, (24, 12, 3), dtype=np.uint8)).save(root / f"p/v{person}-{n}.bmp")
            thermal = generator.integers(0, 4096, (24, 12), dtype=np.uint16)
            Image.fromarray(thermal).save(root / f"p/i{person}-{n}.tiff")
            split = "train" if person < people // 2 else "test"
            lines += [f"p/v{person}-{n}.bmp,{person},1,rgb,{split}", f"p/i{person}-{n}.tiff,{person},2,thermal,{split}"]
    (root / "records.csv").write_text("\n".join(lines))
    if scaling:
        (root / "pictures.yaml").write_text(f"scaling: {scaling}\n")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data, and a run that was trained on them."""
    folder = tmp_path_factory.mktemp("scaled")
    data = write(folder / "data")
    return data, vireid.train("agw", data=f"folder:{data}", run=folder / "run", **OPTIONS).path


@pytest.fixture
def copied(trained, tmp_path):
    """Copies that a test may change."""
    return tuple(Path(shutil.copytree(one, tmp_path / one.name)) for one in trained)


def measured(run: Path, data: Path, file: Path, **options) -> dict[str, np.ndarray]:
    vireid.test(run, data=f"folder:{data}", protocols="folder/i2v", features=file, workers=0, **options)
    with np.load(file) as archive:
        return dict(archive)


def test_training_test_and_embedding_scale_alike(trained, tmp_path):
    data, run = trained
    assert json.loads((run / "run.json").read_text())["data"]["scaling"] == "window:0-4095"
    found = measured(run, data, tmp_path / "f.npz")
    model = vireid.load(run)
    files = [data / path for path in found["path"]]
    expected = model.embed(files, found["modality"])
    assert np.allclose(found["features"], expected, atol=1e-5)
    assert np.allclose(model.embed([Image.open(file) for file in files], found["modality"]), expected, atol=1e-5)
    cached = [measured(run, data, tmp_path / "g.npz", cache=tmp_path / "cache")["features"] for _ in range(2)]
    assert all(np.array_equal(one, found["features"]) for one in cached)
    thermal = found["modality"] == 1
    eight = tmp_path / "eight.png"  # the same picture, scaled by hand
    values = np.asarray(Image.open(files[int(np.flatnonzero(thermal)[0])])).astype(float)
    Image.fromarray(np.floor(values / 4095 * 255 + 0.5).astype(np.uint8)).save(eight)
    assert np.allclose(model.embed([eight], "ir")[0], expected[thermal][0], atol=1e-5)


def test_the_runs_rule_is_used_where_data_state_none_and_theirs_where_they_do(trained, copied, tmp_path):
    data, run = copied
    wanted = measured(*reversed(trained), tmp_path / "a.npz")["features"]
    (data / "pictures.yaml").unlink()
    cache = tmp_path / "cache"
    assert np.array_equal(measured(run, data, tmp_path / "b.npz", cache=cache)["features"], wanted)
    (data / "pictures.yaml").write_text("scaling: window:0-60000")
    other = measured(run, data, tmp_path / "c.npz", cache=cache)["features"]  # no picture of the other rule is reused
    thermal = np.abs(other - wanted).max(axis=1) > 1e-3
    assert thermal.any() and not thermal.all()
    with pytest.raises(BadInput, match="begun with scaling 'window:0-4095', and the data now state 'window:0-60000'"):
        vireid.train("agw", data=f"folder:{data}", run=run, resume=True, **OPTIONS)


def test_changed_pictures_are_noticed(copied, tmp_path):
    data, run = copied
    files = {path: path.read_bytes() for path in data.glob("p/*")}
    for change in ("one file of another size", "all files of equal size"):
        if change == "one file of another size":
            Image.fromarray(np.zeros((30, 12, 3), np.uint8)).save(data / "p/v0-0.bmp")
        else:
            write(tmp_path / "another", seed=1)
            for file in data.glob("p/*"):
                shutil.copy(tmp_path / "another" / "p" / file.name, file)
        with pytest.raises(BadInput, match=r"was begun on other pictures: files in .* have changed since"):
            vireid.train("agw", data=f"folder:{data}", run=run, resume=True, **OPTIONS)
        (report,) = vireid.test(run, data=f"folder:{data}", protocols="folder/i2v", workers=0)
        assert any("trained on other pictures of folder" in warning for warning in report.warnings), change
        for path, content in files.items():
            path.write_bytes(content)
    (report,) = vireid.test(run, data=f"folder:{data}", protocols="folder/i2v", workers=0)
    assert not any("other pictures" in warning for warning in report.warnings)
    facts = json.loads((run / "run.json").read_text())
    facts["data"].pop("content")  # a run of an older version
    (run / "run.json").write_text(json.dumps(facts))
    assert vireid.train("agw", data=f"folder:{data}", run=run, resume=True, **OPTIONS).facts.data.content == ""


def test_two_worlds_of_equal_structure_are_different_pictures(tmp_path):
    worlds = [write(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1), ("again", 0))]
    first, second, again = (Pictures.of(f"folder:{world}", 1) for world in worlds)
    assert (first.trained, first.tested) == (second.trained, second.tested)
    assert first.trained_content != second.trained_content and first.tested_content != second.tested_content
    assert first.trained_content == again.trained_content


def test_people_in_several_splits_are_refused_or_marked(tmp_path, capsys):
    data, run = write(tmp_path / "data"), tmp_path / "run"
    lines = (data / "records.csv").read_text().splitlines()
    (data / "records.csv").write_text("\n".join([*lines, lines[-1].replace("test", "train")]))
    small = ["--set", *SECOND, "epochs=1", "epoch_length=2", "--workers", "0"]
    train = ["train", "agw", "--data", f"folder:{data}", "--run", str(run), *small]
    assert main(train) == 2
    assert "1 identities are in more than one split, such as 7 in train and test" in capsys.readouterr().err
    assert main([*train, "--allow-overlap"]) == 0
    assert open_run(run).facts.data.shared == 1
    assert main(["train", "--resume", "--run", str(run)]) == 0  # the run knows that it was allowed
    test = ["test", str(run), "--data", f"folder:{data}", "--protocol", "folder/i2v", "--workers", "0"]
    assert main(test) == 2 and not measurements(open_run(run))
    assert main([*test, "--untrained"]) == 0  # nobody was trained on
    assert main([*test, "--allow-overlap"]) == 0
    assert "people in several splits" in capsys.readouterr().out
    untrained, marked = sorted(measurements(open_run(run)), key=lambda one: not one.measured.untrained)
    assert untrained.measured.shared == 0 and marked.measured.shared == 1 and not marked.plain
    assert any("inflated" in warning for warning in marked.report.warnings)


@pytest.mark.parametrize("scaling", [None, "percentile"])
def test_training_says_that_pictures_will_be_nearly_black(scaling, tmp_path, capsys):
    data = write(tmp_path / "data", scaling=scaling)
    small = ["--set", *SECOND, "epochs=1", "epoch_length=2", "--workers", "0"]
    assert main(["train", "agw", "--data", f"folder:{data}", "--run", str(tmp_path / "run"), *small]) == 0
    assert ("they will be nearly black" in capsys.readouterr().err) == (scaling is None)


def test_unlabelled_people_are_not_trained_on_and_not_tested(tmp_path):
    data = write(tmp_path / "data", people=10)
    text = (data / "records.csv").read_text()
    (data / "records.csv").write_text(text.replace(",0,1,rgb", ",-1,1,rgb").replace(",9,2,thermal", ",,2,thermal"))
    run = vireid.train("agw", data=f"folder:{data}", run=tmp_path / "run", **OPTIONS)
    assert (run.facts.data.identities, run.facts.data.visible, run.facts.data.infrared) == (5, 8, 10)
    (report,) = vireid.test(run, data=f"folder:{data}", protocols="folder/i2v", workers=0)
    assert (report.queries, report.gallery) == (8, 10)
