"""From features to logits: the neck (a batch normalisation) and the classifier."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

NeckStart = Literal["ones", "code"]


class BNNeck(nn.Module):
    """Batch normalisation between the feature of the metric losses and the feature of the classifier.

    Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (CVPRW 2019), section 3.5. The
    bias is fixed at 0. So the classifier separates identities by direction, and cosine similarity suits the features.

    Args:
        width: length D of the features.
        start: how the weight starts: `ones`, as batch normalisation usually does, or `code`: N(1, 0.01), mean and
            standard deviation, as in AGW's code.
    """

    def __init__(self, width: int, *, start: NeckStart = "ones") -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(width)
        self.bn.bias.requires_grad_(False)
        if start == "code":
            nn.init.normal_(self.bn.weight, mean=1.0, std=0.01)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """B×D features to B×D features."""
        return self.bn(feature)


class Classifier(nn.Module):
    """A linear layer without bias. Its weights start as N(0, 0.001), mean and standard deviation, as in AGW's code.

    Args:
        width: length D of the features.
        identities: number of training identities.
    """

    def __init__(self, width: int, identities: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, identities, bias=False)
        nn.init.normal_(self.linear.weight, std=0.001)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """B×D features to B×identities logits."""
        return self.linear(feature)
