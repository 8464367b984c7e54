"""Grad-CAM compared with a loop, on every recipe's maps, and the network is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.figures.gradients import energy_share, enlarged, grad_cam, map_modules
from vireid.networks.heads import Classifier
from vireid.training.configuration import with_fields

NAMES = ("agw", "fusion_dml", "peca", "wrim_net")


class OneLayer(nn.Module):
    """A convolution, and a score that depends on each place of its map in another way."""

    def __init__(self, *, in_place: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.relu = nn.ReLU(inplace=in_place)
        self.norm = nn.BatchNorm2d(4)
        self.score = nn.Linear(4 * 3 * 2, 1)
        self.unused = nn.Conv2d(3, 2, 1)

    def after(self, conv: torch.Tensor) -> torch.Tensor:
        return self.score(self.norm(self.relu(conv)).flatten(1))[:, 0] ** 2

    def forward(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        self.unused(images)
        return self.after(self.conv(images))


IMAGES = torch.randn(3, 3, 7, 5, generator=torch.Generator().manual_seed(0))
MODALITY = torch.tensor([0, 1, 1])


def by_loops(network: OneLayer, images: torch.Tensor) -> np.ndarray:
    """Equations 1 and 2, with the derivative at each place as a difference quotient."""
    network = network.double().eval()
    with torch.no_grad():
        maps = network.conv(images.double())
        result = np.zeros((len(maps), *maps.shape[2:]))
        for n in range(len(maps)):
            for k in range(maps.shape[1]):
                slopes = []
                for i in range(maps.shape[2]):
                    for j in range(maps.shape[3]):
                        more, less = maps.clone(), maps.clone()
                        more[n, k, i, j] += 1e-6
                        less[n, k, i, j] -= 1e-6
                        slopes.append((network.after(more) - network.after(less))[n].item() / 2e-6)
                alpha = sum(slopes) / len(slopes)
                result[n] += alpha * maps[n, k].numpy()
    return np.maximum(result, 0)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_map_of_one_layer_is_the_formula(in_place: bool) -> None:
    network = OneLayer(in_place=in_place).eval()
    found = grad_cam(network, "conv", IMAGES, MODALITY, network)
    expected = by_loops(OneLayer(), IMAGES)
    assert found.dtype == np.float32 and found.shape == (3, 3, 2)
    assert (expected > 0.01).any() and (expected == 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_map_does_not_depend_on_the_other_samples() -> None:
    network = OneLayer()
    together = grad_cam(network, "conv", IMAGES, MODALITY, network)
    alone = np.concatenate([grad_cam(network, "conv", IMAGES[n, None], MODALITY[n, None], network) for n in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-7)


def state(network: nn.Module) -> dict[str, Any]:
    return {
        "hooks": [len(module._forward_hooks) for module in network.modules()],
        "training": [module.training for module in network.modules()],
        "requires_grad": [one.requires_grad for one in network.parameters()],
        "grad": [one.grad is None for one in network.parameters()],
        "values": [value.clone() for value in network.state_dict().values()],
        "grad_mode": torch.is_grad_enabled(),
    }


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    values = all(torch.equal(a, b) for a, b in zip(first.pop("values"), second.pop("values"), strict=True))
    return values and first == second


@pytest.mark.parametrize("layer", ["conv", "unused", "nothing"])
def test_the_network_is_left_as_it_was(layer: str) -> None:
    network = OneLayer().train()
    network.conv.eval()
    network.score.requires_grad_(False)
    before = state(network)
    if layer == "conv":
        grad_cam(network, layer, IMAGES, MODALITY, network)
    else:
        with pytest.raises(BadInput):
            grad_cam(network, layer, IMAGES, MODALITY, network)
    assert same(before, state(network))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_switched_on_inside(mode: Any) -> None:
    network = OneLayer().requires_grad_(False)
    expected = grad_cam(network, "conv", IMAGES, MODALITY, network)
    with mode():
        found = grad_cam(network, "conv", IMAGES * 1, MODALITY, network)
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(found, expected)
    assert expected.max() > 0


@pytest.mark.parametrize(
    "layer, sentence",
    [
        ("cnov", "unknown map 'cnov'; did you mean 'conv'"),
        ("score", "'score' gives no map"),
        ("unused", "does not depend on the map 'unused'"),
        ("twice", "'twice' runs 2 times"),
        ("never", "'never' runs 0 times"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(layer: str, sentence: str) -> None:
    class Strange(OneLayer):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Identity()
            self.never = nn.Identity()

        def forward(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
            return super().forward(self.twice(self.twice(images)), modality)

    network = Strange()
    with pytest.raises(BadInput, match=sentence):
        grad_cam(network, layer, IMAGES, MODALITY, network)


def built(name: str, *changes: str) -> Any:
    torch.manual_seed(0)
    config = with_fields(recipes.recipe(name).PAPER, ["trunk=tiny", "weights=none", "size=64x32", *changes])
    return recipes.build(name, config, 5, pretrained=False).eval()


PICTURES = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_every_named_map_of_a_recipe_can_be_looked_at(name: str) -> None:
    network = built(name)
    with torch.no_grad():
        maps = network.maps(PICTURES, MODALITY)
    assert list(map_modules(network, PICTURES, MODALITY)) == list(maps)

    def score(images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        return sum(feature[:, 0] for feature, _ in network.by_branch(images, modality).values())

    for layer, expected in maps.items():
        found = grad_cam(network, layer, PICTURES, MODALITY, score)
        assert found.shape == (3, *expected.shape[2:]), layer


def test_a_map_before_and_after_a_block_are_two_modules() -> None:
    named = map_modules(built("wrim_net"), PICTURES, MODALITY)
    assert named["stage4"] == "miims.stage4"
    assert named["stage4_before"] == "stages.layer4.0"
    # Without MIIM both names are the same map. `stage1` has a copy for each modality: the one around them counts.
    assert named["stage1"] == "miims.stage1"
    without = map_modules(built("wrim_net", "miim=[null, null, null, null]"), PICTURES, MODALITY)
    assert without["stage4"] == without["stage4_before"] == "stages.layer4.0"


@pytest.mark.parametrize("name", NAMES)
def test_branches_hold_the_embedding_and_the_logits_of_each_classifier(name: str) -> None:
    network = built(name)
    for module in network.modules():  # a new neck would change nothing
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
        if isinstance(module, Classifier):
            nn.init.normal_(module.linear.weight)
    with torch.no_grad():
        found = network.by_branch(PICTURES, MODALITY)
        embedding = network.embed(PICTURES, MODALITY)
    joined = {"wrim_net": list(found), "fusion_dml": ["joint"]}.get(name, ["global"])
    feature = torch.cat([found[branch][0] for branch in joined], 1)
    torch.testing.assert_close(torch.nn.functional.normalize(feature), embedding, rtol=1e-4, atol=1e-5)
    weights = [value for key, value in network.state_dict().items() if key.endswith("linear.weight")]
    weights = [value for value in weights if value.shape[0] == 5]
    used = []
    for feature, logits in found.values():
        fits = [
            i for i, w in enumerate(weights) if w.shape[1] == feature.shape[1] and torch.allclose(feature @ w.T, logits)
        ]
        used += fits
    assert sorted(used) == list(range(len(weights)))  # each classifier once


@pytest.mark.parametrize("above_only", [True, False])
def test_random_weights_give_another_map(above_only: bool) -> None:
    """Adebayo et al., "Sanity Checks for Saliency Maps", 2018: a map that stays the same explains nothing."""
    network = built("agw")

    def score(images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        return network.by_branch(images, modality)["global"][1][:, 2]

    first = grad_cam(network, "stage3", PICTURES, MODALITY, score)
    torch.manual_seed(7)
    part = network.classifier if above_only else network
    for one in part.parameters():
        nn.init.normal_(one, std=0.05)
    second = grad_cam(network, "stage3", PICTURES, MODALITY, score)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True) if a.any() and b.any()]
    assert alike and np.mean(np.abs(alike)) < 0.6


def test_energy_share_worked_by_hand() -> None:
    maps = np.array([[[3.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = np.zeros((3, 2, 2))
    masks[0, 0] = 1.0, 0.5  # 3 of 4, and half of the pixel with 1 of 4
    masks[1, 1, 1] = 1.0
    np.testing.assert_allclose(energy_share(maps, masks), [3.5 / 4, 0.25, np.nan])


def test_maps_are_enlarged_between_the_centres_of_their_cells() -> None:
    # Two cells over four pixels: the centres of the cells are at 1/4 and 3/4, those of the pixels at 1/8, 3/8, …
    np.testing.assert_allclose(enlarged(np.array([[[0.0, 1.0]]]), (1, 4)), [[[0.0, 0.25, 0.75, 1.0]]])
