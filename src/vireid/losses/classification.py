"""Losses on logits."""

from __future__ import annotations

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, identity: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """`mean_i -log softmax(logits_i)[y_i]`, with smoothed targets where wanted, at least in float32.

    Label smoothing as in Szegedy et al. (CVPR 2016), section 7: the target is `1 - ε` for the identity plus `ε/n` for
    every one of the n identities.

    Args:
        logits: B×identities.
        identity: B int64, 0..identities-1.
        label_smoothing: ε, 0 to 1.

    Returns:
        A scalar.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(logits, identity, label_smoothing=label_smoothing)
