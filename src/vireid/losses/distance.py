"""Euclidean distances between rows, with a gradient that is finite everywhere."""

from __future__ import annotations

import torch

# Of a squared distance. The clamp has no gradient below it, so coinciding rows pull at nothing instead of at NaN.
SMALLEST = 1e-12


def euclidean(features: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    """`d_ij = sqrt(max(‖f_i - g_j‖², 1e-12))`, at least in float32 and outside autocast.

    Args:
        features: B×D, not normalised unless the caller did it.
        other: M×D; `features` itself when left out, with a diagonal of exactly 1e-6.

    Returns:
        B×B or B×M.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        # Distances do not change when all rows move together; around their centre the subtraction of large numbers
        # below loses less. Pooled ReLU maps lie far from the origin and close to one another.
        centre = features.detach().mean(0)
        f = features - centre
        g = f if other is None else other.to(f.dtype) - centre
        squared = f.square().sum(1)[:, None] + g.square().sum(1)[None, :] - 2 * f @ g.T
        if other is None:
            itself = torch.eye(len(f), dtype=torch.bool, device=f.device)
            squared = squared.masked_fill(itself, 0.0)
        return squared.clamp(min=SMALLEST).sqrt()
