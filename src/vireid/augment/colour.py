"""Operations that mix the three colour channels.

They take pictures of any number type, before or after normalisation. An infrared picture has three equal channels.
Before normalisation, the operations leave such a picture unchanged. After normalisation they do not: the mean and the
standard deviation of ImageNet differ between the channels, so the three channels are no longer equal.
"""

from __future__ import annotations

from typing import Literal

import torch

from vireid.augment.onepass import OnePass
from vireid.augment.operation import augmented
from vireid.data.settings import Share, settings

# Luminance weights of ITU-R BT.601, with the four digits that CAJ's code has. Their sum is 0.9999, so a grey picture
# becomes darker by a factor of 0.9999.
LUMINANCE = (0.2989, 0.5870, 0.1140)

# Cases of `exchange`. The other cases are 0, 1 and 2: the channel to copy.
UNCHANGED, GREY = 3, 4


def exchange(image: torch.Tensor, case: int) -> None:
    """Copy one channel into all three, or make the picture grey, in place.

    Args:
        image: 3×H×W.
        case: 0, 1 or 2 copies the red, green or blue channel; `UNCHANGED` does nothing; `GREY` writes the luminance
            into all three channels.
    """
    if case == GREY:
        red, green, blue = image.to(torch.promote_types(image.dtype, torch.float32))
        luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
        image.copy_(luminance if image.is_floating_point() else luminance.round_())
    elif case != UNCHANGED:
        for channel in {0, 1, 2} - {case}:
            image[channel].copy_(image[case])


def collect(onepass: OnePass, case: int) -> bool:
    """The same as a part of the pass that normalises the picture, if it can be."""
    if case == UNCHANGED:
        return True
    return onepass.luminance() if case == GREY else onepass.copy_channel(case)


@settings
class ChannelExchange:
    """Random channel exchange of CAJ (Ye et al., ICCV 2021): one channel is copied into all three.

    CAJ applies it to normalised values. There it changes infrared pictures too, although their three channels are equal
    before normalisation. `draw` returns cases of `exchange`.
    """

    cases: Literal["rgb_unchanged", "rgb_unchanged_grey", "rgb", "rgb_grey"] = "rgb_unchanged"
    """code of CAJ: what can happen to a picture. In each variant red, green and blue have equal probability.
    `rgb_unchanged`: one of the channels or unchanged, ¼ each (`ChannelAdap` in the code). `rgb_unchanged_grey`: the
    last quarter is half unchanged and half grey (`ChannelAdapGray`). `rgb`: one of the channels, ⅓ each
    (`ChannelExchange` with gray=2). `rgb_grey`: one of the channels or grey, ¼ each (gray=3)."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        if self.cases == "rgb":
            return torch.randint(3, (count,), generator=generator).tolist()
        eighth = torch.randint(8, (count,), generator=generator)
        last = {"rgb_unchanged": (UNCHANGED, UNCHANGED), "rgb_unchanged_grey": (UNCHANGED, GREY)}
        of_the_last_quarter = torch.tensor(last.get(self.cases, (GREY, GREY)))
        return torch.where(eighth < 6, eighth // 2, of_the_last_quarter[eighth % 2]).tolist()

    def change(self, image: torch.Tensor, drawn: int) -> None:
        exchange(image, drawn)

    def collect(self, onepass: OnePass, drawn: int) -> bool:
        return collect(onepass, drawn)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


@settings
class Grey:
    """Luminance in all three channels, with probability `p`. `draw` returns booleans."""

    p: Share = 0.5
    """code of LLCM: probability that a picture becomes grey."""

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[bool]:
        return (torch.rand(count, generator=generator) < self.p).tolist()

    def change(self, image: torch.Tensor, drawn: bool) -> None:
        exchange(image, GREY if drawn else UNCHANGED)

    def collect(self, onepass: OnePass, drawn: bool) -> bool:
        return collect(onepass, GREY if drawn else UNCHANGED)

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)
