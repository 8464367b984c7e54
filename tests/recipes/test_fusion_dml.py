"""Channel combination, fusion, mutual learning, the three branches and the rows, against the paper."""

from __future__ import annotations

import collections
import inspect
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.oracles import fusion_dml as oracle
from tests.oracles import losses as losses_oracle
from vireid.augment.normalise import normalise
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.networks.cost import measure
from vireid.networks.pooling import GeM
from vireid.recipes import agw, fusion_dml
from vireid.recipes.fusion_dml import (
    PAPER,
    ROWS,
    AdaptiveFusion,
    ChannelCombination,
    Fusion,
    Mutual,
    build,
    combine_channels,
    mutual_loss,
    random_channel_combination,
)
from vireid.training.configuration import from_json, to_json, with_fields

# The order in which section 3.1 prints the seven pictures.
CASES = ("RGB", "RBG", "BGR", "BRG", "GBR", "GRB", "grey")
TINY = {"trunk": "tiny", "weights": "none", "size": Size(96, 48)}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(seed: int = 0, count: int = 8) -> Batch:
    images = torch.randn(count, 3, 96, 48, generator=_generator(seed))
    identity = torch.arange(count) // 2 % 2
    return Batch(images, identity, torch.arange(count) // (count // 2), torch.zeros(count, dtype=torch.int64))


def _network(config=PAPER, identities: int = 5, **changes):
    torch.manual_seed(0)
    return build(with_fields(replace(config, **changes), TINY), identities)


# --- random combination of channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_each_case_is_the_printed_picture(dtype):
    pixel = (200, 100, 50) if dtype == torch.uint8 else (0.75, 0.5, 0.125)
    images = torch.tensor(pixel, dtype=dtype).view(1, 3, 1, 1).expand(7, 3, 2, 4)
    found = combine_channels(images, torch.arange(7))
    assert found.dtype == dtype
    for picture, case in zip(found, CASES, strict=True):
        expected = oracle.combine(pixel, case)
        expected = [round(value) for value in expected] if dtype == torch.uint8 else expected
        assert picture[:, 1, 2].tolist() == pytest.approx(expected, abs=1e-6), case
        assert (picture == picture[:, :1, :1]).all()


def test_seven_outcomes_are_equally_likely_over_70_000_draws():
    images = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1).expand(70_000, 3, 1, 1)
    found = random_channel_combination(images, generator=_generator())
    counts = collections.Counter(map(tuple, found[:, :, 0, 0].tolist()))
    assert len(counts) == 7
    # 22.46 is chi-square's 99.9 % point for six degrees of freedom.
    assert sum((count - 10_000) ** 2 / 10_000 for count in counts.values()) < 22.46


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pictures_without_colour_come_out_as_they_went_in(dtype):
    grey = torch.rand(70, 1, 5, 3, generator=_generator(1))
    images = ((grey * 255).to(dtype) if dtype == torch.uint8 else grey).expand(-1, 3, -1, -1)
    assert torch.equal(random_channel_combination(images, generator=_generator()), images)


def test_the_generator_decides_and_the_argument_is_left_alone():
    images = torch.rand(30, 3, 4, 2, generator=_generator(1))
    before = images.clone()
    once, again = (random_channel_combination(images, generator=_generator(3)) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(images, before)
    assert not torch.equal(once, random_channel_combination(images, generator=_generator(4)))
    torch.manual_seed(3)
    assert torch.equal(random_channel_combination(images), once)


def test_without_grey_no_picture_loses_its_colour():
    images = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1).expand(600, 3, 1, 1)
    found = random_channel_combination(images, grey=False, generator=_generator())
    assert len(set(map(tuple, found[:, :, 0, 0].tolist()))) == 6
    assert (found.sum(1) == 7).all()


def test_the_pipelines_step_is_the_function():
    images = torch.rand(40, 3, 4, 2, generator=_generator(1))
    assert torch.equal(
        ChannelCombination()(images, generator=_generator(5)),
        random_channel_combination(images, generator=_generator(5)),
    )


def test_the_recipe_combines_visible_channels_before_normalisation_and_leaves_infrared_alone():
    colour = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(40, 3, 8, 4)
    images, modality = torch.cat((colour, colour)), torch.arange(2).repeat_interleave(40)
    still = replace(PAPER, erasing=None, flip=replace(PAPER.flip, p=0.0), crop=replace(PAPER.crop, padding=0))
    found = still.augmentation()(images, modality, _generator())
    expected = [normalise(combine_channels(colour[:1] / 255, torch.tensor([case])))[0, :, 0, 0] for case in range(7)]
    closest = [min(range(7), key=lambda c: (picture[:, 0, 0] - expected[c]).abs().max()) for picture in found[:40]]
    assert set(closest) == set(range(7))
    for picture, case in zip(found[:40], closest, strict=True):
        assert torch.allclose(picture, expected[case][:, None, None].expand_as(picture), atol=1e-5)
    assert torch.allclose(found[40:], expected[0].view(1, 3, 1, 1).expand(40, 3, 8, 4), atol=1e-5)


@pytest.mark.parametrize(("infrared", "kinds"), [(True, {0, 1}), (False, {0})])
def test_erasing_is_for_both_modalities_unless_told_otherwise(infrared, kinds):
    images = torch.full((60, 3, 32, 16), 128, dtype=torch.uint8)
    modality = torch.arange(2).repeat_interleave(30)
    config = replace(PAPER, rcc=None, erasing_infrared=infrared, crop=replace(PAPER.crop, padding=0))
    found = config.augmentation()(images, modality, _generator())
    erased = (found != normalise(images[:1])).flatten(1).any(1)
    assert set(modality[erased].tolist()) == kinds


# --- deep mutual learning ---------------------------------------------------------------------------------------------


def _logits(count: int = 6, identities: int = 4, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    both = scale * torch.randn(2, count, identities, generator=_generator(4), dtype=torch.float64)
    return both[0].requires_grad_(), both[1].requires_grad_()


def test_mutual_loss_by_hand():
    # Two identities, joint (¾, ¼), branch (½, ½): KL(j‖b) = ¾ ln 1.5 + ¼ ln 0.5 = 0.1308,
    # KL(b‖j) = ½ ln ⅔ + ½ ln 2 = 0.1438; half their sum is 0.1373, which is ⅛ ln 3.
    joint, branch = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    assert mutual_loss(joint, branch).item() == pytest.approx(math.log(3) / 8, rel=1e-6)
    assert mutual_loss(joint, branch, direction="one_way").item() == pytest.approx(0.1308 / 2, abs=5e-5)


@pytest.mark.parametrize("detach", ["target", "none", "joint"])
@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
@pytest.mark.parametrize(("direction", "t"), [("both", 1.0), ("one_way", 1.0), ("both", 3.0)])
def test_mutual_loss_against_the_loops(detach, reduction, direction, t):
    joint, branch = _logits()
    found = mutual_loss(joint, branch, detach=detach, reduction=reduction, direction=direction, temperature=t)
    expected = oracle.mutual_loss(joint.tolist(), branch.tolist(), reduction=reduction, direction=direction, t=t)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def _gradients(loss: torch.Tensor, *of: torch.Tensor) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, of, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(of, found, strict=True)]


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    p, q = p.softmax(1), q.softmax(1)
    return (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize("direction", ["both", "one_way"])
@pytest.mark.parametrize("detach", ["target", "none", "joint"])
def test_gradients_flow_exactly_where_detach_says(detach, direction):
    joint, branch = _logits()
    found = _gradients(mutual_loss(joint, branch, detach=detach, direction=direction), joint, branch)
    # Every gradient of each summand, then those that the setting lets through.
    forth_joint, forth_branch = _gradients(0.5 * _kl(joint, branch), joint, branch)
    back_joint, back_branch = _gradients(0.5 * _kl(branch, joint), joint, branch)
    nothing = torch.zeros_like(joint)
    if direction == "one_way":
        back_joint = back_branch = nothing
    expected = {
        "target": (back_joint, forth_branch),
        "none": (forth_joint + back_joint, forth_branch + back_branch),
        "joint": (nothing, forth_branch + back_branch),
    }[detach]
    for gradient, wanted in zip(found, expected, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-14)
    assert found[1].abs().max() > 0.01
    assert bool(found[0].any()) == (detach == "none" or (detach == "target" and direction == "both"))


@pytest.mark.parametrize("direction", ["both", "one_way"])
def test_undetached_gradients_are_those_of_the_value(direction):
    joint, branch = _logits(3, 3)
    assert torch.autograd.gradcheck(partial(mutual_loss, detach="none", direction=direction), (joint, branch))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3),
)
def test_mutual_loss_is_symmetric_not_negative_and_zero_between_equals(a, b):
    joint, branch = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    loss = mutual_loss(joint, branch)
    assert torch.isfinite(loss)
    assert loss >= -1e-12
    assert torch.allclose(loss, mutual_loss(branch, joint))
    assert mutual_loss(joint, joint + 5.0).item() == pytest.approx(0.0, abs=1e-9)


def test_mutual_loss_computes_in_single_precision_at_least():
    joint, branch = (x.detach().to(torch.bfloat16) for x in _logits())
    assert mutual_loss(joint, branch).dtype == torch.float32
    with pytest.raises(BadInput, match="target, none, joint"):
        mutual_loss(joint, branch, detach="both")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="batchmean, sum"):
        mutual_loss(joint, branch, reduction="mean")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="both, one_way"):
        mutual_loss(joint, branch, direction="back")  # type: ignore[arg-type]


# --- three branches ---------------------------------------------------------------------------------------------------


def test_the_papers_widths():
    with torch.device("meta"):
        network = build(PAPER, 395)
    widths = {name: head.linear.in_features for name, head in network.classifiers.items()}
    assert widths == {"global": 2048, "fusion": 768, "joint": 2816}
    assert all(head.linear.bias is None for head in network.classifiers.values())


def test_fusion_costs_at_most_a_third_of_a_gmac():
    def macs(module, config):
        network = module.build(config, 2)
        visible = torch.tensor([int(Modality.VISIBLE)])
        return measure(network, lambda x: network.embed(x, visible), torch.zeros(1, 3, *PAPER.training.size))

    fused, plain = macs(fusion_dml, PAPER), macs(agw, replace(agw.PAPER, non_local=None))
    assert fused.macs_path - plain.macs_path <= 0.35e9
    # By hand: the three reductions, a look at each one's 256 channels through 16, one decision over 48 channels, and
    # the pooling's products of powers and shares.
    grids = (72 * 36, 36 * 18, 18 * 9)
    by_hand = sum(256 * (channels + 16 + 1) * grid for channels, grid in zip((256, 512, 1024), grids, strict=True))
    assert fused.macs_path - plain.macs_path == by_hand + 48 * 3 * grids[0]
    assert (fused.embedding, plain.embedding) == (2816, 2048)


def test_branches_are_what_the_equations_say_and_reachable_by_name():
    network, batch = _network(), _batch()
    network.objective(_batch(1))  # so that the necks have statistics
    network.eval()
    maps = network.maps(batch.images, batch.modality)
    assert list(maps) == ["stem", "stage1", "stage2", "stage3", "stage4", "fusion"]
    assert maps["fusion"].shape == (8, 96, 24, 12)  # 3 × 256 × 256 / 2,048
    branches = network.branches(maps)
    assert {name: x.shape[1] for name, x in branches.items()} == {"global": 256, "fusion": 96, "joint": 352}
    assert torch.equal(branches["joint"], torch.cat((branches["global"], branches["fusion"]), 1))
    assert torch.allclose(branches["fusion"], GeM()(maps["fusion"]))
    assert torch.allclose(branches["global"], GeM()(maps["stage4"]))
    unwritten = network.branches(network.trunk_maps(batch.images, batch.modality))
    assert all(torch.allclose(unwritten[name], branches[name], atol=2e-6) for name in branches)
    embedding = network.embed(batch.images, batch.modality)
    expected = functional.normalize(network.necks["joint"](branches["joint"]))
    assert torch.allclose(embedding, expected)
    assert set(network.logits(branches)) == {"global", "fusion", "joint"}


def test_the_objective_is_equation_13():
    network, batch = _network(), _batch()
    network.train()
    terms = network.objective(batch)
    branches = network.branches(network.maps(batch.images, batch.modality))
    logits = {name: x.detach().double().tolist() for name, x in network.logits(branches).items()}
    mutual = partial(oracle.mutual_loss, logits["joint"], reduction="batchmean", direction="both", t=1.0)
    identity = batch.identity.tolist()
    expected = {
        **{f"identity_{name}": losses_oracle.cross_entropy(x, identity, 0.0) for name, x in logits.items()},
        "mutual_joint_global": 0.6 * mutual(logits["global"]),
        "mutual_joint_fusion": 1.8 * mutual(logits["fusion"]),
        "triplet": losses_oracle.weighted_regularised_triplet(
            branches["joint"].detach().double().tolist(), identity, negative_sign="minus", anchor_is_positive=True
        ),
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("sign", "weights"), [("minus", (0.59, 0.36, 0.05)), ("plus", (0.07, 0.11, 0.82))]
)  # AGW's sign, and equation 12 as printed
def test_the_sign_for_negatives_reaches_the_triplet(sign, weights):
    found = losses_oracle.softmax_weights((0.5, 1.0, 3.0), -1.0 if sign == "minus" else 1.0)
    assert [round(weight, 2) for weight in found] == list(weights)
    network, batch = _network(negative_sign=sign), _batch()
    joint = network.branches(network.trunk_maps(batch.images, batch.modality))["joint"].detach().double()
    expected = losses_oracle.weighted_regularised_triplet(
        joint.tolist(), batch.identity.tolist(), negative_sign=sign, anchor_is_positive=True
    )
    assert network.objective(batch)["triplet"].item() == pytest.approx(expected, rel=1e-4)


TERMS = {
    "table1/baseline": {"identity_global", "triplet"},
    "table1/fusion": {"identity_global", "identity_fusion", "identity_joint", "triplet"},
    "table3/none": {"identity_joint", "triplet"},
    "table3/kd": {"identity_joint", "mutual_joint_global", "mutual_joint_fusion", "triplet"},
    "table4/global_to_fusion": {
        "identity_global",
        "identity_fusion",
        "identity_joint",
        "mutual_global_fusion",
        "triplet",
    },
    "table4/joint_to_global": {
        "identity_global",
        "identity_fusion",
        "identity_joint",
        "mutual_joint_global",
        "triplet",
    },
}


@pytest.mark.parametrize("row", TERMS)
def test_ablations_are_absent_terms(row):
    network = _network(ROWS[row].config)
    terms = network.objective(_batch())
    assert set(terms) == TERMS[row]
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_smoothing_is_for_the_branches_of_table_3():
    plain, smooth = (_network(label_smoothing=e).objective(_batch()) for e in (0.0, 0.1))
    changed = {name for name in plain if not torch.equal(plain[name], smooth[name])}
    assert changed == {"identity_global", "identity_fusion"}


def test_what_learns_at_the_full_rate():
    network = _network()
    new = {id(p) for p in network.new_parameters()}
    named = {name.partition(".")[0] for name, p in network.named_parameters() if id(p) in new}
    assert named == {"fusion", "necks", "classifiers"}
    slow = _network(fusion=Fusion(full_rate=False))
    assert not {id(p) for p in slow.fusion.parameters()} & {id(p) for p in slow.new_parameters()}
    learnt = _network(gem_learnable=True)
    assert {id(p) for p in learnt.pools.parameters()} < {id(p) for p in learnt.new_parameters()}
    assert len(list(learnt.pools.parameters())) == 2


@pytest.mark.parametrize("fusion", [Fusion(weights="param"), Fusion(activation="none", up="bilinear", stages=(2, 4))])
def test_other_readings_of_the_fusion_train(fusion):
    network = _network(fusion=fusion)
    terms = network.objective(_batch())
    assert all(torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.fusion.parameters())


# --- settings and rows ------------------------------------------------------------------------------------------------


def test_settings_that_cannot_be():
    with pytest.raises(BadInput, match="some of 1, 2, 3, 4"):
        Fusion(stages=(3, 1))
    with pytest.raises(BadInput, match="some of 1, 2, 3, 4"):
        Fusion(stages=())
    with pytest.raises(BadInput, match="joint-fusion"):
        Mutual(pairs=("fusion-joint",))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="joint-fusion"):
        Mutual(pairs=("joint-fusion", "joint-fusion"))
    with pytest.raises(BadInput, match="0 or more"):
        Mutual(theta1=-0.1)
    with pytest.raises(BadInput, match="mutual=null"):
        build(replace(PAPER, fusion=None), 5)


def test_fields_can_be_set_as_text():
    config = with_fields(PAPER, ["fusion.stages=[2,3]", "mutual.theta2=1.0", "mutual.pairs=[joint-global]", "rcc=null"])
    assert (config.fusion, config.rcc) == (Fusion(stages=(2, 3)), None)
    assert config.mutual == Mutual(theta2=1.0, pairs=("joint-global",))
    assert from_json(fusion_dml.Config, to_json(config)) == config
    # The two fields depend on each other, and are set one after the other: either may come first.
    assert with_fields(PAPER, ["fusion=null", "mutual=null"]) == with_fields(PAPER, ["mutual=null", "fusion=null"])


def test_blocks_and_losses_have_the_defaults_of_the_settings():
    block, fields, loss = (inspect.signature(kind).parameters for kind in (AdaptiveFusion, Fusion, mutual_loss))
    assert [(p.name, p.default) for p in block.values()][1:5] == [
        (name, fields[name].default) for name in ("width", "weights", "up", "activation")
    ]
    assert {name: p.default for name, p in list(loss.items())[2:]} == {
        "detach": "target", "reduction": "batchmean", "direction": "both", "temperature": 1.0
    }  # fmt: skip
    assert (block["width"].default, block["weights"].default) == (256, "asff")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("mutual", "detach", "joint"),
        ("mutual", "reduction", "sum"),
        ("mutual", "direction", "one_way"),
        ("mutual", "temperature", 2.0),
        ("fusion", "width", 8),
        ("fusion", "weights", "param"),
        ("fusion", "up", "bilinear"),
        ("fusion", "activation", "none"),
    ],
)
def test_every_choice_reaches_the_network(part, field, value):
    batch, changed = _batch(), {part: replace(getattr(PAPER, part), **{field: value})}
    found = []
    for network in (_network(), _network(**changed)):
        terms = network.objective(batch)
        mutual = terms["mutual_joint_global"] + terms["mutual_joint_fusion"]
        slope = torch.autograd.grad(mutual, network.necks["joint"].bn.weight, allow_unused=True)[0]
        found.append([mutual.item(), 0.0 if slope is None else slope.abs().sum().item()])
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def test_the_printed_training_settings():
    training = PAPER.training
    assert (training.size, training.epochs) == (Size(288, 144), 80)
    assert (training.identities_per_batch, training.visible_per_identity, training.infrared_per_identity) == (8, 4, 4)
    assert (training.optimiser.lr, training.optimiser.momentum, training.optimiser.weight_decay) == (0.1, 0.9, 5e-4)
    factors = [training.schedule.factor(epoch, 0, 100) for epoch in (19, 20, 49, 50, 79)]
    assert factors == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.01])


def test_rows_that_are_the_same_model_print_the_same_numbers():
    printed = collections.defaultdict(set)
    for row in ROWS.values():
        if row.published:
            printed[to_json_text(row.config), row.on].add(tuple(row.published.items()))
    assert max(len(numbers) for numbers in printed.values()) == 1
    tables = collections.Counter(name.partition("/")[0] for name in ROWS)
    assert tables == {
        "table1": 7,
        "table2": 8,
        "table3": 5,
        "table3-smoothing": 3,
        "table4": 6,
        "table5": 2,
        "table6": 2,
        "figure4": 22,
    }


def test_rows_of_another_reading_have_no_numbers_and_say_which_the_table_prints():
    """A printed number belongs to one configuration, so the other reading's row only names it in its note."""
    pairs = {f"table3-smoothing/{name}": f"table3/{name}" for name in ("kd", "id_kd", "id_kd_lsr")}
    for name, printed in (pairs | {"table4/global_to_fusion-both": "table4/global_to_fusion"}).items():
        row, numbers = ROWS[name], ROWS[printed].published
        assert not row.published and row.on == ROWS[printed].on
        assert row.config != ROWS[printed].config
        assert f"{numbers['rank1']:.2f} / {numbers['map']:.2f}" in row.note
    smoothed = {name: ROWS[f"table3-smoothing/{name}"].config for name in ("kd", "id_kd", "id_kd_lsr")}
    assert [(c.branch_identity, c.label_smoothing, c.mutual) for c in smoothed.values()] == [
        (False, 0.0, PAPER.mutual), (True, 0.0, PAPER.mutual), (True, 0.1, PAPER.mutual),
    ]  # fmt: skip
    assert ROWS["table4/global_to_fusion-both"].config.mutual == Mutual(pairs=("global-fusion",), direction="both")
    assert ROWS["table4/global_to_fusion"].config.mutual == Mutual(pairs=("global-fusion",), direction="one_way")


def to_json_text(config) -> str:
    return str(to_json(config))


def test_the_quoted_differences_of_section_4_3():
    def difference(row, other):
        one, two = ROWS[row].published, ROWS[other].published
        return [round(one[name] - two[name], 2) for name in ("rank1", "map", "minp")]

    assert difference("table1/rcc", "table1/baseline") == [7.01, 7.75, 6.79]
    assert difference("table1/fusion", "table1/baseline") == [4.26, 6.44, 6.70]
    assert difference("table1/full", "table1/rcc_cre_fusion") == [2.89, 2.95, 3.78]
    assert difference("table4/none", "table4/global_to_fusion") == [1.01, 1.35, 1.42]


def test_the_sweeps_of_figure_4_pass_through_the_papers_choice():
    assert ROWS["figure4/theta2=1.8"].config == PAPER
    first = ROWS["figure4/theta1=0.6"].config.mutual
    assert (first.theta1, first.theta2) == (0.6, 1.0)
    assert not any(ROWS[name].published for name in ROWS if name.startswith("figure4/"))
