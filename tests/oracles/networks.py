"""Slow versions of the networks' equations, written as loops that read like the formulas."""

from __future__ import annotations

import math

import torch


def gem(x: torch.Tensor, *, p: float, eps: float) -> torch.Tensor:
    """`(mean of max(x, eps)^p)^(1/p)` for each sample and each channel."""
    samples, channels, height, width = x.shape
    pooled = torch.zeros(samples, channels, dtype=torch.float64)
    for b in range(samples):
        for c in range(channels):
            total = 0.0
            for h in range(height):
                for w in range(width):
                    total += max(float(x[b, c, h, w]), eps) ** p
            pooled[b, c] = (total / (height * width)) ** (1 / p)
    return pooled


def part_means(x: torch.Tensor, bounds: list[tuple[int, int]]) -> torch.Tensor:
    """The mean of each part of B×C×H×W maps, B×parts×C."""
    pooled = torch.zeros(x.shape[0], len(bounds), x.shape[1], dtype=torch.float64)
    for part, (first, end) in enumerate(bounds):
        for b in range(x.shape[0]):
            for c in range(x.shape[1]):
                pooled[b, part, c] = x[b, c, first:end].double().mean()
    return pooled


def non_local(theta: torch.Tensor, phi: torch.Tensor, g: torch.Tensor, *, form: str) -> torch.Tensor:
    """`y_i = Σ_j f(i, j) g_j / C(i)` for one image.

    Args:
        theta, phi, g: positions×inner.
        form: `dot` (f = θ_i·φ_j, C = positions) or `gaussian` (f = exp(θ_i·φ_j), C = Σ_j f).
    """
    positions, inner = theta.shape
    y = torch.zeros(positions, inner, dtype=torch.float64)
    for i in range(positions):
        f = [sum(float(theta[i, c]) * float(phi[j, c]) for c in range(inner)) for j in range(positions)]
        if form == "gaussian":
            f = [math.exp(value) for value in f]
        normaliser = positions if form == "dot" else sum(f)
        for j in range(positions):
            y[i] += f[j] * g[j].double() / normaliser
    return y


def cbam(x: torch.Tensor, first: torch.Tensor, last: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """CBAM of one C×H×W map: channel weights from a network of two layers, then spatial weights from a 2×7×7 kernel."""
    channels, height, width = x.shape

    def network(value: torch.Tensor) -> torch.Tensor:
        return last @ (first @ value).clamp(min=0)

    average = torch.tensor([x[c].sum() / (height * width) for c in range(channels)], dtype=x.dtype)
    largest = torch.tensor([x[c].max() for c in range(channels)], dtype=x.dtype)
    weight = 1 / (1 + torch.exp(-(network(average) + network(largest))))
    x = torch.stack([x[c] * weight[c] for c in range(channels)])
    result = torch.zeros_like(x)
    for h in range(height):
        for w in range(width):
            score = 0.0
            for dy in range(-3, 4):
                for dx in range(-3, 4):
                    if 0 <= h + dy < height and 0 <= w + dx < width:
                        there = x[:, h + dy, w + dx]
                        seen = (float(there.sum() / channels), float(there.max()))
                        score += sum(float(kernel[i, dy + 3, dx + 3]) * seen[i] for i in (0, 1))
            result[:, h, w] = x[:, h, w] / (1 + math.exp(-score))
    return result


def torchvision_shapes(block: str, blocks: tuple[int, ...], widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of torchvision's residual networks, without the classifier."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (widths[0], 3, 7, 7)
    norm("bn1", widths[0])
    inputs = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
        outputs = width * (4 if block == "bottleneck" else 1)
        for index in range(count):
            name = f"layer{stage}.{index}"
            kernels = (1, 3, 1) if block == "bottleneck" else (3, 3)
            before = inputs
            for number, kernel in enumerate(kernels, start=1):
                after = outputs if number == len(kernels) else width
                shapes[f"{name}.conv{number}.weight"] = (after, before, kernel, kernel)
                norm(f"{name}.bn{number}", after)
                before = after
            if index == 0 and (inputs != outputs or stage > 1):
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    return shapes
