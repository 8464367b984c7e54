"""Common steps of losses that compare the samples of a batch: unit length, similarity, masks, means."""

from __future__ import annotations

import torch

from vireid.data.shapes import check_shape
from vireid.data.unit import unit  # noqa: F401 one of the common steps


def similarity(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Inner products of all pairs, `f_i · g_j`: B×D and M×D to B×M, in the precision of the inputs.

    Autocast is off here. Contrastive losses divide similarities by a temperature of about 0.1, which would magnify the
    rounding errors of half precision.
    """
    with torch.autocast(f.device.type, enabled=False):
        return f @ g.T


def same_identity(identity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive and negative pairs of a batch as masks.

    Args:
        identity: B integers.

    Returns:
        Two B×B bool masks. The first is true for two different samples of the same identity, the second for samples of
        different identities. The diagonal is false in both.

    Raises:
        BadInput: the identities are not B.
    """
    check_shape(identity, "identities", "B")
    same = identity[:, None] == identity[None, :]
    return same.clone().fill_diagonal_(False), ~same


def mean_over(usable: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mean of the values that can be used. If there are none, the mean is 0 and still has a graph.

    Args:
        usable: B bool, which values to use.
        values: B values. The others may be infinite or NaN.

    Returns:
        A scalar.
    """
    return values.masked_fill(~usable, 0.0).sum() / usable.sum().clamp(min=1)
