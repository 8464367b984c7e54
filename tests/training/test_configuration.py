"""Configurations from text and from JSON: what `--set` takes, what it refuses, and how the sentence says so."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import pytest
import torch

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.data.settings import Count, Share, hints, settings
from vireid.data.size import Size
from vireid.training.configuration import (
    NotChosen,
    as_assignments,
    describe,
    differences,
    digest,
    from_json,
    to_json,
    with_fields,
)
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training


@dataclass(frozen=True)
class Exchange:
    grey: bool = True


@dataclass(frozen=True)
class Erasing:
    p: float = 0.5
    fill: Literal["constant", "zero"] = "constant"


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    size: Size = Size(288, 144)
    precision: Literal["off", "bf16"] = "off"
    colour: Exchange | Erasing | None = Exchange()
    milestones: tuple[int, ...] = (20, 50)
    epoch_length: Literal["agw", "fastreid"] | int = "agw"
    clip: float | None = None
    name: str = "none"


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([], Settings()),
        (["seed=3"], Settings(seed=3)),
        (["size=96x48"], Settings(size=Size(96, 48))),
        (["colour=null"], Settings(colour=None)),
        (["colour.grey=false"], Settings(colour=Exchange(grey=False))),
        (["colour=Erasing"], Settings(colour=Erasing())),
        (["colour=Erasing", "colour.p=0.1", "colour.fill=zero"], Settings(colour=Erasing(0.1, "zero"))),
        (["milestones=[1,2]"], Settings(milestones=(1, 2))),
        (["epoch_length=12"], Settings(epoch_length=12)),
        (["epoch_length=fastreid"], Settings(epoch_length="fastreid")),
        (["clip=1"], Settings(clip=1.0)),
        (["clip=1", "clip=null"], Settings()),
        (["name=some/file.pth"], Settings(name="some/file.pth")),
    ],
)
def test_fields_are_set_by_dotted_paths_and_survive_json(assignments, expected):
    config = with_fields(Settings(), assignments)
    assert config == expected
    assert from_json(Settings, to_json(config)) == config


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("seed=a", ["field 'seed' cannot be 'a'", "whole number"]),
        ("seed=1.5", ["'seed'", "whole number"]),
        ("size=big", ["'size'", "HEIGHTxWIDTH"]),
        ("precision=fp8", ["'precision'", "off, bf16"]),
        ("colour=Blur", ["'colour'", "Exchange", "Erasing", "null"]),
        ("colour.gray=true", ["unknown field 'colour.gray'", "did you mean 'colour.grey'"]),
        ("sead=3", ["unknown field 'sead'", "did you mean 'seed'", "milestones"]),
        ("seed.x=3", ["'seed' has no fields"]),
        ("epoch_length=soon", ["agw", "fastreid", "whole number"]),
        ("seed", ["not FIELD=VALUE"]),
        ("=3", ["not FIELD=VALUE"]),
    ],
)
def test_a_wrong_assignment_is_one_sentence_that_names_the_choices(assignment, words):
    with pytest.raises(BadInput) as refusal:
        with_fields(Settings(), [assignment])
    message = str(refusal.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_the_given_configuration_is_not_changed():
    config = Settings()
    with_fields(config, ["seed=4", "colour.grey=false"])
    assert config == Settings()


def test_a_field_of_another_version_is_refused_by_name():
    with pytest.raises(BadInput, match="field of Settings in this run 'colours'"):
        from_json(Settings, {"type": "Settings", "colours": 3})
    with pytest.raises(BadInput, match="'Blur'"):
        from_json(Settings, {**to_json(Settings()), "colour": {"type": "Blur"}})
    with pytest.raises(BadInput, match="this run has no field 'seed'"):
        from_json(Settings, {"type": "Settings"})


def test_differences_are_dotted_paths_with_both_values():
    changed = with_fields(Settings(), ["seed=2", "colour.grey=false", "size=96x48"])
    assert differences(Settings(), changed) == {
        "seed": (0, 2),
        "colour.grey": (True, False),
        "size": ("288x144", "96x48"),
    }
    assert differences(Settings(), with_fields(Settings(), ["colour=null"])) == {
        "colour": ({"type": "Exchange", "grey": True}, None)
    }


# --- the shared fields, and parts -------------------------------------------------------------------------------------


@settings
class Blur:
    width: Count = 3
    """ours: pixels."""


@settings
class Sharpen:
    amount: Share = 0.5
    """paper, section 2: how much."""


@settings
class Recipe:
    training: Training = Training(
        epochs=3,
        size=Size(96, 48),
        identities_per_batch=2,
        visible_per_identity=2,
        infrared_per_identity=3,
        epoch_length="agw",
        optimiser=SGD(),
        schedule=WarmUpSteps(),
    )
    """
    epochs, size: paper, section 4: as printed.
    trunk: not stated: a long reason, which
        goes on in a second line.
    """
    blur: Blur | Sharpen | None = None
    """code: off."""


def test_shared_fields_are_named_without_a_prefix():
    config = with_fields(Recipe(), {"epochs": 9, "optimiser.lr": 0.5, "size": "64x32", "schedule.milestones": [1, 2]})
    assert config.training.epochs == 9 and config.training.optimiser.lr == 0.5
    assert config.training.size == Size(64, 32) and config.training.schedule.milestones == (1, 2)
    assert config.training.pictures_per_step == 10
    stored = to_json(config)
    assert stored["epochs"] == 9 and "training" not in stored and from_json(Recipe, stored) == config
    with pytest.raises(BadInput, match=r"unknown field 'training'; choices: epochs, size"):
        with_fields(Recipe(), ["training.epochs=9"])
    assert set(differences(Recipe(), config)) == {"epochs", "size", "optimiser.lr", "schedule.milestones"}


def test_a_part_is_chosen_by_name_and_never_by_one_of_its_fields():
    assert with_fields(Recipe(), ["blur=Blur", "blur.width=5"]).blur == Blur(width=5)
    assert with_fields(Recipe(), ["blur.width=5", "blur=Blur"]).blur == Blur(width=5), "the order has no influence"
    sharp = with_fields(Recipe(), ["blur=Sharpen"])
    assert sharp.blur == Sharpen() and with_fields(sharp, ["blur.amount=1"]).blur == Sharpen(amount=1)
    for config, wrong, sentence in (
        (Recipe(), "blur.width=5", r"field 'blur' is null; to use 'width' set blur=Blur as well"),
        (sharp, "blur.width=5", r"field 'blur' is Sharpen; to use 'width' set blur=Blur as well"),
    ):
        with pytest.raises(NotChosen, match=f"^{sentence}$"):
            with_fields(config, [wrong])
    with pytest.raises(NotChosen, match="'blur' is null"):
        with_fields(sharp, ["blur.amount=1", "blur=null"])


def test_values_of_a_part_are_checked():
    with pytest.raises(BadInput, match=r"'blur\.width' cannot be '0'; it takes a whole number of 1 or more"):
        with_fields(Recipe(), ["blur=Blur", "blur.width=0"])
    with pytest.raises(BadInput, match=r"'blur\.amount'.*from 0 to 1"):
        with_fields(Recipe(), {"blur": "Sharpen", "blur.amount": 1.5})


@pytest.mark.parametrize(
    ("recipe", "given", "sentence"),
    [
        ("wrim_net", "optimiser.nesterov=false", "field 'optimiser' is Adam; to use 'nesterov' set optimiser=SGD"),
        ("agw", "optimiser=Adam optimiser.momentum=0.9", "field 'optimiser' is Adam; to use 'momentum' set optimiser="),
        ("wrim_net", "contrast.margin=0.5", "field 'contrast' is KeyInstance; to use 'margin' set contrast=BatchHard"),
        ("agw", "erasing.p=0.3", "field 'erasing' is null; to use 'p' set erasing=ChannelErasing"),
    ],
)
def test_no_recipe_exchanges_a_part_unnoticed(recipe, given, sentence):
    with pytest.raises(NotChosen) as error:
        with_fields(recipes.recipe(recipe).PAPER, given.split())
    assert str(error.value).startswith(sentence)


def test_a_mapping_and_its_texts_mean_the_same():
    given = {"epochs": 9, "size": Size(64, 32), "blur": Blur(7), "gradient_clip": None, "schedule.milestones": [1]}
    assert with_fields(Recipe(), as_assignments(given)) == with_fields(Recipe(), given)


def test_every_field_is_described_once_with_its_source():
    found = {field.path: field for field in describe(with_fields(Recipe(), ["blur=Blur"])) if field.chosen}
    assert len(found) == len([field for field in describe(with_fields(Recipe(), ["blur=Blur"])) if field.chosen])
    assert {"epochs", "seed", "optimiser.lr", "blur", "blur.width"} <= set(found) and "training" not in found
    assert found["epochs"].source == "paper, section 4" and found["epochs"].default == 3
    assert found["trunk"].meaning == "a long reason, which goes on in a second line."
    assert found["seed"].source == "ours" and found["blur.width"].default == 3
    assert found["blur"].takes == "Blur or Sharpen or null"


def test_the_source_of_a_value_is_that_of_the_recipe_where_it_differs_from_the_default():
    from vireid.recipes import wrim_net

    found = {field.path: field for field in describe(wrim_net.PAPER) if field.chosen}
    assert (found["schedule.milestones"].default, found["schedule.milestones"].source) == ([80, 120], "supplement B")
    assert (found["schedule.warm_up_steps"].default, found["schedule.warm_up_steps"].source) == (2000, "not stated")
    assert found["schedule.decay"].source == "code of AGW"  # the default of the class
    assert found["epochs"].source.startswith("supplement")


# --- hostile values ---------------------------------------------------------------------------------------------------


HOSTILE = (
    *("-inf", "-1e9", "-1", "0", "1e-300", "true", "null", "", "''", "x", "nan", "0x7", "1_0", "[]", "{}", "[[1]]"),
    *("[0]", "[1,0]", "[0,0]", "[0.0,0.0]", "[-1,2]", "[nan,1]", "[2,1]", "[1000000000,1,1,1]", "[1,2,3,4]"),
    *("!!python/object:os.system x", "1", "2", "16384", "1e9", "1000000000", "99999999999999999999", "1e300", "inf"),
)
SMALL = ("trunk=tiny", "weights=none", "size=64x32")


def accepted(name):
    """(path, configuration) for every hostile value that some field of a recipe takes; the largest comes last."""
    paper = with_fields(recipes.recipe(name).PAPER, SMALL)
    for field in describe(paper):
        part = () if field.chosen else (f"{field.path.rpartition('.')[0]}={field.part}",)
        for value in HOSTILE:
            told = (*part, f"{field.path}={value}")
            try:
                yield (*told[:-1], field.path), with_fields(paper, told)
            except BadInput as error:
                assert "\n" not in str(error), told


@pytest.mark.parametrize("name", recipes.recipes())
def test_a_hostile_value_is_refused_or_can_be_used(name):
    """Anything but BadInput is a traceback for the user. A network is built for the last value of each field."""
    pictures = torch.randint(0, 255, (2, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pipelines, last, modality = set(), {}, torch.tensor([0, 1])
    for path, config in accepted(name):
        last[path] = config
        assert all(0 <= config.training.schedule.factor(epoch, 1, 3, 9) <= 1 for epoch in (0, 1, 8))
        with used(path):
            if (pipeline := config.augmentation()) not in pipelines:
                pipelines.add(pipeline)
                pipeline(pictures, modality, torch.Generator().manual_seed(0))
    for path, config in last.items():
        assert from_json(type(config), to_json(config)) == config
        with used(path):
            if path[-1].startswith("optimiser"):
                layer = torch.nn.Linear(2, 2)
                optimiser = config.training.optimiser.build(layer, [layer.bias])
                layer(torch.ones(1, 2)).sum().backward()
                optimiser.step()
            elif path[-1].partition(".")[0] not in hints(Training):
                recipes.build(name, config, 5, pretrained=False)
    assert len(last) > 30 and len(pipelines) > 10


@contextlib.contextmanager
def used(path):
    """A value may be refused when it is used, in one sentence."""
    try:
        yield
    except BadInput as error:
        assert "\n" not in str(error), path


@pytest.mark.parametrize(
    "told",
    [
        *("optimiser.lr=-1", "optimiser.momentum=2", "optimiser.weight_decay=-1", "flip.p=5", "crop.padding=-4"),
        *("gem_power=0", "visible_per_identity=0", "erasing.area=[0.4,0.02]", "crop.fill=-1", "views=true", "clip="),
        *("identities_per_batch=0", "seed=99999999999999999999", "schedule.decay=2", "gradient_clip=0", "erasing="),
    ],
)
def test_values_that_mean_nothing_are_refused(told):
    with pytest.raises(BadInput):
        with_fields(recipes.recipe("agw").PAPER, ["erasing=RandomErasing", told])


@pytest.mark.parametrize("name", recipes.recipes())
def test_every_part_that_can_be_chosen_says_what_it_is(name):
    for field in describe(recipes.recipe(name).PAPER):
        assert set(field.choices) <= set(field.takes.split(" or "))
        assert all(len(what) > 10 and not what.startswith(f"{part}(") for part, what in field.choices.items()), field
    (erasing,) = [field for field in describe(recipes.recipe("agw").PAPER) if field.path == "erasing"]
    assert set(erasing.choices) == {"ChannelErasing", "RandomErasing"}


def test_a_field_of_a_part_that_is_not_chosen_has_the_value_that_it_would_get():
    found = {(field.path, field.part): field for field in describe(recipes.recipe("agw").PAPER)}
    assert found["optimiser.lr", "Adam"].usual == 3.5e-4 and found["optimiser.lr", "Adam"].default is None
    assert found["optimiser.lr", "SGD"].usual is None and found["optimiser.lr", "SGD"].default == 0.1


def test_a_value_that_equals_the_default_does_not_make_another_configuration():
    """The default of `crop.fill` is written 0 in the code, and is read as 0.0."""
    paper = recipes.recipe("agw").PAPER
    for same in (with_fields(paper, ["crop.fill=0"]), from_json(type(paper), to_json(paper))):
        assert digest(to_json(same)) == digest(to_json(paper))
    assert digest(to_json(with_fields(paper, ["crop.fill=1"]))) != digest(to_json(paper))
