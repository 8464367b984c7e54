"""Horizontal stripes of a map: head, trunk, legs, as far as a person stands upright in the picture."""

from __future__ import annotations

import torch
from torch import nn


def stripes(rows: int, count: int) -> list[tuple[int, int]]:
    """`count` half-open intervals that cover `rows` rows as evenly as whole rows allow.

    Where `count` does not divide `rows`, neighbours overlap by a row. Cutting into chunks of equal height instead
    would leave a sliver at the feet: 3, 3, 3, 3, 3 and 1 rows for 16 in 6.

    >>> stripes(16, 6)
    [(0, 3), (2, 6), (5, 8), (8, 11), (10, 14), (13, 16)]
    """
    if rows < 1 or count < 1:
        raise ValueError(f"{rows} rows cannot be cut into {count} stripes")
    return [(part * rows // count, -((part + 1) * rows // -count)) for part in range(count)]


class Parts(nn.Module):
    """The mean of each horizontal stripe.

    Sun et al., "Beyond Part Models" (ECCV 2018), with the stripes of adaptive average pooling.

    Args:
        count: number of stripes.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"{count} parts; there must be at least one")
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W to B×count×C, from the top down, computed in float32 at least."""
        rows = x.to(torch.promote_types(x.dtype, torch.float32)).mean(3)
        means = [rows[:, :, first:end].mean(2) for first, end in stripes(rows.shape[2], self.count)]
        return torch.stack(means, dim=1)

    def extra_repr(self) -> str:
        return f"count={self.count}"
