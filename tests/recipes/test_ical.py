"""ICAL: auxiliary samples and their loss against the printed equations, and as a part of every recipe."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tests.oracles import losses as losses_oracle
from tests.oracles import peca as oracle
from tests.oracles import wrim_net as wrim_oracle
from tests.recipes.test_peca import R, V, a_batch
from vireid.augment.aggregation import KEPT, aggregate_channels, with_auxiliary_samples
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.losses.distance import paired
from vireid.losses.mixing import mixing, mixing_loss
from vireid.recipes import recipe
from vireid.training.configuration import with_fields

# --- channel aggregation ----------------------------------------------------------------------------------------------


def test_every_generated_picture_is_one_of_its_parents_six():
    identity = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 3])
    modality = torch.tensor([V, R, R, R, V, V, V, R, R])  # identity 2 has no infrared sample, identity 3 no visible one
    images = torch.rand(9, 3, 4, 2)
    generator = torch.Generator().manual_seed(1)
    made, visible, infrared = aggregate_channels(images, identity, modality, generator=generator)
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
    made, _, infrared = aggregate_channels(images, identity, modality, generator=torch.Generator().manual_seed(0))
    kinds = (made[:, :, 0, 0] < 10).int().unique(dim=0, return_counts=True)
    assert sorted(map(tuple, kinds[0].tolist())) == sorted(KEPT)
    assert (kinds[1] - count / 6).abs().max() < 5 * math.sqrt(count * 5 / 36)
    drawn = infrared.bincount(minlength=count + partners)[count:]
    assert (drawn - count / 4).abs().max() < 5 * math.sqrt(count * 3 / 16)


def test_a_seed_draws_what_it_drew_in_earlier_versions():
    """Six of these numbers follow from the seed alone. Another type or order of the draws gives others."""
    modality = torch.tensor([V] * 6 + [R] * 5)
    images = torch.arange(11.0).view(11, 1, 1, 1).expand(11, 3, 1, 1)
    generator = torch.Generator().manual_seed(3)
    made, visible, infrared = aggregate_channels(
        images, torch.zeros(11, dtype=torch.int64), modality, generator=generator
    )
    assert visible.tolist() == [0, 1, 2, 3, 4, 5]
    generator.manual_seed(3)
    patterns = torch.randint(6, (6,), generator=generator).tolist()
    partners = (torch.rand(6, generator=generator, dtype=torch.float64) * 5).long() + 6
    assert infrared.tolist() == partners.tolist()
    own = [
        [float(v) if kept else float(r) for kept in KEPT[p]]
        for v, r, p in zip(range(6), partners, patterns, strict=True)
    ]
    assert made[:, :, 0, 0].tolist() == own


def test_the_same_generator_draws_the_same_samples_and_bytes_stay_bytes():
    batch = a_batch()
    images = (batch.images.clamp(0, 1) * 255).to(torch.uint8)
    once, again = (
        aggregate_channels(images, batch.identity, batch.modality, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert once[0].dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_no_partner_no_picture():
    images = torch.rand(2, 3, 2, 2)
    for modality in ([V, V], [R, R], [V, R]):
        made, visible, infrared = aggregate_channels(images, torch.tensor([0, 1]), torch.tensor(modality))
        assert made.shape == (0, 3, 2, 2) and len(visible) == len(infrared) == 0


@pytest.mark.parametrize("form", ["hinge", "abs", "hinge_sq"])
def test_mixing_against_the_loop(form):
    distance = torch.tensor([0.0, 0.3, 0.69, 0.71, 1.2, 2.0], dtype=torch.float64, requires_grad=True)
    found = mixing_loss(distance, form=form)
    assert found.item() == pytest.approx(oracle.mixing(distance.tolist(), margin=0.7, form=form), rel=1e-12)
    assert torch.autograd.gradcheck(lambda d: mixing_loss(d, form=form), distance)


def test_mixing_is_the_sum_over_both_parents():
    axes = torch.eye(3)
    # Distances: to the visible parents √2 and 0, to the infrared ones √2 and √2.
    found = mixing(axes[:2], axes[[2, 1]], axes[[1, 2]], margin=0.7, form="hinge")
    assert found.item() == pytest.approx((3 * (math.sqrt(2) - 0.7)) / 2)
    assert mixing(axes[:0], axes[:0], axes[:0], margin=0.7, form="abs").item() == 0


def test_mixing_by_hand():
    distance = torch.tensor([0.5, 1.0])
    found = {form: mixing_loss(distance, form=form).item() for form in ("hinge", "abs", "hinge_sq")}
    assert found == pytest.approx({"hinge": 0.15, "abs": 0.25, "hinge_sq": 0.045})
    assert mixing_loss(distance[:0]).item() == 0
    with pytest.raises(BadInput, match="hinge, abs, hinge_sq"):
        mixing_loss(distance, form="square")  # type: ignore[arg-type]


def test_as_printed_the_mixing_loss_pushes_near_pairs_apart_and_the_hinge_does_not():
    for form, slope in (("hinge", 0.0), ("abs", -1.0), ("hinge_sq", 0.0)):
        near = torch.tensor([0.4], requires_grad=True)
        mixing_loss(near, form=form).backward()  # type: ignore[arg-type]
        assert near.grad.item() == slope


def test_a_margin_of_0_7_is_a_cosine_of_0_755():
    angle = math.acos(0.755)
    f, g = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    assert paired(f, g).item() == pytest.approx(0.7, abs=1e-6)


# --- as a part of other recipes ---------------------------------------------------------------------------------------

SMALL = {"trunk": "tiny", "weights": "none", "size": Size(48, 24)}
# The recipes that can have it, and the modality of auxiliary samples in each: its stem, or the visible MIIMs.
GUESTS = {"agw": Modality.AUXILIARY, "fusion_dml": Modality.AUXILIARY, "wrim_net": Modality.VISIBLE}
REAL = 12  # samples of `a_batch`; 6 auxiliary ones come behind


def network(name: str, **fields) -> torch.nn.Module:
    """A small network in training mode, with logits that are far from equal."""
    own = {"contrast.top_k": 1, "contrast.hidden": 16, "auxiliary.parts": 1} if name == "wrim_net" else {}
    torch.manual_seed(0)
    net = recipe(name).build(with_fields(recipe(name).PAPER, {**SMALL, **own, **fields}), 5).train()
    for key, parameter in net.named_parameters():
        if "classifier" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def a_large_batch():
    return a_batch(size=(96, 48))


def entropy(logits: torch.Tensor, identity: torch.Tensor) -> float:
    return losses_oracle.cross_entropy(logits.double().tolist(), identity.tolist(), 0.0)


def triplet(features: torch.Tensor, identity: torch.Tensor) -> float:
    return losses_oracle.weighted_regularised_triplet(
        features.double().tolist(), identity.tolist(), negative_sign="minus", anchor_is_positive=True
    )


def agw_terms(net, grown, ce: int, ins: int) -> dict[str, float]:
    pooled = net.encoder.pooled(grown.images, grown.modality)
    logits = net.classifier(net.encoder.neck(pooled))
    return {
        "identity": entropy(logits[:ce], grown.identity[:ce]),
        "triplet": triplet(pooled[:ins], grown.identity[:ins]),
    }


def fusion_terms(net, grown, ce: int, ins: int) -> dict[str, float]:
    from tests.oracles import fusion_dml as fusion_oracle

    branches = net.branches(net.maps(grown.images, grown.modality))
    logits = {name: scores[:ce] for name, scores in net.logits(branches).items()}
    joint = logits["joint"].double().tolist()
    found = {f"identity_{name}": entropy(scores, grown.identity[:ce]) for name, scores in logits.items()}
    for student, theta in (("global", 0.6), ("fusion", 1.8)):
        told = logits[student].double().tolist()
        loss = fusion_oracle.mutual_loss(joint, told, reduction="batchmean", direction="both", t=1.0)
        found[f"mutual_joint_{student}"] = theta * loss
    return found | {"triplet": triplet(branches["joint"][:ins], grown.identity[:ins])}


def wrim_terms(net, grown, ce: int, ins: int) -> dict[str, float]:
    pooled = net.pooled(grown.images, grown.modality)
    of_each = {}
    for name, feature in pooled.items():
        branch = net.branches[name]
        of_each[name] = entropy(branch.classifier(branch.neck(feature))[:ce], grown.identity[:ce])
    last = [of_each[name] for name in ("global", "part1", "part2")]
    middle = [of_each[name] for name in ("auxiliary_global", "auxiliary_part1")]
    samples = [x[:ins].tolist() for x in (net.head(pooled["global"][:ins]).double(), grown.identity, grown.modality)]
    contrast = wrim_oracle.key_instance_contrast(*samples, top_k=1, temperature=0.07, reduction="mean")
    hard = losses_oracle.batch_hard_triplet(
        pooled["auxiliary_global"][:ins].double().tolist(), grown.identity[:ins].tolist(), margin=0.3
    )
    return {
        "identity": sum(last) / len(last),
        "contrast": 0.5 * contrast,
        "auxiliary_identity": 0.1 * sum(middle) / len(middle),
        "auxiliary_triplet": 0.1 * hard,
    }


TERMS = {"agw": agw_terms, "fusion_dml": fusion_terms, "wrim_net": wrim_terms}


@pytest.mark.parametrize(("in_ce", "in_ins"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", GUESTS)
def test_the_terms_of_a_recipe_with_ical(name, in_ce, in_ins):
    """From one pass over real and auxiliary samples, in training mode, so that statistics are those of both."""
    fields = {"ical.margin": 0.2, "ical.mix": "hinge_sq", "ical.in_ce": in_ce, "ical.in_ins": in_ins}
    net, batch = network(name, ical="ICAL", **fields), a_large_batch()
    twin = copy.deepcopy(net)
    terms = net.objective(batch)
    grown, visible, infrared = with_auxiliary_samples(batch, modality=GUESTS[name])
    assert len(grown) == REAL + 6
    with torch.no_grad():
        expected = TERMS[name](twin, grown, REAL + 6 * in_ce, REAL + 6 * in_ins)
        f = functional.normalize(copy.deepcopy(twin).embed(grown.images, grown.modality).double())
    pairs = [[float((f[i] - f[REAL + g]).norm()) for g, i in enumerate(parents)] for parents in (visible, infrared)]
    expected["mixing"] = sum(oracle.mixing(distances, margin=0.2, form="hinge_sq") for distances in pairs)
    assert {term: value.item() for term, value in terms.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", GUESTS)
def test_ical_is_drawn_from_the_batch_and_reaches_every_parameter(name):
    net, batch = network(name, ical="ICAL", **{"ical.margin": 0.1}), a_large_batch()
    assert net.draws_samples and not getattr(network(name), "draws_samples", False)
    with torch.no_grad():
        once, again, other = (net.objective(replace(batch, seed=seed))["mixing"].item() for seed in (1, 1, 2))
    assert once == again != other
    torch.stack(list(net.objective(batch).values())).sum().backward()
    assert not [key for key, p in net.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", GUESTS)
def test_ical_adds_a_stem_where_each_modality_has_its_own_and_nothing_else(name):
    state, with_ical = (dict(net.state_dict()) for net in (network(name), network(name, ical="ICAL")))
    added = {key.partition(".conv1")[0] for key in with_ical.keys() - state.keys() if "conv1" in key}
    assert state.keys() <= with_ical.keys()
    assert len(added) == (GUESTS[name] == Modality.AUXILIARY)
    stems, _ = network(name, ical="ICAL").pretrained_parts()
    assert len(stems) == (3 if GUESTS[name] == Modality.AUXILIARY else 1)


@pytest.mark.parametrize("name", ["peca", "agw", "fusion_dml"])
def test_the_mixing_term_trains_the_stem_of_auxiliary_samples(name):
    net = network(name, ical="ICAL", **{"ical.margin": 0.1})
    net.objective(a_large_batch())["mixing"].backward()
    stem = next(stem for key, stem in net.named_modules() if key.endswith("copies.auxiliary"))
    assert all(parameter.grad.any() for parameter in stem.parameters())
