"""Configurations meet text: what `--set` takes, what it refuses and how it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.training.configuration import differences, from_json, to_json, with_fields


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
        from_json(Settings, {"colour": {"type": "Blur"}})


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
