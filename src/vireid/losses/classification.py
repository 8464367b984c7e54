"""Classification losses on logits."""

from __future__ import annotations

import torch
from torch.nn import functional


def cross_entropy(logits: torch.Tensor, identity: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy, `mean_i -log softmax(logits_i)[y_i]`, with optional label smoothing, at least in float32.

    Label smoothing is that of Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016), section 7. With n
    identities, the target of each identity is `ε/n`, and the target of the true identity is `1 - ε + ε/n`.

    Args:
        logits: B×n, one logit for each training identity.
        identity: B int64, 0..n-1.
        label_smoothing: ε, 0..1.

    Returns:
        A scalar, at least float32.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return functional.cross_entropy(logits, identity, label_smoothing=label_smoothing)
