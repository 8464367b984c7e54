"""Settings are checked where they are declared, and explain themselves."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Literal

import pytest

from vireid.data.errors import BadInput
from vireid.data.settings import Count, Positive, Share, Whole, in_words, note, options, read_note, settings
from vireid.data.size import Size


@settings
class Blur:
    radius: Positive = 1.5
    """paper, section 2: radius in pixels."""


@settings
class Example:
    p: Share = 0.5
    """code: probability."""

    steps: Count | Literal["all"] = 3
    """not stated: 3, because
    the example needs a number."""

    blur: Blur | None = None
    """ours: a part."""

    milestones: tuple[Whole, ...] = (1, 2)
    """ours: a list."""

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise BadInput("steps is 13, which brings bad luck")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"p": 1.5}, "Example: p cannot be 1.5; it takes a number from 0 to 1"),
        ({"p": "0.5"}, "Example: p cannot be '0.5'"),
        ({"p": float("nan")}, "Example: p cannot be nan"),
        ({"steps": 0}, "a whole number of 1 or more or one of all"),
        ({"steps": True}, "steps cannot be True"),
        ({"steps": "some"}, "one of all"),
        ({"blur": Example}, "Blur"),
        ({"milestones": (1, -1)}, "milestones cannot be"),
        ({"colour": 1}, "unknown field of Example 'colour'; did you mean 'blur'? Choices: p, steps, blur, milestones"),
        ({"steps": 13}, "steps is 13, which brings bad luck"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_made(values, sentence):
    with pytest.raises(BadInput) as refusal:
        Example(**values)
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)
    with pytest.raises(BadInput):
        replace(Example(), **values) if "colour" not in values else Example(**values)


def test_a_wrong_value_by_position_is_named():
    with pytest.raises(BadInput, match="Example: steps cannot be 0"):
        Example(0.5, 0)


def test_right_values_are_kept_and_cannot_be_changed():
    made = Example(1, "all", Blur(2), (7,))
    assert (made.p, made.steps, made.blur, made.milestones) == (1, "all", Blur(2), (7,))
    assert made == Example(1.0, "all", Blur(2.0), (7,)) and hash(made)
    with pytest.raises(FrozenInstanceError):
        made.p = 0.1  # type: ignore[misc]


def test_notes_stand_below_the_fields():
    assert (note(Example, "p").source, note(Example, "p").meaning) == ("code", "probability.")
    assert note(Example, "steps").meaning == "3, because the example needs a number."
    assert note(Blur, "radius").source == "paper, section 2"
    for text in ("", "it is the probability", "blog: 3"):
        with pytest.raises(ValueError, match=r"Example\.p"):
            read_note(text, "Example.p")


def test_annotations_in_words():
    assert in_words(Size) == "HEIGHTxWIDTH in pixels, such as 384x144"
    assert in_words(Blur | None) == "Blur (fields: radius) or null"
    assert in_words(tuple[Share, Share]) == "a list of 2, each a number from 0 to 1"


def test_options_take_text_for_paths_but_no_unknown_name():
    @options
    class Asked:
        run: Path
        workers: Whole = 2

    assert Asked("runs/x").run == Path("runs/x")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="Asked needs run"):
        Asked()  # type: ignore[call-arg]
    with pytest.raises(BadInput, match="workers cannot be -1; it takes a whole number of 0 or more"):
        Asked(Path("x"), workers=-1)
