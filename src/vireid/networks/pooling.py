"""Pooling: from the map of a sample to one feature."""

from __future__ import annotations

import torch
from torch import nn


class AveragePool(nn.Module):
    """Global average pooling: the mean over all positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W maps to B×C features, at least in float32."""
        return x.to(torch.promote_types(x.dtype, torch.float32)).mean((-2, -1))


class GeM(nn.Module):
    """Generalised-mean pooling. With p = 1 it is the mean; for p → ∞ it approaches the maximum.

    Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI 2018), equation 3:
    `(mean over positions of max(x, eps)^p)^(1/p)`. The lower limit eps is necessary, because a negative value to a
    fractional power is NaN.

    Args:
        p: the exponent, above 0.
        learnable: true if `p` is a parameter that training changes.
        eps: smaller values are replaced by this value; above 0.

    Raises:
        ValueError: `p` or `eps` is not above 0.
    """

    def __init__(self, p: float = 3.0, *, learnable: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        if p <= 0 or eps <= 0:
            raise ValueError(f"generalised-mean pooling needs p and eps above 0, not {p} and {eps}")
        self.p = nn.Parameter(torch.tensor(float(p))) if learnable else float(p)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W maps to B×C features, each value at least eps, at least in float32."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=self.eps)
        # Division by the largest value keeps the power in the range of float32 for every p. The result does not depend
        # on the divisor, so the divisor needs no gradient.
        largest = x.detach().amax((-2, -1), keepdim=True)
        return (x / largest).pow(self.p).mean((-2, -1)).pow(1 / self.p) * largest[..., 0, 0]

    def extra_repr(self) -> str:
        learnable = isinstance(self.p, nn.Parameter)
        return f"p={self.p.item() if isinstance(self.p, nn.Parameter) else self.p:g}, {learnable=}, eps={self.eps:g}"
