"""AGW's encoder: maps by name, pooling, one stem for each modality, and the parts that get pretrained weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.oracles import networks as oracle
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.networks import weights
from vireid.networks.encoder import Encoder
from vireid.networks.heads import BNNeck
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem

THREE = (Modality.VISIBLE, Modality.AUXILIARY, Modality.INFRARED)
MODALITY = torch.tensor([0, 1, 1, 0])


def _encoder(**options) -> Encoder:
    torch.manual_seed(0)
    return Encoder("tiny", **{"non_local": "half", "gem_power": 3.0} | options).eval()


def _images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def test_maps_by_name_and_their_shapes():
    maps = _encoder().maps(_images(), MODALITY)
    assert {name: tuple(found.shape) for name, found in maps.items()} == {
        "stem": (4, 32, 16, 8),
        "stage1": (4, 32, 16, 8),
        "stage2": (4, 64, 8, 4),
        "stage3": (4, 128, 4, 2),
        "stage4": (4, 256, 4, 2),
    }


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_pooled_is_gem_of_stage_4(power):
    encoder = _encoder(gem_power=power)
    stage4 = encoder.maps(_images(), MODALITY)["stage4"]
    found = encoder.pooled(_images(), MODALITY)
    assert found.shape == (4, encoder.width) and encoder.width == 256
    assert torch.equal(found, GeM(power)(stage4))
    expected = oracle.gem(stage4.detach(), p=power, eps=1e-6)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_each_modality_passes_through_its_own_stem():
    encoder = _encoder(modalities=THREE)
    assert list(encoder.stems.copies) == ["visible", "auxiliary", "infrared"]
    images, modality = _images(6), torch.tensor([0, 1, 2, 2, 1, 0])
    found = encoder.maps(images, modality)
    for sample, which in enumerate(modality.tolist()):
        stem = encoder.stems.one(which)(images[sample : sample + 1])
        torch.testing.assert_close(found["stem"][sample : sample + 1], stem)
        # The stages are shared: they take the map of any stem.
        torch.testing.assert_close(found["stage4"][sample : sample + 1], encoder.stages(stem)["stage4"])
    other = encoder.maps(images, modality.roll(1))
    assert not torch.equal(found["stem"][1], other["stem"][1])


def test_only_the_stem_of_the_modality_gets_a_gradient():
    encoder = _encoder()
    encoder.pooled(_images(2), torch.tensor([1, 1])).sum().backward()
    assert encoder.stems.one(Modality.INFRARED).conv1.weight.grad.any()
    assert encoder.stems.one(Modality.VISIBLE).conv1.weight.grad is None


def test_every_parameter_gets_a_gradient():
    encoder = _encoder().train()
    for block in encoder.stages.inserted.values():
        nn.init.ones_(block.bn.weight)
    encoder.neck(encoder.pooled(_images(), MODALITY)).square().sum().backward()
    wanted = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in encoder.named_parameters() if parameter.grad is not None} == wanted
    assert isinstance(encoder.neck, BNNeck) and "neck.bn.bias" not in wanted


@pytest.mark.parametrize(
    ("non_local", "inner"),
    [
        ("half", {"stage2_block0": 32, "stage3_block0": 64}),
        ("code", {"stage2_block0": 1, "stage3_block0": 1}),
        (None, {}),
    ],
)
def test_non_local_blocks(non_local, inner):
    found = {name: block.theta.out_channels for name, block in _encoder(non_local=non_local).stages.inserted.items()}
    assert found == inner


def test_pretrained_parts_are_all_stems_and_the_stages():
    encoder = _encoder(modalities=THREE)
    stems, stages = encoder.pretrained_parts()
    assert stems == [encoder.stems.one(modality) for modality in THREE] and stages is encoder.stages
    state = {**Stem("tiny").state_dict(), **Stages("tiny").state_dict()}
    weights.load_trunk(state, stems, stages)
    assert all(torch.equal(stem.conv1.weight, state["conv1.weight"]) for stem in stems)
    assert torch.equal(stages.get_submodule("layer4.0.conv2").weight, state["layer4.0.conv2.weight"])


def test_unknown_choices_name_the_choices():
    with pytest.raises(BadInput, match="unknown trunk 'resnet5'; did you mean 'resnet50'"):
        Encoder("resnet5", non_local=None, gem_power=3.0)
    with pytest.raises(BadInput, match="choices: half, code"):
        _encoder(non_local="x")
    with pytest.raises(ValueError, match="above 0"):
        _encoder(gem_power=0.0)
