"""Triplet losses, forward and backward, compared with a loop over anchors and with the published softmax with 1e-6.

The time is CPU time on one thread. The contenders run in turns, and the best of several rounds counts. After that, the
errors against double precision are printed for growing distances between the features.

    python benchmarks/losses.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch

from vireid.losses.triplet import batch_hard_triplet, weighted_regularised_triplet


def loop(features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """Batch-hard triplet loss as a loop over anchors."""
    squared = features.square().sum(1)
    distance = (squared[:, None] + squared - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = identity[:, None] == identity
    positives = torch.stack([distance[i][same[i]].max() for i in range(len(features))])
    negatives = torch.stack([distance[i][~same[i]].min() for i in range(len(features))])
    return (positives - negatives + 0.3).relu().mean()


def unguarded(features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """Weighted regularised triplet with the weights exp(d) / (sum + 1e-6), as in the public code of AGW."""
    squared = features.square().sum(1)
    distance = (squared[:, None] + squared - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = (identity[:, None] == identity).to(distance.dtype)
    near, far = distance * same, distance * (1 - same)
    highest = near.amax(1, keepdim=True)
    positive = (near - highest).exp() * same
    lowest = (-far).amax(1, keepdim=True)
    negative = (-far - lowest).exp() * (1 - same)
    positive = positive / (positive.sum(1, keepdim=True) + 1e-6)
    negative = negative / (negative.sum(1, keepdim=True) + 1e-6)
    return torch.nn.functional.softplus((near * positive).sum(1) - (far * negative).sum(1)).mean()


def _step(loss: Callable[..., torch.Tensor], features: torch.Tensor, identity: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        features.grad = None
        loss(features, identity).backward()

    return run


def measured(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Smallest CPU seconds of each contender. They run in turns."""
    best = dict.fromkeys(contenders, math.inf)
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    for samples in (64, 256):
        features = torch.randn(samples, 2048, generator=generator).requires_grad_()
        identity = torch.arange(samples) // 8
        losses = {
            "batch hard, loop": loop,
            "batch hard": batch_hard_triplet,
            "weighted regularised": weighted_regularised_triplet,
        }
        best = measured({name: _step(loss, features, identity) for name, loss in losses.items()}, rounds)
        print(f"{samples} features of width 2048, forward and backward, one thread")
        for name, seconds in best.items():
            print(f"  {name:32s}{seconds * 1e3:8.2f} ms{best['batch hard, loop'] / seconds:7.1f}x")
    print("weighted regularised triplet: error against double precision, batch of 64")
    print(f"  {'mean distance':>14s}{'ours':>12s}{'exp / (sum + 1e-6)':>22s}")
    base = torch.rand(64, 256, generator=generator, dtype=torch.float64) / math.sqrt(256 / 6)
    for scale in (1, 10, 20, 100, 1000):
        features, identity = base * scale, torch.arange(64) // 8
        exact = weighted_regularised_triplet(features, identity)
        ours = (weighted_regularised_triplet(features.float(), identity) - exact).abs()
        theirs = (unguarded(features.float(), identity) - exact).abs()
        print(f"  {scale:14d}{ours:12.1e}{theirs:22.1e}")


if __name__ == "__main__":
    main()
