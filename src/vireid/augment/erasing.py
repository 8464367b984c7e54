"""Operations that cover a random rectangle. They take normalised N×3×H×W floating point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from vireid.augment.boxes import first_fitting, uniform
from vireid.augment.normalise import MEAN, STD
from vireid.data.errors import unknown

# What CAJ's code writes into the hole. They are the mean colour of CIFAR-10 in 0..1, yet are written after the
# normalisation, so the hole is somewhat brighter than the mean of the picture.
CAJ = (0.4914, 0.4822, 0.4465)

TRIES = 100


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
        are 0 for rows that get none (also where none of 100 tries fits).
    """
    drawn = torch.rand(rows, 2 * TRIES + 3, generator=generator, dtype=torch.float64)
    pixels = uniform(drawn[:, :TRIES], *area) * math.prod(size)
    ratio = uniform(drawn[:, TRIES : 2 * TRIES], *aspect)
    boxes = first_fitting(
        (pixels * ratio).sqrt(),
        (pixels / ratio).sqrt(),
        drawn[:, -3:-1],
        size=size,
        largest=(size[0] - 1, size[1] - 1),
    )
    return boxes * (drawn[:, -1:] < p)


def erase(images: torch.Tensor, boxes: torch.Tensor, fill: Iterable[torch.Tensor]) -> torch.Tensor:
    """Cover one rectangle of each row.

    Args:
        images: N×3×H×W.
        boxes: N×4 int64: top, left, height, width; nothing is covered where height and width are 0.
        fill: N tensors, each 3×1×1 or 3×height×width of its rectangle.

    Returns:
        New memory, same shape and type.
    """
    result = images.clone()
    for image, box, colour in zip(result, boxes.tolist(), fill, strict=True):
        _erase(image, box, colour)
    return result


@dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al., AAAI 2020).

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

    def draw(
        self, rows: int, *, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[torch.Tensor, Iterable[torch.Tensor]]:
        """Rectangles and what to fill them with, as `erase` takes them."""
        boxes = draw_boxes(rows, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator)
        if self.fill == "mean":
            return boxes, torch.zeros(rows, 3, 1, 1)
        values = [3 * height * width for _, _, height, width in boxes.tolist()]
        noise = torch.randn(sum(values), generator=generator).split(values)
        shapes = boxes[:, 2:].tolist()
        return boxes, [part.view(3, *shape) for part, shape in zip(noise, shapes, strict=True)]

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None:
        """Change these rows of `images` in place."""
        _edit(images, rows, *self.draw(len(rows), size=_size(images), generator=generator))

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return erase(images, *self.draw(len(images), size=_size(images), generator=generator))


@dataclass(frozen=True)
class ChannelErasing:
    """Channel-level random erasing of CAJ (Ye et al., ICCV 2021): one constant per channel.

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

    def draw(
        self, rows: int, *, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rectangles and rows×3×1×1 colours, as `erase` takes them."""
        boxes = draw_boxes(rows, size=size, p=self.p, area=self.area, aspect=self.aspect, generator=generator)
        if self.fill == "random_per_channel":
            colours = (torch.rand(rows, 3, generator=generator) - torch.tensor(MEAN)) / torch.tensor(STD)
        else:
            colours = torch.tensor(CAJ if self.fill == "caj_const" else (0.0, 0.0, 0.0)).expand(rows, 3)
        return boxes, colours[..., None, None]

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None:
        """Change these rows of `images` in place."""
        _edit(images, rows, *self.draw(len(rows), size=_size(images), generator=generator))

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return erase(images, *self.draw(len(images), size=_size(images), generator=generator))


def _edit(images: torch.Tensor, rows: Sequence[int], boxes: torch.Tensor, fill: Iterable[torch.Tensor]) -> None:
    for row, box, colour in zip(rows, boxes.tolist(), fill, strict=True):
        _erase(images[row], box, colour)


def _erase(image: torch.Tensor, box: Sequence[int], colour: torch.Tensor) -> None:
    top, left, height, width = box
    if height:
        image[:, top : top + height, left : left + width] = colour


def _size(images: torch.Tensor) -> tuple[int, int]:
    return images.shape[2], images.shape[3]
