"""Figures while a network is trained: what each validation saw, as images for a tracker."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vireid.data.errors import BadInput
from vireid.experiments.validate import Seen
from vireid.figures.drawing import Figure, Look, matplotlib
from vireid.figures.kinds import kind
from vireid.figures.subject import Subject, Where, known
from vireid.training.progress import Progress, Quiet

Drawing = Callable[[Subject], Sequence[Figure]]
LOOK = Look(width="page")
REDUCED = 2
"""Images are for a screen: 150 dots per inch are enough, half of what is printed."""


def of_kind(name: str, **choices: Any) -> Drawing:
    """The figures of a kind, with these choices; the others are as usual."""

    def draw(subject: Subject) -> Sequence[Figure]:
        module = kind(name)
        return module.figures([subject], module.Choices(**choices))

    return draw


DRAWINGS: dict[str, Drawing] = {
    "ranked": of_kind("ranked", which=("random",), mistakes=0),
    "attention": of_kind("attention", which="random"),
}
"""What a tracker gets: the same few queries after each validation, and where the network looks in them."""


class Live:
    """Draws what a validation saw. It is a `vireid.experiments.validate.Draw`.

    It works on a copy of the network and puts the states of the random number generators back. So a training with
    figures ends with the same bits as one without. What cannot be drawn is said once and not tried again.

    Args:
        progress: where that is said.
        drawings: name → what draws it.
    """

    def __init__(self, progress: Progress = Quiet(), drawings: Mapping[str, Drawing] | None = None) -> None:  # noqa: B008 has no state
        self._progress = progress
        self._drawings = dict(DRAWINGS if drawings is None else drawings)

    def __call__(self, seen: Seen) -> dict[str, np.ndarray]:
        """The images: name of a figure → H×W×3 uint8. It raises nothing."""
        from vireid.training.checkpoint import random_states, set_random_states

        if self._drawings:
            try:
                matplotlib()
            except BadInput as error:
                self._drawings.clear()
                self._progress.say(f"the tracker gets no figures: {error}")
        states = random_states()
        try:
            return self._images(seen)
        finally:
            set_random_states(states)

    def _images(self, seen: Seen) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        subject = None
        for name, draw in list(self._drawings.items()):
            try:
                subject = subject or _subject(seen)
                found |= {figure.name: image(figure) for figure in draw(subject)}
            except Exception as error:  # a figure must not end a training, whatever is wrong with it
                del self._drawings[name]
                reason = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
                self._progress.say(f"the tracker gets no figure '{name}' from epoch {seen.epoch + 1} on: {reason}")
        return found


def image(figure: Figure) -> np.ndarray:
    """A figure as H×W×3 uint8, for a screen."""
    with Image.open(io.BytesIO(figure.image(LOOK))) as drawn:
        return np.asarray(drawn.convert("RGB").reduce(REDUCED))


def _subject(seen: Seen) -> Subject:
    from vireid.model import Model, configuration

    data, validation = seen.run.facts.data, seen.validation
    recipe, config = configuration(seen.run)
    network = copy.deepcopy(seen.network).eval()
    model = Model(network, recipe, config, seen.run, epochs=seen.epoch + 1)
    where = Where(
        f"{data.layout}:{data.source or data.root}",
        validation.rules.name,
        batch=seen.how.batch,
        workers=seen.how.workers,
        cache=seen.how.cache,
    )
    return known(where, model, (validation.records, validation.rules, validation.trials), seen.features)
