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


def pointwise(x: Map, weight: Sequence[Sequence[float]], bias: Sequence[float]) -> list[list[list[float]]]:
    """A 1×1 convolution: at each position, the products of all channels with each output's weights, and its bias."""
    height, width = len(x[0]), len(x[0][0])

    def at(i: int, j: int, output: int) -> float:
        return math.fsum(w * plane[i][j] for w, plane in zip(weight[output], x, strict=True)) + bias[output]

    return [[[at(i, j, output) for j in range(width)] for i in range(height)] for output in range(len(weight))]


def active(x: Map, *statistics: Sequence[float]) -> list[list[list[float]]]:
    """ReLU(BN(x)) with ε = 1e-5, by the mean, variance, weight and bias of each channel."""
    found = []
    for plane, mean, variance, gain, shift in zip(x, *statistics, strict=True):
        deviation = math.sqrt(variance + 1e-5)
        found.append([[max(0.0, (v - mean) / deviation * gain + shift) for v in line] for line in plane])
    return found


def spatial_weights(scores: Map) -> list[list[list[float]]]:
    """ASFF: the softmax over maps, at each position: maps × height × width to the same shape."""
    height, width = len(scores[0]), len(scores[0][0])
    shares = [[softmax([plane[i][j] for plane in scores]) for j in range(width)] for i in range(height)]
    return [[[shares[i][j][m] for j in range(width)] for i in range(height)] for m in range(len(scores))]


def combine(pixel: Sequence[float], case: str) -> tuple[float, ...]:
    """One pixel with its channels in the order of a word such as "GBR", or "grey"."""
    if case == "grey":
        return (0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2],) * 3
    return tuple(pixel["RGB".index(letter)] for letter in case)
