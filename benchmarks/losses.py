"""Triplet losses, forward and backward, against a loop over anchors and against the published softmax with 1e-6.

CPU time on one thread, the best of several interleaved rounds; then how far each is from double precision as the
features move apart.

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
    """Batch-hard triplet as a loop over anchors."""
    squared = features.square().sum(1)
    distance = (squared[:, None] + squared - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = identity[:, None] == identity
    positives = torch.stack([distance[i][same[i]].max() for i in range(len(features))])
    negatives = torch.stack([distance[i][~same[i]].min() for i in range(len(features))])
    return (positives - negatives + 0.3).relu().mean()


def unguarded(features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """Weighted regularised triplet with weights exp(d) / (sum + 1e-6), as first published."""
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
    """Least CPU seconds of each, taken in turns."""
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
    for rows in (64, 256):
        features = torch.randn(rows, 2048, generator=generator).requires_grad_()
        identity = torch.arange(rows) // 8
        losses = {
            "batch hard, loop": loop,
            "batch hard": batch_hard_triplet,
            "weighted regularised": weighted_regularised_triplet,
        }
        best = measured({name: _step(loss, features, identity) for name, loss in losses.items()}, rounds)
        print(f"{rows} rows of 2048, forward and backward, one thread")
        for name, seconds in best.items():
            print(f"  {name:32s}{seconds * 1e3:8.2f} ms{best['batch hard, loop'] / seconds:7.1f}x")
    print("weighted regularised triplet: difference to double precision in a batch of 64")
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
