"""Public blocks refuse lists and tensors of another number of dimensions, in one sentence."""

from __future__ import annotations

import pytest
import torch

from vireid.augment.aggregation import aggregate_channels
from vireid.augment.colour import Grey
from vireid.data.errors import BadInput
from vireid.losses.triplet import batch_hard_triplet, weighted_regularised_triplet
from vireid.recipes.fusion_dml import random_channel_combination
from vireid.recipes.peca import instance_contrast
from vireid.recipes.wrim_net import key_instance_contrast

IDENTITY, MODALITY = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
LOSSES = {
    "batch_hard_triplet": batch_hard_triplet,
    "weighted_regularised_triplet": weighted_regularised_triplet,
    "instance_contrast": instance_contrast,
    "key_instance_contrast": lambda features, identity: key_instance_contrast(features, identity, MODALITY, top_k=1),
}
PICTURES = {
    "aggregate_channels": lambda images: aggregate_channels(images, IDENTITY, MODALITY),
    "random_channel_combination": random_channel_combination,
    "Grey": lambda images: Grey()(images, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_take_one_feature_for_each_sample(name):
    features = torch.randn(4, 8)
    assert torch.isfinite(LOSSES[name](features, IDENTITY))
    for wrong, said in ((features[..., None], "features are 4×8×1; they must be B×D"), (features.tolist(), "a list")):
        with pytest.raises(BadInput, match=said):
            LOSSES[name](wrong, IDENTITY)


@pytest.mark.parametrize("name", PICTURES)
def test_augmentations_take_a_batch_of_pictures(name):
    images = torch.rand(4, 3, 8, 4)
    PICTURES[name](images)
    for wrong, said in ((images[0], "images are 3×8×4; they must be .×3×H×W"), (list(images), "images are a list")):
        with pytest.raises(BadInput, match=said):
            PICTURES[name](wrong)


def test_identities_are_one_number_for_each_sample():
    with pytest.raises(BadInput, match="identities are 1×4; they must be B"):
        batch_hard_triplet(torch.randn(4, 8), IDENTITY[None])
