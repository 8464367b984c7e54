"""Operations that mix the colour channels; a grey (infrared) picture passes through them unchanged.

They take N×3×H×W of any number type and draw for each row on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# ITU-R BT.601 in the four digits that CAJ's code has. They add up to 0.9999, so grey loses a ten-thousandth of light.
LUMINANCE = (0.2989, 0.5870, 0.1140)

# What `exchange` does with a row: 0, 1, 2 copy that channel into all three.
UNCHANGED, GREY = 3, 4


def exchange(images: torch.Tensor, case: torch.Tensor) -> torch.Tensor:
    """Copy one channel into all three, or make grey, row by row.

    Args:
        images: N×3×H×W.
        case: N int64: 0, 1, 2 copy red, green, blue; 3 leaves the row unchanged; 4 makes it grey.

    Returns:
        New memory, same shape and type.
    """
    result = images.clone()
    for image, what in zip(result, case.tolist(), strict=True):
        _exchange(image, what)
    return result


@dataclass(frozen=True)
class ChannelExchange:
    """Random channel exchange of CAJ (Ye et al., ICCV 2021): four cases of equal probability.

    Red into all channels, green into all, blue into all, or unchanged. CAJ applies it to normalised values.

    Attributes:
        grey: whether half of the unchanged rows become grey instead.
    """

    grey: bool = False

    def draw(self, rows: int, *, generator: torch.Generator) -> torch.Tensor:
        """Cases of `exchange`: int64."""
        eighth = torch.randint(8, (rows,), generator=generator)
        return torch.where(eighth == 7, GREY if self.grey else UNCHANGED, eighth // 2)

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None:
        """Change these rows of `images` in place."""
        for row, case in zip(rows, self.draw(len(rows), generator=generator).tolist(), strict=True):
            _exchange(images[row], case)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return exchange(images, self.draw(len(images), generator=generator))


@dataclass(frozen=True)
class Grey:
    """Luminance in all three channels, with probability `p`."""

    p: float = 0.5

    def draw(self, rows: int, *, generator: torch.Generator) -> torch.Tensor:
        """Cases of `exchange`: int64."""
        return torch.where(torch.rand(rows, generator=generator) < self.p, GREY, UNCHANGED)

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None:
        """Change these rows of `images` in place."""
        for row, case in zip(rows, self.draw(len(rows), generator=generator).tolist(), strict=True):
            _exchange(images[row], case)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return exchange(images, self.draw(len(images), generator=generator))


def _exchange(image: torch.Tensor, case: int) -> None:
    if case == GREY:
        red, green, blue = image.to(torch.promote_types(image.dtype, torch.float32))
        luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
        image.copy_(luminance if image.is_floating_point() else luminance.round_())
    elif case != UNCHANGED:
        for channel in {0, 1, 2} - {case}:
            image[channel].copy_(image[case])
