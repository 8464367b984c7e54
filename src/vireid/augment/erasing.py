"""Operations that overwrite a random rectangle of a picture. They take normalised floating-point pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from vireid.augment.boxes import first_fitting, uniform
from vireid.augment.normalise import MEAN, STD
from vireid.augment.onepass import OnePass
from vireid.augment.operation import augmented
from vireid.data.settings import PositiveRange, Share, ShareRange, settings

# The colour that CAJ's code writes into the rectangle. It is the mean colour of CIFAR-10 in the range 0..1. CAJ's code
# writes it after normalisation, where 0 is ImageNet's mean colour, so the rectangle is brighter than that mean.
CAJ = (0.4914, 0.4822, 0.4465)

# How many rectangles are tried for each picture. The paper tries until one fits, and CAJ's code tries 100 times. In a
# picture of a person 5 to 10 % of the tries do not fit, so the probability that 20 tries fail is at most 0.1^20.
TRIES = 20

Box = Sequence[int]


def draw_boxes(
    count: int,
    *,
    size: tuple[int, int],
    p: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw the rectangles of random erasing (Zhong et al., AAAI 2020, algorithm 1).

    Args:
        count: number N of pictures.
        size: height and width of the pictures.
        p: probability that a picture gets a rectangle.
        area: lowest and highest area of the rectangle, as a share of the picture's area; drawn uniformly.
        aspect: lowest and highest height over width of the rectangle; drawn uniformly.
        generator: source of the random numbers.

    Returns:
        N×4 int64: top, left, height, width. A rectangle is smaller than the picture in height and in width. Height and
        width are 0 if the picture gets no rectangle, or if no try fits.
    """
    areas, aspects, position, chance = torch.rand(count, 2 * TRIES + 3, generator=generator, dtype=torch.float64).split(
        (TRIES, TRIES, 2, 1), 1
    )
    pixels = uniform(areas, *area) * math.prod(size)
    ratio = uniform(aspects, *aspect)
    boxes = first_fitting(
        (pixels * ratio).sqrt(),
        (pixels / ratio).sqrt(),
        position,
        size=size,
        largest=(size[0] - 1, size[1] - 1),
    )
    return boxes * (chance < p)


def erase(image: torch.Tensor, box: Box, colour: torch.Tensor) -> None:
    """Write a colour into a rectangle, in place.

    Args:
        image: 3×H×W.
        box: top, left, height, width. Nothing is written if the height is 0.
        colour: 3×1×1 for one colour, or 3×height×width for one colour per pixel.
    """
    top, left, height, width = box
    if height:
        image[:, top : top + height, left : left + width] = colour


def collect(onepass: OnePass, box: Box, colour: torch.Tensor) -> bool:
    """The same as a part of the pass that normalises the picture. It takes one colour only, not one per pixel."""
    if not box[2]:
        return True
    return colour.shape[1:] == (1, 1) and onepass.fill(box, colour.flatten().tolist())


@settings
class RandomErasing:
    """Random erasing (Zhong et al., AAAI 2020, algorithm 1). `draw` returns arguments of `erase`."""

    p: Share = 0.5
    """paper (Zhong et al.): probability that a picture gets a rectangle."""

    area: ShareRange = (0.02, 0.4)
    """paper (Zhong et al.): area of the rectangle as a share of the picture's, drawn uniformly."""

    aspect: PositiveRange = (0.3, 1 / 0.3)
    """paper (Zhong et al.): height over width of the rectangle, drawn uniformly."""

    fill: Literal["mean", "noise"] = "mean"
    """paper (Zhong et al.): `mean` is ImageNet's mean colour, which is 0 after normalisation; `noise` is a standard
    normal number for every value."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[tuple[Box, torch.Tensor]]:
        boxes = draw_boxes(count, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator).tolist()
        if self.fill == "mean":
            colours = torch.zeros(count, 3, 1, 1).unbind()
        else:
            lengths = [3 * height * width for _, _, height, width in boxes]
            noise = torch.randn(sum(lengths), generator=generator).split(lengths)
            colours = [values.view(3, *box[2:]) for values, box in zip(noise, boxes, strict=True)]
        return list(zip(boxes, colours, strict=True))

    def change(self, image: torch.Tensor, drawn: tuple[Box, torch.Tensor]) -> None:
        erase(image, *drawn)

    def collect(self, onepass: OnePass, drawn: tuple[Box, torch.Tensor]) -> bool:
        return collect(onepass, *drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


@settings
class ChannelErasing:
    """Channel-level random erasing of CAJ (Ye et al., ICCV 2021): one constant for each channel.

    `draw` returns arguments of `erase`.
    """

    p: Share = 0.5
    """code of CAJ: probability that a picture gets a rectangle."""

    area: ShareRange = (0.02, 0.4)
    """code of CAJ: area of the rectangle as a share of the picture's, drawn uniformly."""

    aspect: PositiveRange = (0.3, 1 / 0.3)
    """code of CAJ: height over width of the rectangle, drawn uniformly."""

    fill: Literal["caj_const", "random_per_channel", "zero"] = "caj_const"
    """code of CAJ: `caj_const` are the constants of its code; `random_per_channel` is a colour drawn uniformly from
    0..1 for each channel and then normalised; `zero` is ImageNet's mean colour."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[tuple[Box, torch.Tensor]]:
        boxes = draw_boxes(count, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator)
        if self.fill == "random_per_channel":
            colours = (torch.rand(count, 3, generator=generator) - torch.tensor(MEAN)) / torch.tensor(STD)
        else:
            colours = torch.tensor(CAJ if self.fill == "caj_const" else (0.0, 0.0, 0.0)).expand(count, 3)
        return list(zip(boxes.tolist(), colours[..., None, None].unbind(), strict=True))

    def change(self, image: torch.Tensor, drawn: tuple[Box, torch.Tensor]) -> None:
        erase(image, *drawn)

    def collect(self, onepass: OnePass, drawn: tuple[Box, torch.Tensor]) -> bool:
        return collect(onepass, *drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)
