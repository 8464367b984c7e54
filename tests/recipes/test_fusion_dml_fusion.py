"""Adaptive fusion, section 3.3: the weighted maps against the loops, and their pooling."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from tests.oracles import fusion_dml as oracle
from tests.recipes.test_fusion_dml import _generator
from vireid.data.errors import BadInput
from vireid.networks.pooling import GeM
from vireid.recipes.fusion_dml import (
    AdaptiveFusion,
)

# --- adaptive fusion --------------------------------------------------------------------------------------------------


def _stage_maps(channels, stages, *, dtype=torch.float64, count=2):
    grids = {1: (8, 4), 2: (4, 2), 3: (2, 1), 4: (2, 1)}
    generator = _generator(2)
    return {
        f"stage{s}": torch.randn(count, channels[s - 1], *grids[s], generator=generator, dtype=dtype) for s in stages
    }


SUBSETS = [
    tuple(s for s in (1, 2, 3, 4) if number >> (s - 1) & 1) for number in range(1, 16)
]  # every subset of the four stages


@pytest.mark.parametrize("weights", ["asff", "param"])
@pytest.mark.parametrize("stages", SUBSETS)
def test_the_fused_map_against_the_loops(stages, weights):
    maps = _stage_maps((3, 5, 7, 9), stages)
    torch.manual_seed(1)
    grid = tuple(next(iter(maps.values())).shape[2:])
    fusion = AdaptiveFusion({name: x.shape[1] for name, x in maps.items()}, width=4, weights=weights, grid=grid)
    fusion = fusion.double().eval()
    if fusion.matrices is not None:
        torch.nn.init.uniform_(fusion.matrices, -1, 2)
    fused = fusion(maps)
    assert fused.shape == (2, fusion.channels, *grid) == (2, 4 * len(stages), *grid)
    reduced = fusion.reduced(maps)
    each = fusion.weights(reduced).expand(2, -1, -1, -1)
    for sample in range(2):
        expected = oracle.fuse([x[sample].tolist() for x in reduced], each[sample].tolist())
        assert torch.allclose(fused[sample], torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("stages", [(1, 2, 3), (2, 4), (3,)])
def test_the_predicted_weights_are_asffs(stages):
    """16 channels of each reduced map, on the finest grid; all of them give one score per map; a softmax over the maps.

    Statistics and weights are handed to the loops as plain numbers, so a missing layer or another width fails.
    """
    maps = _stage_maps((3, 5, 7, 9), stages)
    torch.manual_seed(1)
    fusion = AdaptiveFusion({name: x.shape[1] for name, x in maps.items()}, width=4).double()
    for _, value in [*fusion.look.named_buffers(), *fusion.look.named_parameters(), *fusion.decide.named_parameters()]:
        if value.is_floating_point():
            torch.nn.init.uniform_(value, 0.2, 1.5)
    reduced = fusion.eval().reduced(maps)
    found = fusion.weights(reduced)
    state = {name: value.tolist() for name, value in fusion.state_dict().items()}
    height, width = reduced[0].shape[2:]
    for sample in range(2):
        seen = []
        for place, x in enumerate(reduced):
            kernel = [[one[0][0] for one in of] for of in state[f"look.{place}.0.weight"]]
            statistics = [state[f"look.{place}.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
            looked = oracle.active(oracle.pointwise(x[sample].tolist(), kernel, [0.0] * 16), *statistics)
            seen += oracle.nearest(looked, height, width)
        kernel = [[one[0][0] for one in of] for of in state["decide.weight"]]
        expected = oracle.spatial_weights(oracle.pointwise(seen, kernel, state["decide.bias"]))
        torch.testing.assert_close(found[sample], torch.tensor(expected, dtype=torch.float64))


def test_the_weights_start_near_a_third_each():
    """The score of a map comes from a random convolution, so the three weights differ a little, by place too."""
    found = []
    for seed in range(20):
        torch.manual_seed(seed)
        fusion = AdaptiveFusion([3, 5, 7], width=256)
        maps = [torch.randn(4, c, *g) for c, g in zip((3, 5, 7), ((8, 4), (4, 2), (2, 1)), strict=True)]
        found.append(fusion.weights(fusion.reduced(maps)).detach())
    weights = torch.cat(found)
    assert (weights.mean((0, 2, 3)) - 1 / 3).abs().max() < 0.05
    assert 0.05 < weights.std() < 0.2


def test_predicted_weights_sum_to_one_and_differ_by_place_and_picture():
    maps = _stage_maps((3, 5, 7, 9), (1, 2, 3))
    torch.manual_seed(1)
    fusion = AdaptiveFusion([3, 5, 7], width=4).double()
    weights = fusion.weights(fusion.reduced(maps))
    assert weights.shape == (2, 3, 8, 4)
    assert (weights > 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(2, 8, 4, dtype=torch.float64))
    assert weights.std((2, 3)).min() > 0
    assert not torch.allclose(weights[0], weights[1])


def test_free_weights_start_at_one_and_are_shared():
    maps = _stage_maps((3, 5, 7, 9), (1, 2))
    fusion = AdaptiveFusion([3, 5], width=4, weights="param", grid=(8, 4)).double().eval()
    first, second = fusion.reduced(maps)
    assert torch.equal(fusion(maps), torch.cat((first, functional.interpolate(second, size=(8, 4))), 1))
    assert fusion.matrices is not None
    assert fusion.matrices.shape == (1, 2, 8, 4)


def test_lists_and_names_mean_the_same():
    maps = _stage_maps((3, 5, 7, 9), (1, 2, 3, 4), dtype=torch.float32)
    torch.manual_seed(1)
    named = AdaptiveFusion({"stage2": 5, "stage3": 7}, width=4).eval()
    listed = AdaptiveFusion([5, 7], width=4).eval()
    listed.load_state_dict(named.state_dict())
    assert torch.equal(named(maps), listed([maps["stage2"], maps["stage3"]]))
    with pytest.raises(ValueError, match="2 maps, not 4"):
        listed(maps)


@pytest.mark.parametrize(("height", "width"), [(7, 5), (9, 4)])
def test_grids_need_not_divide(height, width):
    torch.manual_seed(1)
    maps = [torch.randn(2, 3, height, width), torch.randn(2, 5, -(-height // 2), -(-width // 2))]
    for up in ("nearest", "bilinear"):
        assert AdaptiveFusion([3, 5], width=4, up=up)(maps).shape == (2, 8, height, width)


@pytest.mark.parametrize(("activation", "lowest"), [("relu", 0.0), ("leaky_relu", -1.0), ("none", -math.inf)])
def test_activation_decides_whether_there_are_negative_values(activation, lowest):
    torch.manual_seed(1)
    fusion = AdaptiveFusion([3, 5], width=64, activation=activation)
    found = fusion([torch.randn(4, 3, 8, 4), torch.randn(4, 5, 4, 2)])
    assert found.amin() >= lowest
    assert (found.amin() < 0) == (activation != "relu")
    assert torch.isfinite(GeM()(found)).all()


def test_fusion_says_what_it_cannot_do():
    with pytest.raises(BadInput, match="asff, param"):
        AdaptiveFusion([3], weights="sum")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="nearest, bilinear"):
        AdaptiveFusion([3], up="cubic")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="leaky_relu"):
        AdaptiveFusion([3], activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="need the grid"):
        AdaptiveFusion([3], weights="param")
    with pytest.raises(BadInput, match="8x4, not 6x3"):
        AdaptiveFusion([3], weights="param", grid=(8, 4))([torch.zeros(2, 3, 6, 3)])


@pytest.mark.parametrize("changes", [{}, {"weights": "param"}, {"up": "bilinear"}, {"activation": "none"}])
@pytest.mark.parametrize("pool", [GeM(), GeM(1.0), GeM(8.0), GeM(learnable=True), GeM(0.5)])
@pytest.mark.parametrize("grids", [((8, 4), (4, 2), (2, 1)), ((7, 5), (4, 3), (2, 2))])
def test_pooling_without_writing_the_fused_map_is_pooling_it(grids, pool, changes):
    torch.manual_seed(1)
    fusion = AdaptiveFusion([3, 5, 7], width=4, **{"grid": grids[0], **changes}).double()
    if fusion.matrices is not None:
        torch.nn.init.uniform_(fusion.matrices, -1, 2)
    maps = [torch.randn(3, c, *g, dtype=torch.float64) for c, g in zip((3, 5, 7), grids, strict=True)]
    written, unwritten = pool(fusion(maps)), fusion.pooled(maps, pool)
    assert torch.allclose(unwritten, written, atol=2e-6)
    towards = torch.randn_like(written)
    gradients = [torch.autograd.grad((x * towards).sum(), list(fusion.parameters())) for x in (written, unwritten)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_pooling_survives_empty_channels_and_weights_of_nothing():
    fusion = AdaptiveFusion([3, 5], width=4, weights="param", grid=(8, 4))
    torch.nn.init.zeros_(fusion.reduce[0][1].weight)  # a map of zeros
    torch.nn.init.constant_(fusion.matrices[:, 1], -1.0)  # a map that counts for less than nothing
    found = fusion.pooled([torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 2)], GeM())
    assert torch.allclose(found, torch.full_like(found, 1e-6))
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


def test_fusion_gradients():
    torch.manual_seed(1)
    fusion = AdaptiveFusion([2, 3], width=2).double().eval()
    maps = [torch.randn(1, 2, 4, 2, dtype=torch.float64), torch.randn(1, 3, 2, 1, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *m: fusion(m), [x.requires_grad_() for x in maps])
