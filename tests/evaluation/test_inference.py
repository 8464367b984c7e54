"""The way that computes features: it is compared before it is used, and chosen without a clock unless that is asked."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.recipes.test_sweep import SIZE, lively, prepared
from vireid.data.modality import Modality
from vireid.evaluation import inference
from vireid.evaluation.embedding import AS_IT_IS, NetworkEmbedder, Way
from vireid.evaluation.inference import COMPARED, ENOUGH, ENOUGH_FOR_THE_CLOCK, FOLDED, Work, fastest
from vireid.evaluation.parity import LIMIT, difference, patterns
from vireid.networks.resnet import BasicBlock
from vireid.recipes import recipes

MANY = Work(SIZE, ENOUGH)
TIMED = Work(SIZE, ENOUGH_FOR_THE_CLOCK, "auto", batch=2)


def own(network: nn.Module):
    return network.embed


@pytest.fixture(scope="module")
def agw() -> nn.Module:
    return lively(prepared("agw", None))


@pytest.mark.parametrize("name", recipes())
def test_a_folded_copy_embeds_both_modalities_as_the_network_does(name):
    net = lively(prepared(name, None))
    found = fastest(net, own, MANY)
    assert found.way.name == FOLDED and not found.way.note
    assert found.way.difference is not None and 0 <= found.way.difference < 1e-9
    images = torch.from_numpy(patterns(10, SIZE, seed=1))
    for modality in (torch.zeros(10), torch.ones(10), torch.arange(10) % 2):
        wanted = NetworkEmbedder(net.embed)(images, modality.long()).numpy()
        assert difference(found(images, modality.long()).numpy(), wanted) < 1e-9


def test_for_few_pictures_the_network_itself_computes(agw):
    found = fastest(agw, own, replace(MANY, pictures=ENOUGH - 1))
    assert found == NetworkEmbedder(agw.embed, way=found.way)
    assert found.way == Way(AS_IT_IS, note=f"fewer than {ENOUGH} pictures")


def test_the_choice_in_float32_asks_no_clock(agw, monkeypatch):
    monkeypatch.setattr(inference, "time", None)
    first, second = fastest(agw, own, MANY), fastest(agw, own, MANY)
    assert first.way == second.way and first.way.name == FOLDED
    images, modality = torch.from_numpy(patterns(4, SIZE)), torch.tensor([0, 1, 0, 1])
    assert torch.equal(first(images, modality), second(images, modality))


# --- wrong ways -------------------------------------------------------------------------------------------------------


def only(modality: Modality, wrong):
    """A fault in the features of one modality."""
    return lambda features, kind: torch.where((kind == int(modality))[:, None], wrong(features), features)


FAULTS = {
    "visible pictures only": only(Modality.VISIBLE, lambda features: features.flip(1)),
    "infrared pictures only": only(Modality.INFRARED, lambda features: features.flip(1)),
    "another length": lambda features, kind: features * 1.01,
    "not finite": lambda features, kind: features * float("nan"),
    "too few": lambda features, kind: features[1:],
    "the last picture only": lambda features, kind: torch.cat([features[:-1], features[:1]]),
    "a little more than allowed": lambda features, kind: features * (1 + (2.1 * inference.FLOAT32_LIMIT) ** 0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_way_is_refused(fault, agw):
    def embed(network):
        if network is agw:
            return network.embed
        return lambda images, modality: FAULTS[fault](network.embed(images, modality), modality)

    found = fastest(agw, embed, MANY)
    assert found.embed == agw.embed and found.way.name == AS_IT_IS
    assert found.way.note.startswith("folded, the difference is ")


def test_a_block_that_names_a_wrong_pair_is_refused(agw, monkeypatch):
    monkeypatch.setattr(BasicBlock, "FOLDS", {"conv1": "bn2", "conv2": "bn1"})
    found = fastest(agw, own, MANY)
    assert found.way.name == AS_IT_IS and "difference" in found.way.note


def test_the_pictures_that_are_compared_are_of_both_modalities(agw):
    seen = []

    def embed(network):
        def compute(images, modality):
            seen.append(modality.tolist())
            return network.embed(images, modality)

        return compute

    fastest(agw, embed, MANY)
    assert seen and all(sorted(one) == [0] * (COMPARED // 2) + [1] * (COMPARED // 2) for one in seen)


def test_a_network_that_cannot_be_copied_computes_itself(agw):
    net = copy.deepcopy(agw)
    net.kept = next(net.parameters()) * 2  # no leaf, which torch refuses to copy
    found = fastest(net, own, MANY)
    assert found.way == Way(AS_IT_IS, note="the network cannot be copied")


# --- the network stays as it is ---------------------------------------------------------------------------------------


def test_choosing_changes_nothing_of_the_network(agw):
    net = copy.deepcopy(agw)
    next(net.parameters()).requires_grad_(False)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    asked = [one.requires_grad for one in net.parameters()]
    random = torch.get_rng_state()
    fastest(net, own, replace(TIMED))
    after = net.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert [one.requires_grad for one in net.parameters()] == asked
    assert all(one.grad is not None and bool((one.grad == 1).all()) for one in net.parameters())
    assert not any(one.training or one._forward_hooks for one in net.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_network_in_training_mode_or_with_hooks_computes_itself(agw):
    net = copy.deepcopy(agw)
    images, modality = torch.from_numpy(patterns(2, SIZE)), torch.tensor([0, 1])
    seen = []
    hook = net.encoder.pool.register_forward_hook(lambda *_: seen.append(1))
    found = fastest(net, own, MANY)
    assert not seen  # nothing was computed for the choice
    found(images, modality)
    assert seen and found.way.name == AS_IT_IS
    hook.remove()
    assert fastest(net, own, MANY).way.name == FOLDED
    assert fastest(net.train(), own, MANY).way.name == AS_IT_IS and net.training


# --- other precisions -------------------------------------------------------------------------------------------------


def in_bf16() -> bool:
    return torch.is_autocast_enabled("cpu")


def slow(when):
    """`own`, slower if `when()`."""

    def embed(network):
        def compute(images, modality):
            if when():
                time.sleep(0.05)
            return network.embed(images, modality)

        return compute

    return embed


class Small(nn.Module):
    """A network that bf16 does not change much, and that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 8, stride=8), nn.BatchNorm2d(16))

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.body(images).float().flatten(1) + modality[:, None])


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def test_bf16_is_used_if_it_is_asked_for_and_says_how_far_it_is(small):
    found = fastest(small, own, replace(MANY, precision="bf16"))
    assert (found.way.name, found.way.precision) == (FOLDED, "bf16")
    assert found.way.difference is not None and 1e-8 < found.way.difference < LIMIT
    few = fastest(small, own, replace(MANY, precision="bf16", pictures=1))
    assert (few.way.name, few.way.precision, few.way.difference) == (AS_IT_IS, "bf16", None)


def test_auto_takes_bf16_where_it_is_clearly_faster_and_near(small):
    found = fastest(small, slow(lambda: not in_bf16()), TIMED)
    assert (found.way.name, found.way.precision) == (FOLDED, "bf16")
    found = fastest(small, slow(in_bf16), TIMED)
    assert (found.way.name, found.way.precision) == (FOLDED, "off") and "as fast here" in found.way.note
    found = fastest(small, slow(lambda: not in_bf16()), replace(TIMED, pictures=ENOUGH_FOR_THE_CLOCK - 1))
    assert found.way.precision == "off" and "was not timed" in found.way.note


def test_auto_refuses_bf16_that_is_far(small):
    def embed(network):
        faster = slow(lambda: not in_bf16())(network)
        return lambda images, modality: faster(images, modality) * (1.1 if in_bf16() else 1)

    found = fastest(small, embed, TIMED)
    assert found.way.precision == "off" and found.way.note.startswith("bf16 differs by ")
    assert fastest(small, embed, replace(TIMED, precision="bf16")).way.precision == "bf16"  # that was asked for


def test_the_difference_of_features():
    one = np.eye(2, dtype=np.float32)
    assert difference(one, one) == 0
    turned = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    assert difference(turned, one) == pytest.approx(1 - 0.8)
    assert difference(one[:1], one) == difference(one * np.float32(np.nan), one) == np.inf
