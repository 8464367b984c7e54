"""The functions that others put into their own training loops keep their arguments and defaults."""

from __future__ import annotations

import importlib
import inspect

import pytest

BLOCKS = {
    "losses.triplet.batch_hard_triplet": "features, identity, *, margin=0.3",
    "losses.triplet.weighted_regularised_triplet": "features, identity, *, negative_sign='minus'",
    "recipes.wrim_net.MIIM": "channels, *, spatial_ratio, channel_ratio, pool=3, heads=8",
    "recipes.wrim_net.key_instance_contrast": "features, identity, modality, *, top_k=4, temperature=0.07, "
    "reduction='mean', selection='hardest', generator=None",
    "recipes.peca.aggregate_channels": "images, identity, modality, *, generator=None",
    "recipes.peca.similarity_loss": "global_features, local_features",
    "recipes.peca.mixing_loss": "distance, *, margin=0.7, form='hinge'",
    "recipes.peca.instance_contrast": "features, identity, *, negatives=50, temperature=0.15",
    "recipes.peca.CentroidMemory": "identities, modalities, width, *, rate=0.8",
    "recipes.fusion_dml.random_channel_combination": "images, *, generator=None",
    "recipes.fusion_dml.mutual_loss": "joint_logits, branch_logits, *, detach='target', reduction='batchmean'",
    "recipes.fusion_dml.AdaptiveFusion": "channels, *, width=256, weights='asff'",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_has_the_arguments_that_users_rely_on(name):
    module, _, attribute = f"vireid.{name}".rpartition(".")
    there = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    keyword = False
    for one in BLOCKS[name].split(", "):
        if one == "*":
            keyword = True
            continue
        argument, given, default = one.partition("=")
        found = there[argument]
        assert (found.kind is inspect.Parameter.KEYWORD_ONLY) == keyword, argument
        assert repr(found.default) == default if given else found.default is inspect.Parameter.empty, argument
