"""Slow versions of Lin and Wang's equations, as loops that read like the formulas, in Python's double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

Map = Sequence[Sequence[Sequence[float]]]  # channels × height × width


def softmax(scores: Sequence[float]) -> list[float]:
    """p_m = exp(s_m) / Σ exp(s_m')  (equation 4)"""
    largest = max(scores)
    powers = [math.exp(s - largest) for s in scores]
    return [power / math.fsum(powers) for power in powers]


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p ‖ q) = Σ p (ln p - ln q)"""
    return math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def mutual_loss(
    joint: Sequence[Sequence[float]], branch: Sequence[Sequence[float]], *, reduction: str, direction: str, t: float
) -> float:
    """½ [Σ_i KL(pʲ_i ‖ pᵇ_i) + Σ_i KL(pᵇ_i ‖ pʲ_i)]  (equations 5 and 6)"""
    total = 0.0
    for one, other in zip(joint, branch, strict=True):
        p, q = softmax([s / t for s in one]), softmax([s / t for s in other])
        total += divergence(p, q) + (divergence(q, p) if direction == "both" else 0.0)
    return 0.5 * t * t * total / (len(joint) if reduction == "batchmean" else 1)


def nearest(x: Map, height: int, width: int) -> list[list[list[float]]]:
    """Each position of the larger grid takes the value of the smaller grid's cell it lies in."""
    h, w = len(x[0]), len(x[0][0])
    return [[[plane[i * h // height][j * w // width] for j in range(width)] for i in range(height)] for plane in x]


def fuse(maps: Sequence[Map], weights: Map) -> list[list[list[float]]]:
    """concat(α ⊗ f'_1, β ⊗ f''_2, …), weights as maps × height × width  (equation 2)"""
    height, width = len(weights[0]), len(weights[0][0])
    fused = []
    for x, weight in zip(maps, weights, strict=True):
        for plane in nearest(x, height, width):
            fused.append([[plane[i][j] * weight[i][j] for j in range(width)] for i in range(height)])
    return fused


def combine(pixel: Sequence[float], case: str) -> tuple[float, ...]:
    """One pixel with its channels in the order of a word such as "GBR", or "grey"."""
    if case == "grey":
        return (0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2],) * 3
    return tuple(pixel["RGB".index(letter)] for letter in case)
