"""PECA's global-local similarity learning, section 3.1: the loss, the three parts, and what they leave unchanged."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles import peca as oracle
from tests.recipes.test_peca import a_batch, doubles, network
from vireid.recipes import peca

# --- global-local similarity ------------------------------------------------------------------------------------------


def test_similarity_against_the_loop_and_by_hand():
    g, s = doubles(5, 12), doubles(5, 12, seed=1)
    assert peca.similarity_loss(g, s).item() == pytest.approx(oracle.similarity(g, s), rel=1e-12)
    # (3, 4) against (4, 3): cosine 24/25; a vector and its double: 1. Mean 0.98.
    two = peca.similarity_loss(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [2.0, 0.0]]))
    assert two.item() == pytest.approx(-0.98)


def test_similarity_pulls_at_the_global_side_only():
    g, s = doubles(3, 6).requires_grad_(), doubles(3, 6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: peca.similarity_loss(x, s.detach()), g)
    peca.similarity_loss(g, s).backward()
    assert g.grad is not None and s.grad is None


@given(st.integers(3, 100))
def test_the_three_parts_are_equal_cover_the_picture_and_share_one_line_at_most(height):
    lines = torch.arange(float(height)).view(1, 1, height, 1)
    upper, middle, lower = peca.three_parts(lines)[:, 0, :, 0].int().tolist()
    assert upper[0] == 0 and lower[-1] == height - 1
    assert set(upper) | set(middle) | set(lower) == set(range(height))
    assert len(upper) == len(middle) == len(lower) == math.ceil(height / 3)
    assert max(len(set(upper) & set(middle)), len(set(middle) & set(lower))) <= (1 if height % 3 else 0)


def test_the_papers_size_is_cut_into_96_lines_each_in_the_order_of_the_pictures():
    images = torch.arange(2 * 288).view(2, 1, 288, 1)
    parts = peca.three_parts(images)
    assert parts.shape == (6, 1, 96, 1)
    assert torch.equal(parts[4], images[0, :, 192:])


def test_projections_share_nothing_and_are_told_apart_by_order():
    projections = peca.LocalProjections(8, hidden=4, between="bn_relu")
    assert sum(p.numel() for p in projections.parameters()) == 3 * (8 * 4 + 2 * 4 + 4 * 8 + 8)
    f = torch.randn(6, 8)
    told = projections(f)
    assert told.shape == (6, 24)
    torch.testing.assert_close(told[:, 8:16], projections.get_submodule("middle")(f))


def test_what_is_between_the_two_layers():
    """`none`: two linear layers and nothing else, so the three predictions are linear in the feature."""
    f, g = doubles(4, 8), doubles(4, 8, seed=1)
    plain, with_relu = (peca.LocalProjections(8, hidden=4, between=between).double() for between in ("none", "bn_relu"))  # type: ignore[arg-type]
    kinds = [type(layer).__name__ for layer in plain.get_submodule("lower").children()]
    assert kinds == ["Linear", "Linear"]
    torch.testing.assert_close(plain(f + g), plain(f) + plain(g) - plain(torch.zeros_like(f)))
    assert not torch.allclose(with_relu(f + g), with_relu(f) + with_relu(g) - with_relu(torch.zeros_like(f)))
    assert sum(p.numel() for p in plain.parameters()) == 3 * (8 * 4 + 4 + 4 * 8 + 8)
    assert len(list(network(gsl=peca.GSL(between="none")).projections.upper)) == 2


def statistics_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.named_buffers() if "running" in k or "tracked" in k}


def test_the_local_pass_leaves_running_statistics_bit_for_bit_and_modes_as_they_were():
    net, batch = network(), a_batch()
    before, modes = statistics_of(net), [m.training for m in net.modules()]
    net.local_features(batch.images, batch.modality)
    after = statistics_of(net)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert modes == [m.training for m in net.modules()]
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_a_step_moves_the_running_statistics_as_without_gsl():
    batch = a_batch()
    # The same start values, with and without the local branch.
    one, other = network(ical=None), network(ical=None, gsl=None)
    one.objective(batch)
    other.objective(batch)
    with_gsl, without = statistics_of(one), statistics_of(other)
    encoder = [key for key in with_gsl if not key.startswith("projections")]
    assert encoder == list(without) and all(torch.equal(with_gsl[key], without[key]) for key in encoder)


@pytest.mark.parametrize(("statistics", "moves"), [("batch_stats_no_update", False), ("eval", False), ("train", True)])
def test_what_normalises_the_parts_is_a_choice(statistics, moves):
    net, batch = network(gsl=peca.GSL(statistics=statistics)), a_batch()
    before = statistics_of(net)
    found = net.local_features(batch.images, batch.modality)
    after = statistics_of(net)
    assert moves == any(not torch.equal(before[key], after[key]) for key in before)
    net.load_state_dict({**net.state_dict(), **before})
    if statistics == "eval":
        net.eval()
    parts = peca.three_parts(batch.images)
    plain = net.features(parts, batch.modality.repeat(3))["bn"]
    torch.testing.assert_close(found, torch.cat((plain[:12], plain[12:24], plain[24:]), 1))


def test_the_local_branch_adds_no_gradient():
    """The encoder's gradient of L_sim is that of the global side against constants."""
    net, batch = network(ical=None, instance=None, modality=None), a_batch()
    twin = copy.deepcopy(net)
    net.objective(batch)["similarity"].backward()
    constants = twin.local_features(batch.images, batch.modality)
    assert not constants.requires_grad
    features = twin.features(batch.images, batch.modality)["bn"]
    twin.similarity = peca.similarity_loss(twin.projections(features), constants)
    twin.similarity.backward()
    weights = [key for key, value in net.named_parameters() if value.grad is not None]
    assert "encoder.stages.layer1.0.conv1.weight" in weights
    for key in weights:
        assert torch.equal(net.get_parameter(key).grad, twin.get_parameter(key).grad), key


def test_stretched_parts_have_the_pictures_size():
    net, batch = network(gsl=peca.GSL(part_resize="full", input="pool")), a_batch()
    seen = []
    net.encoder.stages.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    assert net.local_features(batch.images, batch.modality).shape == (12, 3 * 256)
    assert seen == [(36, 32, 12, 6)]
