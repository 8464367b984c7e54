"""Operations that move pixels: flip, pad and crop, crop at several scales.

They take pictures of any number type. They are fastest on uint8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Interval
from torch.nn import functional

from vireid.augment.boxes import first_fitting, uniform
from vireid.augment.operation import augmented, loops_for
from vireid.data.errors import BadInput
from vireid.data.settings import PositiveRange, Share, ShareRange, Whole, settings

# How many cuts are tried for each picture.
TRIES = 20


@settings
class Flip:
    """Horizontal mirroring with probability `p`. `draw` returns booleans."""

    p: Share = 0.5
    """code of AGW: probability that a picture is mirrored."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[bool]:
        return (torch.rand(count, generator=generator) < self.p).tolist()

    def change(self, image: torch.Tensor, drawn: bool) -> None:
        if not drawn:
            return
        if (loops := loops_for(image)) is None:
            image.copy_(image.flip(-1))
        else:
            loops.mirror(image.numpy())

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


@settings
class PadCrop:
    """Padding with `fill` on all sides, then a random cut of the original size, as in AGW and CAJ.

    It shifts the picture by up to `padding` pixels. `draw` returns the top and the left of the cut in the padded
    picture, each in 0..2×padding.

    Raises (when it is applied):
        BadInput: the padding is not below the height and the width.
    """

    padding: Whole = 10
    """code of AGW: pixels of border on each side before the cut."""

    fill: Annotated[float, Interval(ge=0, le=255)] = 0
    """code of AGW: value of the border."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[list[int]]:
        if self.padding >= min(size):
            raise BadInput(
                f"crop.padding is {self.padding}, which can move pictures of {size[0]}x{size[1]} out of view; choices: "
                f"0 to {min(size) - 1}"
            )
        return torch.randint(2 * self.padding + 1, (count, 2), generator=generator).tolist()

    def change(self, image: torch.Tensor, drawn: Sequence[int]) -> None:
        height, width = image.shape[1:]
        down, right = (corner - self.padding for corner in drawn)
        if (loops := loops_for(image)) is not None:
            loops.shift(image.numpy(), down, right, int(self.fill))
            return
        source = image.clone()[:, max(0, down) : max(0, height + down), max(0, right) : max(0, width + right)]
        image.fill_(self.fill)
        image[:, max(0, -down) : max(0, height - down), max(0, -right) : max(0, width - right)] = source

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


@settings
class MultiScaleCrop:
    """A random cut of the picture, resized to the size of the picture by bilinear interpolation.

    `draw` returns top, left, height and width of the cut. It returns the whole picture if none of 20 tries fits.
    """

    area: ShareRange = (0.7, 1.0)
    """not stated: area of the cut as a share of the picture's, drawn uniformly."""

    aspect: PositiveRange = (0.30, 0.45)
    """not stated: width over height of the cut in pixels, drawn uniformly in its logarithm. These values fit upright
    people; the values that are usual for photographs of objects would squash them."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[list[int]]:
        areas, aspects, position = torch.rand(count, 2 * TRIES + 2, generator=generator, dtype=torch.float64).split(
            (TRIES, TRIES, 2), 1
        )
        area = uniform(areas, *self.area) * math.prod(size)
        aspect = uniform(aspects, math.log(self.aspect[0]), math.log(self.aspect[1])).exp()
        boxes = first_fitting((area / aspect).sqrt(), (area * aspect).sqrt(), position, size=size, largest=size)
        return torch.where(boxes[:, 2:3] > 0, boxes, torch.tensor((0, 0, *size))).tolist()

    def change(self, image: torch.Tensor, drawn: Sequence[int]) -> None:
        top, left, height, width = drawn
        size = (image.shape[1], image.shape[2])
        if (loops := loops_for(image)) is None:
            image.copy_(_resized(image[None, :, top : top + height, left : left + width], size)[0])
        else:
            from vireid.data.resampling import write_planes  # imports numba

            # torch interpolates values in this order in half the time, and to the same bits.
            values = image.numpy()
            cut = torch.from_numpy(loops.interleaved(values, top, left, height, width))[None].permute(0, 3, 1, 2)
            write_planes(values, _resized(cut, size)[0].permute(1, 2, 0).contiguous().numpy())

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """N×3×h×w to N×3×size by bilinear interpolation. Integers are rounded.

    For uint8 on a CPU, torch interpolates in fixed point, which is within one grey level of the exact value.
    """
    if images.is_floating_point() or (images.dtype == torch.uint8 and images.device.type == "cpu"):
        return functional.interpolate(images, size=size, mode="bilinear")
    return functional.interpolate(images.float(), size=size, mode="bilinear").round_()
