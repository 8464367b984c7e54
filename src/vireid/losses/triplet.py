"""Triplet losses over a batch of all modalities: same identity close, other identities far."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from vireid.data.errors import unknown
from vireid.losses.distance import euclidean

SIGNS = {"minus": -1.0, "plus": 1.0}


def batch_hard_triplet(features: torch.Tensor, identity: torch.Tensor, *, margin: float = 0.3) -> torch.Tensor:
    """The farthest positive against the nearest negative of each anchor.

    Hermans et al., "In Defense of the Triplet Loss" (2017), equation 5, as a mean:
    `mean_i [ max_{y_p = y_i} d_ip - min_{y_n ≠ y_i} d_in + margin ]₊` with the distances of `euclidean`.

    An anchor whose identity has no other row, or that has no row of another identity, is left out of the mean; without
    any anchor the loss is 0, and still has a graph.

    Args:
        features: B×D, of all modalities together, not normalised in AGW's use.
        identity: B int64.
        margin: how much farther the negative should be.

    Returns:
        A scalar, at least float32.
    """
    distance = euclidean(features)
    positive, negative, usable = _pairs(identity)
    farthest = distance.masked_fill(~positive, 0.0).amax(1)
    nearest = distance.masked_fill(~negative, float("inf")).amin(1)
    return _mean_over(usable, (farthest - nearest + margin).relu())


def weighted_regularised_triplet(
    features: torch.Tensor,
    identity: torch.Tensor,
    *,
    negative_sign: Literal["minus", "plus"] = "minus",
    anchor_is_positive: bool = True,
) -> torch.Tensor:
    """Softmax-weighted mean distance to the positives against that to the negatives, without a margin.

    Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook" (PAMI 2021), section 4.2:

        w⁺_ij = exp(d_ij) / Σ_{y_j' = y_i} exp(d_ij')        w⁻_ik = exp(-d_ik) / Σ_{y_k' ≠ y_i} exp(-d_ik')
        mean_i log(1 + exp(Σ_j w⁺_ij d_ij - Σ_k w⁻_ik d_ik))

    The weights take part in the gradient. They are a softmax over the pairs of their kind, exact at any distance; the
    published code divides by a sum plus 1e-6, and beyond a distance of about 13 its negative term fades to nothing.

    Anchors are left out as in `batch_hard_triplet`.

    Args:
        features: B×D, of all modalities together, not normalised in AGW's use.
        identity: B int64.
        negative_sign: of the distance in w⁻. `minus` weighs the nearest negative most, as AGW does; `plus` weighs the
            farthest most, as the equation of some later papers reads.
        anchor_is_positive: whether the anchor, at distance 0, counts among its own positives in w⁺, as in AGW's code.
            It lowers the positive term a little when positives are near (weight 1 against e^d) and not at all when
            they are far.

    Returns:
        A scalar, at least float32.

    Raises:
        BadInput: `negative_sign` is neither.
    """
    if negative_sign not in SIGNS:
        raise unknown("negative_sign", negative_sign, SIGNS)
    distance = euclidean(features)
    positive, negative, usable = _pairs(identity)
    if anchor_is_positive:
        positive = ~negative
    near = _softmax_mean(distance, positive, sign=1.0)
    far = _softmax_mean(distance, negative, sign=SIGNS[negative_sign])
    # The default threshold would drop a term of 2e-9, which double precision can see.
    return _mean_over(usable, functional.softplus(near - far, threshold=40.0))


def _pairs(identity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Other rows of the same identity (B×B), rows of other identities (B×B), anchors that have both (B)."""
    same = identity[:, None] == identity[None, :]
    positive = same & ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)
    return positive, ~same, positive.any(1) & (~same).any(1)


def _softmax_mean(distance: torch.Tensor, mask: torch.Tensor, *, sign: float) -> torch.Tensor:
    """`Σ_j softmax_j(sign · d_ij) d_ij` over the pairs in the mask; 0 for a row that has none."""
    # The lowest finite number rather than -inf: a row without pairs would become NaN, and so would its gradient.
    scores = (sign * distance).masked_fill(~mask, torch.finfo(distance.dtype).min)
    weights = scores.softmax(1).masked_fill(~mask, 0.0)
    return (weights * distance).sum(1)


def _mean_over(usable: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(~usable, 0.0).sum() / usable.sum().clamp(min=1)
