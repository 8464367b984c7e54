"""Operations that move pixels: flip, pad and crop, crop at several scales.

They take N×3×H×W of any number type (uint8 is fastest, and exact where no pixel is interpolated), draw for each row on
its own, and give new memory of the same shape and type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from vireid.augment.boxes import first_fitting, uniform


def flip(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror left and right the rows where `chosen` (N bool) says so."""
    result = images.clone()
    for row in chosen.nonzero()[:, 0].tolist():
        _flip(result[row])
    return result


@dataclass(frozen=True)
class Flip:
    """Left becomes right with probability `p`."""

    p: float = 0.5

    def draw(self, rows: int, *, generator: torch.Generator) -> torch.Tensor:
        """Which rows: bool."""
        return torch.rand(rows, generator=generator) < self.p

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None:
        """Change these rows of `images` in place."""
        for row, chosen in zip(rows, self.draw(len(rows), generator=generator).tolist(), strict=True):
            if chosen:
                _flip(images[row])

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return flip(images, self.draw(len(images), generator=generator))


def pad_crop(images: torch.Tensor, corner: torch.Tensor, *, padding: int, fill: float = 0) -> torch.Tensor:
    """Surround by `padding` pixels of `fill` and cut the original size out again.

    Args:
        images: N×3×H×W.
        corner: N×2 int64, top and left of the cut in the padded picture, 0..2×padding.
    """
    height, width = images.shape[2:]
    result = torch.full_like(images, fill)
    for image, source, (top, left) in zip(result, images, corner.tolist(), strict=True):
        down, right = top - padding, left - padding
        image[:, max(0, -down) : height - down, max(0, -right) : width - right] = source[
            :, max(0, down) : height + down, max(0, right) : width + right
        ]
    return result


@dataclass(frozen=True)
class PadCrop:
    """A shift by up to `padding` pixels, as AGW and CAJ do it: pad by `fill`, crop the original size at random."""

    padding: int = 10
    fill: float = 0

    def draw(self, rows: int, *, generator: torch.Generator) -> torch.Tensor:
        """Tops and lefts in the padded picture: rows×2 int64."""
        return torch.randint(2 * self.padding + 1, (rows, 2), generator=generator)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        corner = self.draw(len(images), generator=generator)
        return pad_crop(images, corner, padding=self.padding, fill=self.fill)


def crop_resize(images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Cut a rectangle out of each row and stretch it over the whole picture, bilinearly.

    Args:
        images: N×3×H×W.
        boxes: N×4 int64: top, left, height, width.
    """
    result = torch.empty_like(images)
    for image, source, (top, left, height, width) in zip(result, images, boxes.tolist(), strict=True):
        cut = source[:, top : top + height, left : left + width]
        image.copy_(_resized(cut, image.shape[1:]))
    return result


@dataclass(frozen=True)
class MultiScaleCrop:
    """A random part of the picture, stretched back to its size.

    Attributes:
        area: of the part over the picture's, drawn uniformly.
        aspect: width over height of the part in pixels, drawn uniformly in its logarithm. People are upright: the
            values that suit photographs of anything would squash them.
    """

    area: tuple[float, float] = (0.7, 1.0)
    aspect: tuple[float, float] = (0.30, 0.45)

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
        """Rectangles: rows×4 int64 (top, left, height, width); the whole picture where none of ten tries fits."""
        drawn = torch.rand(rows, 22, generator=generator, dtype=torch.float64)
        area = uniform(drawn[:, :10], *self.area) * math.prod(size)
        aspect = uniform(drawn[:, 10:20], math.log(self.aspect[0]), math.log(self.aspect[1])).exp()
        boxes = first_fitting((area / aspect).sqrt(), (area * aspect).sqrt(), drawn[:, 20:], size=size, largest=size)
        return torch.where(boxes[:, 2:3] > 0, boxes, torch.tensor((0, 0, *size)))

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        height, width = images.shape[2:]
        return crop_resize(images, self.draw(len(images), size=(height, width), generator=generator))


def _flip(image: torch.Tensor) -> None:
    image.copy_(image.flip(-1))


def _resized(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """3×h×w to 3×size; integers are rounded to the nearest."""
    resized = functional.interpolate(
        image[None].to(torch.promote_types(image.dtype, torch.float32)), size=tuple(size), mode="bilinear"
    )[0]
    return resized if image.is_floating_point() else resized.round_()
