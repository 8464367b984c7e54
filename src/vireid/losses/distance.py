"""Euclidean distances between features, with a gradient that is finite everywhere."""

from __future__ import annotations

import torch

from vireid.data.shapes import check_shape

# Lower limit of a squared distance. Below it the clamp has gradient 0. So the gradient is 0 for equal features, where
# that of the square root would be infinite.
SMALLEST = 1e-12


def euclidean(features: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
    """Distances of all pairs, `d_ij = sqrt(max(‖f_i - g_j‖², 1e-12))`, at least in float32, also under autocast.

    The features are used as they are: this function does not normalise them.

    Args:
        features: B×D, the features f.
        other: M×D, the features g. None takes `features`; then the diagonal is exactly 1e-6.

    Returns:
        B×B, or B×M with `other`.

    Raises:
        BadInput: the features are not B×D.
    """
    check_shape(features, "features", "B×D")
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        # Distances do not change if the same vector is subtracted from all features. Pooled ReLU maps are far from the
        # origin and near each other. With their mean subtracted, the difference below loses fewer digits.
        centre = features.detach().mean(0)
        f = features - centre
        if other is None:
            squared = _Squared.apply(f)
        else:
            g = other.to(f.dtype) - centre
            squared = f.square().sum(1)[:, None] + g.square().sum(1)[None, :] - 2 * f @ g.T
        return squared.clamp(min=SMALLEST).sqrt()


class _Squared(torch.autograd.Function):
    """Squared distances between all f_i: `‖f_i‖² + ‖f_j‖² - 2 f_i·f_j`, exactly 0 on the diagonal.

    The gradient `Σ_j (G_ij + G_ji) · 2 (f_i - f_j)` is written out, because autograd makes three times as many passes
    over B×D values. The four summands are added in the order of autograd, so the bits are the same.
    """

    @staticmethod
    def forward(ctx, f: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(f)
        lengths = f.square().sum(1)
        return (lengths[:, None] + lengths[None, :] - 2 * (f @ f.T)).fill_diagonal_(0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (f,) = ctx.saved_tensors
        # There is no gradient on the diagonal: `euclidean` clamps these zeros.
        products = -2 * gradient
        with torch.autocast(f.device.type, enabled=False):
            result, other = products.T @ f, products @ f
        result += other
        for axis in (0, 1):
            result += torch.mul(f, 2 * gradient.sum(axis)[:, None], out=other)
        return result


def paired(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Distances of corresponding pairs, `sqrt(max(‖f_i - g_i‖², 1e-12))`: two B×D tensors to B values.

    The gradient is 0 where the two features are equal.
    """
    return (f - g).square().sum(1).clamp(min=SMALLEST).sqrt()
