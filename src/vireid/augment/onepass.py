"""Changes of values that are made together, in one pass over the pixels of a picture.

Reading and writing half a megabyte of float32 takes longer than computing it. So the pipeline asks each operation on
values whether it can be part of the pass that normalises the picture. An operation answers by the optional method

    collect(self, onepass: OnePass, drawn) -> bool

which calls one of the methods below and returns their answer. If it has no such method or returns false, the pipeline
calls its `change` after the pass. The result is the same, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vireid.augment.normalise import Normaliser

Channels = tuple[int, int, int]
SAME: Channels = (0, 1, 2)


class OnePass:
    """Normalises one picture, exchanges its channels before and after that, and then fills rectangles.

    Each method adds a change to those that were added before, and returns whether it could.

    Args:
        before: whether there are operations on the values 0..1, before normalisation. Their last bits differ from those
            of values that are normalised without this intermediate step.
    """

    def __init__(self, *, before: bool) -> None:
        self.before, self.normalised, self.grey = before, False, False
        self.taken, self.channels = SAME, SAME
        self.rectangles: list[tuple[Sequence[int], Sequence[float]]] = []

    def copy_channel(self, channel: int) -> bool:
        """Copy one channel (0, 1 or 2) into all three."""
        if self.normalised:
            self.channels = (self.channels[channel],) * 3
            self.rectangles = [(box, (colour[channel],) * 3) for box, colour in self.rectangles]
        elif not self.grey:
            self.taken = (self.taken[channel],) * 3
        return True

    def luminance(self) -> bool:
        """Write the luminance into all three channels. Possible once, before anything else."""
        if self.normalised or self.grey or self.taken != SAME:
            return False
        self.grey = True
        return True

    def fill(self, box: Sequence[int], colour: Sequence[float]) -> bool:
        """Write a colour (three normalised values) into a rectangle: top, left, height, width."""
        if self.normalised:
            self.rectangles.append((box, colour))
        return self.normalised

    def write(self, image: np.ndarray, source: np.ndarray) -> None:
        """Make the changes: 3×H×W uint8 `source` to 3×H×W float32 `image`, both contiguous."""
        from vireid.augment import loops  # imports numba

        scale, shift = _constants(self.before)
        if self.grey:
            loops.normalise_grey(image, source, scale, shift, _luminance(), self.channels)
        else:
            loops.normalise(image, source, scale, shift, self.before, self.taken, self.channels)
        for box, colour in self.rectangles:
            loops.fill(image, *box, *colour)


@functools.cache
def _constants(of_floats: bool) -> tuple[np.ndarray, np.ndarray]:
    normaliser = Normaliser(torch.float32 if of_floats else torch.uint8)
    return normaliser.scale.flatten().numpy(), normaliser.shift.flatten().numpy()


@functools.cache
def _luminance() -> np.ndarray:
    from vireid.augment.colour import LUMINANCE

    return np.array(LUMINANCE, dtype=np.float32)


def collects(operation: Any, onepass: OnePass, drawn: Any) -> bool:
    """Ask an operation to add one drawn entry to the pass. False if it has no `collect`, or cannot."""
    return _can_collect(type(operation)) and operation.collect(onepass, drawn)


@functools.cache
def _can_collect(kind: type[Any]) -> bool:
    """Whether operations of this class have `collect`, and no later class has replaced only their `change`."""
    for owner in kind.__mro__:
        if "collect" in vars(owner):
            return True
        if "change" in vars(owner):
            return False
    return False
