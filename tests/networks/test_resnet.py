"""Trunks: names, shapes and parameter counts of torchvision; single stages; inserted modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.oracles import networks as oracle
from vireid.data.errors import BadInput
from vireid.networks.resnet import TRUNKS, Stages, Stem, last_blocks

# Parameter counts that torchvision documents, minus those of the classifiers (width × 1000 + 1000).
COUNTS = {"resnet18": 11_689_512 - 513_000, "resnet34": 21_797_672 - 513_000, "resnet50": 25_557_032 - 2_049_000}


@pytest.mark.parametrize("trunk", TRUNKS)
def test_names_and_shapes_are_torchvisions(trunk):
    shape = TRUNKS[trunk]
    with torch.device("meta"):
        state = {**Stem(trunk).state_dict(), **Stages(trunk).state_dict()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    assert found == oracle.torchvision_shapes(shape.block, shape.blocks, shape.widths)


@pytest.mark.parametrize("trunk", COUNTS)
def test_parameter_counts(trunk):
    with torch.device("meta"):
        parts = (Stem(trunk), Stages(trunk))
    assert sum(p.numel() for part in parts for p in part.parameters()) == COUNTS[trunk]


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_map_sizes(trunk, last_stride):
    with torch.device("meta"):
        stem, stages = Stem(trunk), Stages(trunk, last_stride=last_stride)
        maps = stages(stem(torch.zeros(2, 3, 96, 48)))
    assert {name: tuple(found.shape) for name, found in maps.items()} == {
        "stage1": (2, stages.channels[0], 24, 12),
        "stage2": (2, stages.channels[1], 12, 6),
        "stage3": (2, stages.channels[2], 6, 3),
        "stage4": (2, stages.channels[3], 6 // last_stride, -(3 // -last_stride)),
    }


@pytest.mark.parametrize("height, width, grid", [(384, 144, (24, 9)), (256, 144, (16, 9)), (288, 144, (18, 9))])
def test_map_sizes_of_common_image_sizes(height, width, grid):
    with torch.device("meta"):
        maps = Stages("resnet50")(Stem("resnet50")(torch.zeros(1, 3, height, width)))
    assert tuple(maps["stage4"].shape) == (1, 2048, *grid)


def test_the_three_by_three_convolution_has_the_stride():
    with torch.device("meta"):
        first = Stages("resnet50", last_stride=2).get_submodule("layer4.0")
    strides = {name: part.stride for name, part in first.named_modules() if isinstance(part, nn.Conv2d)}
    assert strides == {"conv1": (1, 1), "conv2": (2, 2), "conv3": (1, 1), "downsample.0": (2, 2)}


def test_bottleneck_and_basic_block_against_their_formula():
    torch.manual_seed(0)
    for trunk, convolutions in (("resnet50", 3), ("resnet18", 2)):
        block = Stages(trunk).get_submodule("layer2.0").eval()
        x = torch.randn(1, block.conv1.in_channels, 6, 6)
        y = x
        for number in range(1, convolutions + 1):
            y = block.get_submodule(f"bn{number}")(block.get_submodule(f"conv{number}")(y))
            y = y.relu() if number < convolutions else y
        torch.testing.assert_close(block(x), (y + block.downsample(x)).relu())


def test_single_stages_give_the_same_maps():
    torch.manual_seed(0)
    stages = Stages("tiny", inserted={(2, 0): nn.Conv2d(64, 64, 1)}).eval()
    x = torch.randn(2, 32, 12, 6)
    maps = stages(x)
    for number in (1, 2, 3, 4):
        x = stages.stage(number, x)
        assert torch.equal(x, maps[f"stage{number}"])
    with pytest.raises(ValueError, match="stage 5"):
        stages.stage(5, x)


def test_inserted_modules_act_after_their_block_and_names_do_not_change():
    class Record(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x * 0

    seen: list[tuple[int, ...]] = []
    plain = Stages("resnet18").eval()
    stages = Stages("resnet18", inserted={(1, 0): nn.Identity(), (1, 1): Record(), (3, 0): Record()}).eval()
    maps = stages(torch.randn(1, 64, 16, 8))
    assert seen == [(1, 64, 16, 8), (1, 256, 4, 2)]
    assert not maps["stage1"].any()
    assert set(stages.state_dict()) == set(plain.state_dict())
    with pytest.raises(ValueError, match="no block 2 in stage 1"):
        Stages("resnet18", inserted={(1, 2): nn.Identity()})
    with pytest.raises(ValueError, match="stage 0"):
        Stages("resnet18", within={(0, 0): nn.Identity()})


@pytest.mark.parametrize("trunk", ["resnet18", "resnet50"])
def test_modules_within_a_block_act_before_the_addition(trunk):
    class Nothing(nn.Module):
        def forward(self, x):
            return x * 0

    # The module sets the residual path to 0. So the block returns the ReLU of its shortcut.
    stages = Stages(trunk, within={(1, 1): Nothing()}).eval()
    first, block, *rest = stages.get_submodule("layer1").children()
    x = torch.randn(1, stages.channels[0], 8, 4)
    assert torch.equal(block(x, stages.within["stage1_block1"]), x.relu())
    start = torch.randn(1, 64, 8, 4)
    torch.testing.assert_close(stages.stage(1, start), nn.Sequential(*rest)(first(start)))


def test_last_blocks():
    assert last_blocks((2, 2, 2, 2), (0, 2, 3, 0)) == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert last_blocks((3, 4, 6, 3), (0, 0, 0, 0)) == []


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    stem, stages = Stem("tiny"), Stages("tiny")
    stages(stem(torch.randn(4, 3, 32, 16)))["stage4"].square().sum().backward()
    for part in (stem, stages):
        assert [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_convolutions_start_as_he_et_al():
    torch.manual_seed(0)
    # 128 input and 256 output channels. The variance depends on the number of outputs.
    weight = Stages("resnet18").get_submodule("layer3.0.conv1").weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_unknown_trunk_names_the_choices():
    with pytest.raises(BadInput, match="unknown trunk 'resnet5'; did you mean 'resnet50'"):
        Stem("resnet5")
    with pytest.raises(BadInput, match="resnet18"):
        Stages("vgg")
