"""PECA's memory, section 3.3: how it starts, is updated and is filled again, and its loss."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.oracles import peca as oracle
from tests.recipes.test_peca import EXACT, IDENTITY, MODALITY, R, V, a_batch, doubles, network
from vireid.recipes import peca

# --- the memory alone -------------------------------------------------------------------------------------------------


def a_memory(normalise: str = "each", order: str = "sequential", rate: float = 0.8) -> peca.CentroidMemory:
    memory = peca.CentroidMemory(4, 2, 6, rate=rate, normalise=normalise, order=order).double()  # type: ignore[arg-type]
    memory.centroids.copy_(functional.normalize(doubles(4, 2, 6, seed=3), dim=2))
    memory.centroids[3] = 0
    memory.centroids[2, V] = 0
    return memory


def test_four_visits_weigh_as_the_moving_average_says():
    """0.8·0.2³, 0.8·0.2², 0.8·0.2, 0.8, and 0.2⁴ for what was there, before normalisation."""
    memory = peca.CentroidMemory(1, 1, 5, normalise="never")
    memory.centroids[0, 0, 4] = 1
    memory.update(torch.eye(5)[:4], torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    weights = torch.tensor([0.0064, 0.032, 0.16, 0.8, 0.0016])
    torch.testing.assert_close(memory.centroids[0, 0], weights)
    once = peca.CentroidMemory(1, 1, 5, normalise="step")
    once.centroids[0, 0, 4] = 1
    once.update(torch.eye(5)[:4], torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(once.centroids[0, 0], weights / weights.norm())


@pytest.mark.parametrize("normalise", ["each", "step", "never"])
@pytest.mark.parametrize("order", ["sequential", "batch_mean"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_updates_against_sample_after_sample(normalise, order, data):
    cells = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=12))
    identity, modality = (list(column) for column in zip(*cells, strict=True))
    f, memory = doubles(len(cells), 6, seed=7), a_memory(normalise, order)
    expected = oracle.updated(memory.centroids, f, identity, modality, rate=0.8, normalise=normalise, order=order)
    memory.update(f, torch.tensor(identity), torch.tensor(modality))
    torch.testing.assert_close(memory.centroids, expected, **EXACT)


def test_no_samples_change_nothing():
    memory, nothing = a_memory(), torch.zeros(0, dtype=torch.int64)
    before = memory.centroids.clone()
    memory.update(doubles(0, 6), nothing, nothing)
    assert torch.equal(memory.centroids, before)


def test_the_start_is_the_mean_of_each_identity_and_modality():
    f, identity, modality = doubles(9, 6), IDENTITY, MODALITY
    memory = peca.CentroidMemory(4, 2, 6).double()
    pieces = [slice(0, 4), slice(4, 9)]
    memory.start((f[piece], identity[piece], modality[piece]) for piece in pieces)
    for y in range(4):
        for m in range(2):
            seen = [oracle.unit(f[i]) for i in range(9) if identity[i] == y and modality[i] == m]
            expected = oracle.unit(torch.stack(seen).mean(0)) if seen else torch.zeros(6, dtype=torch.float64)
            torch.testing.assert_close(memory.centroids[y, m], expected, **EXACT)


def test_modality_contrast_against_the_loop():
    """Seen and unseen centroids, and identity 3 without any."""
    f, memory = doubles(9, 6).requires_grad_(), a_memory()
    found = memory.loss(f, IDENTITY, MODALITY)
    expected = oracle.modality_contrast(
        f.detach(), IDENTITY.tolist(), MODALITY.tolist(), memory.centroids, temperature=0.10
    )
    assert found.item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(lambda x: memory.loss(x, IDENTITY, MODALITY), f)


def test_modality_contrast_by_hand():
    # Own centroids at cosine 1 and 0, one negative of the same modality at 0, τ = 1; the other modality's centroid of
    # the other identity, at cosine 1, is not compared: with z = e + 2, (-(1 - log z) + log z) / 2 = log z - 1/2.
    memory = peca.CentroidMemory(2, 2, 2)
    memory.centroids.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]))
    found = memory.loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([V]), temperature=1.0)
    assert found.item() == pytest.approx(math.log(math.e + 2) - 0.5)


def test_an_empty_memory_costs_nothing_and_keeps_a_graph():
    f = torch.randn(3, 4, requires_grad=True)
    loss = peca.CentroidMemory(3, 2, 4).loss(f, torch.arange(3), torch.tensor([V, R, V]))
    loss.backward()
    assert loss.item() == 0 and f.grad is not None


def test_the_memory_may_be_updated_between_loss_and_backward():
    f, memory = doubles(9, 6).requires_grad_(), a_memory()
    (expected,) = torch.autograd.grad(memory.loss(f, IDENTITY, MODALITY), f)
    loss = memory.loss(f, IDENTITY, MODALITY)
    memory.update(f, IDENTITY, MODALITY)
    loss.backward()
    assert torch.equal(f.grad, expected)
    assert not memory.centroids.requires_grad


# --- the memory of a network ------------------------------------------------------------------------------------------


def of_strangers(memory: peca.CentroidMemory) -> torch.Tensor:
    """Cosines between the visible centroids of different identities."""
    centroids = memory.centroids[memory.centroids[:, V].any(1), V]
    return (centroids @ centroids.T)[~torch.eye(len(centroids), dtype=torch.bool)]


def test_a_calibrated_neck_tells_strangers_apart_from_the_start():
    pictures = [a_batch(identities=5, seed=seed) for seed in (1, 2)]
    found, statistics = {}, {}
    for start in ("calibrated", "extract", "first_seen"):
        net = network(modality=peca.ModalityContrast(start=start)).eval()  # type: ignore[arg-type]
        net.before_training(pictures)
        found[start], statistics[start] = net.memory, net.encoder.neck.bn
    assert of_strangers(found["extract"]).min() > 0.95
    assert of_strangers(found["calibrated"]).abs().max() < 0.9 and of_strangers(found["calibrated"]).mean() < 0.1
    assert not found["first_seen"].centroids.any()
    with torch.no_grad():
        pooled = torch.cat([net.encoder.pooled(b.images, b.modality) for b in pictures]).double()
    mean, variance = pooled.mean(0), pooled.var(0)
    torch.testing.assert_close(statistics["calibrated"].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(statistics["calibrated"].running_var.double(), variance, rtol=1e-5, atol=1e-6)
    for start in ("extract", "first_seen"):
        assert not statistics[start].running_mean.any() and (statistics[start].running_var == 1).all()
    # Equations 7 and 8 on features that have mean 0 and variance 1 over all pictures, an ε of 1e-5 apart.
    f = (pooled - mean) / (variance + 1e-5).sqrt()
    own = torch.cat([(b.identity == 3) & (b.modality == R) for b in pictures])
    expected = oracle.unit(torch.stack([oracle.unit(one) for one in f[own]]).mean(0))
    torch.testing.assert_close(found["calibrated"].centroids[3, R].double(), expected, rtol=1e-3, atol=1e-4)


def test_before_the_neck_there_is_nothing_to_calibrate_and_no_pictures_change_nothing():
    net = network(metric_features="pool").eval()
    net.before_training([a_batch()])
    f = functional.normalize(net.encoder.pooled(a_batch().images, a_batch().modality).detach())
    first = functional.normalize(f[:2].mean(0), dim=0)
    torch.testing.assert_close(net.memory.centroids[0, V], first)
    before = {key: value.clone() for key, value in net.named_buffers() if "neck" in key}
    net.before_training([])
    assert all(torch.equal(value, before[key]) for key, value in net.named_buffers() if "neck" in key)


@pytest.mark.parametrize("refill", [True, False])
def test_the_memory_is_filled_again_only_where_the_setting_says_so(refill):
    net, pictures = network(modality=peca.ModalityContrast(refill=refill)), [a_batch(seed=1)]
    net.eval().before_training(pictures)
    net.train().objective(a_batch(seed=2))
    net.eval()
    statistics = net.encoder.neck.bn.running_mean.clone()
    before, again = net.memory.centroids.clone(), copy.deepcopy(net.memory)
    net.before_epoch(pictures)
    f = net.features(pictures[0].images, pictures[0].modality)["bn"].detach()
    again.start([(f, pictures[0].identity, pictures[0].modality)])
    assert torch.equal(net.memory.centroids, again.centroids if refill else before)
    assert not torch.equal(again.centroids, before)
    assert torch.equal(net.encoder.neck.bn.running_mean, statistics)  # by now training has given them


def test_the_memory_resumes_exactly_and_rests_outside_training():
    net, batch = network(), a_batch()
    net.before_training([batch])
    net.objective(batch)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = network()
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (net, other):
        each.objective(replace(batch, seed=4))
    assert torch.equal(net.memory.centroids, other.memory.centroids)
    kept = net.memory.centroids.clone()
    net.eval().objective(batch)
    assert torch.equal(net.memory.centroids, kept)
