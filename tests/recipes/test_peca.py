"""PECA's parts against the printed equations, and the network's promises about gradients, statistics and memory."""

from __future__ import annotations

import copy
import io
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.oracles import peca as oracle
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.figures.sweep import swept
from vireid.losses.distance import paired
from vireid.recipes import agw, peca
from vireid.training.configuration import with_fields

V, R, A = (int(m) for m in (Modality.VISIBLE, Modality.INFRARED, Modality.AUXILIARY))
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def a_batch(*, identities: int = 3, each: int = 2, size: tuple[int, int] = (48, 24), seed: int = 0) -> Batch:
    """`each` visible and `each` infrared pictures of each identity."""
    identity = torch.arange(identities).repeat_interleave(2 * each)
    modality = torch.tensor([V] * each + [R] * each).repeat(identities)
    images = torch.randn(len(identity), 3, *size, generator=torch.Generator().manual_seed(seed))
    return Batch(images + identity.view(-1, 1, 1, 1) * 0.3, identity, modality, modality + 1, seed=seed)


SMALL = with_fields(peca.PAPER, {"trunk": "tiny", "weights": "none", "size": Size(48, 24)})


def network(**changes) -> peca.PECA:
    torch.manual_seed(0)
    return peca.build(replace(SMALL, **changes), 5).train()


# --- channel aggregation ----------------------------------------------------------------------------------------------


def test_every_generated_picture_is_one_of_its_parents_six():
    identity = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 3])
    modality = torch.tensor([V, R, R, R, V, V, V, R, R])  # identity 2 has no infrared sample, identity 3 no visible one
    images = torch.rand(9, 3, 4, 2)
    generator = torch.Generator().manual_seed(1)
    made, visible, infrared = peca.aggregate_channels(images, identity, modality, generator=generator)
    assert visible.tolist() == [0, 4, 5]
    assert (modality[infrared] == R).all() and torch.equal(identity[visible], identity[infrared])
    for picture, v, r in zip(made, visible, infrared, strict=True):
        patterns = oracle.channel_patterns(images[v], images[r])
        assert sum(torch.equal(picture, pattern) for pattern in patterns) == 1


def test_patterns_and_partners_are_drawn_uniformly():
    count, partners = 3000, 4
    identity = torch.zeros(count + partners, dtype=torch.int64)
    modality = torch.tensor([V] * count + [R] * partners)
    images = torch.arange(3.0).view(1, 3, 1, 1).repeat(count + partners, 1, 1, 1)
    images[count:] += 10
    made, _, infrared = peca.aggregate_channels(images, identity, modality, generator=torch.Generator().manual_seed(0))
    kinds = (made[:, :, 0, 0] < 10).int().unique(dim=0, return_counts=True)
    assert sorted(map(tuple, kinds[0].tolist())) == sorted(peca.KEPT)
    assert (kinds[1] - count / 6).abs().max() < 5 * math.sqrt(count * 5 / 36)
    drawn = infrared.bincount(minlength=count + partners)[count:]
    assert (drawn - count / 4).abs().max() < 5 * math.sqrt(count * 3 / 16)


def test_the_same_generator_draws_the_same_samples_and_bytes_stay_bytes():
    batch = a_batch()
    images = (batch.images.clamp(0, 1) * 255).to(torch.uint8)
    once, again = (
        peca.aggregate_channels(images, batch.identity, batch.modality, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert once[0].dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_no_partner_no_picture():
    images = torch.rand(2, 3, 2, 2)
    for modality in ([V, V], [R, R], [V, R]):
        made, visible, infrared = peca.aggregate_channels(images, torch.tensor([0, 1]), torch.tensor(modality))
        assert made.shape == (0, 3, 2, 2) and len(visible) == len(infrared) == 0


def test_auxiliary_samples_stand_behind_and_serve_another_recipe():
    batch = a_batch()
    grown, visible, infrared = peca.with_auxiliary_samples(batch)
    assert torch.equal(grown.images[:12], batch.images) and grown.modality[12:].tolist() == [A] * 6
    assert torch.equal(grown.identity[12:], batch.identity[visible])
    assert torch.equal(grown.identity[12:], batch.identity[infrared])
    as_visible, *_ = peca.with_auxiliary_samples(batch, modality=Modality.VISIBLE)
    torch.manual_seed(0)
    other = agw.build(with_fields(agw.PAPER, {"trunk": "tiny"}), 5).train()
    terms = other.objective(as_visible)
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.mark.parametrize("form", ["hinge", "abs", "hinge_sq"])
def test_mixing_against_the_loop(form):
    distance = torch.tensor([0.0, 0.3, 0.69, 0.71, 1.2, 2.0], dtype=torch.float64, requires_grad=True)
    found = peca.mixing_loss(distance, form=form)
    assert found.item() == pytest.approx(oracle.mixing(distance.tolist(), margin=0.7, form=form), rel=1e-12)
    assert torch.autograd.gradcheck(lambda d: peca.mixing_loss(d, form=form), distance)


def test_mixing_by_hand():
    distance = torch.tensor([0.5, 1.0])
    found = {form: peca.mixing_loss(distance, form=form).item() for form in ("hinge", "abs", "hinge_sq")}
    assert found == pytest.approx({"hinge": 0.15, "abs": 0.25, "hinge_sq": 0.045})
    assert peca.mixing_loss(distance[:0]).item() == 0
    with pytest.raises(BadInput, match="hinge, abs, hinge_sq"):
        peca.mixing_loss(distance, form="square")  # type: ignore[arg-type]


def test_as_printed_the_mixing_loss_pushes_near_pairs_apart_and_the_hinge_does_not():
    for form, slope in (("hinge", 0.0), ("abs", -1.0), ("hinge_sq", 0.0)):
        near = torch.tensor([0.4], requires_grad=True)
        peca.mixing_loss(near, form=form).backward()  # type: ignore[arg-type]
        assert near.grad.item() == slope


def test_a_margin_of_0_7_is_a_cosine_of_0_755():
    angle = math.acos(0.755)
    f, g = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert paired(f, g).item() == pytest.approx(0.7, abs=1e-6)


# --- instance and modality contrast -----------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", [[V, V, V, R, R], [V, R, A, A, A], [R] * 5])
def test_identity_loss_against_the_loop(modality):
    logits, identity = doubles(5, 4).requires_grad_(), torch.tensor([0, 3, 3, 1, 2])
    found = peca.identity_loss(logits, identity, torch.tensor(modality), scale="sum_of_means")
    expected = oracle.cross_entropy_by_modality(logits.detach(), identity.tolist(), modality)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: peca.identity_loss(x, identity, torch.tensor(modality), scale="sum_of_means"), logits
    )


def test_identity_loss_by_hand_is_twice_the_batch_mean_for_equal_modalities():
    logits, identity, modality = torch.zeros(4, 5), torch.tensor([0, 1, 2, 3]), torch.tensor([V, R, R, V])
    found = {
        scale: peca.identity_loss(logits, identity, modality, scale=scale).item()
        for scale in ("sum_of_means", "batch_mean")
    }
    assert found["sum_of_means"] == pytest.approx(2 * math.log(5))
    assert found["batch_mean"] == pytest.approx(math.log(5))


IDENTITY = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 0])
MODALITY = torch.tensor([V, R, V, V, R, R, R, V, R])


@pytest.mark.parametrize("negatives", [1, 3, 50])
@pytest.mark.parametrize("cross", [False, True])
def test_instance_contrast_against_the_loop(negatives, cross):
    f = doubles(9, 4).requires_grad_()
    modality = MODALITY if cross else None
    found = peca.instance_contrast(f, IDENTITY, negatives=negatives, modality=modality)
    expected = oracle.instance_contrast(
        f.detach(),
        IDENTITY.tolist(),
        negatives=negatives,
        temperature=0.15,
        modality=MODALITY.tolist() if cross else None,
    )
    assert found.item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda x: peca.instance_contrast(x, IDENTITY, negatives=negatives, modality=modality), f
    )


def test_instance_contrast_by_hand():
    # Two people along two axes: a positive at cosine 1, two negatives at 0, τ = 1: -log(e / (e + 2)).
    f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = peca.instance_contrast(f, torch.tensor([0, 0, 1, 1]), temperature=1.0)
    assert found.item() == pytest.approx(math.log(1 + 2 / math.e))


def test_collapsed_features_give_the_logarithm_of_what_is_compared():
    """8 × (4 + 4) samples in one point: one positive and 50 of the 56 negatives."""
    identity = torch.arange(8).repeat_interleave(8)
    assert peca.instance_contrast(torch.ones(64, 3), identity).item() == pytest.approx(math.log(51), rel=1e-6)


def test_instance_contrast_without_pairs_is_zero_with_a_graph():
    f = torch.randn(3, 4, requires_grad=True)
    peca.instance_contrast(f, torch.arange(3)).backward()
    assert f.grad is not None and not f.grad.any()


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


# --- network ----------------------------------------------------------------------------------------------------------


def test_the_objective_is_the_papers_sum_from_the_features():
    """With ICAL off nothing is drawn: every term follows from one forward pass by the loops."""
    net, batch = network(ical=None), a_batch()
    net.before_training([batch])
    twin = copy.deepcopy(net)
    terms = net.objective(batch)
    with torch.no_grad():
        f = twin.features(batch.images, batch.modality)
        told = twin.projections(f["bn"])
    b, identity, modality = f["bn"].double(), batch.identity.tolist(), batch.modality.tolist()
    expected = {
        "identity": oracle.cross_entropy_by_modality(twin.classifier(f["bn"]), identity, modality),
        "similarity": oracle.similarity(told, twin.local_features(batch.images, batch.modality)),
        "instance": oracle.instance_contrast(b, identity, negatives=50, temperature=0.15),
        "modality": 0.5 * oracle.modality_contrast(b, identity, modality, twin.memory.centroids, temperature=0.10),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    after = oracle.updated(twin.memory.centroids.double(), b, identity, modality, rate=0.8, normalise="each")
    torch.testing.assert_close(net.memory.centroids.double(), after, rtol=1e-4, atol=1e-5)


def test_the_mixing_term_measures_each_auxiliary_sample_against_its_two_parents():
    net, batch = network(exchange=None, erasing=None, gsl=None, instance=None, modality=None), a_batch()
    twin = copy.deepcopy(net)
    term = net.objective(batch)["mixing"].item()
    grown, visible, infrared = peca.with_auxiliary_samples(batch)
    with torch.no_grad():
        f = functional.normalize(twin.features(grown.images, grown.modality)["bn"].double())
    pairs = [[float((f[i] - f[12 + g]).norm()) for g, i in enumerate(parents)] for parents in (visible, infrared)]
    expected = sum(oracle.mixing(distances, margin=0.7, form="hinge") for distances in pairs)
    assert term == pytest.approx(expected, rel=1e-4)


def test_auxiliary_samples_are_made_before_colours_change_or_after():
    batch = a_batch()
    seen = {}
    for source in ("before_colour_aug", "after_colour_aug"):
        config = replace(SMALL, ical=peca.ICAL(source=source))  # type: ignore[arg-type]
        samples, visible, infrared = peca.build(config, 5)._samples(batch)
        pipeline = config.augmentation()
        seen[source] = (len(pipeline.visible), not torch.equal(samples.images[:12], batch.images))
        for picture, v, r in zip(samples.images[12:], visible, infrared, strict=True):
            patterns = oracle.channel_patterns(batch.images[v], batch.images[r])
            assert any(torch.equal(picture, pattern) for pattern in patterns)
        assert torch.equal(samples.images[:12][batch.modality == R], batch.images[batch.modality == R])
    assert seen == {"before_colour_aug": (0, True), "after_colour_aug": (2, False)}


@pytest.mark.parametrize("field", ["in_ce", "in_ins", "in_mod"])
def test_auxiliary_samples_may_take_part_in_the_other_terms(field):
    net, batch = network(ical=peca.ICAL(**{field: True})), a_batch()
    plain = network()
    for each in (net, plain):
        each.before_training([batch])
        each.objective(batch)
    term = {"in_ce": "identity", "in_ins": "instance", "in_mod": "modality"}[field]
    changed, before = net.objective(batch), plain.objective(batch)
    differ = {name for name in before if not torch.allclose(changed[name], before[name], rtol=1e-4)}
    assert differ == {term}
    assert net.memory.centroids.shape[1] == (3 if field == "in_mod" else 2)


def test_a_part_that_is_off_is_not_built():
    bare = network(gsl=None, ical=None, instance=None, modality=None, non_local=None)
    assert bare.memory is None and bare.projections is None
    assert list(bare.encoder.stems.copies) == ["visible", "infrared"]
    assert list(bare.objective(a_batch())) == ["identity"]
    assert list(network().encoder.stems.copies) == ["visible", "infrared", "auxiliary"]


def trained_on(assignment: str) -> dict[str, float]:
    """The terms of two steps of a network with these settings, and the sum of each of two features after them."""
    torch.manual_seed(0)
    net = peca.build(with_fields(SMALL, assignment.split()), 5)
    net.eval().before_training([a_batch(seed=9)])
    net.train()
    steps = [net.objective(a_batch(seed=seed)) for seed in (0, 1)]
    found = {f"{name} {step}": term.item() for step, terms in enumerate(steps) for name, term in terms.items()}
    sums = net.eval().embed(a_batch().images[:4], torch.tensor([V, V, R, R])).sum(1).tolist()
    return found | {"visible feature": sums[0], "infrared feature": sums[2]}


@pytest.mark.parametrize(
    ("assignments", "term"),
    [
        ("gsl.hidden=64 gsl.input=pool gsl.statistics=eval gsl.part_resize=full", "similarity 0"),
        ("ical.margin=0.2 ical.mix=hinge_sq", "mixing 0"),
        ("instance.temperature=0.5 instance.negatives=2 instance.positives=cross_modality", "instance 0"),
        ("modality.temperature=0.5 modality.weight=0.25 modality.start=first_seen", "modality 0"),
        ("modality.rate=0.5 modality.order=batch_mean modality.normalise=never", "modality 1"),
        ("ce_scale=batch_mean", "identity 0"),
        ("metric_features=pool", "instance 0"),
        ("gem_power=2.0 exchange=null erasing=null", "visible feature"),
        ("erase_infrared=true", "infrared feature"),
    ],
)
def test_every_setting_reaches_what_is_trained(assignments, term):
    plain = trained_on("")
    for assignment in assignments.split():
        assert trained_on(assignment)[term] != plain[term], assignment


def test_settings_of_the_triplet_and_of_the_memory_reach_them():
    m1 = "ical=null gsl=null modality=null instance=Triplet"
    hard = f"{m1} instance.kind=batch_hard"
    found = [trained_on(each)["triplet 0"] for each in (m1, hard, f"{hard} instance.margin=0.6")]
    assert len(set(found)) == 3
    with pytest.raises(BadInput, match="sequential, batch_mean"):
        peca.CentroidMemory(2, 2, 4, order="random")  # type: ignore[arg-type]


def test_an_argument_without_a_default_cannot_be_forgotten():
    with pytest.raises(TypeError, match="hidden"):
        peca.LocalProjections(4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="scale"):
        peca.identity_loss(torch.zeros(2, 2), torch.arange(2), torch.arange(2))  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", ["weighted", "batch_hard"])
def test_row_m1_trains_on_a_triplet_instead(kind):
    config = with_fields(peca.ROWS["table3/m1"].config, ["trunk=tiny", "weights=none", f"instance.kind={kind}"])
    terms = peca.build(config, 5).objective(a_batch())
    assert list(terms) == ["identity", "triplet"]


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


def test_half_precision_leaves_every_gradient():
    """The pass without a gradient must not leave weights behind that autocast has cut from the graph."""
    net, batch = network(non_local=None), a_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = net.objective(batch)
    torch.stack(list(terms.values())).sum().backward()
    idle = [key for key, value in net.named_parameters() if value.requires_grad and value.grad is None]
    assert not idle and terms["instance"].dtype == torch.float32


@pytest.mark.parametrize(
    ("assignment", "names"),
    [
        ("instance.temperature=0", "instance.temperature"),
        ("modality.rate=1.5", "modality.rate"),
        ("ical.margin=-1", "ical.margin"),
        ("gsl.hidden=0", "gsl.hidden"),
        ("ical.mix=square", "hinge"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(assignment, names):
    with pytest.raises(BadInput, match=re.escape(names)):
        with_fields(peca.PAPER, [assignment])


def test_the_rows_of_figures_4_to_6_are_curves_through_pecas_own_point():
    for table in ("figure4", "figure5", "figure6"):
        (rows,) = swept(name for name in peca.ROWS if name.startswith(f"{table}/")).values()
        places = [value for value, _ in rows]
        assert places == sorted(places) and len(places) >= 5
    own = [name for name, row in peca.ROWS.items() if name.startswith("figure") and row.config == peca.PAPER]
    assert own == ["figure4/tau_ins=0.15", "figure5/tau_mod=0.10", "figure6/lambda_m=0.50"]


@pytest.mark.process
def test_two_processes_keep_one_memory(tmp_path):
    """Each gets other identities; after two steps both hold the same centroids, those of all identities."""
    code = f"""
import sys, time, torch
from pathlib import Path
import torch.distributed as distributed
from vireid.data.batch import Batch
from vireid.recipes import peca
from vireid.training.configuration import with_fields

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://{tmp_path}/meet", rank=rank, world_size=2)
torch.manual_seed(0)
torch.set_num_threads(1)
network = peca.build(with_fields(peca.PAPER, ["trunk=tiny", "gsl=null"]), 4).train()
identity = torch.arange(2).repeat_interleave(4) + 2 * rank
modality = torch.tensor([0, 0, 1, 1] * 2)
images = torch.randn(8, 3, 48, 24, generator=torch.Generator().manual_seed(rank))
for seed in range(2):
    network.objective(Batch(images, identity, modality, modality, seed=10 * seed + rank))
torch.save(network.memory.centroids, "{tmp_path}/" + str(rank))
while not Path("{tmp_path}", str(1 - rank)).exists():
    time.sleep(0.02)  # who leaves first closes the connection on which the other may still be receiving
distributed.destroy_process_group()
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    first, second = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.norm(dim=2), torch.ones(4, 2))
