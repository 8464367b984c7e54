"""WRIM-Net's parameters and FLOPs against those that the paper prints."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.oracles import wrim_net as oracle
from tests.recipes.test_wrim_net import NECK, RESNET50
from vireid.networks.cost import measure
from vireid.recipes import wrim_net
from vireid.recipes.wrim_net import (
    MIIM,
    PAPER,
    ROWS,
)
from vireid.training.configuration import with_fields

# --- the whole model's counts -----------------------------------------------------------------------------------------


def on_meta(row: str | None = None, **changes):
    config = replace(ROWS[row].config if row else PAPER, **changes)
    with torch.device("meta"):
        return wrim_net.build(config, 2)


def path_of(network: nn.Module) -> int:
    """Parameters that one visible picture meets, no classifier."""
    skipped = ("classifier", ".infrared.", "head.")
    return sum(p.numel() for name, p in network.named_parameters() if not any(word in name for word in skipped))


@pytest.mark.parametrize(
    "row, parameters, printed",
    [
        ("table3/baseline", RESNET50 + NECK, None),
        ("table6/cbam", 26_028_640, "26.03"),
        ("table6/non-local", 27_197_504, "27.20"),
        ("table6/miim", 29_009_344, "29.01"),
    ],
)
def test_parameters_of_a_path_with_one_neck(row, parameters, printed):
    assert path_of(on_meta(row, parts=0)) == parameters
    assert printed in (None, f"{parameters / 1e6:.2f}")


def test_both_copies_are_stored():
    assert sum(p.numel() for name, p in on_meta().named_parameters() if name.startswith("miims")) == 7_043_072


def test_the_variant_of_a_reading_note_has_the_printed_size():
    note = [
        "mining.affine=false",
        "mining.token_norm=true",
        "mining.projection_bias=false",
        "mining.upsampling=nearest",
    ]
    network = on_meta(mining=with_fields(PAPER, note).mining, parts=0, auxiliary=None, contrast=None)
    assert f"{path_of(network) / 1e6:.2f}" == "28.99"


@pytest.mark.parametrize(
    "row, ceil, modules, products",
    [
        ("table6/cbam", True, 6.245, 6.213),
        ("table6/non-local", True, 7.265, 7.608),
        ("table6/miim", True, 7.186, 7.150),
        ("table6/miim", False, 7.178, 7.139),
    ],
)
def test_table_6_was_counted_at_224x224(row, ceil, modules, products):
    """`modules` in billions by the rule that gives the printed 6.25, 7.27 and, within 0.1 %, 7.19."""
    network = on_meta(row, parts=0, mining=replace(PAPER.mining, ceil=ceil)).eval()
    images, visible = torch.zeros(1, 3, 224, 224, device="meta"), torch.tensor([0])
    total = oracle.operations_of_modules(network, lambda: network.embed(images, visible))
    if row == "table6/miim":
        # Stages 1 and 2 enlarge their gates (56×56 and 28×28): eleven operations for each output.
        total += 11 * (256 * 56**2 + 512 * 28**2)
    assert total / 1e9 == pytest.approx(modules, abs=0.0005)
    cost = measure(network, lambda given: network.embed(given, visible), images)
    assert cost.macs_path / 1e9 == pytest.approx(products, abs=0.0005)
    assert cost.parameters_path == path_of(network) - 2048  # the neck's bias is frozen and not counted there


def test_macs_at_the_papers_own_size():
    network = on_meta("table6/miim", parts=0)
    cost = measure(network, lambda x: network.embed(x, torch.tensor([1])), torch.zeros(1, 3, 384, 144, device="meta"))
    assert cost.macs_path / 1e9 == pytest.approx(7.877, abs=0.0005)


@pytest.mark.parametrize(
    "row, size, width", [("table3/full", (384, 144), 7168), ("table1/regdb-v2i", (256, 144), 17408)]
)
def test_embedding_width(row, size, width):
    network = on_meta(row).eval()
    assert tuple(ROWS[row].config.training.size) == size
    assert network.embed(torch.zeros(1, 3, *size, device="meta"), torch.tensor([0])).shape == (1, width)


@pytest.mark.parametrize("row, keys", [("table3/full", 24), ("table9/pool=1", 216), ("table1/regdb-v2i", 18)])
def test_how_many_regions_a_query_sees(row, keys):
    network = on_meta(row).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, MIIM):
            module.key.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    network.embed(torch.zeros(1, 3, *ROWS[row].config.training.size, device="meta"), torch.tensor([0]))
    assert seen == [keys] * 4
