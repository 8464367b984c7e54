"""A run that starts from another run: what is loaded, what is not, and what is said about it."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil

import numpy as np
import pytest
import torch

from tests.small import SECOND
from vireid import datasets, recipes
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.experiments import trained
from vireid.experiments.rows import changes
from vireid.experiments.test import TestOptions, test
from vireid.experiments.train import TrainOptions, train
from vireid.recipes import Row, agw
from vireid.training.checkpoint import load
from vireid.training.configuration import with_fields
from vireid.training.loop import seed_everything
from vireid.training.run import open_run

SHORT = (*SECOND, "epochs=1", "epoch_length=1")
TINY = {"trunk": "tiny", "weights": "none", "size": Size(48, 24)}


class Said(list):
    """Keeps the lines that are shown."""

    def say(self, text):
        self.append(text)


def built(name, weights, identities, **changes):
    """A network that started from `weights`, what was said, and the same network at its random start."""
    networks, said, drawn = [], [], []
    for start_from in (str(weights), "none"):
        config = with_fields(recipes.recipe(name).PAPER, {**TINY, **changes, "weights": start_from})
        seed_everything(3)
        networks.append(recipes.build(name, config, identities, pretrained=True, say=said.append).state_dict())
        drawn.append((torch.rand(1).item(), random.random()))
    assert len(said) == 1
    assert drawn[0] == drawn[1]  # so that what training draws does not depend on the start
    return networks[0], said[0], networks[1]


def test_everything_but_the_classifier_comes_from_the_run(runs):
    checkpoint = load(runs["llcm"] / "last.pt")["model"]
    people = open_run(runs["llcm"]).facts.data.identities
    network, said, untouched = built("agw", runs["llcm"], 40)
    assert network.keys() == checkpoint.keys()
    differing = [name for name in network if not torch.equal(network[name], checkpoint[name])]
    assert differing == ["classifier.linear.weight"]
    assert torch.equal(network[differing[0]], untouched[differing[0]])  # the same start as without the run
    assert said.startswith(f"weights: {len(network) - 1} tensors of {runs['llcm'] / 'last.pt'} (agw, 2 of 2 epochs)")
    assert said.endswith(f"left out: classifier.linear.weight (identities {people} → 40)")


def test_the_classifier_of_as_many_other_people_is_left_out_too(runs):
    people = open_run(runs["llcm"]).facts.data.identities
    network, said, untouched = built("agw", runs["llcm"], people)
    assert torch.equal(network["classifier.linear.weight"], untouched["classifier.linear.weight"])
    assert f"(identities {people} → {people})" in said


@pytest.fixture(scope="module")
def peca_run(worlds, tmp_path_factory):
    """PECA, whose memory grows with the identities, with a validation, so that there is a best checkpoint."""
    where = tmp_path_factory.mktemp("peca") / "run"
    options = {"workers": 0, "validate_every": 1, "validate_on": "test"}
    train(TrainOptions("peca", f"llcm:{worlds['llcm']}", where, set=(*SECOND, "seed=4"), **options))
    return where


@pytest.mark.parametrize("checkpoint", ["last.pt", "best.pt"])
def test_a_memory_of_identities_starts_anew_and_best_can_be_named(checkpoint, peca_run):
    named = peca_run if checkpoint == "last.pt" else peca_run / checkpoint
    network, said, untouched = built("peca", named, 9)
    expected = load(peca_run / checkpoint)["model"]
    sized = {name for name in network if network[name].shape != expected[name].shape}
    assert sized == {"memory.centroids", "classifier.linear.weight"}
    for name in network:
        assert torch.equal(network[name], untouched[name] if name in sized else expected[name]), name
    assert checkpoint in said and all(name in said for name in sized)


def test_a_part_of_identities_that_the_new_network_lacks_is_no_mistake(peca_run):
    network, said, _ = built("peca", peca_run, 9, modality=None)
    assert "memory.centroids (of its identities)" in said
    assert "memory.centroids" not in network


def test_a_new_part_is_named_and_starts_at_random(runs):
    network, said, untouched = built("agw", runs["llcm"], 9, ical="ICAL")
    new = [name for name in network if ".auxiliary." in name]
    assert new and all(torch.equal(network[name], untouched[name]) for name in new)
    counters = sum(name.endswith("num_batches_tracked") for name in new)
    assert f"new here, at their start: {new[0]}" in said and said.endswith(f"({len(new) - counters})")


@pytest.mark.parametrize("name", ["peca", "wrim_net", "fusion_dml"])
def test_another_recipe_gets_the_stems_and_the_trunk(name, runs):
    network, said, untouched = built(name, runs["llcm"], 9)
    theirs = load(runs["llcm"] / "last.pt")["model"]
    prefix = next(key.removesuffix("layer1.0.conv1.weight") for key in network if key.endswith("layer1.0.conv1.weight"))
    trunk = [key for key in network if key.startswith(f"{prefix}layer")]
    assert len(trunk) == sum(key.startswith("encoder.stages.layer") for key in theirs)
    for key in trunk:
        assert torch.equal(network[key], theirs[f"encoder.stages.{key.removeprefix(prefix)}"])
    # PECA has a third stem, for auxiliary samples, and WRIM-Net has one for both modalities.
    stems = [key for key in network if key.endswith("conv1.weight") and "layer" not in key]
    for key in stems:
        source = "infrared" if "infrared" in key else "visible"
        assert torch.equal(network[key], theirs[f"encoder.stems.copies.{source}.conv1.weight"])
    kept = {key for key in network if torch.equal(network[key], untouched[key])}
    loaded = [key for key in network if "layer" in key or "stem" in key]
    assert not [key for key in set(network) - set(loaded) if key not in kept]
    assert f"only its stems and trunk, because its recipe is agw and this one is {name}" in said


def test_a_run_of_another_recipe_with_one_stem_fills_both(worlds, tmp_path):
    wrim = tmp_path / "wrim"
    small = (*SECOND, "epochs=1", "epoch_length=1", "contrast.top_k=2")
    train(TrainOptions("wrim_net", f"llcm:{worlds['llcm']}", wrim, set=small, workers=0))
    network, said, untouched = built("agw", wrim, 9)
    theirs = load(wrim / "last.pt")["model"]
    conv = next(value for key, value in theirs.items() if key.endswith("stem.conv1.weight"))
    for word in ("visible", "infrared"):
        assert torch.equal(network[f"encoder.stems.copies.{word}.conv1.weight"], conv)
    assert torch.equal(network["encoder.neck.bn.weight"], untouched["encoder.neck.bn.weight"])
    assert "because its recipe is wrim_net" in said


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("agw", {"non_local": None}, ["unexpected", "non_local=half instead of null"]),
        ("agw", {"non_local": "code"}, ["of another shape", "non_local=half instead of code"]),
        ("agw", {"trunk": "resnet18"}, ["of another shape", "trunk=tiny instead of resnet18"]),
        ("peca", {"trunk": "resnet18"}, ["do not fit the trunk", "of another shape"]),
    ],
)
def test_a_tensor_without_a_place_is_one_sentence(recipe, changes, words, runs):
    with pytest.raises(BadInput) as caught:
        built(recipe, runs["llcm"], 9, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_checkpoint_and_a_checkpoint_without_its_run(runs, tmp_path):
    lonely = tmp_path / "best.pt"
    shutil.copy(runs["llcm"] / "last.pt", lonely)
    with pytest.raises(BadInput, match="is a checkpoint of vireid"):
        built("agw", lonely, 9)
    empty = shutil.copytree(runs["llcm"], tmp_path / "empty", ignore=shutil.ignore_patterns("last.pt"))
    with pytest.raises(BadInput, match=r"has no checkpoint last.pt yet"):
        built("agw", empty, 9)


def test_from_the_command_line(runs, worlds, tmp_path, capsys):
    arguments = ["train", "agw", "--data", f"llcm:{worlds['llcm']}", "--run", str(tmp_path / "new"), "--workers", "0"]
    small = SHORT
    for wrong in (tmp_path / "nowhere", worlds["llcm"]):
        assert main([*arguments, "--set", *small, f"weights={wrong}"]) == 2
        assert str(wrong) in capsys.readouterr().err
    assert main([*arguments, "--set", *small, f"weights={runs['sysu-mm01']}", "non_local=code"]) == 2
    assert main([*arguments, "--set", *small, f"weights={runs['sysu-mm01']}"]) == 0
    error = capsys.readouterr().err
    assert error.count("weights: ") == 2 and "left out: classifier.linear.weight" in error  # the mistake, and this
    facts = open_run(tmp_path / "new").facts
    content = (runs["sysu-mm01"] / "last.pt").read_bytes()
    assert facts.weights is not None and facts.weights.sha256 == hashlib.sha256(content).hexdigest()
    assert facts.weights.run == "agw" and facts.weights.trained_on == (open_run(runs["sysu-mm01"]).facts.data,)
    assert json.loads((tmp_path / "new" / "run.json").read_text())["config"]["weights"] == str(runs["sysu-mm01"])


def test_a_run_can_go_on_when_its_start_is_gone(runs, worlds, tmp_path):
    before = shutil.copytree(runs["sysu-mm01"], tmp_path / "before")
    run, data = tmp_path / "run", f"llcm:{worlds['llcm']}"
    began = train(TrainOptions("agw", data, run, set=(*SECOND, "epochs=1", f"weights={before}"), workers=0))
    shutil.rmtree(before)
    goes_on = train(TrainOptions(None, None, run, resume=True, extend=("epochs=2",), workers=0))
    assert goes_on.facts.weights == began.facts.weights is not None and len(goes_on.epochs()) == 2
    assert main(["train", "agw", "--data", data, "--run", str(tmp_path / "new"), "--set", f"weights={before}"]) == 2


def test_it_is_not_the_paper_s_row_but_a_change_of_it(runs, worlds, tmp_path):
    train(TrainOptions("agw", f"llcm:{worlds['llcm']}", tmp_path / "new", set=(*SHORT, f"weights={runs['llcm']}")))
    run = open_run(tmp_path / "new")
    assert f"weights={runs['llcm']}" in (changes(run, Row(agw.PAPER)) or ())
    same = with_fields(agw.PAPER, SHORT)
    assert run.settings not in (Row(same).settings, open_run(runs["llcm"]).settings)


# --- people that an earlier run was trained on ------------------------------------------------------------------------


def fine_tuned(data, weights, where, **options):
    options = {"set": (*SHORT, f"weights={weights}"), "workers": 0, **options}
    return train(TrainOptions("agw", data, where, **options))


def test_another_fold_of_the_first_run_is_flagged_also_two_runs_later(runs, worlds, tmp_path):
    data = f"regdb:{worlds['regdb']}"
    second = fine_tuned(data, runs["regdb"], tmp_path / "second", fold=2)
    third = fine_tuned(data, second.path, tmp_path / "third", fold=2)
    folds = [datasets.read("regdb", worlds["regdb"], fold=fold) for fold in (1, 2)]
    paths = set(folds[0].where(split="train").path)
    tested = folds[1].where(split="test")
    shared = {person for person, path in zip(tested.identity, tested.path, strict=True) if path in paths}
    expected = f"fold 1, where {len(shared)} of the {len(np.unique(tested.identity))} test identities"
    assert shared
    for run in (second, third):
        (warning,) = trained.overlap(folds[1], run)
        assert expected in warning and "inflated" in warning
    found = test(TestOptions(third.path, data, ("regdb/v2i",), workers=0))
    assert any(expected in warning for warning in found[0].report.warnings)
    kept = json.loads(next((third.path / "reports").glob("*.json")).read_text())
    assert expected in json.dumps(kept)


def test_the_same_fold_and_another_world_are_not_flagged(runs, worlds, tmp_path):
    data = f"regdb:{worlds['regdb']}"
    first = fine_tuned(data, runs["regdb"], tmp_path / "same", fold=1)
    assert trained.overlap(datasets.read("regdb", worlds["regdb"], fold=1), first) == ()
    other = fine_tuned(data, runs["sysu-mm01"], tmp_path / "other", fold=1)
    assert trained.overlap(datasets.read("regdb", worlds["regdb"], fold=1), other) == ()


def _table(file, records, test_people, pictures=slice(None)):
    records = records.take(np.arange(len(records))[pictures])
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "identity", "camera", "modality", "split"])
        for path, person, camera, modality in zip(
            records.path, records.identity, records.camera, records.modality, strict=True
        ):
            split = "test" if person in test_people else "train"
            writer.writerow([path, person, camera, ("visible", "infrared")[modality], split])


def test_two_splits_of_the_same_pictures(worlds, tmp_path):
    world = shutil.copytree(worlds["llcm"], tmp_path / "world")
    records = datasets.read("llcm", world)
    people = np.unique(records.identity).tolist()
    half = len(people) // 2
    _table(world / "one.csv", records, people[:half])
    _table(world / "two.csv", records, people[half - 2 :])
    sources = [f"folder:{world / name}" for name in ("one.csv", "two.csv")]
    first = train(TrainOptions("agw", sources[0], tmp_path / "first", set=SHORT, workers=0))
    second = fine_tuned(sources[1], first.path, tmp_path / "second")
    (warning,) = trained.overlap(datasets.read("folder", world / "two.csv"), second)
    assert f"{len(people) - half} of the {len(people) - half + 2} test identities" in warning
    # Where the table is no longer as it was, the numbers that the run wrote down count, in the same folder.
    _table(world / "one.csv", records, people[:1])
    assert trained.overlap(datasets.read("folder", world / "two.csv"), second) == (warning,)
    moved = shutil.copytree(world, tmp_path / "moved")
    (warning,) = trained.overlap(datasets.read("folder", moved / "two.csv"), second)
    assert "not known" in warning


def test_other_pictures_of_the_same_people(worlds, tmp_path):
    world = shutil.copytree(worlds["llcm"], tmp_path / "world")
    records = datasets.read("llcm", world)
    people = np.unique(records.identity).tolist()
    half = len(people) // 2
    _table(world / "even.csv", records, people[:half], slice(0, None, 2))
    _table(world / "odd.csv", records, people[half:], slice(1, None, 2))
    data = f"folder:{world / 'even.csv'}"
    first = train(TrainOptions("agw", data, tmp_path / "first", set=SHORT, workers=0))
    second = fine_tuned(f"folder:{world / 'odd.csv'}", first.path, tmp_path / "second")
    (warning,) = trained.overlap(datasets.read("folder", world / "odd.csv"), second)
    assert f"{len(people) - half} of the {len(people) - half} test identities" in warning


def test_a_world_that_is_gone(worlds, tmp_path):
    shutil.copytree(worlds["sysu-mm01"], tmp_path / "world")
    data = f"sysu-mm01:{tmp_path / 'world'}"
    first = train(TrainOptions("agw", data, tmp_path / "first", set=SHORT, workers=0))
    run = fine_tuned(data, first.path, tmp_path / "second")
    assert trained.overlap(datasets.read("sysu-mm01", tmp_path / "world"), run) == ()
    moved = (tmp_path / "world").rename(tmp_path / "moved")
    records = datasets.read("sysu-mm01", moved)
    assert trained.overlap(records, run) == ()  # its training people are never its test people
