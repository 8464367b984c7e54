"""WRIM-Net's gate, MIIM, and its tokens against equations 1 to 3."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from tests.oracles import wrim_net as oracle
from tests.recipes.test_wrim_net import ANCHORS, SMALL
from vireid.data.errors import BadInput
from vireid.networks.tokens import attend, place, sincos, window_centres
from vireid.recipes import wrim_net
from vireid.recipes.wrim_net import (
    MIIM,
    Mining,
)

# --- MIIM -------------------------------------------------------------------------------------------------------------


def small_miim(**changes) -> MIIM:
    torch.manual_seed(0)
    module = MIIM(8, **{"spatial_ratio": 2, "channel_ratio": 2, "pool": 2, "heads": 2} | changes).double()
    for bn in (module.bn_in, module.bn_out):
        if bn.affine:
            nn.init.normal_(bn.weight)
            nn.init.normal_(bn.bias)
    return module


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "fused"},
        {"spatial_ratio": 1, "channel_ratio": 4, "pool": 3},
        {"pool": 1},
        {"ceil": False},
        {"positions": "none"},
        {"positions": "sincos2d", "positions_on": "qk"},
        {"key_positions": "pooled_centre"},
        {"positions": "sincos2d", "key_positions": "pooled_centre"},
        {"positions_on": "qk"},
        {"gate_input": "raw"},
        {"fusion": "mul"},
        {"fusion": "add"},
        {"affine": False, "token_norm": True, "projection_bias": False, "upsampling": "nearest"},
    ],
    ids=str,
)
def test_miim_is_the_formula(changes):
    module = small_miim(**changes)
    # Of height 7: the compression leaves one line of positions over, and the last keys stand for one line of queries.
    x = torch.randn(2, 8, 7, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(x), oracle.miim(x, module))


def test_miim_gradient():
    module = small_miim()
    x = torch.randn(2, 8, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), atol=1e-4)


@pytest.mark.parametrize("channels, spatial, narrow, parameters", ANCHORS)
def test_miim_has_the_published_size(channels, spatial, narrow, parameters):
    with torch.device("meta"):
        module = MIIM(channels, spatial_ratio=spatial, channel_ratio=narrow)
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_a_gate_on_the_raw_map_makes_the_relu_idle():
    x = torch.rand(2, 8, 4, 4, dtype=torch.float64)
    module = small_miim(gate_input="raw")
    module.bn_out = nn.Identity()
    assert (module(x) > 0).all()
    module.mining = replace(module.mining, gate_input="bn")
    assert (module(x) == 0).any()


def test_miim_keeps_layout_and_type():
    module = MIIM(16, spatial_ratio=2, channel_ratio=2).to(memory_format=torch.channels_last)
    x = torch.randn(2, 16, 12, 6).to(memory_format=torch.channels_last)
    assert module(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(x), module(x.contiguous()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(module(x)).all()


def test_miim_refuses_what_it_cannot_do():
    with pytest.raises(BadInput, match="30 channels cannot be 2 times narrower in 8"):
        MIIM(30, spatial_ratio=1, channel_ratio=2)
    with pytest.raises(BadInput, match="fusion cannot be 'plus'; it takes one of sigmoid_mul, mul, add"):
        MIIM(16, spatial_ratio=1, channel_ratio=2, fusion="plus")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="pool cannot be 0; it takes a whole number from 1 to 64"):
        MIIM(16, spatial_ratio=1, channel_ratio=2, pool=0)
    with pytest.raises(BadInput, match="unknown field of Mining 'gate'"):
        MIIM(16, spatial_ratio=1, channel_ratio=2, gate="bn")
    with pytest.raises(BadInput, match="3×8 positions is too small for spatial ratio 4"):
        MIIM(16, spatial_ratio=4, channel_ratio=2)(torch.zeros(1, 16, 3, 8))
    with pytest.raises(BadInput, match="pool 3"):
        MIIM(16, spatial_ratio=1, channel_ratio=2, ceil=False)(torch.zeros(1, 16, 6, 2))


def test_miim_alone_has_the_defaults_of_the_settings():
    alone = MIIM(16, spatial_ratio=1, channel_ratio=2).mining
    assert alone == Mining(spatial_ratio=(1,) * 4, channel_ratio=(2,) * 4)


def test_every_setting_reaches_each_miim():
    other = {
        "spatial_ratio": (2, 2, 1, 1), "channel_ratio": (4, 2, 2, 4), "pool": 2, "heads": 4, "ceil": False,
        "positions": "sincos2d", "key_positions": "pooled_centre", "positions_on": "qk", "upsampling": "nearest",
        "gate_input": "raw", "fusion": "add", "affine": False, "token_norm": True, "projection_bias": False,
        "attention": "fused",
    }  # fmt: skip
    assert set(other) == {f.name for f in fields(Mining)}
    assert all(value != getattr(Mining(), name) for name, value in other.items())
    network = wrim_net.build(replace(SMALL, mining=Mining(**other), miim=("shared",) * 4), 2)
    for stage, miim in enumerate(network.miims.values()):
        ratios = {name: (other[name][stage],) * 4 for name in ("spatial_ratio", "channel_ratio")}
        assert vars(miim.mining) == other | ratios
        assert miim.compress.kernel_size == (other["spatial_ratio"][stage],) * 2
        assert miim.query.in_features == miim.restore.out_features // other["channel_ratio"][stage]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_attention_paths_agree():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 8, count, 16) for count in (216, 24, 24))
    fused, plain, auto = (attend(q, k, v, path=path) for path in ("fused", "plain", "auto"))
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(auto, plain)
    many = torch.randn(2, 8, 216, 16)
    assert torch.equal(attend(q, many, many), attend(q, many, many, path="fused"))
    with pytest.raises(BadInput, match="attention path 'flash'"):
        attend(q, k, v, path="flash")  # type: ignore[arg-type]


def test_attention_by_hand():
    # Scores 0 and log 3 after the division by √4: weights 1/4 and 3/4.
    query = torch.tensor([[2 * math.log(3), 0.0, 0.0, 0.0]])
    key = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert attend(query, key, torch.tensor([[4.0], [8.0]])).item() == pytest.approx(7.0)


def test_position_tables_by_hand():
    assert sincos(torch.tensor([0, 2]), 4)[0].tolist() == [0, 1, 0, 1]
    wanted = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert sincos(torch.tensor([2]), 4)[0].tolist() == pytest.approx(wanted)
    assert sincos(torch.tensor([1.5]), 5).shape == (1, 5)
    vertical, horizontal = torch.arange(24), torch.arange(9)
    one = place(vertical, horizontal, 8, form="sincos1d", across=9)
    two = place(vertical, horizontal, 8, form="sincos2d", across=9)
    # Position (3, 2) of a grid nine wide is token 29.
    assert torch.equal(one[29], sincos(torch.tensor([29]), 8)[0])
    assert torch.equal(two[29], torch.cat((sincos(torch.tensor([3]), 4)[0], sincos(torch.tensor([2]), 4)[0])))


def test_window_centres_by_hand():
    # Nine positions in threes; eight, where the last window holds two.
    device = torch.device("cpu")
    assert window_centres(9, 3, 3, device).tolist() == [1, 4, 7]
    assert window_centres(8, 3, 3, device).tolist() == [1, 4, 6.5]
