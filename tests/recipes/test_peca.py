"""PECA's parts against the printed equations, and the network's promises about gradients, statistics and memory."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.oracles import losses as losses_oracle
from tests.oracles import peca as oracle
from vireid.augment.aggregation import with_auxiliary_samples
from vireid.augment.operation import augmented
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.figures.sweep import swept
from vireid.recipes import peca
from vireid.training.configuration import describe, with_fields

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


# --- network ----------------------------------------------------------------------------------------------------------


# Each setting of a term as printed, and another value of it, so that one that is not passed on is seen.
SETTINGS = {
    "instance.temperature": (0.15, 0.4),
    "instance.negatives": (50, 5),
    "instance.positives": ("any", "cross_modality"),
    "modality.temperature": (0.10, 0.3),
    "modality.weight": (0.5, 0.25),
    "modality.rate": (0.8, 0.5),
    "modality.order": ("sequential", "batch_mean"),
    "modality.normalise": ("each", "step"),
    "ical.margin": (0.7, 0.3),
    "ical.mix": ("hinge", "hinge_sq"),
    "ical.in_ce": (False, True),
    "ical.in_ins": (False, True),
    "ical.in_mod": (False, True),
    "ce_scale": ("sum_of_means", "batch_mean"),
    "metric_features": ("bn", "pool"),
    "gsl.input": ("bn", "pool"),
}
PRINTED, OTHERS = ({path: pair[place] for path, pair in SETTINGS.items()} for place in (0, 1))


def expected_terms(twin: peca.PECA, batch: Batch, how: dict) -> tuple[dict[str, float], torch.Tensor]:
    """The terms by the loops, from one pass over what the network sees; and the memory after the step."""
    real, generator = len(batch), batch.generator()
    seen, visible, infrared = with_auxiliary_samples(batch, generator=generator)
    coloured = (seen.modality == V).nonzero()[:, 0]
    for operation in (twin.config.erasing, twin.config.exchange):
        seen.images[coloured] = augmented(operation, seen.images[coloured], generator)
    with torch.no_grad():
        local = twin.local_features(seen.images[:real], seen.modality[:real])
        f = twin.features(seen.images, seen.modality)
        told = twin.projections(f[how["gsl.input"]][:real])
        logits = twin.classifier(f["bn"])
    metric, identity, modality = f[how["metric_features"]].double(), seen.identity.tolist(), seen.modality.tolist()
    ce, ins, mod = (real + len(visible) * how[f"ical.{name}"] for name in ("in_ce", "in_ins", "in_mod"))
    one_group = [0] * ce
    groups = modality[:ce] if how["ce_scale"] == "sum_of_means" else one_group
    units = [oracle.unit(feature) for feature in metric]
    distances = [
        [float((units[parent] - units[real + g]).norm()) for g, parent in enumerate(parents.tolist())]
        for parents in (visible, infrared)
    ]
    centroids, samples = twin.memory.centroids.double(), (metric[:mod], identity[:mod], modality[:mod])
    contrast = oracle.instance_contrast(
        metric[:ins], identity[:ins], negatives=how["instance.negatives"], temperature=how["instance.temperature"],
        modality=modality[:ins] if how["instance.positives"] == "cross_modality" else None,
    )  # fmt: skip
    of_memory = oracle.modality_contrast(*samples, centroids, temperature=how["modality.temperature"])
    terms = {
        "identity": oracle.cross_entropy_by_modality(logits[:ce], identity[:ce], groups),
        "similarity": oracle.similarity(told, local),
        "mixing": sum(oracle.mixing(each, margin=how["ical.margin"], form=how["ical.mix"]) for each in distances),
        "instance": contrast,
        "modality": how["modality.weight"] * of_memory,
    }
    update = {name: how[f"modality.{name}"] for name in ("rate", "normalise", "order")}
    return terms, oracle.updated(centroids, *samples, **update)


@pytest.mark.parametrize("how", [PRINTED, OTHERS], ids=["printed", "others"])
def test_the_objective_is_the_papers_sum_from_the_features(how):
    """8 × (4 + 4) samples as in the paper, with everything on: every term follows from one pass by the loops."""
    changes = OTHERS if how is OTHERS else {}
    torch.manual_seed(0)
    net = peca.build(with_fields(SMALL, {**changes, "exchange": "ChannelExchange", "erasing.p": 1.0}), 9).train()
    torch.nn.init.normal_(net.classifier.linear.weight, std=0.1)
    batch = a_batch(identities=8, each=4)
    net.eval().before_training([a_batch(identities=8, each=4, seed=3)])
    net.train()
    expected, memory = expected_terms(copy.deepcopy(net), batch, how)
    assert {name: term.item() for name, term in net.objective(batch).items()} == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(net.memory.centroids.double(), memory, rtol=1e-4, atol=1e-5)


def test_the_printed_settings():
    training = peca.PAPER.training
    assert (training.epochs, training.size, training.epoch_length) == (100, Size(288, 144), "agw")
    assert (training.identities_per_batch, training.visible_per_identity, training.infrared_per_identity) == (8, 4, 4)
    assert (training.optimiser.lr, training.optimiser.trunk_factor, training.trunk) == (0.1, 0.1, "resnet50")
    factors = [training.schedule.factor(epoch, 0, 100) for epoch in (0, 9, 19, 20, 49, 50, 99)]
    assert factors == pytest.approx([0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    found = {field.path: field.default for field in describe(peca.PAPER)}
    assert {path: found[path] for path in PRINTED} == PRINTED
    assert (found["gem_power"], found["non_local"], found["gsl.hidden"], found["gsl.between"]) == (
        3.0, "code", 512, "bn_relu",
    )  # fmt: skip


@pytest.mark.parametrize("source", ["before_colour_aug", "after_colour_aug"])
@pytest.mark.parametrize("erase_infrared", [True, False])
def test_erasing_comes_before_exchange_and_reaches_infrared_samples_only_if_told(source, erase_infrared):
    config = replace(SMALL, ical=peca.ICAL(source=source), erase_infrared=erase_infrared)
    late = source == "before_colour_aug"
    found, other = config.colour(late=late), config.colour(late=not late)
    assert found == {"visible": (config.erasing, config.exchange), "infrared": (config.erasing,) * erase_infrared}
    assert not other
    pipeline = config.augmentation()
    there = (pipeline.visible, pipeline.infrared)
    assert there == (((), ()) if late else (found["visible"], found["infrared"]))


@pytest.mark.parametrize("erase_infrared", [True, False])
def test_late_erasing_of_infrared_samples(erase_infrared):
    config = with_fields(SMALL, {"erasing.p": 1.0, "erase_infrared": erase_infrared, "exchange": None})
    batch = a_batch()
    samples, *_ = peca.build(config, 5)._samples(batch)
    erased = (samples.images[:12] != batch.images).flatten(1).any(1)
    assert erased[batch.modality == V].all()
    assert bool(erased[batch.modality == R].all()) == bool(erased[batch.modality == R].any()) == erase_infrared


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
        ("gsl.hidden=64 gsl.input=pool gsl.statistics=eval gsl.between=none gsl.part_resize=full", "similarity 0"),
        ("ical.margin=0.2 ical.mix=hinge_sq", "mixing 0"),
        ("instance.temperature=0.5 instance.negatives=2 instance.positives=cross_modality", "instance 0"),
        (
            "modality.temperature=0.5 modality.weight=0.25 modality.start=first_seen modality.start=extract",
            "modality 0",
        ),
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


@pytest.mark.parametrize("kind", ["weighted", "squared_difference", "batch_hard"])
def test_row_m1_trains_on_a_triplet_instead(kind):
    config = with_fields(peca.ROWS["table3/m1"].config, ["trunk=tiny", "weights=none", f"instance.kind={kind}"])
    assert peca.ROWS["table3/m1"].config.instance == peca.Triplet(kind="weighted", margin=0.3)
    torch.manual_seed(0)
    net, batch = peca.build(config, 5), a_batch()
    pooled = copy.deepcopy(net).features(batch.images, batch.modality)["pool"].detach().double().tolist()
    terms = net.objective(batch)
    assert list(terms) == ["identity", "triplet"]
    samples = pooled, batch.identity.tolist()
    if kind == "batch_hard":
        expected = losses_oracle.batch_hard_triplet(*samples, margin=0.3)
    else:
        # Both weigh distances in the same way; CAJ's then takes the signed square of the difference of the means.
        agws = losses_oracle.weighted_regularised_triplet(*samples, negative_sign="minus", anchor_is_positive=True)
        expected = agws if kind == "weighted" else squared_difference(*samples)
    assert terms["triplet"].item() == pytest.approx(expected, rel=1e-4)


def squared_difference(features: list[list[float]], identity: list[int]) -> float:
    """CAJ's triplet loss as its code has it, one anchor after another, with 1e-6 added to both sums of weights."""
    total = 0.0
    for i, anchor in enumerate(features):
        near, far = [], []
        for f, y in zip(features, identity, strict=True):
            (near if y == identity[i] else far).append(losses_oracle.distance(anchor, f))
        near_weights = [math.exp(d - max(near)) for d in near]
        far_weights = [math.exp(-d) for d in far]
        difference = sum(w * d for w, d in zip(near_weights, near, strict=True)) / (sum(near_weights) + 1e-6)
        difference -= sum(w * d for w, d in zip(far_weights, far, strict=True)) / (sum(far_weights) + 1e-6)
        total += math.log(1 + math.exp(math.copysign(min(difference**2, 88.0), difference)))
    return total / len(features)


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
    for suffix, protocol in (("", "sysu-mm01/all/single"), ("-regdb", "regdb/v2i")):
        for table in ("figure4", "figure5", "figure6"):
            names = [name for name in peca.ROWS if name.startswith(f"{table}{suffix}/")]
            (rows,) = swept(names).values()
            places = [value for value, _ in rows]
            assert places == sorted(places) and len(places) == 5
            assert {peca.ROWS[name].on for name in names} == {protocol}
            assert [name for name in names if peca.ROWS[name].published] == [
                name for name in names if peca.ROWS[name].config == peca.PAPER
            ]
    own = [name for name, row in peca.ROWS.items() if name.startswith("figure") and row.config == peca.PAPER]
    figures = ["figure{}/tau_ins=0.15", "figure{}/tau_mod=0.10", "figure{}/lambda_m=0.50"]
    numbers = [f"{number}{suffix}" for suffix in ("", "-regdb") for number in (4, 5, 6)]
    assert own == [name.format(number) for name, number in zip(figures * 2, numbers, strict=True)]


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
