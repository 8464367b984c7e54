"""Triplet losses on the features of all modalities together. The same identity should be nearer than other ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from vireid.data.errors import unknown
from vireid.losses.distance import euclidean
from vireid.losses.pairs import mean_over, same_identity

SIGNS = {"minus": -1.0, "plus": 1.0}


def batch_hard_triplet(features: torch.Tensor, identity: torch.Tensor, *, margin: float = 0.3) -> torch.Tensor:
    """Batch-hard triplet loss: for each anchor, the farthest positive and the nearest negative.

    Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification" (2017), equation 5, as a mean instead
    of a sum: `mean_i [ max_{y_p = y_i} d_ip - min_{y_n ≠ y_i} d_in + margin ]₊` with the distances of `euclidean`.

    The mean is over the anchors that have at least one positive (another sample of the same identity) and at least one
    negative. If there is no such anchor, the loss is 0 and still has a graph.

    Args:
        features: B×D, samples of all modalities. The loss does not normalise them.
        identity: B int64.
        margin: how much farther than the positive the negative should be.

    Returns:
        A scalar, at least float32.
    """
    distance = euclidean(features)
    positive, negative = same_identity(identity)
    usable = positive.any(1) & negative.any(1)
    farthest = distance.masked_fill(~positive, 0.0).amax(1)
    nearest = distance.masked_fill(~negative, float("inf")).amin(1)
    return mean_over(usable, (farthest - nearest + margin).relu())


def weighted_regularised_triplet(
    features: torch.Tensor,
    identity: torch.Tensor,
    *,
    negative_sign: Literal["minus", "plus"] = "minus",
    anchor_is_positive: bool = True,
) -> torch.Tensor:
    """Weighted regularised triplet loss: weighted mean distances to positives and to negatives, without a margin.

    Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook" (TPAMI 2022), section 4.2:

        w⁺_ij = exp(d_ij) / Σ_{y_j' = y_i} exp(d_ij')        w⁻_ik = exp(-d_ik) / Σ_{y_k' ≠ y_i} exp(-d_ik')
        mean_i log(1 + exp(Σ_j w⁺_ij d_ij - Σ_k w⁻_ik d_ik))

    Gradients flow through the weights. The weights are a softmax over the positives or over the negatives, which is
    exact at every distance. The published code divides by a sum plus 1e-6 instead. So its negative term vanishes if the
    distances are greater than about 13.

    The mean is over the same anchors as in `batch_hard_triplet`.

    Args:
        features: B×D, samples of all modalities. The loss does not normalise them, and AGW does not either.
        identity: B int64.
        negative_sign: sign of the distance in w⁻. `minus` gives the nearest negative the greatest weight, as in AGW.
            `plus` gives it to the farthest negative, as in the equations of some later papers.
        anchor_is_positive: true if the anchor is one of its own positives in w⁺, at distance 0, as in AGW's code. It
            has weight e^0 = 1 against e^d. So it makes the positive term smaller if positives are near, and hardly
            changes it if they are far.

    Returns:
        A scalar, at least float32.

    Raises:
        BadInput: `negative_sign` is neither `minus` nor `plus`.
    """
    if negative_sign not in SIGNS:
        raise unknown("negative_sign", negative_sign, SIGNS)
    distance = euclidean(features)
    positive, negative = same_identity(identity)
    usable = positive.any(1) & negative.any(1)
    if anchor_is_positive:
        positive = ~negative
    near = _softmax_mean(distance, positive, sign=1.0)
    far = _softmax_mean(distance, negative, sign=SIGNS[negative_sign])
    # With the default threshold, softplus leaves out a term of 2e-9, which is not small for float64.
    return mean_over(usable, functional.softplus(near - far, threshold=40.0))


def _softmax_mean(distance: torch.Tensor, mask: torch.Tensor, *, sign: float) -> torch.Tensor:
    """For each anchor i, `Σ_j softmax_j(sign · d_ij) d_ij` over the pairs in the mask; 0 without such a pair."""
    # The lowest finite number instead of -inf: with -inf, an anchor without pairs and its gradient would be NaN.
    scores = (sign * distance).masked_fill(~mask, torch.finfo(distance.dtype).min)
    weights = scores.softmax(1).masked_fill(~mask, 0.0)
    return (weights * distance).sum(1)
