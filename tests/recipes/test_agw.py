"""AGW: its network, its two terms, its settings and its rows, against the public code and the papers that quote it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.oracles import losses as oracle
from tests.oracles import networks as networks_oracle
from tests.small import SECOND
from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.normalise import normalise
from vireid.data.batch import Batch
from vireid.data.loading import TrainingLoader
from vireid.experiments.train import Pictures, TrainOptions, plan
from vireid.networks.attention import NonLocal
from vireid.networks.pooling import GeM
from vireid.recipes.agw import AGW, PAPER, ROWS, Config, build
from vireid.training.configuration import from_json, to_json, with_fields
from vireid.training.loop import accelerator_for
from vireid.training.progress import Quiet

TINY = {"trunk": "tiny", "weights": "none", "size": "64x32"}
Features = Sequence[Sequence[float]]


def _batch(seed: int = 0) -> Batch:
    """Two identities with two visible and two infrared samples each."""
    images = torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(8) // 2 % 2, torch.arange(8) // 4, torch.zeros(8, dtype=torch.int64))


def _network(config: Config = PAPER, **changes: Any) -> AGW:
    torch.manual_seed(0)
    return build(with_fields(config, {**TINY, **changes}), 5)


# --- objective --------------------------------------------------------------------------------------------------------


def exact_triplet(features: Features, identity: Sequence[int]) -> float:
    return oracle.weighted_regularised_triplet(features, identity, negative_sign="minus", anchor_is_positive=True)


def triplet_of_agws_code(features: Features, identity: Sequence[int]) -> float:
    gaps = [near - far for near, far in oracle.code_triplet(features, identity, epsilon=1e-6)]
    return math.fsum(max(gap, 0.0) + math.log1p(math.exp(-abs(gap))) for gap in gaps) / len(gaps)


def triplet_of_cajs_code(features: Features, identity: Sequence[int]) -> float:
    return oracle.squared_difference_triplet(features, identity, alpha=1.0, gamma=1.0, epsilon=1e-6)


# Table or row, and the triplet loss that it trains with.
TRIPLETS: dict[str, Callable[[Features, Sequence[int]], float]] = {
    "paper": exact_triplet,
    "channel-augmentation": exact_triplet,
    "code": triplet_of_agws_code,
    "sysu-mm01": triplet_of_agws_code,
    "regdb": triplet_of_agws_code,
    "llcm": triplet_of_agws_code,
    "caj-code": triplet_of_cajs_code,
    "caj": triplet_of_cajs_code,
}
CONFIGS = {"paper": PAPER} | {name: row.config for name, row in ROWS.items()}
DIFFERENT = [name for i, name in enumerate(CONFIGS) if CONFIGS[name] not in list(CONFIGS.values())[:i]]


def _spread(network: AGW, factor: float) -> None:
    """Multiply the pooled features by about `factor`, and make the scores of the classes differ."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "layer4" in name and ".bn" in name:
                parameter *= factor
        torch.nn.init.normal_(network.classifier.linear.weight, std=0.3)
        torch.nn.init.uniform_(network.encoder.neck.bn.weight, 0.5, 1.5)


def _pooled(network: AGW, batch: Batch) -> torch.Tensor:
    """Generalised means with exponent 3, by a loop."""
    with torch.no_grad():
        return networks_oracle.gem(network.maps(batch.images, batch.modality)["stage4"], p=3.0, eps=1e-6)


def _necked(network: AGW, pooled: torch.Tensor) -> torch.Tensor:
    """Each channel minus its mean over the batch, over its standard deviation, times its weight."""
    necked = torch.zeros_like(pooled)
    for c, weight in enumerate(network.encoder.neck.bn.weight.tolist()):
        column = pooled[:, c].tolist()
        mean = math.fsum(column) / len(column)
        variance = math.fsum((value - mean) ** 2 for value in column) / len(column)
        for i, value in enumerate(column):
            necked[i, c] = weight * (value - mean) / math.sqrt(variance + 1e-5)
    return necked


@pytest.mark.parametrize("factor", [0.3, 20.0], ids=["near", "far"])
@pytest.mark.parametrize("name", DIFFERENT)
def test_the_objective_against_a_loop(name, factor):
    network, batch = _network(CONFIGS[name]), _batch()
    _spread(network, factor)
    terms = network.objective(batch)
    assert list(terms) == ["identity", "triplet"]
    pooled, identity = _pooled(network, batch), batch.identity.tolist()
    logits = _necked(network, pooled) @ network.classifier.linear.weight.detach().double().T
    wanted = TRIPLETS[name.partition("/")[0]](pooled.tolist(), identity)
    assert terms["identity"].item() == pytest.approx(oracle.cross_entropy(logits.tolist(), identity, 0.0), rel=1e-4)
    assert terms["triplet"].item() == pytest.approx(wanted, rel=1e-4)
    # The three triplet losses can be told apart: CAJ's at any distance, the two of AGW at large distances.
    values = {loss.__name__: loss(pooled.tolist(), identity) for loss in TRIPLETS.values()}
    exact, of_agw, of_caj = (
        values[one.__name__] for one in (exact_triplet, triplet_of_agws_code, triplet_of_cajs_code)
    )
    assert of_caj != pytest.approx(exact, rel=1e-2) and of_caj != pytest.approx(of_agw, rel=1e-2)
    assert (of_agw == pytest.approx(exact, rel=1e-2)) is (factor < 1)


def test_with_the_sign_as_printed_by_later_papers_the_farthest_negative_weighs_most():
    network, batch = _network(PAPER, **{"triplet.negative_sign": "plus"}), _batch()
    pooled = _pooled(network, batch).tolist()
    expected = oracle.weighted_regularised_triplet(
        pooled, batch.identity.tolist(), negative_sign="plus", anchor_is_positive=True
    )
    assert network.objective(batch)["triplet"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("changes", [{"alpha": 2.0}, {"gamma": 0.5}, {"epsilon": 0.5}], ids=str)
def test_each_setting_of_cajs_triplet_loss_counts(changes):
    fields = {f"triplet.{name}": value for name, value in changes.items()}
    network, batch = _network(ROWS["caj-code"].config, **fields), _batch()
    expected = oracle.squared_difference_triplet(
        _pooled(network, batch).tolist(),
        batch.identity.tolist(),
        **{"alpha": 1.0, "gamma": 1.0, "epsilon": 1e-6, **changes},
    )
    assert network.objective(batch)["triplet"].item() == pytest.approx(expected, rel=1e-4)


# --- network ----------------------------------------------------------------------------------------------------------


def test_maps_are_reachable_by_name_and_the_embedding_is_the_feature_after_the_neck():
    network, batch = _network(), _batch()
    network.objective(_batch(1))  # so that the neck has statistics
    network.eval()
    maps = network.maps(batch.images, batch.modality)
    assert list(maps) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert maps["stage3"].shape[2:] == maps["stage4"].shape[2:] == (4, 2)  # last stride 1
    pooled = GeM(3.0)(maps["stage4"])
    expected = functional.normalize(network.encoder.neck(pooled))
    assert torch.allclose(network.embed(batch.images, batch.modality), expected, atol=1e-6)
    assert torch.allclose(network.embed_pooled(batch.images, batch.modality), functional.normalize(pooled), atol=1e-6)


def test_neck_and_classifier_learn_at_the_full_rate_and_everything_else_at_a_tenth():
    network = _network()
    new = {id(parameter) for parameter in network.new_parameters()}
    fast = {name for name, parameter in network.named_parameters() if id(parameter) in new}
    assert fast == {"encoder.neck.bn.weight", "encoder.neck.bn.bias", "classifier.linear.weight"}
    optimiser = PAPER.training.optimiser.build(network, network.new_parameters())
    assert {group["name"]: group["lr"] for group in optimiser.param_groups} == pytest.approx(
        {"trunk": 0.01, "new": 0.1}
    )
    stems, stages = network.pretrained_parts()
    assert stems == list(network.encoder.stems.copies.values())
    assert len(stems) == 2
    assert stages is network.encoder.stages


def test_five_non_local_blocks_of_the_width_that_the_field_says():
    def blocks(non_local):
        with torch.device("meta"):
            network = build(replace(PAPER, non_local=non_local), 395)
        return [module for module in network.modules() if isinstance(module, NonLocal)]

    def widths(non_local):
        return [block.theta.out_channels for block in blocks(non_local)]

    assert widths("half") == [256, 256, 512, 512, 512]
    assert widths("code") == [1] * 5
    assert blocks(None) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_how_the_neck_starts(name):
    weight = _network(CONFIGS[name]).encoder.neck.bn.weight
    if name in ("paper", "channel-augmentation"):
        assert torch.equal(weight, torch.ones(256))
    else:  # N(1, 0.01)
        assert abs(weight.mean() - 1) < 5 * 0.01 / 16
        assert 0.007 < weight.std() < 0.013


# --- pictures ---------------------------------------------------------------------------------------------------------


def _pictures(count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` equal pictures of one colour, half of them visible. Only the colour operations change them."""
    images = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(count, 3, 32, 16)
    return images, torch.arange(2).repeat_interleave(count // 2)


def _still(config: Config) -> Config:
    return replace(config, flip=replace(config.flip, p=0.0), crop=replace(config.crop, padding=0))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_which_modality_each_operation_changes():
    images, modality = _pictures()

    def changed(*fields: str) -> set[int]:
        found = with_fields(_still(PAPER), fields).augmentation()(images, modality, _generator())
        return set(modality[(found - normalise(images)).abs().flatten(1).amax(1) > 1e-5].tolist())

    assert changed() == set()
    assert changed("exchange=ChannelExchange") == {0}
    assert changed("exchange_infrared=ChannelExchange") == {1}
    assert changed("erasing=ChannelErasing") == {0, 1}
    assert changed("erasing=RandomErasing") == {0, 1}


@pytest.mark.parametrize("name", ["channel-augmentation", "caj-code"])
def test_a_picture_is_erased_before_its_channels_are_exchanged(name):
    images, modality = _pictures()
    pipeline = with_fields(_still(ROWS[name].config), {"erasing.p": 1.0}).augmentation()
    found = (pipeline.second_view or pipeline)(images[:40], modality[:40], _generator())
    exchanged = (found[:, 0] == found[:, 1]).flatten(1).all(1) & (found[:, 0] == found[:, 2]).flatten(1).all(1)
    # In the other order, the rectangle would have three different channels in every picture.
    assert 20 <= exchanged.sum() <= 40
    # All of them are erased: the rectangle has one of the three constants, or their luminance.
    assert (found.flatten(1).amax(1) > found.flatten(1).amin(1)).all()


def test_cajs_two_views_step_by_step():
    generator = _generator()
    images = torch.randint(256, (24, 3, 48, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    modality = torch.arange(24) % 2
    visible, infrared = modality == 0, modality == 1
    pipeline = ROWS["caj-code"].config.augmentation()

    first = normalise(PadCrop(10)(Flip(0.5)(images, generator=generator), generator=generator))
    first[visible] = ChannelErasing()(first[visible], generator=generator)
    first[infrared] = ChannelErasing()(first[infrared], generator=generator)
    first[infrared] = ChannelExchange("rgb_unchanged_grey")(first[infrared], generator=generator)
    assert torch.equal(pipeline(images, modality, _generator()), first)

    generator = _generator()
    second = normalise(PadCrop(10)(Flip(0.5)(images[visible], generator=generator), generator=generator))
    second = ChannelErasing()(second, generator=generator)
    second = ChannelExchange("rgb")(second, generator=generator)
    assert pipeline.second_view is not None
    assert torch.equal(pipeline.second_view(images[visible], modality[visible], _generator()), second)


def test_one_view_has_no_second_pipeline():
    for name, config in CONFIGS.items():
        assert (config.augmentation().second_view is None) is not name.startswith("caj"), name


def _loader(row: str, worlds: dict[str, Path], *changes: str) -> TrainingLoader:
    asked = TrainOptions(row, f"regdb:{worlds['regdb']}", Path("unused"), set=(*SECOND, *changes), workers=0)
    return Pictures.of(plan(asked), asked).loader(accelerator_for("off"), Quiet())


def test_a_step_of_caj_has_two_views_of_each_visible_picture(worlds):
    def first_batch(*changes: str) -> Batch:
        return next(_loader("agw:caj-code", worlds, *changes).batches(0))

    batch, once = first_batch(), first_batch("views=1")
    assert (len(once), len(batch)) == (12, 18)  # 3 people, 2 pictures of each modality
    assert batch.modality.bincount().tolist() == [12, 6]
    of_first = once.modality == 0
    assert torch.equal(batch.identity[:12], once.identity) and torch.equal(batch.camera[:12], once.camera)
    assert torch.equal(batch.identity[12:], once.identity[of_first])
    assert (batch.modality[12:] == 0).all()
    assert not torch.equal(batch.images[12:], batch.images[:12][of_first])
    # A second view has one channel three times; the first view has not.
    grey = (batch.images[:, 0] == batch.images[:, 1]).flatten(1).all(1)
    assert grey[12:].all() and not grey[:12][of_first].any()


@pytest.mark.parametrize(("row", "often"), [("agw:code", 7 / 9), ("agw:caj-code", 7 / 9), ("agw", 0.0)])
def test_how_often_a_step_repeats_a_picture(row, often, worlds):
    """With replacement, 3 of 3 pictures are all different with probability 6/27, so 7/9 of the groups repeat one."""
    groups = ("visible_per_identity=3", "infrared_per_identity=3", "epoch_length=40")
    bare = ("flip.p=0", "crop.padding=0", "erasing=null", "exchange=null", "exchange_infrared=null", "views=1")
    repeats = []
    for batch in _loader(row, worlds, *groups, *bare).batches(0):
        for group in (2 * batch.identity + batch.modality).unique():
            images = batch.images[2 * batch.identity + batch.modality == group]
            assert len(images) == 3
            repeats.append(len(images.flatten(1).unique(dim=0)) < 3)
    assert len(repeats) == 240  # 40 steps, 3 people, 2 modalities
    assert abs(sum(repeats) / 240 - often) <= 4.5 * math.sqrt(often * (1 - often) / 240)


# --- settings and rows ------------------------------------------------------------------------------------------------


def _flat(config: Config) -> dict[str, Any]:
    """Each setting by its name on the command line. A part that is there has its own name as its value."""

    def pairs(prefix: str, values: dict[str, Any]):
        for name, value in values.items():
            if isinstance(value, dict):
                yield prefix + name, value["type"]
                yield from pairs(f"{prefix}{name}.", {k: v for k, v in value.items() if k != "type"})
            else:
                yield prefix + name, value

    return dict(pairs("", {name: value for name, value in to_json(config).items() if name != "type"}))


# The paper's model, with the settings of training that only the public code states.
SETTINGS = {
    "epochs": 81,
    "size": "288x144",
    "identities_per_batch": 8,
    "visible_per_identity": 4,
    "infrared_per_identity": 4,
    "epoch_length": "agw",
    "with_replacement": False,
    "optimiser": "SGD",
    "optimiser.lr": 0.1,
    "optimiser.trunk_factor": 0.1,
    "optimiser.momentum": 0.9,
    "optimiser.nesterov": True,
    "optimiser.weight_decay": 5e-4,
    "schedule": "WarmUpSteps",
    "schedule.warm_up_epochs": 10,
    "schedule.warm_up_steps": 0,
    "schedule.milestones": [20, 50],
    "schedule.decay": 0.1,
    "trunk": "resnet50",
    "weights": "imagenet",
    "gradient_clip": None,
    "non_local": "half",
    "gem_power": 3.0,
    "neck_start": "ones",
    "triplet": "WeightedTriplet",
    "triplet.negative_sign": "minus",
    "triplet.epsilon": 0.0,
    "flip": "Flip",
    "flip.p": 0.5,
    "crop": "PadCrop",
    "crop.padding": 10,
    "crop.fill": 0,
    "erasing": None,
    "exchange": None,
    "exchange_infrared": None,
    "views": 1,
}
CODE = {"non_local": "code", "with_replacement": True, "neck_start": "code", "triplet.epsilon": 1e-6}
CHANNEL_ERASING = {
    "erasing": "ChannelErasing",
    "erasing.p": 0.5,
    "erasing.area": [0.02, 0.4],
    "erasing.aspect": [0.3, 1 / 0.3],
    "erasing.fill": "caj_const",
}
CAJ = CODE | CHANNEL_ERASING | {
    "epochs": 100,
    "triplet": "SquaredTriplet",
    "triplet.alpha": 1.0,
    "triplet.gamma": 1.0,
    "exchange": "ChannelExchange",
    "exchange.cases": "rgb",
    "exchange_infrared": "ChannelExchange",
    "exchange_infrared.cases": "rgb_unchanged_grey",
    "views": 2,
}  # fmt: skip
# Table or row, and what is different from SETTINGS there.
CHANGED = {
    "code": CODE,
    "sysu-mm01": CODE,
    "regdb": CODE,
    "llcm": CODE | CHANNEL_ERASING | {"erasing": "RandomErasing", "erasing.fill": "mean"},
    "caj-code": CAJ,
    "caj": CAJ,
    "channel-augmentation": CHANNEL_ERASING
    | {"exchange": "ChannelExchange", "exchange.cases": "rgb_unchanged_grey"},
}  # fmt: skip


def test_the_settings_of_the_paper_and_of_the_public_code():
    found = _flat(PAPER)
    assert {name: found[name] for name in SETTINGS} == SETTINGS
    # Neither the paper nor the code has an opinion about these.
    assert set(found) - set(SETTINGS) == {
        "seed",
        "precision",
        "compile",
        "ical",
        "schedule.warm_up_start",
        "schedule.warm_up_at_most",
    }
    assert PAPER.training.pictures_per_step == 64
    factors = [PAPER.training.schedule.factor(epoch, 0, 100) for epoch in (0, 9, 19, 20, 49, 50, 80)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("name", ROWS)
def test_what_each_row_changes(name):
    paper, found = _flat(PAPER), _flat(ROWS[name].config)
    assert {field: value for field, value in found.items() if paper.get(field) != value} == CHANGED[
        name.partition("/")[0]
    ]
    assert from_json(Config, to_json(ROWS[name].config)) == ROWS[name].config


def test_rows_with_printed_numbers_and_presets_without():
    assert {name for name, row in ROWS.items() if row.published} == {name for name in ROWS if "/" in name}
    assert [name for name, row in ROWS.items() if row.on is None] == ["code", "caj-code", "channel-augmentation"]
    assert {name: list(ROWS[f"caj/{name}"].published.values()) for name in ("sysu-all", "regdb-v2i")} == {
        "sysu-all": [69.88, 95.71, 98.46, 66.89],
        "regdb-v2i": [85.03, 95.49, 97.54, 79.14],
    }
