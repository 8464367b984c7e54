"""Slow versions of the losses, written as loops that read like the formulas, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """`sqrt(max(‖a - b‖², 1e-12))`."""
    return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))


def cross_entropy(logits: Sequence[Sequence[float]], identity: Sequence[int], label_smoothing: float) -> float:
    """`mean_i Σ_c -target_ic log softmax(logits_i)_c`."""
    total = 0.0
    for scores, wanted in zip(logits, identity, strict=True):
        normaliser = math.log(math.fsum(math.exp(value) for value in scores))
        for c, value in enumerate(scores):
            target = label_smoothing / len(scores) + (1 - label_smoothing) * (c == wanted)
            total -= target * (value - normaliser)
    return total / len(logits)


def batch_hard_triplet(features: Sequence[Sequence[float]], identity: Sequence[int], margin: float) -> float:
    """`mean_i [max_p d_ip - min_n d_in + margin]₊` over the anchors with positives and negatives."""
    terms = []
    for i, anchor in enumerate(features):
        positives = [distance(anchor, f) for j, f in enumerate(features) if identity[j] == identity[i] and j != i]
        negatives = [distance(anchor, f) for j, f in enumerate(features) if identity[j] != identity[i]]
        if positives and negatives:
            terms.append(max(0.0, max(positives) - min(negatives) + margin))
    return math.fsum(terms) / max(1, len(terms))


def softmax_weights(distances: Sequence[float], sign: float) -> list[float]:
    """`exp(sign d_j) / Σ_j' exp(sign d_j')`. All exponentials are divided by the largest, so that none overflows."""
    largest = max(sign * d for d in distances)
    powers = [math.exp(sign * d - largest) for d in distances]
    return [power / math.fsum(powers) for power in powers]


def weighted_regularised_triplet(
    features: Sequence[Sequence[float]],
    identity: Sequence[int],
    *,
    negative_sign: str,
    anchor_is_positive: bool,
) -> float:
    """`mean_i log(1 + exp(Σ_j w⁺_ij d_ij - Σ_k w⁻_ik d_ik))` over the anchors with positives and negatives."""
    terms = []
    for i, anchor in enumerate(features):
        others = [j for j in range(len(features)) if identity[j] == identity[i] and j != i]
        positives = [distance(anchor, features[j]) for j in others + [i] * anchor_is_positive]
        negatives = [distance(anchor, f) for j, f in enumerate(features) if identity[j] != identity[i]]
        if not others or not negatives:
            continue
        near = math.fsum(w * d for w, d in zip(softmax_weights(positives, 1.0), positives, strict=True))
        sign = -1.0 if negative_sign == "minus" else 1.0
        far = math.fsum(w * d for w, d in zip(softmax_weights(negatives, sign), negatives, strict=True))
        gap = near - far
        terms.append(max(gap, 0.0) + math.log1p(math.exp(-abs(gap))))
    return math.fsum(terms) / max(1, len(terms))


def code_weights(scores: Sequence[float], epsilon: float) -> list[float]:
    """The weights of AGW's public code: it subtracts the greatest score, at least 0, and adds `epsilon`."""
    largest = max(0.0, *scores)
    powers = [math.exp(score - largest) for score in scores]
    return [power / (math.fsum(powers) + epsilon) for power in powers]


def code_triplet(
    features: Sequence[Sequence[float]], identity: Sequence[int], *, epsilon: float, alpha: float = 1.0
) -> list[tuple[float, float]]:
    """For each anchor, the weighted mean distance to its positives, itself included, and to its negatives."""
    found = []
    for i, anchor in enumerate(features):
        positives = [distance(anchor, f) for j, f in enumerate(features) if identity[j] == identity[i]]
        negatives = [distance(anchor, f) for j, f in enumerate(features) if identity[j] != identity[i]]
        near = code_weights([alpha * d for d in positives], epsilon)
        far = code_weights([-alpha * d for d in negatives], epsilon)
        found.append(
            (
                math.fsum(w * d for w, d in zip(near, positives, strict=True)),
                math.fsum(w * d for w, d in zip(far, negatives, strict=True)),
            )
        )
    return found


def squared_difference_triplet(
    features: Sequence[Sequence[float]], identity: Sequence[int], *, alpha: float, gamma: float, epsilon: float
) -> float:
    """`mean_i log(1 + exp(±min(γ (p_i - n_i)², 88)))`, plus where p_i > n_i."""
    terms = []
    for near, far in code_triplet(features, identity, epsilon=epsilon, alpha=alpha):
        squared = min(gamma * (near - far) ** 2, 88.0)
        terms.append(math.log1p(math.exp(squared if near > far else -squared)))
    return math.fsum(terms) / len(terms)
