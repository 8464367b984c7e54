"""WRIM-Net against its equations, its printed counts, and its rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.oracles import wrim_net as oracle
from vireid import recipes
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.triplet import batch_hard_triplet
from vireid.networks.resnet import Stages, Stem
from vireid.recipes import wrim_net
from vireid.recipes.wrim_net import (
    PAPER,
    ROWS,
    Auxiliary,
    BatchHardTriplet,
    KeyInstance,
    key_instance_contrast,
    projection_head,
)
from vireid.training.configuration import with_fields

SMALL = with_fields(PAPER, {"trunk": "tiny", "weights": "none", "size": Size(96, 48)})
# Of the MIIMs after stages 1 to 4 of a ResNet-50: channels, spatial ratio, channel ratio, parameters.
ANCHORS = ((256, 4, 2, 624_512), (512, 2, 2, 921_344), (1024, 1, 4, 792_832), (2048, 1, 4, 3_158_528))
RESNET50, NECK = 23_508_032, 4_096


def samples_of(identities: int, visible: int, infrared: int, width: int, seed: int = 0):
    """Features in double precision, identities, modalities: so many samples of each identity, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(identities).repeat_interleave(visible + infrared)
    modality = torch.tensor([0] * visible + [1] * infrared).repeat(identities)
    order = torch.randperm(len(identity), generator=generator)
    features = torch.randn(len(identity), width, generator=generator, dtype=torch.float64)
    return features, identity[order], modality[order]


def a_batch(config=SMALL, samples: int = 12) -> Batch:
    images = torch.randn(samples, 3, *config.training.size, generator=torch.Generator().manual_seed(1))
    modality = torch.arange(samples) % 2
    return Batch(images, torch.arange(samples) // 4, modality, modality, seed=5)


# --- CMKIC ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    samples=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=14),
    top_k=st.integers(1, 5),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 99),
)
def test_contrast_is_the_formula_for_any_counts(samples, top_k, reduction, seed):
    identity, modality = (torch.tensor(column) for column in zip(*samples, strict=True))
    features = torch.randn(len(samples), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = key_instance_contrast(features, identity, modality, top_k=top_k, temperature=0.3, reduction=reduction)
    wanted = oracle.key_instance_contrast(
        features.tolist(), identity.tolist(), modality.tolist(), top_k=top_k, temperature=0.3, reduction=reduction
    )
    assert found.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("anchors", [0, 1])
def test_contrast_in_each_direction_alone(anchors):
    # One anchor: in the other direction each of its positives is alone with it, which costs nothing.
    features, identity, modality = samples_of(3, 1, 4, 5)
    keep = (modality == 1) | (identity == 0)
    features, identity, modality = features[keep], identity[keep], (modality[keep] + anchors) % 2
    samples = (features.tolist(), identity.tolist(), modality.tolist())
    wanted = oracle.key_instance_contrast(*samples, top_k=2, temperature=0.07, reduction="mean")
    found = key_instance_contrast(features, identity, modality, top_k=2)
    assert wanted > 0.1
    assert found.item() == pytest.approx(wanted)


def test_contrast_by_hand():
    # z: visible (1, 0) of 0; infrared (0, 1) and (1, 0) of 0, (-1, 0) of 1. With K = 1 and τ = 1 the key of the visible
    # anchor is (0, 1), at similarity 0, and the negative is at -1: log(1 + e^-1). The two infrared anchors of 0 have
    # one positive and no negative, and lose nothing; the one of 1 has no positive and is left out.
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    identity, modality = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    found = key_instance_contrast(5 * z, identity, modality, top_k=1, temperature=1.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-1)) / 2)


@pytest.mark.parametrize("identities, each, keys", [(8, 8, 60), (4, 16, 52)])
def test_contrast_of_collapsed_features(identities, each, keys):
    _, identity, modality = samples_of(identities, each, each, 1)
    features = torch.ones(len(identity), 8)
    assert key_instance_contrast(features, identity, modality).item() == pytest.approx(math.log(keys))
    total = key_instance_contrast(features, identity, modality, reduction="sum").item()
    assert total == pytest.approx(64 * math.log(keys))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_contrast_gradient(reduction):
    features, identity, modality = samples_of(3, 2, 3, 4)
    identity[0], modality[1] = 7, 2  # an anchor without positives, and a sample of neither modality
    assert torch.autograd.gradcheck(
        lambda f: key_instance_contrast(f, identity, modality, top_k=2, temperature=0.5, reduction=reduction),
        (features.requires_grad_(),),
    )


def test_contrast_reaches_anchors_keys_and_negatives_and_nothing_else():
    # Only the visible sample is an anchor with a choice; the infrared ones have one positive and no negative.
    z = torch.tensor([[1.0, 0.2], [-1.0, 0.5], [0.9, 0.4], [0.3, -1.0]], requires_grad=True)
    key_instance_contrast(z, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1]), top_k=1).backward()
    assert z.grad[[0, 1, 3]].any(1).all()
    assert not z.grad[2].any()


def test_contrast_without_anchors_is_zero_with_a_graph():
    for identity, modality in (([0, 0], [0, 0]), ([0, 1], [0, 1]), ([0, 0], [0, 2])):
        features = torch.randn(2, 3, requires_grad=True)
        loss = key_instance_contrast(features, torch.tensor(identity), torch.tensor(modality))
        loss.backward()
        assert loss.item() == 0 and not features.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_anchor_without_positives_is_left_out(reduction):
    features, identity, modality = samples_of(3, 2, 3, 4)
    identity[modality == 1] = identity[modality == 1] % 2  # identity 2 has no infrared sample any more
    samples = (features.tolist(), identity.tolist(), modality.tolist())
    wanted = oracle.key_instance_contrast(*samples, top_k=2, temperature=0.5, reduction=reduction)
    found = key_instance_contrast(features, identity, modality, top_k=2, temperature=0.5, reduction=reduction)
    assert found.item() == pytest.approx(wanted)


def test_contrast_ignores_the_order_of_samples_and_their_length():
    features, identity, modality = samples_of(4, 3, 5, 6)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(4))
    here = key_instance_contrast(features, identity, modality)
    there = key_instance_contrast(3 * features[order], identity[order], modality[order])
    torch.testing.assert_close(here, there)


def test_contrast_with_random_selection():
    features, identity, modality = samples_of(3, 4, 4, 5)

    def drawn(seed: int, top_k: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return key_instance_contrast(
            features, identity, modality, top_k=top_k, selection="random", generator=generator
        ).item()

    assert drawn(3, 2) == drawn(3, 2)
    assert len({drawn(seed, 2) for seed in range(5)}) == 5
    # With all positives chosen there is nothing to draw.
    hardest = [key_instance_contrast(features, identity, modality, top_k=k).item() for k in (2, 4)]
    assert drawn(1, 4) == pytest.approx(hardest[1])
    # The hardest positives cost most.
    assert all(drawn(seed, 2) < hardest[0] for seed in range(5))


def test_contrast_computes_in_float32_and_survives_autocast():
    features, identity, modality = samples_of(4, 4, 4, 8)
    wanted = key_instance_contrast(features.float(), identity, modality)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = key_instance_contrast(features.float(), identity, modality)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    assert key_instance_contrast(features.bfloat16(), identity, modality).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong", [{"reduction": "max"}, {"selection": "easiest"}, {"top_k": 0}, {"temperature": 0.0}], ids=str
)
def test_contrast_refuses_what_it_does_not_know(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        key_instance_contrast(*samples_of(2, 2, 2, 3), **wrong)


# --- network and objective --------------------------------------------------------------------------------------------


def built(config=SMALL, identities: int = 3):
    torch.manual_seed(0)
    return wrim_net.build(config, identities)


def classified(network: nn.Module, name: str, features: torch.Tensor) -> torch.Tensor:
    """Logits of one branch."""
    branch = network.branches[name]
    return branch.classifier(branch.neck(features))


@pytest.mark.parametrize(
    "contrast, auxiliary",
    [
        (KeyInstance(), Auxiliary(parts=2)),
        (KeyInstance(weight=0.7, top_k=1, temperature=0.2, reduction="sum"), Auxiliary(weight=0.3, margin=0.1)),
    ],
    ids=["as printed", "others"],
)
def test_the_terms_are_those_of_equation_9(contrast, auxiliary):
    config = replace(SMALL, contrast=contrast, auxiliary=auxiliary, label_smoothing=0.1)
    network, batch = built(config), a_batch()
    with torch.no_grad():
        for branch in network.branches.values():
            nn.init.normal_(branch.classifier.linear.weight)
        terms = network.objective(batch)
        pooled = network.pooled(batch.images, batch.modality)
        entropy = {
            name: cross_entropy(classified(network, name, features), batch.identity, label_smoothing=0.1).item()
            for name, features in pooled.items()
        }
        z = network.head(pooled["global"])
    last = [entropy[name] for name in ("global", "part1", "part2")]
    names = ("auxiliary_global", "auxiliary_part1", "auxiliary_part2")[: 1 + auxiliary.parts]
    middle = [entropy[name] for name in names]
    wanted_contrast = oracle.key_instance_contrast(
        z.double().tolist(), batch.identity.tolist(), batch.modality.tolist(),
        top_k=contrast.top_k, temperature=contrast.temperature, reduction=contrast.reduction,
    )  # fmt: skip
    triplet = batch_hard_triplet(pooled["auxiliary_global"], batch.identity, margin=auxiliary.margin).item()
    wanted = {
        "identity": sum(last) / 3,
        "contrast": contrast.weight * wanted_contrast,
        "auxiliary_identity": auxiliary.weight * sum(middle) / len(middle),
        "auxiliary_triplet": auxiliary.weight * triplet,
    }
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(wanted, rel=1e-3)


def test_the_head_is_equation_4():
    """z5 = W2 ReLU(BN(W1 R_g)), as loops over samples and units. W1 has no bias, W2 has one."""
    torch.manual_seed(0)
    head, features = projection_head(5, hidden=7, width=3).double(), torch.randn(6, 5, dtype=torch.float64)
    nn.init.normal_(head[1].weight)
    nn.init.normal_(head[1].bias)
    weights = [p.detach().tolist() for p in head.parameters()]
    with torch.no_grad():
        found = head(features)
    expected = oracle.equation_4(features.tolist(), *weights)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_head_has_the_widths_of_the_settings():
    head = built(replace(SMALL, contrast=KeyInstance(hidden=48, width=24))).head
    assert head(torch.randn(4, 256)).shape == (4, 24)
    assert [tuple(p.shape) for p in head.parameters()] == [(6, 256), (6,), (6,), (24, 6), (24,)]  # 48 × 256 / 2,048
    with torch.device("meta"):
        printed = wrim_net.build(PAPER, 2).head
    shapes = [tuple(p.shape) for p in printed.parameters()]
    assert shapes == [(2048, 2048), (2048,), (2048,), (128, 2048), (128,)]


def test_random_selection_draws_from_the_batchs_generator():
    config = replace(SMALL, contrast=KeyInstance(top_k=1, selection="random"))
    network, batch = built(config, identities=6), a_batch(samples=24)
    assert network.draws_samples and not built().draws_samples
    with torch.no_grad():
        first, again = (network.objective(batch)["contrast"].item() for _ in range(2))
        other = network.objective(replace(batch, seed=6))["contrast"].item()
    assert first == again != other


def test_features_are_means_of_the_maps_and_their_parts():
    network, batch = built(replace(SMALL, auxiliary=Auxiliary(parts=2))).eval(), a_batch(samples=4)
    with torch.no_grad():
        maps, pooled = network.maps(batch.images, batch.modality), network.pooled(batch.images, batch.modality)
        embedding = network.embed(batch.images, batch.modality)
    p4, p5 = maps["stage3"], maps["stage4"]
    assert p5.shape == (4, 256, 6, 3)
    wanted = {
        "global": p5.mean((2, 3)),
        "part1": p5[:, :, :3].mean((2, 3)),
        "part2": p5[:, :, 3:].mean((2, 3)),
        "auxiliary_global": p4.mean((2, 3)),
        "auxiliary_part1": p4[:, :, :3].mean((2, 3)),
        "auxiliary_part2": p4[:, :, 3:].mean((2, 3)),
    }
    assert list(pooled) == list(wanted)
    for name, features in wanted.items():
        torch.testing.assert_close(pooled[name], features)
    # At the start a neck in evaluation mode only divides by √(1 + ε), which the length takes away again.
    torch.testing.assert_close(embedding, functional.normalize(torch.cat(list(wanted.values()), 1)))


def test_separate_miims_see_one_modality_and_shared_ones_see_all():
    network, batch = built(), a_batch()
    images = batch.images[batch.modality == 0]
    network.objective(batch)
    counts = {name: int(value) for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts["miims.stage1.copies.visible.bn_in.num_batches_tracked"] == 1
    assert counts["miims.stage4.bn_in.num_batches_tracked"] == 1
    network.eval()
    with torch.no_grad():
        before = network.embed(images, torch.zeros(6, dtype=torch.int64))
        for parameter in network.miims["stage1"].copies["infrared"].parameters():
            parameter.zero_()
        assert torch.equal(network.embed(images, torch.zeros(6, dtype=torch.int64)), before)
        for parameter in network.miims["stage3"].parameters():
            parameter.zero_()
        assert not torch.allclose(network.embed(images, torch.zeros(6, dtype=torch.int64)), before)


@pytest.mark.parametrize(
    "changes, missing",
    [
        ({"miim": (None, "shared", None, "separate")}, "miims.stage1"),
        ({"contrast": None}, "head"),
        ({"contrast": BatchHardTriplet()}, "head"),
        ({"auxiliary": None}, "branches.auxiliary_global"),
        ({"parts": 0}, "branches.part1"),
    ],
    ids=str,
)
def test_what_is_absent_is_not_built(changes, missing):
    assert any(name.startswith(missing) for name, _ in built().named_parameters())
    assert not any(name.startswith(missing) for name, _ in built(replace(SMALL, **changes)).named_parameters())


def test_the_triplet_of_table_5_is_on_the_global_feature():
    network, batch = built(replace(SMALL, contrast=BatchHardTriplet(weight=1.0, margin=0.4))), a_batch()
    with torch.no_grad():
        pooled = network.pooled(batch.images, batch.modality)["global"]
        wanted = batch_hard_triplet(pooled, batch.identity, margin=0.4)
        torch.testing.assert_close(network.objective(batch)["contrast"], wanted)


def test_the_auxiliary_map_can_be_taken_before_its_miim():
    batch = a_batch(samples=4)
    for source, key in (("after_miim", "stage3"), ("before_miim", "stage3_before")):
        network = built(replace(SMALL, auxiliary=Auxiliary(source=source))).eval()
        with torch.no_grad():
            wanted = network.maps(batch.images, batch.modality)[key].mean((2, 3))
            torch.testing.assert_close(network.pooled(batch.images, batch.modality)["auxiliary_global"], wanted)


def test_what_is_compared():
    batch = a_batch(samples=4)
    network = built(replace(SMALL, normalised="per_part", part_width=32)).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean") and "neck" in name:
            nn.init.normal_(buffer, std=0.1)
    with torch.no_grad():
        pooled = network.pooled(batch.images, batch.modality)
        after = {name: network.branches[name].neck(features) for name, features in pooled.items()}
        embedding, before_necks = (e(batch.images, batch.modality) for e in (network.embed, network.embed_pooled))
    assert [features.shape[1] for features in pooled.values()] == [256, 32, 32, 128]
    for found, features in ((embedding, after), (before_necks, pooled)):
        wanted = torch.cat([functional.normalize(feature) for feature in features.values()], 1) / 2
        torch.testing.assert_close(found, wanted)
    assert not torch.allclose(embedding, before_necks)


@pytest.mark.parametrize("visible, infrared, there", [(8, 2, 2), (3, 8, 3)])
def test_more_positives_than_a_step_has_are_refused(visible, infrared, there):
    counts = {"visible_per_identity": visible, "infrared_per_identity": infrared}
    with pytest.raises(BadInput, match=rf"contrast.top_k' is 4, .* {there} positives .* {there} or less"):
        built(with_fields(SMALL, counts))
    built(with_fields(SMALL, {**counts, "contrast.top_k": there}))
    built(with_fields(SMALL, {**counts, "contrast": "BatchHardTriplet"}))


def test_one_file_of_weights_fills_the_one_stem_and_the_trunk(tmp_path):
    torch.manual_seed(3)
    stem, stages = Stem("tiny"), Stages("tiny")
    torch.save({**stem.state_dict(), **stages.state_dict()}, tmp_path / "tiny.pth")
    config = with_fields(SMALL, {"weights": str(tmp_path / "tiny.pth")})
    network = recipes.build("wrim_net", config, 3, pretrained=True)
    assert torch.equal(network.get_parameter("stem.conv1.weight"), stem.conv1.weight)
    assert torch.equal(network.get_parameter("stages.layer4.0.conv2.weight"), stages.layer4[0].conv2.weight)


def test_a_few_steps_lower_the_terms():
    network, batch = built(), a_batch()
    optimiser = replace(SMALL.training.optimiser, lr=1e-3).build(network, network.new_parameters())
    totals = []
    for _ in range(6):
        loss = torch.stack(list(network.objective(batch).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        totals.append(loss.item())
    assert totals[-1] < 0.7 * totals[0]


def worker(rank: int, file: str, results) -> None:
    """One of two processes: its half of the samples, and the gradient that it gets."""
    from vireid.training.distributed import all_gather

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    features, identity, modality = samples_of(3, 2, 2, 4)
    mine = slice(rank * 6, rank * 6 + 6)
    own = features[mine].clone().requires_grad_()
    loss = key_instance_contrast(*all_gather(own, identity[mine], modality[mine]), top_k=1)
    loss.backward()
    results[rank] = (loss.item(), own.grad.tolist())
    torch.distributed.destroy_process_group()


@pytest.mark.process
def test_across_processes_it_is_the_loss_of_the_all_gather(tmp_path):
    features, identity, modality = samples_of(3, 2, 2, 4)
    features.requires_grad_()
    wanted = key_instance_contrast(features, identity, modality, top_k=1)
    wanted.backward()
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(worker, (str(tmp_path / "meet"), results), nprocs=2)
        (first, top), (second, bottom) = results[0], results[1]
    assert first == second == pytest.approx(wanted.item())
    # The wrapper around a network averages over the two processes, and so do we.
    torch.testing.assert_close(torch.tensor(top + bottom, dtype=torch.float64) / 2, features.grad)


# --- set-up and rows --------------------------------------------------------------------------------------------------


def test_training_is_as_printed():
    training = PAPER.training
    assert (training.epochs, training.optimiser.lr, training.optimiser.weight_decay) == (140, 3.5e-4, 5e-4)
    factors = [training.schedule.factor(epoch, 0, 266, 140) for epoch in (0, 10, 79, 80, 119, 120, 139)]
    assert factors == pytest.approx([0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    # On SYSU-MM01 and LLCM an epoch has 266 or more steps, on RegDB 32: warm-up ends at step 2000, and at 448 of 4480.
    for steps, last in ((266, 1999), (32, 447)):
        below, full = (training.schedule.factor(step // steps, step % steps, steps, 140) for step in (last, last + 1))
        assert 0.997 < below < full == 1.0

    def sampled(row: str) -> tuple[int, int, int]:
        own = ROWS[row].config.training
        return own.identities_per_batch, own.visible_per_identity, own.infrared_per_identity

    assert sampled("table1/all-single") == (4, 16, 16)
    assert sampled("table1/regdb-i2v") == sampled("table2/v2i") == (8, 8, 8)
    assert (PAPER.contrast, PAPER.auxiliary) == (KeyInstance(0.5, 4, 0.07), Auxiliary(0.1, 0.3))
    regdb = ROWS["table1/regdb-i2v"].config
    assert (regdb.parts, regdb.auxiliary.parts) == (6, 2)
    assert (PAPER.mining.gate_input, PAPER.mining.positions) == ("bn", "sincos1d")


def test_augmentation_greys_visible_pictures_and_erases_both():
    certain = replace(PAPER, grey=replace(PAPER.grey, p=1.0), erasing=replace(PAPER.erasing, p=1.0))
    images = torch.randint(0, 256, (2, 3, 48, 18), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = certain.augmentation()(images, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert (found == 0).flatten(1).float().mean(1).min() > 0.02
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    kept = found[0].any(0)
    red, green, blue = (found[0] * std + mean)[:, kept]
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(red, blue)
    bare = replace(PAPER, grey=None, erasing=None).augmentation()
    assert not bare.visible and not bare.visible_before and not bare.infrared


def test_every_table_has_its_rows():
    counts: dict[str, int] = {}
    for name in ROWS:
        counts[name.partition("/")[0]] = counts.get(name.partition("/")[0], 0) + 1
    assert counts == {
        "table1": 6, "table2": 2, "table3": 4, "table4": 4, "table5": 3, "table6": 3, "table7": 3, "table8": 3,
        "table9": 4, "table10": 6, "tableS1": 8, "tableS2": 3, "tableS3": 3, "tableS4": 2, "figureS1": 10,
    }  # fmt: skip
    assert ROWS["table9/pool=2"].published == {"rank1": None, "map": 64.49}
    assert ROWS["table6/miim"].published["parameters_path"] == 28.99e6


def test_rows_of_the_supplement_are_what_their_names_say():
    assert ROWS["tableS2/shared"].config.miim == ("shared",) * 4
    assert ROWS["tableS2/separate"].config.miim == ("separate",) * 4
    assert (ROWS["tableS2/shared"].published["rank1"], ROWS["tableS2/separate"].published["rank1"]) == (57.63, 57.12)
    assert (ROWS["tableS3/mul"].config.mining.fusion, ROWS["tableS3/add"].config.mining.fusion) == ("mul", "add")
    assert (ROWS["tableS3/mul"].published["rank1"], ROWS["tableS3/add"].published["rank1"]) == (56.08, 56.74)
    for name in ("table3/full", "table4/stages1234", "tableS1/stages1234", "tableS4/full", "table9/pool=3"):
        assert ROWS[name].config == PAPER and ROWS[name].published == {"rank1": 58.38, "map": 64.75}


def test_numbers_that_only_the_text_gives_say_so():
    for name in ("table9/pool=1", "table9/pool=3", "table10/top_k=4"):
        assert ROWS[name].published["rank1"] is not None
        assert "running text" in ROWS[name].note
    assert ROWS["table2/i2v"].published == {"rank1": 58.4, "map": 64.8} and "rounded" in ROWS["table2/i2v"].note


def test_differences_that_the_text_quotes_hold_between_rows():
    def gain(better: str, worse: str, metric: str) -> float:
        return round(ROWS[better].published[metric] - ROWS[worse].published[metric], 2)

    assert (gain("table3/miim", "table3/baseline", "rank1"), gain("table3/miim", "table3/baseline", "map")) == (
        4.89,
        4.51,
    )
    assert (gain("table3/aicl", "table3/baseline", "rank1"), gain("table3/aicl", "table3/baseline", "map")) == (
        4.41,
        4.22,
    )
    assert (gain("table3/full", "table3/baseline", "rank1"), gain("table3/full", "table3/baseline", "map")) == (
        7.96,
        7.7,
    )
    assert gain("table4/stages12", "table4/none", "rank1") == 2.99
    assert gain("table4/stages34", "table4/none", "map") == 1.45
    assert gain("table6/miim", "table6/cbam", "rank1") == 4.6
    assert gain("table9/pool=3", "table9/pool=1", "rank1") == 0.61
    assert gain("table9/pool=3", "table9/pool=1", "map") == 0.64
    assert gain("table3/full", "table10/random", "rank1") == 1.92
    assert gain("tableS2/full", "tableS2/shared", "map") == 0.6
    assert gain("tableS4/full", "tableS4/no-auxiliary", "map") == 1.32


@pytest.mark.parametrize("wrong", ["parts=-1", "part_width=-1", "contrast.top_k=no", "miim=[both,null,null,null]"])
def test_wrong_fields_are_told(wrong):
    with pytest.raises(BadInput, match=wrong.partition("=")[0].partition(".")[0]):
        with_fields(PAPER, [wrong])
