"""A network for one modality computes what the whole network does for pictures of this modality."""

from __future__ import annotations

import pytest
import torch

from tests.recipes.test_sweep import SIZE, prepared
from vireid.augment.normalise import normalise
from vireid.data.modality import Modality
from vireid.evaluation.parity import patterns
from vireid.export.specialise import OneModality
from vireid.recipes import recipes

BOTH = (Modality.VISIBLE, Modality.INFRARED)
ROWS = (
    ("fusion_dml", "table1/baseline"),
    ("wrim_net", "table6/cbam"),
    ("wrim_net", "table9/pool=1"),
)


@pytest.mark.parametrize(("name", "row"), [*((name, None) for name in recipes()), *ROWS])
@torch.no_grad()
def test_features_are_those_of_the_network(name, row):
    net = prepared(name, row).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = torch.from_numpy(patterns(3, SIZE))
    for modality in BOTH:
        wanted = net.embed(normalise(images), torch.full((3,), int(modality)))
        torch.testing.assert_close(OneModality(net, modality)(images), wanted, atol=1e-6, rtol=0)
    after = net.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def test_the_parts_of_the_other_modality_are_left_out():
    net = prepared("agw", None)
    one = OneModality(net, Modality.VISIBLE)
    stem = sum(parameter.numel() for parameter in net.encoder.stems.copies["infrared"].parameters())
    held = sum(parameter.numel() for parameter in one.parameters())
    assert stem > 0 and held == sum(parameter.numel() for parameter in net.parameters()) - stem


def test_a_network_in_training_mode_is_exported_in_evaluation_mode():
    net = prepared("agw", None).train()
    images = torch.from_numpy(patterns(4, SIZE))
    found = OneModality(net, Modality.INFRARED)(images)
    assert net.training
    with torch.no_grad():
        wanted = net.eval().embed(normalise(images), torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
