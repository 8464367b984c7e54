"""From a map to one feature per row."""

from __future__ import annotations

import torch
from torch import nn


class AveragePool(nn.Module):
    """The mean over all positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W to B×C, computed in float32 at least."""
        return x.to(torch.promote_types(x.dtype, torch.float32)).mean((-2, -1))


class GeM(nn.Module):
    """Generalised-mean pooling: p = 1 is the mean, p → ∞ the maximum.

    Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (PAMI 2018), equation 3:
    `(mean over positions of max(x, eps)^p)^(1/p)`. The clamp matters: a negative value to a fractional power is NaN.

    Args:
        p: the exponent, above 0.
        learnable: whether `p` is a parameter or stays as given.
        eps: values below are raised to it.
    """

    def __init__(self, p: float = 3.0, *, learnable: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        if p <= 0 or eps <= 0:
            raise ValueError(f"generalised-mean pooling needs p and eps above 0, not {p} and {eps}")
        self.p = nn.Parameter(torch.tensor(float(p))) if learnable else float(p)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×C×H×W to B×C, every value at least eps, computed in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=self.eps)
        # Divided by the largest value, which the power then cannot carry out of float32's range, whatever p is. The
        # result does not depend on the divisor, so it needs no gradient.
        largest = x.detach().amax((-2, -1), keepdim=True)
        return (x / largest).pow(self.p).mean((-2, -1)).pow(1 / self.p) * largest[..., 0, 0]

    def extra_repr(self) -> str:
        learnable = isinstance(self.p, nn.Parameter)
        return f"p={self.p.item() if isinstance(self.p, nn.Parameter) else self.p:g}, {learnable=}, eps={self.eps:g}"
