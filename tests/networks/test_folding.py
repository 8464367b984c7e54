"""A folded copy gives the same features, and no normalisation stays that stands behind a convolution."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.recipes.test_sweep import SIZE, lively, prepared
from vireid.augment.normalise import normalise
from vireid.evaluation.parity import difference, patterns
from vireid.networks.folding import folded
from vireid.networks.resnet import Bottleneck
from vireid.recipes import recipes

ROWS = (
    ("wrim_net", "table6/cbam"),
    ("wrim_net", "table6/non-local"),
    ("fusion_dml", "table1/baseline"),
)
CASES = [*((name, None) for name in recipes()), *ROWS]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of both modalities in turns, normalised."""
    return normalise(torch.from_numpy(patterns(6, SIZE))), torch.tensor([0, 1]).repeat(3)


def behind_convolutions(network: nn.Module) -> tuple[set[str], set[str]]:
    """The normalisations that run when pictures are embedded: those whose input is the output of a convolution itself,
    and the others."""
    made: list[torch.Tensor] = []
    behind, others = set(), set()

    def look(name: str):
        def seen(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            (behind if any(inputs[0] is one for one in made) else others).add(name)

        return seen

    copied = copy.deepcopy(network)
    for name, module in copied.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: made.append(output))
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(look(name))
    copied.embed(*batch())  # type: ignore[operator]
    return behind, others


@pytest.mark.parametrize(("name", "row"), CASES)
@torch.no_grad()
def test_what_can_be_folded_is_folded_and_the_features_stay(name, row):
    net = lively(prepared(name, row))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    behind, others = behind_convolutions(net)
    assert len(behind) > 8 and others
    found = folded(net)
    left = {key for key, module in found.named_modules() if isinstance(module, _BatchNorm)}
    assert not behind & left and others <= left
    wanted = net.embed(*batch())
    assert difference(found.embed(*batch()).numpy(), wanted.numpy()) < 1e-9  # type: ignore[operator]
    assert wanted.std(0).max() > 1e-3  # they are features of different pictures, so a wrong one would be seen
    after = net.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    shared = {one.data_ptr() for one in net.state_dict().values()} & {one.data_ptr() for one in found.parameters()}
    assert not shared


def test_the_network_keeps_mode_and_gradients_and_the_copy_has_none():
    net = lively(prepared("agw", None)).train()
    frozen = next(net.parameters()).requires_grad_(False)
    asked = [one.requires_grad for one in net.parameters()]
    found = folded(net)
    assert net.training and [one.requires_grad for one in net.parameters()] == asked and not frozen.requires_grad
    assert not found.training and not any(one.requires_grad for one in found.parameters())


class Subclass(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (convolution, norm) = self
        x = convolution(x)
        return norm(x) + x  # so the result of the convolution is used twice


class Twice(nn.Module):
    """One convolution, two normalisations, each in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(3, 4, 1)
        self.first, self.second = (nn.Sequential(shared, nn.BatchNorm2d(4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) - self.second(x)


class Named(nn.Module):
    FOLDS: ClassVar = {"c": "n"}

    def __init__(self, convolution: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.c, self.n = convolution, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.n(self.c(x)).relu()


def parametrised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1))


BLOCKS = {
    "a sequence": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0),
    "two in a sequence": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)),
        0,
    ),
    "groups, stride, no bias": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, groups=3, bias=False), nn.BatchNorm2d(6, affine=False)),
        0,
    ),
    "named": (lambda: Named(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 0),
    "bottleneck": (lambda: Bottleneck(3, 4, 2), 0),  # the networks of these tests have basic blocks
    "shared convolution": (Twice, 0),
    "something between": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), 1),
    "another way to call": (lambda: Subclass(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 1),
    "statistics of the batch": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        1,
    ),
    "computed weights": (lambda: nn.Sequential(parametrised(), nn.BatchNorm2d(4)), 1),
    "named, and no convolution": (lambda: Named(nn.Identity(), nn.BatchNorm2d(3)), 1),
}


@pytest.mark.parametrize("block", BLOCKS)
@torch.no_grad()
def test_a_block_computes_the_same(block):
    make, left = BLOCKS[block]
    torch.manual_seed(0)
    net = make()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
            if module.affine:
                nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    net.train()(torch.randn(4, 3, 8, 8))
    images = torch.randn(4, 3, 8, 8)
    found = folded(net)
    assert sum(isinstance(module, _BatchNorm) for module in found.modules()) == left
    torch.testing.assert_close(found(images), net.eval()(images), atol=1e-5, rtol=1e-5)
