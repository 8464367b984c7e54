"""Operations that cover a random rectangle. They take normalised floating-point pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vireid.augment.boxes import first_fitting, uniform
from vireid.augment.normalise import MEAN, STD
from vireid.augment.operation import augmented
from vireid.data.errors import unknown

# What CAJ's code writes into the hole. It is the mean colour of CIFAR-10 in 0..1, yet is written after the
# normalisation, so the hole is somewhat brighter than the mean of the picture.
CAJ = (0.4914, 0.4822, 0.4465)

# The paper tries until a rectangle fits and CAJ's code 100 times. Five to ten tries in a hundred do not fit
# a person's picture, so nobody can tell twenty tries from a hundred.
TRIES = 20

Box = Sequence[int]


def draw_boxes(
    rows: int,
    *,
    size: tuple[int, int],
    p: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Rectangles of random erasing (Zhong et al., AAAI 2020, algorithm 1).

    Args:
        size: height and width of the pictures.
        p: probability that a row gets one.
        area: of the rectangle over the picture's, drawn uniformly.
        aspect: height over width of the rectangle, drawn uniformly.

    Returns:
        rows×4 int64: top, left, height, width. A rectangle is smaller than the picture both ways; height and width
        are 0 for rows that get none (also where no try fits).
    """
    areas, aspects, position, chance = torch.rand(rows, 2 * TRIES + 3, generator=generator, dtype=torch.float64).split(
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
    """Cover a rectangle, in place.

    Args:
        image: 3×H×W.
        box: top, left, height, width; nothing is covered where the height is 0.
        colour: 3×1×1, or 3×height×width.
    """
    top, left, height, width = box
    if height:
        image[:, top : top + height, left : left + width] = colour


@dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al., AAAI 2020). Draws the arguments of `erase`.

    Attributes:
        p: probability.
        area: of the rectangle over the picture's.
        aspect: height over width of the rectangle.
        fill: `mean`, ImageNet's mean colour (0 after normalisation), or `noise`, a standard normal number per value.
    """

    p: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["mean", "noise"] = "mean"

    def __post_init__(self) -> None:
        if self.fill not in ("mean", "noise"):
            raise unknown("fill", self.fill, ("mean", "noise"))

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[tuple[Box, torch.Tensor]]:
        boxes = draw_boxes(rows, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator).tolist()
        if self.fill == "mean":
            colours = torch.zeros(rows, 3, 1, 1).unbind()
        else:
            counts = [3 * height * width for _, _, height, width in boxes]
            noise = torch.randn(sum(counts), generator=generator).split(counts)
            colours = [part.view(3, *box[2:]) for part, box in zip(noise, boxes, strict=True)]
        return list(zip(boxes, colours, strict=True))

    def change(self, image: torch.Tensor, drawn: tuple[Box, torch.Tensor]) -> None:
        erase(image, *drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


@dataclass(frozen=True)
class ChannelErasing:
    """Channel-level random erasing of CAJ (Ye et al., ICCV 2021): one constant per channel.

    Draws the arguments of `erase`.

    Attributes:
        p: probability.
        area: of the rectangle over the picture's.
        aspect: height over width of the rectangle.
        fill: `caj_const`, the constants of CAJ's code; `random_per_channel`, a colour drawn uniformly from 0..1 per
            channel and then normalised; `zero`, ImageNet's mean colour.
    """

    p: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["caj_const", "random_per_channel", "zero"] = "caj_const"

    def __post_init__(self) -> None:
        if self.fill not in ("caj_const", "random_per_channel", "zero"):
            raise unknown("fill", self.fill, ("caj_const", "random_per_channel", "zero"))

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[tuple[Box, torch.Tensor]]:
        boxes = draw_boxes(rows, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator)
        if self.fill == "random_per_channel":
            colours = (torch.rand(rows, 3, generator=generator) - torch.tensor(MEAN)) / torch.tensor(STD)
        else:
            colours = torch.tensor(CAJ if self.fill == "caj_const" else (0.0, 0.0, 0.0)).expand(rows, 3)
        return list(zip(boxes.tolist(), colours[..., None, None].unbind(), strict=True))

    def change(self, image: torch.Tensor, drawn: tuple[Box, torch.Tensor]) -> None:
        erase(image, *drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)
