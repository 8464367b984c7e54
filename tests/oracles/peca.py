"""PECA's equations as loops, written from the printed formulas."""

from __future__ import annotations

import math

import torch


def unit(f: torch.Tensor) -> torch.Tensor:
    """f / ‖f‖ of one vector."""
    return f / math.sqrt(sum(float(v) ** 2 for v in f))


def dot(f: torch.Tensor, g: torch.Tensor) -> float:
    """f · g."""
    return sum(float(a) * float(b) for a, b in zip(f, g, strict=True))


def similarity(global_features: torch.Tensor, local_features: torch.Tensor) -> float:
    """Equation 1, the mean over samples."""
    values = [-dot(unit(g), unit(s)) for g, s in zip(global_features, local_features, strict=True)]
    return sum(values) / len(values)


def channel_patterns(visible: torch.Tensor, infrared: torch.Tensor) -> list[torch.Tensor]:
    """Equation 2: the six pictures that one visible and one infrared picture (3×H×W) can make."""
    r, g, b = visible
    ir = infrared
    return [
        torch.stack(channels)
        for channels in (
            (r, g, ir[2]),
            (r, ir[1], b),
            (ir[0], g, b),
            (r, ir[1], ir[2]),
            (ir[0], g, ir[2]),
            (ir[0], ir[1], b),
        )
    ]


def mixing(distances: list[float], *, margin: float, form: str) -> float:
    """Equation 3's summand in its three readings, the mean over pairs."""
    total = 0.0
    for d in distances:
        if form == "abs":
            total += math.sqrt((d - margin) ** 2)
        elif d > margin:
            total += d - margin if form == "hinge" else (d - margin) ** 2
    return total / len(distances)


def cross_entropy_by_modality(logits: torch.Tensor, identity: list[int], modality: list[int]) -> float:
    """Equation 4: the mean over the samples of each modality, added."""
    total = 0.0
    for m in sorted(set(modality)):
        values = []
        for scores, y, own in zip(logits.tolist(), identity, modality, strict=True):
            if own == m:
                values.append(-math.log(math.exp(scores[y]) / sum(math.exp(v) for v in scores)))
        total += sum(values) / len(values)
    return total


def instance_contrast(
    features: torch.Tensor,
    identity: list[int],
    *,
    negatives: int,
    temperature: float,
    modality: list[int] | None = None,
) -> float:
    """Equation 6, one anchor after another."""
    f = [unit(feature) for feature in features]
    values = []
    for i in range(len(f)):
        positives = [j for j in range(len(f)) if j != i and identity[j] == identity[i]]
        if modality is not None:
            positives = [j for j in positives if modality[j] != modality[i]]
        if not positives:
            continue
        farthest = max(positives, key=lambda j: float((f[i] - f[j]).norm()))
        others = [k for k in range(len(f)) if identity[k] != identity[i]]
        nearest = sorted(others, key=lambda k: float((f[i] - f[k]).norm()))[:negatives]
        above = math.exp(dot(f[i], f[farthest]) / temperature)
        below = above + sum(math.exp(dot(f[i], f[k]) / temperature) for k in nearest)
        values.append(-math.log(above / below))
    return sum(values) / len(values)


def updated(
    centroids: torch.Tensor,
    features: torch.Tensor,
    identity: list[int],
    modality: list[int],
    *,
    rate: float,
    normalise: str,
    order: str = "sequential",
) -> torch.Tensor:
    """Equation 9 for one sample after the other, or once for the mean feature of each centroid."""
    centroids = centroids.clone()
    samples = [(unit(f), (y, m)) for f, y, m in zip(features, identity, modality, strict=True)]
    if order == "batch_mean":
        cells = sorted({cell for _, cell in samples})
        samples = [(torch.stack([f for f, c in samples if c == cell]).mean(0), cell) for cell in cells]
    for f, cell in samples:
        c = centroids[cell]
        c = f if not c.any() else (1 - rate) * c + rate * f
        centroids[cell] = unit(c) if normalise == "each" else c
    if normalise == "step":
        for cell in {cell for _, cell in samples}:
            centroids[cell] = unit(centroids[cell])
    return centroids


def modality_contrast(
    features: torch.Tensor, identity: list[int], modality: list[int], centroids: torch.Tensor, *, temperature: float
) -> float:
    """Equation 10, one sample after the other; a centroid that is zero has not been seen."""
    values = []
    for feature, y, m in zip(features, identity, modality, strict=True):
        f = unit(feature)
        positive = [centroids[y, k] for k in range(centroids.shape[1]) if centroids[y, k].any()]
        negative = [centroids[o, m] for o in range(len(centroids)) if o != y and centroids[o, m].any()]
        if not positive:
            continue
        below = sum(math.exp(dot(f, c) / temperature) for c in positive + negative)
        terms = [math.log(math.exp(dot(f, c) / temperature) / below) for c in positive]
        values.append(-sum(terms) / len(positive))
    return sum(values) / len(values)
