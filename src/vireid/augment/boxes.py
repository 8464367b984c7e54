"""Random rectangles inside a picture, for erasing and for cropping."""

from __future__ import annotations

import torch


def first_fitting(
    heights: torch.Tensor,
    widths: torch.Tensor,
    position: torch.Tensor,
    *,
    size: tuple[int, int],
    largest: tuple[int, int],
) -> torch.Tensor:
    """Take the first try of each sample that fits, and place it inside the picture.

    Args:
        heights: N×tries, in pixels. This function rounds them.
        widths: N×tries, in pixels. This function rounds them.
        position: N×2 in 0..1 (1 excluded): which of the possible top and left coordinates to take.
        size: height and width of the picture.
        largest: greatest height and greatest width that fit.

    Returns:
        N×4 int64: top, left, height, width. Height and width are 0 where no try fits.
    """
    heights, widths = heights.round().long(), widths.round().long()
    fits = (heights >= 1) & (widths >= 1) & (heights <= largest[0]) & (widths <= largest[1])
    first = fits.int().argmax(1, keepdim=True)
    extent = torch.cat((heights.gather(1, first), widths.gather(1, first)), 1) * fits.any(1, keepdim=True)
    corner = (position * (torch.tensor(size) - extent + 1)).long()
    return torch.cat((corner, extent), 1)


def uniform(drawn: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Map numbers from the range 0..1 to the range low..high, linearly."""
    return low + (high - low) * drawn
