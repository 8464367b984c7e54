"""Configurations as YAML files: what is read and refused, and that what is printed comes back."""

from __future__ import annotations

import pytest
import yaml

from vireid.data.errors import BadInput
from vireid.recipes import find_row, recipe, recipes
from vireid.training.configuration import changes, describe, with_fields
from vireid.training.settings_file import LARGEST, read_settings, settings_text


@pytest.fixture
def written(tmp_path):
    """A function that writes a file and reads its settings."""

    def read(text: str | bytes) -> dict:
        file = tmp_path / "mine.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings(file)

    return read


#   a file                                                    what --set would say
SAME = {
    "epochs: 3":                                              ["epochs=3"],
    "optimiser: {type: Adam, lr: 3e-4}":                      ["optimiser=Adam", "optimiser.lr=3e-4"],
    "optimiser.lr: 0.5":                                      ["optimiser.lr=0.5"],
    "optimiser:\n  lr: 0.5\nschedule:\n  milestones: [1, 2]": ["optimiser.lr=0.5", "schedule.milestones=[1,2]"],
    "erasing: ChannelErasing\nerasing.p: 1":                  ["erasing=ChannelErasing", "erasing.p=1"],
    "erasing: {type: RandomErasing, aspect: [3e-1, 3]}":      ["erasing=RandomErasing", "erasing.aspect=[0.3,3]"],
    "non_local: null":                                        ["non_local=null"],
    "non_local: ~":                                           ["non_local=null"],
    "precision: off":                                         ["precision=off"],
    "weights: none":                                          ["weights=none"],
    "weights: 'none'":                                        ["weights=none"],
    "size: 64x32":                                            ["size=64x32"],
    "with_replacement: true":                                 ["with_replacement=true"],
    "gradient_clip: 1":                                       ["gradient_clip=1"],
    "":                                                       [],
    "# nothing":                                              [],
}  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_a_file_means_what_set_means(text, written):
    paper = recipe("agw").PAPER
    assert with_fields(paper, written(text)) == with_fields(paper, SAME[text])


#   a file                                         what the sentence says
REFUSED = {
    "epoch: 3":                                    "unknown field 'epoch'; did you mean 'epochs'",
    "optimiser: {type: Adam, momentum: 0.5}":      "field 'optimiser' is Adam; to use 'momentum' set optimiser=SGD",
    "optimiser: {lr: {x: 1}}":                     r"field 'optimiser.lr' has no fields",
    "erasing: {}":                                 "field 'erasing' cannot be",
    "epochs: three":                               "field 'epochs' cannot be 'three'; it takes a whole number",
    "epochs: 3.5":                                 "whole number of 1 or more",
    "epochs: [3]":                                 "whole number of 1 or more",
    "with_replacement: 1":                         "true or false",
    "weights: 5":                                  "it takes text",
    "optimiser: Adagrad":                          "SGD",
    "views: true":                                 "one of 1, 2",
    "epochs: 3\nepochs: 4":                        "'epochs' stands there twice",
    "optimiser: {lr: 1}\noptimiser.lr: 2":         "'optimiser.lr' is set twice",
    "epochs: &a 3\nseed: *a":                      "aliases",
    "1: 2":                                        "is not the name of a field",
    "[1, 2]":                                      "no FIELD: VALUE lines",
    "just words":                                  "no FIELD: VALUE lines",
    "epochs: [1":                                  "is not YAML .line",
    "epochs: !!python/object/apply:os.getcwd []":  "is not YAML",
    "a:" * 5 + "\n\t- x":                          "is not YAML",
    "[" * 5000:                                    "is not YAML",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_what_is_wrong_in_a_file_is_one_sentence(text, written):
    with pytest.raises(BadInput, match=REFUSED[text]) as error:
        with_fields(recipe("agw").PAPER, written(text))
    assert "\n" not in str(error.value)


def test_files_that_are_no_settings_are_one_sentence(written, tmp_path):
    with pytest.raises(BadInput, match="is not YAML"):
        written(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="more than 262,144 bytes"):
        written("#" * (LARGEST + 1))
    with pytest.raises(BadInput, match=r"none\.yaml cannot be read: No such file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_settings(tmp_path)


ROWS = [
    (name, row)
    for name in recipes()
    for row in (None, *list(recipe(name).ROWS)[:: max(1, len(recipe(name).ROWS) // 3)])
]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_what_is_printed_comes_back_equal(name, row, written):
    config = find_row(f"{name}:{row}" if row else name)[2].config
    read = written(settings_text(config, name))
    assert with_fields(config, read) == config and with_fields(recipe(name).PAPER, read) == config
    assert set(read) == {field.path for field in describe(config) if field.chosen}


def test_the_lines_of_other_parts_are_valid_without_their_comment_marks(written):
    """Someone who takes away the marks before `erasing:` gets the part, with its defaults."""
    lines = settings_text(recipe("agw").PAPER, "agw").splitlines()
    first = lines.index("# erasing:")
    assert lines[first - 1] == "erasing: null" and lines[first + 1] == "#   type: ChannelErasing"
    last = lines.index("# erasing:", first + 1)
    block = "\n".join(line.removeprefix("# ") for line in lines[first:last])
    assert with_fields(recipe("agw").PAPER, written(block)) == with_fields(
        recipe("agw").PAPER, ["erasing=ChannelErasing"]
    )


def test_everything_that_is_printed_is_plain_yaml():
    """Other programs read the file as well."""
    found = yaml.safe_load(settings_text(recipe("wrim_net").PAPER, "wrim_net"))
    assert found["epochs"] == 140 and found["optimiser"]["type"] == "Adam"


@pytest.mark.parametrize("name", recipes())
def test_changes_lead_from_one_configuration_to_the_other(name):
    paper = recipe(name).PAPER
    for row in recipe(name).ROWS.values():
        assert with_fields(paper, changes(paper, row.config)) == row.config
        assert with_fields(row.config, changes(row.config, paper)) == paper
    assert changes(paper, paper) == ()
