"""AGW: its network, its two terms, its settings and its rows, against the public code and the papers that quote it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tests.oracles import losses as oracle
from vireid.augment.normalise import normalise
from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.networks.attention import NonLocal
from vireid.networks.pooling import GeM
from vireid.recipes.agw import PAPER, ROWS, Config, build
from vireid.training.configuration import from_json, to_json, with_fields

TINY = {"trunk": "tiny", "weights": "none", "size": "64x32"}


def _batch(seed: int = 0) -> Batch:
    """Two identities with two visible and two infrared samples each."""
    images = torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(8) // 2 % 2, torch.arange(8) // 4, torch.zeros(8, dtype=torch.int64))


def _network(config: Config = PAPER, **changes):
    torch.manual_seed(0)
    return build(with_fields(config, {**TINY, **changes}), 5)


@pytest.mark.parametrize("sign", ["minus", "plus"])
def test_the_objective_is_cross_entropy_after_the_neck_and_triplet_before_it(sign):
    network, batch = _network(negative_sign=sign), _batch()
    terms = network.objective(batch)
    assert list(terms) == ["identity", "triplet"]
    pooled = network.encoder.pooled(batch.images, batch.modality)
    logits = network.classifier(network.encoder.neck(pooled)).detach().double().tolist()
    identity = batch.identity.tolist()
    triplet = oracle.weighted_regularised_triplet(
        pooled.detach().double().tolist(), identity, negative_sign=sign, anchor_is_positive=True
    )
    assert terms["identity"].item() == pytest.approx(oracle.cross_entropy(logits, identity, 0.0), rel=1e-4)
    assert terms["triplet"].item() == pytest.approx(triplet, rel=1e-4)


def test_maps_are_reachable_by_name_and_the_embedding_is_the_feature_after_the_neck():
    network, batch = _network(), _batch()
    network.objective(_batch(1))  # so that the neck has statistics
    network.eval()
    maps = network.maps(batch.images, batch.modality)
    assert list(maps) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert maps["stage3"].shape[2:] == maps["stage4"].shape[2:] == (4, 2)  # last stride 1
    pooled = GeM(3.0)(maps["stage4"])
    expected = functional.normalize(network.encoder.neck(pooled))
    assert torch.allclose(network.embed(batch.images, batch.modality), expected, atol=1e-6)
    assert torch.allclose(network.embed_pooled(batch.images, batch.modality), functional.normalize(pooled), atol=1e-6)


def test_neck_and_classifier_learn_at_the_full_rate_and_everything_else_at_a_tenth():
    network = _network()
    new = {id(parameter) for parameter in network.new_parameters()}
    fast = {name for name, parameter in network.named_parameters() if id(parameter) in new}
    assert fast == {"encoder.neck.bn.weight", "encoder.neck.bn.bias", "classifier.linear.weight"}
    optimiser = PAPER.training.optimiser.build(network, network.new_parameters())
    assert {group["name"]: group["lr"] for group in optimiser.param_groups} == pytest.approx(
        {"trunk": 0.01, "new": 0.1}
    )
    stems, stages = network.pretrained_parts()
    assert stems == list(network.encoder.stems.copies.values())
    assert len(stems) == 2
    assert stages is network.encoder.stages


def test_five_non_local_blocks_of_the_width_that_the_field_says():
    def blocks(non_local):
        with torch.device("meta"):
            network = build(replace(PAPER, non_local=non_local), 395)
        return [module for module in network.modules() if isinstance(module, NonLocal)]

    def widths(non_local):
        return [block.theta.out_channels for block in blocks(non_local)]

    assert widths("half") == [256, 256, 512, 512, 512]
    assert widths("code") == [1] * 5
    assert blocks(None) == []


def test_exchange_is_for_visible_pictures_and_erasing_for_both_modalities():
    images = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(80, 3, 32, 16)
    modality = torch.arange(2).repeat_interleave(40)
    still = replace(PAPER, flip=replace(PAPER.flip, p=0.0), crop=replace(PAPER.crop, padding=0))

    def changed(*fields: str) -> set[int]:
        found = with_fields(still, fields).augmentation()(images, modality, torch.Generator().manual_seed(0))
        return set(modality[(found - normalise(images)).abs().flatten(1).amax(1) > 1e-5].tolist())

    assert changed() == set()
    assert changed("exchange=ChannelExchange") == {0}
    assert changed("erasing=ChannelErasing") == {0, 1}


def test_the_settings_of_the_public_code():
    training = PAPER.training
    assert (training.epochs, training.size, training.epoch_length) == (81, Size(288, 144), "agw")
    assert (training.identities_per_batch, training.visible_per_identity, training.infrared_per_identity) == (8, 4, 4)
    assert training.pictures_per_step == 64
    assert (training.optimiser.lr, training.optimiser.momentum, training.optimiser.weight_decay) == (0.1, 0.9, 5e-4)
    assert training.optimiser.nesterov
    factors = [training.schedule.factor(epoch, 0, 100) for epoch in (0, 9, 19, 20, 49, 50, 80)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    assert (PAPER.gem_power, PAPER.negative_sign, PAPER.crop.padding, PAPER.flip.p) == (3.0, "minus", 10, 0.5)


def test_all_rows_except_the_one_with_augmentation_are_the_same_model():
    assert {name for name, row in ROWS.items() if row.config == PAPER} == {name for name in ROWS if "/" in name}
    augmented = ROWS["channel-augmentation"]
    assert (augmented.published, augmented.on) == ({}, None)
    assert augmented.config.exchange is not None
    assert augmented.config.exchange.grey
    assert augmented.config.erasing is not None
    assert from_json(Config, to_json(augmented.config)) == augmented.config
