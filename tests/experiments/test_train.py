"""Each setting and option reaches the pictures that a step sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.small import SECOND
from vireid.experiments.train import Pictures, TrainOptions, plan
from vireid.training.loop import accelerator_for
from vireid.training.progress import Quiet


def loaded(worlds, tmp_path, *changes, **options):
    asked = TrainOptions(
        "agw", f"regdb:{worlds['regdb']}", tmp_path / "run", set=(*SECOND, *changes), workers=0, **options
    )
    planned = plan(asked)
    loader = Pictures.of(planned, asked).loader(accelerator_for("off"), Quiet())
    return planned, loader, next(iter(loader.batches(0)))


def test_the_same_options_load_the_same_pictures(worlds, tmp_path):
    (_, _, one), (_, _, other) = (loaded(worlds, tmp_path) for _ in range(2))
    assert torch.equal(one.images, other.images) and torch.equal(one.identity, other.identity)
    assert len(one) == 12 and one.seed == other.seed


#   what is changed                        what changes in the first batch
CHANGES = {
    "seed=1":                              lambda a, b: a.seed != b.seed and not torch.equal(a.images, b.images),
    "size=32x16":                          lambda a, b: b.images.shape[2:] == (32, 16),
    "identities_per_batch=2":              lambda a, b: len(b) == 8 and len(b.identity.unique()) == 2,
    "visible_per_identity=1":              lambda a, b: b.modality.tolist().count(0) == 3,
    "infrared_per_identity=1":             lambda a, b: b.modality.tolist().count(1) == 3,
    "flip.p=1":                            lambda a, b: torch.equal(a.identity, b.identity),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_reaches_the_batch(change, worlds, tmp_path):
    _, _, plain = loaded(worlds, tmp_path)
    _, _, changed = loaded(worlds, tmp_path, change)
    assert CHANGES[change](plain, changed)
    assert plain.images.shape != changed.images.shape or not torch.equal(plain.images, changed.images)


def test_the_seed_decides_which_pictures_even_without_augmentation(worlds, tmp_path):
    still = ("flip.p=0", "crop.padding=0")
    drawn = [loaded(worlds, tmp_path, f"seed={seed}", *still)[2].images.sum((1, 2, 3)) for seed in (0, 1)]
    assert not torch.equal(*(values.sort().values for values in drawn))


def test_epoch_length_fold_and_cache_are_passed_on(worlds, tmp_path):
    planned, loader, first = loaded(worlds, tmp_path, "epoch_length=7")
    assert loader.steps == 7 and planned.facts.data.fold == 1
    other, _, _ = loaded(worlds, tmp_path, fold=2)
    assert other.facts.data.fold == 2 and other.facts.data.fingerprint != planned.facts.data.fingerprint
    assert set(other.records.identity) != set(planned.records.identity)
    _, _, cached = loaded(worlds, tmp_path, "epoch_length=7", cache=tmp_path / "cache")
    assert torch.equal(first.images, cached.images) and any((tmp_path / "cache").iterdir())


def test_every_training_picture_comes_once_for_a_memory(worlds, tmp_path):
    asked = TrainOptions("peca", f"regdb:{worlds['regdb']}", tmp_path / "run", set=SECOND, workers=0)
    planned = plan(asked)
    batches = list(Pictures.of(planned, asked).once())
    labels, _ = planned.records.labels()
    assert np.array_equal(torch.cat([b.identity for b in batches]).numpy(), labels)
    assert np.array_equal(torch.cat([b.modality for b in batches]).numpy(), planned.records.modality)
    assert all(b.images.dtype == torch.float32 and abs(float(b.images.mean())) < 3 for b in batches)
    assert all(b.images.min() < 0 for b in batches)  # normalised


def test_a_tracker_is_asked_for_by_name(worlds, tmp_path):
    import vireid

    small = dict(assignment.split("=") for assignment in SECOND) | {"epochs": 1, "epoch_length": 1}
    source = f"regdb:{worlds['regdb']}"
    vireid.train("agw", data=source, run=tmp_path / "tracked", set=small, workers=0, tracker="tensorboard")
    vireid.train("agw", data=source, run=tmp_path / "plain", set=small, workers=0)
    assert list((tmp_path / "tracked" / "tensorboard").glob("**/events.*"))
    assert not (tmp_path / "plain" / "tensorboard").exists()
    with pytest.raises(vireid.BadInput, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        vireid.train("agw", data=source, run=tmp_path / "none", set=small, workers=0, tracker="tensorbord")
