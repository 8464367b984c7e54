"""Losses with their gradients, against loops over the samples.

The loops are written as the formulas are, one anchor after another. Processor time of one thread counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vireid.bench.growth import grown
from vireid.bench.measure import Line, close, one_thread
from vireid.bench.run import Bench
from vireid.losses.triplet import batch_hard_triplet, weighted_regularised_triplet

WIDTH = 2048
PICTURES = 8  # of each identity
GOAL = 5.0
CALLS = 5

Loss = Callable[[Tensor, Tensor], Tensor]


def measure(bench: Bench) -> Iterator[Line]:
    """Both triplet losses with their gradients, at the batch of a paper and at four times as many rows."""
    for rows in bench.size((64, 256), (16,)):
        features, identity = made_up(rows, bench.size(WIDTH, 32))
        with one_thread():
            hard = bench.timed(
                {
                    "a loop over anchors": gradient(hard_by_loop, features, identity),
                    "vireid.losses": gradient(batch_hard_triplet, features, identity),
                },
                rounds=11,
                agree=close(1e-4),
                calls=CALLS,
            )
            weighted = bench.timed(
                {
                    "weights with 1e-6": gradient(weighted_as_published, features, identity),
                    "vireid.losses": gradient(weighted_regularised_triplet, features, identity),
                },
                rounds=11,
                agree=close(1e-3),
                calls=CALLS,
            )
        sizes = f"{rows} × {features.shape[1]}"
        yield hard.line(
            f"batch-hard triplet, {sizes}", baseline="a loop over anchors", ours="vireid.losses", goal=GOAL, clock="cpu"
        )
        yield weighted.line(
            f"weighted regularised triplet, {sizes}", baseline="weights with 1e-6", ours="vireid.losses", clock="cpu"
        )


def growth(bench: Bench) -> Iterator[Line]:
    """The time of a loss against the rows of a batch."""
    sizes = bench.size((64, 128, 256, 512), (8, 16))
    with one_thread():
        works = {rows: gradient(batch_hard_triplet, *made_up(rows, WIDTH)) for rows in sizes}
        yield grown(bench, "batch-hard triplet", works, unit="rows", clock="cpu")


def made_up(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Random features of length about one that take a gradient, rows×width float32, and their identities."""
    features = torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    return features.requires_grad_(), torch.arange(rows) // PICTURES


def gradient(loss: Loss, features: Tensor, identity: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A call that computes a loss and its gradient."""

    def run() -> tuple[Tensor, Tensor]:
        value = loss(features, identity)
        return value.detach(), torch.autograd.grad(value, features)[0]

    return run


def distances(features: Tensor) -> Tensor:
    """Euclidean distances of all pairs, B×B, as usually written."""
    squared = features.square().sum(1)
    return (squared[:, None] + squared - 2 * features @ features.T).clamp(min=1e-12).sqrt()


def hard_by_loop(features: Tensor, identity: Tensor) -> Tensor:
    """Batch-hard triplet loss: for each anchor, the farthest of its identity and the nearest of another one."""
    distance = distances(features)
    same = identity[:, None] == identity
    positives = torch.stack([distance[i][same[i]].max() for i in range(len(features))])
    negatives = torch.stack([distance[i][~same[i]].min() for i in range(len(features))])
    return (positives - negatives + 0.3).relu().mean()


def weighted_as_published(features: Tensor, identity: Tensor) -> Tensor:
    """Weighted regularised triplet with the weights exp(d) / (sum + 1e-6), which holds for distances below about 13."""
    distance = distances(features)
    same = (identity[:, None] == identity).to(distance.dtype)
    near, far = distance * same, distance * (1 - same)
    positive = (near - near.amax(1, keepdim=True)).exp() * same
    negative = (-far - (-far).amax(1, keepdim=True)).exp() * (1 - same)
    positive = positive / (positive.sum(1, keepdim=True) + 1e-6)
    negative = negative / (negative.sum(1, keepdim=True) + 1e-6)
    return torch.nn.functional.softplus((near * positive).sum(1) - (far * negative).sum(1)).mean()
