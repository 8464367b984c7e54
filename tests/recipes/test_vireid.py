"""vireid's own recipe: its terms, its memory, and that it is what was chosen on the generated world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from tests.oracles import losses as oracle
from tests.oracles import peca as peca_oracle
from tests.outside import forgotten
from vireid.augment.normalise import normalise
from vireid.data.batch import Batch
from vireid.plugins import plugin
from vireid.recipes.vireid import PAPER, ROWS, Config, ViReID, build
from vireid.training.configuration import with_fields

ROOT = Path(__file__).resolve().parents[2]
TINY = {"trunk": "tiny", "weights": "none", "size": "64x32"}


def _batch(seed: int = 0) -> Batch:
    """Three identities with two visible and two infrared samples each, and one identity in one modality only."""
    images = torch.randn(14, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
    identity = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    modality = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0])
    return Batch(images, identity, modality, modality)


def _network(config: Config = PAPER, **changes: Any) -> ViReID:
    torch.manual_seed(0)
    network = build(with_fields(config, {**TINY, **changes}), 5)
    torch.nn.init.normal_(network.classifier.linear.weight, std=0.3)
    return network


def _filled(network: ViReID) -> ViReID:
    with torch.no_grad():
        network.eval().before_training([_batch(7), _batch(8)])
    return network.train()


def test_the_objective_against_loops_and_the_memory_after_it():
    network, batch = _filled(_network()), _batch()
    assert network.memory is not None
    with torch.no_grad():
        pooled = network.encoder.pooled(batch.images, batch.modality)
        necked = torch.nn.functional.batch_norm(pooled, None, None, network.encoder.neck.bn.weight, training=True)
    centroids, identity, modality = network.memory.centroids.clone(), batch.identity.tolist(), batch.modality.tolist()
    terms = network.objective(batch)
    assert list(terms) == ["identity", "triplet", "modality"]
    logits = (necked @ network.classifier.linear.weight.detach().T).tolist()
    assert terms["identity"].item() == pytest.approx(oracle.cross_entropy(logits, identity, 0.0), rel=1e-4)
    triplet = oracle.weighted_regularised_triplet(
        pooled.tolist(), identity, negative_sign="minus", anchor_is_positive=True
    )
    assert terms["triplet"].item() == pytest.approx(triplet, rel=1e-4)
    against = peca_oracle.modality_contrast(necked, identity, modality, centroids, temperature=0.1)
    assert terms["modality"].item() == pytest.approx(0.5 * against, rel=1e-4)
    wanted = peca_oracle.updated(
        centroids, normalize(necked), identity, modality, rate=0.8, normalise="each", order="sequential"
    )
    torch.testing.assert_close(network.memory.centroids, wanted)


def test_the_memory_starts_with_means_of_features_after_a_neck_that_knows_all_pictures():
    network = _network().eval()
    assert network.memory is not None
    batches = [_batch(7), _batch(8)]
    with torch.no_grad():
        pooled = torch.cat([network.encoder.pooled(one.images, one.modality) for one in batches])
        network.before_training(batches)
        features = normalize((pooled - pooled.mean(0)) / (pooled.var(0) + 1e-5).sqrt())
    identity, modality = (torch.cat([getattr(one, name) for one in batches]) for name in ("identity", "modality"))
    for person in range(5):
        for kind in range(2):
            of_it = features[(identity == person) & (modality == kind)]
            mean = normalize(of_it.mean(0), dim=0) if len(of_it) else torch.zeros(features.shape[1])
            torch.testing.assert_close(network.memory.centroids[person, kind], mean, rtol=1e-4, atol=1e-5)


def test_the_memory_stays_as_it_is_in_evaluation_mode_and_is_no_part_of_the_features():
    network, batch = _filled(_network()), _batch()
    assert network.memory is not None
    before = network.memory.centroids.clone()
    network.eval().objective(batch)
    assert torch.equal(network.memory.centroids, before)
    once = network.embed(batch.images, batch.modality)
    network.memory.centroids.zero_()
    assert torch.equal(network.embed(batch.images, batch.modality), once)


def test_rows_switch_parts_off():
    assert ROWS["plain"].config == with_fields(PAPER, {"memory": None, "erasing": None, "exchange": None})
    plain = _network(ROWS["plain"].config)
    assert plain.memory is None and list(plain.objective(_batch())) == ["identity", "triplet"]
    assert _network(ROWS["colour"].config).memory is None and _network(ROWS["memory"].config).memory is not None


def test_infrared_pictures_are_erased_and_keep_their_colours():
    images = torch.full((400, 3, 64, 32), 120, dtype=torch.uint8)
    modality = torch.arange(400) % 2
    seen = PAPER.augmentation()(images, modality, torch.Generator().manual_seed(0))
    here = normalise(images[:1].float() / 255)[0, :, 32, 16]
    same = (seen[:, :, 32, 16] - here).abs().amax(1) < 1e-5  # at the centre, which a shift does not reach
    erased_or_changed = 1 - same.float()
    assert 0.05 < erased_or_changed[modality == 1].mean() < 0.35  # erased at the centre
    assert erased_or_changed[modality == 0].mean() > 0.7  # three of four pictures have one channel in all three


def test_it_is_the_candidate_that_was_chosen():
    """Equal terms, equal memory and equal features, from the same weights."""
    with forgotten():
        candidate = plugin(ROOT / "studies" / "candidate.py")
        chosen = with_fields(candidate.PAPER, {**TINY, "memory": "ModalityContrast", "colour": "exchange"})
        other = candidate.build(chosen, 5)
    network = _network()
    names = {"pool": "pools.global", "neck": "necks.global", "classifier": "classifiers.global"}
    state = network.state_dict()
    parted = {key.removeprefix("encoder.").partition("."): value for key, value in state.items()}
    other.load_state_dict({names.get(first, first) + dot + rest: value for (first, dot, rest), value in parted.items()})
    for one in (network, other):
        _filled(one)  # type: ignore[arg-type]
    ours, theirs = network.objective(_batch()), other.objective(_batch())
    assert {name.removesuffix("_global"): value.item() for name, value in theirs.items()} == {
        name: value.item() for name, value in ours.items()
    }
    assert torch.equal(network.memory.centroids, other.memory.centroids)  # type: ignore[union-attr]
    images, modality = _batch(3).images, _batch(3).modality
    assert torch.equal(network.eval().embed(images, modality), other.eval().embed(images, modality))
