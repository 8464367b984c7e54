"""Horizontal parts of a map. A person stands upright in the picture, so the parts show head, body and legs."""

from __future__ import annotations

import torch
from torch import nn


def part_bounds(height: int, count: int) -> list[tuple[int, int]]:
    """Divide a height into `count` parts that are as equal as whole positions allow.

    If `count` does not divide `height`, neighbouring parts overlap by one position. Blocks of equal height without
    overlap would leave a very small last part: for 16 positions and 6 parts the heights would be 3, 3, 3, 3, 3 and 1.

    Args:
        height: number of positions from top to bottom, at least 1.
        count: number of parts, at least 1.

    Returns:
        First position and end (excluded) of each part, from top to bottom.

    Raises:
        ValueError: `height` or `count` is below 1.

    >>> part_bounds(16, 6)
    [(0, 3), (2, 6), (5, 8), (8, 11), (10, 14), (13, 16)]
    """
    if height < 1 or count < 1:
        raise ValueError(f"a height of {height} cannot be divided into {count} parts")
    return [(part * height // count, -((part + 1) * height // -count)) for part in range(count)]


class Parts(nn.Module):
    """The mean of each horizontal part of a map.

    Sun et al., "Beyond Part Models" (ECCV 2018), section 3.1. The bounds of the parts are those of adaptive average
    pooling.

    Args:
        count: number of parts, at least 1.

    Raises:
        ValueError: `count` is below 1.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"{count} parts; there must be at least one")
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W maps to B×count×C features, from top to bottom, at least in float32."""
        profile = x.to(torch.promote_types(x.dtype, torch.float32)).mean(3)
        means = [profile[:, :, first:end].mean(2) for first, end in part_bounds(profile.shape[2], self.count)]
        return torch.stack(means, dim=1)

    def extra_repr(self) -> str:
        return f"count={self.count}"
