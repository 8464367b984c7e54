"""Operations that mix the colour channels; a grey (infrared) picture passes through them unchanged.

They take pictures of any number type, before or after normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vireid.augment.operation import augmented

# ITU-R BT.601 in the four digits that CAJ's code has. They add up to 0.9999, so grey loses a ten-thousandth of light.
LUMINANCE = (0.2989, 0.5870, 0.1140)

# The cases of `exchange`; 0, 1 and 2 are the channel to copy.
UNCHANGED, GREY = 3, 4


def exchange(image: torch.Tensor, case: int) -> None:
    """Copy one channel into all three, or make grey, in place.

    Args:
        image: 3×H×W.
        case: 0, 1, 2 copy red, green, blue; `UNCHANGED`; `GREY` puts the luminance into all three.
    """
    if case == GREY:
        red, green, blue = image.to(torch.promote_types(image.dtype, torch.float32))
        luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
        image.copy_(luminance if image.is_floating_point() else luminance.round_())
    elif case != UNCHANGED:
        for channel in {0, 1, 2} - {case}:
            image[channel].copy_(image[case])


@dataclass(frozen=True)
class ChannelExchange:
    """Random channel exchange of CAJ (Ye et al., ICCV 2021): four cases of equal probability.

    Red into all channels, green into all, blue into all, or unchanged. CAJ applies it to normalised values. Draws the
    cases of `exchange`.

    Attributes:
        grey: whether half of the unchanged rows become grey instead.
    """

    grey: bool = False

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        eighth = torch.randint(8, (rows,), generator=generator)
        return torch.where(eighth == 7, GREY if self.grey else UNCHANGED, eighth // 2).tolist()

    def change(self, image: torch.Tensor, drawn: int) -> None:
        exchange(image, drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


@dataclass(frozen=True)
class Grey:
    """Luminance in all three channels, with probability `p`. Draws booleans."""

    p: float = 0.5

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[bool]:
        return (torch.rand(rows, generator=generator) < self.p).tolist()

    def change(self, image: torch.Tensor, drawn: bool) -> None:
        exchange(image, GREY if drawn else UNCHANGED)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)
