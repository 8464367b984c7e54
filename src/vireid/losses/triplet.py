"""Triplet losses on the features of all modalities together. The same identity should be nearer than other ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from vireid.data.errors import BadInput, unknown
from vireid.losses.distance import euclidean
from vireid.losses.pairs import mean_over, same_identity

SIGNS = {"minus": -1.0, "plus": 1.0}

# What the code of AGW and CAJ adds to the sum in the denominator of the weights.
EPSILON = 1e-6

# Upper limit of CAJ's squared difference. exp of 89 is infinite in float32.
LARGEST = 88.0


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
    epsilon: float = 0.0,
) -> torch.Tensor:
    """Weighted regularised triplet loss: weighted mean distances to positives and to negatives, without a margin.

    Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook" (TPAMI 2022), section 4.2:

        w⁺_ij = exp(d_ij) / Σ_{y_j' = y_i} exp(d_ij')        w⁻_ik = exp(-d_ik) / Σ_{y_k' ≠ y_i} exp(-d_ik')
        mean_i log(1 + exp(Σ_j w⁺_ij d_ij - Σ_k w⁻_ik d_ik))

    Gradients flow through the weights. With `epsilon=0` the weights are a softmax over the positives or over the
    negatives, which is exact at every distance. The public code divides by the sum plus 1e-6 instead (`epsilon=1e-6`).
    Its sum over positives is at least 1, because the greatest exponent is subtracted. But for negatives nothing is
    subtracted, so their sum of exp(-d) and with it the whole negative term vanishes if the distances are greater than
    about 13. Then the loss only pulls positives together and no longer pushes negatives away.

    With `epsilon=0`, the mean is over the same anchors as in `batch_hard_triplet`. With `epsilon` above 0 it is over
    all samples, as in the public code. A term without pairs is 0.

    Args:
        features: B×D, samples of all modalities. The loss does not normalise them, and AGW does not either.
        identity: B int64.
        negative_sign: sign of the distance in w⁻. `minus` gives the nearest negative the greatest weight, as in AGW.
            `plus` gives it to the farthest negative, as in the equations of some later papers.
        anchor_is_positive: true if the anchor is one of its own positives in w⁺, at distance 0, as in AGW's code. It
            has weight e^0 = 1 against e^d. So it makes the positive term smaller if positives are near, and hardly
            changes it if they are far.
        epsilon: what is added to the sums in the denominators of the weights; 0 or more.

    Returns:
        A scalar, at least float32.

    Raises:
        BadInput: `negative_sign` is neither `minus` nor `plus`, or `epsilon` is negative.
    """
    if negative_sign not in SIGNS:
        raise unknown("negative_sign", negative_sign, SIGNS)
    near, far, counts = _weighted_means(
        features, identity, sign=SIGNS[negative_sign], anchor_is_positive=anchor_is_positive, epsilon=epsilon
    )
    # With the default threshold, softplus leaves out a term of 2e-9, which is not small for float64.
    return mean_over(counts, functional.softplus(near - far, threshold=40.0))


def squared_difference_triplet(
    features: torch.Tensor, identity: torch.Tensor, *, alpha: float = 1.0, gamma: float = 1.0, epsilon: float = EPSILON
) -> torch.Tensor:
    """Triplet loss of CAJ: AGW's weighted mean distances, with the square of their difference.

    Ye et al., "Channel Augmented Joint Learning for Visible-Infrared Recognition" (ICCV 2021), as in its public code
    (`TripletLoss_ADP`). `near` and `far` are the weighted mean distances to positives and to negatives, as in
    `weighted_regularised_triplet`, but the weights are made of α·d:

        x_i = min(γ (near_i - far_i)², 88)        mean_i log(1 + exp(s_i x_i)), s_i = 1 if near_i > far_i, otherwise -1

    The anchor is one of its own positives, and every sample is an anchor. An anchor at the limit of 88 has no gradient.
    This is so if near and far differ by more than 9.4, with γ = 1.

    Args:
        features: B×D, samples of all modalities. The loss does not normalise them, and CAJ does not either.
        identity: B int64.
        alpha: α, above 0. The greater it is, the more the farthest positive and the nearest negative weigh.
        gamma: γ, above 0.
        epsilon: as in `weighted_regularised_triplet`; the default is that of the public code.

    Returns:
        A scalar, at least float32.

    Raises:
        BadInput: `alpha` or `gamma` is not above 0, or `epsilon` is negative.
    """
    for name, value in (("alpha", alpha), ("gamma", gamma)):
        if value <= 0:
            raise BadInput(f"{name} is {value}; it must be above 0")
    near, far, counts = _weighted_means(features, identity, sign=SIGNS["minus"], epsilon=epsilon, alpha=alpha)
    squared = (gamma * (near - far).square()).clamp(max=LARGEST)
    signed = torch.where(near > far, squared, -squared)
    return mean_over(counts, functional.softplus(signed, threshold=LARGEST))


def _weighted_means(
    features: torch.Tensor,
    identity: torch.Tensor,
    *,
    sign: float,
    epsilon: float,
    anchor_is_positive: bool = True,
    alpha: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of B anchors: its weighted mean distance to positives, the same to negatives, and whether it counts."""
    if epsilon < 0:
        raise BadInput(f"epsilon is {epsilon}; it must be 0 or more")
    distance = euclidean(features)
    positive, negative = same_identity(identity)
    usable = positive.any(1) & negative.any(1)
    counts = torch.ones_like(usable) if epsilon else usable
    if anchor_is_positive:
        positive = ~negative
    near = _weights(alpha * distance, positive, epsilon) * distance
    far = _weights(sign * alpha * distance, negative, epsilon) * distance
    return near.sum(1), far.sum(1), counts


def _weights(scores: torch.Tensor, mask: torch.Tensor, epsilon: float) -> torch.Tensor:
    """`exp(s_ij) / (Σ_j exp(s_ij) + ε)` over the pairs in the mask, from B×B scores s; 0 for other pairs."""
    if not epsilon:
        # The lowest finite number instead of -inf: with -inf, an anchor without pairs and its gradient would be NaN.
        lowest = torch.finfo(scores.dtype).min
        return scores.masked_fill(~mask, lowest).softmax(1).masked_fill(~mask, 0.0)
    # As in the public code: pairs outside the mask take part in the maximum, with the score 0. So the maximum of the
    # negatives' scores -d is 0.
    scores = scores * mask
    powers = (scores - scores.amax(1, keepdim=True)).exp() * mask
    return powers / (powers.sum(1, keepdim=True) + epsilon)
