"""Operations that move pixels: flip, pad and crop, crop at several scales.

They take pictures of any number type; uint8 is fastest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from vireid.augment.boxes import first_fitting, uniform
from vireid.augment.operation import augmented

TRIES = 20


@dataclass(frozen=True)
class Flip:
    """Left becomes right with probability `p`. Draws booleans."""

    p: float = 0.5

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[bool]:
        return (torch.rand(rows, generator=generator) < self.p).tolist()

    def change(self, image: torch.Tensor, drawn: bool) -> None:
        if drawn:
            image.copy_(image.flip(-1))

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


@dataclass(frozen=True)
class PadCrop:
    """A shift by up to `padding` pixels: pad by `fill`, cut the original size out at random, as AGW and CAJ do.

    Draws the top and left of the cut in the padded picture, 0..2×padding each.
    """

    padding: int = 10
    fill: float = 0

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[list[int]]:
        return torch.randint(2 * self.padding + 1, (rows, 2), generator=generator).tolist()

    def change(self, image: torch.Tensor, drawn: Sequence[int]) -> None:
        height, width = image.shape[1:]
        down, right = (corner - self.padding for corner in drawn)
        source = image.clone()[:, max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
        image.fill_(self.fill)
        image[:, max(0, -down) : max(0, height - down), max(0, -right) : max(0, width - right)] = source

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


@dataclass(frozen=True)
class MultiScaleCrop:
    """A random part of the picture, stretched back to its size, bilinearly.

    Draws the part's top, left, height and width; the whole picture where none of twenty tries fits.

    Attributes:
        area: of the part over the picture's, drawn uniformly.
        aspect: width over height of the part in pixels, drawn uniformly in its logarithm. People are upright: values
            that suit photographs of anything would squash them.
    """

    area: tuple[float, float] = (0.7, 1.0)
    aspect: tuple[float, float] = (0.30, 0.45)

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[list[int]]:
        areas, aspects, position = torch.rand(rows, 2 * TRIES + 2, generator=generator, dtype=torch.float64).split(
            (TRIES, TRIES, 2), 1
        )
        area = uniform(areas, *self.area) * math.prod(size)
        aspect = uniform(aspects, math.log(self.aspect[0]), math.log(self.aspect[1])).exp()
        boxes = first_fitting((area / aspect).sqrt(), (area * aspect).sqrt(), position, size=size, largest=size)
        return torch.where(boxes[:, 2:3] > 0, boxes, torch.tensor((0, 0, *size))).tolist()

    def change(self, image: torch.Tensor, drawn: Sequence[int]) -> None:
        top, left, height, width = drawn
        part = image[None, :, top : top + height, left : left + width]
        image.copy_(_stretched(part, (image.shape[1], image.shape[2]))[0])

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


def _stretched(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear; integers are rounded, uint8 on a CPU by torch's own fixed-point path (within one grey level)."""
    if images.is_floating_point() or (images.dtype == torch.uint8 and images.device.type == "cpu"):
        return functional.interpolate(images, size=size, mode="bilinear")
    return functional.interpolate(images.float(), size=size, mode="bilinear").round_()
