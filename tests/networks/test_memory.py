"""Maps that are computed again for the gradient: the same numbers, less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.memory import kept_bytes
from tests.steps import take_steps
from vireid import recipes
from vireid.networks.attention import agw_non_local
from vireid.networks.memory import economical
from vireid.networks.resnet import Stages, Stem
from vireid.networks.resnet import recompute as compute_again


class Trunk(nn.Module):
    def __init__(self, trunk: str, *, recompute: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.stages = Stem(trunk), Stages(trunk, inserted=agw_non_local(trunk, "code"))
        if recompute:
            compute_again(self)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.stages(self.stem(images))


def kept(network: nn.Module, images: torch.Tensor) -> int:
    return kept_bytes(lambda: network(images), (*network.parameters(), images))


@pytest.mark.parametrize(("trunk", "share"), [("tiny", 0.6), ("resnet18", 0.4), ("resnet50", 0.3)])
def test_less_is_kept(trunk, share):
    images = torch.randn(4, 3, 64, 32)
    whole, economical = (kept(Trunk(trunk, recompute=again), images) for again in (False, True))
    assert economical < share * whole


@pytest.mark.parametrize("name", recipes.recipes())
def test_terms_gradients_and_statistics_are_the_same(name):
    """Of three steps of each recipe, bit for bit; so the running statistics are updated once a step."""
    ours, usual = (end_of_three_steps(name, recompute=again) for again in (True, False))
    assert ours.keys() == usual.keys()
    assert [key for key in usual if not torch.equal(ours[key], usual[key])] == []


def end_of_three_steps(name: str, *, recompute: bool) -> dict[str, torch.Tensor]:
    _, network = take_steps(name, 3, economically if recompute else lambda network: None)
    return network.state_dict()


def economically(network: nn.Module) -> None:
    compute_again(network)
    assert all(m.recompute for m in network.modules() if isinstance(m, Stem | Stages))


@pytest.mark.parametrize("without", ["when", "training", "gradient"])
def test_a_part_is_called_once_if_nothing_is_to_be_computed_again(without):
    part, calls = nn.BatchNorm1d(2), []

    def count(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return part(x)

    part.train(without != "training")
    with torch.set_grad_enabled(without != "gradient"):
        y = economical([part], count, torch.randn(4, 2, requires_grad=True), when=without != "when")
    if y.requires_grad:
        y.sum().backward()
    assert len(calls) == 1
