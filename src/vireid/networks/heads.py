"""From a feature to logits: the normalisation neck and the classifier."""

from __future__ import annotations

import torch
from torch import nn


class BNNeck(nn.Module):
    """Batch normalisation between the metric losses (before it) and the classifier (after it).

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (CVPRW 2019). The
    bias is held at 0, so that classes are separated by directions and the feature's cosine is meaningful.

    Args:
        width: length of the feature.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.bn.bias.requires_grad_(False)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """B×D to B×D."""
        return self.bn(feature)


class Classifier(nn.Module):
    """A linear layer without bias, starting close to zero: N(0, 0.001) as AGW initialises it.

    Args:
        width: length of the feature.
        identities: number of training identities.
    """

    def __init__(self, width: int, identities: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, identities, bias=False)
        nn.init.normal_(self.linear.weight, std=0.001)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """B×D to B×identities logits."""
        return self.linear(feature)
