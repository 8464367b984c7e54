"""Slow versions of WRIM-Net's equations, written as loops that read like the formulas, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from vireid.networks.attention import CBAM
from vireid.networks.pooling import AveragePool


def key_instance_contrast(
    features: Sequence[Sequence[float]],
    identity: Sequence[int],
    modality: Sequence[int],
    *,
    top_k: int,
    temperature: float,
    reduction: str,
) -> float:
    """½ (Σ or mean over visible anchors + the same over infrared anchors) of l_i."""
    z = [[value / math.sqrt(math.fsum(v * v for v in f)) for value in f] for f in features]

    def similarity(i: int, j: int) -> float:
        return math.fsum(a * b for a, b in zip(z[i], z[j], strict=True))

    halves = []
    for anchors, others in ((0, 1), (1, 0)):
        losses = []
        for i in range(len(z)):
            if modality[i] != anchors:
                continue
            positives = [j for j in range(len(z)) if modality[j] == others and identity[j] == identity[i]]
            negatives = [j for j in range(len(z)) if modality[j] == others and identity[j] != identity[i]]
            hardest = sorted(positives, key=lambda j: similarity(i, j))[:top_k]
            if not hardest:
                continue
            total = math.fsum(math.exp(similarity(i, a) / temperature) for a in negatives + hardest)
            logs = [math.log(math.exp(similarity(i, p) / temperature) / total) for p in hardest]
            losses.append(-math.fsum(logs) / len(hardest))
        halves.append(math.fsum(losses) / (max(1, len(losses)) if reduction == "mean" else 1))
    return sum(halves) / 2


def sincos(position: float, width: int) -> list[float]:
    """The encoding of one position in the Transformer."""
    return [
        (math.sin if channel % 2 == 0 else math.cos)(position / 10000 ** ((channel - channel % 2) / width))
        for channel in range(width)
    ]


def batch_norm(x: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
    """(x - mean) / √(variance + ε), each channel over the batch and all positions."""
    result = torch.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        mean = values.sum() / values.numel()
        variance = ((values - mean) ** 2).sum() / values.numel()
        result[:, c] = (values - mean) / math.sqrt(float(variance) + bn.eps)
        if bn.affine:
            result[:, c] = result[:, c] * bn.weight[c] + bn.bias[c]
    return result


def compressed(f1: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One product for each window of kernel × kernel positions, C×H×W to C₂×h×w."""
    kernel = weight.shape[-1]
    height, width = f1.shape[1] // kernel, f1.shape[2] // kernel
    result = torch.zeros(len(weight), height, width, dtype=f1.dtype)
    for i in range(height):
        for j in range(width):
            window = f1[:, i * kernel : (i + 1) * kernel, j * kernel : (j + 1) * kernel]
            for c in range(len(weight)):
                result[c, i, j] = (window * weight[c]).sum() + bias[c]
    return result


def windows(height: int, width: int, pool: int, ceil: bool) -> list[list[tuple[int, int]]]:
    """Which query positions each key stands for, from top to bottom and within that from left to right."""
    up = (lambda n: -(-n // pool)) if ceil else (lambda n: n // pool)
    return [
        [
            (i, j)
            for i in range(y * pool, min(height, (y + 1) * pool))
            for j in range(x * pool, min(width, (x + 1) * pool))
        ]
        for y in range(up(height))
        for x in range(up(width))
    ]


def miim(x: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """F6 of one batch from equations 1 to 3, with the module's weights; training mode."""
    f1 = batch_norm(x, module.bn_in)
    gated = f1 if module.mining.gate_input == "bn" else x
    mixed = torch.zeros_like(x)
    for b in range(len(x)):
        f2 = compressed(f1[b], module.compress.weight, module.compress.bias)
        gate = torch.zeros_like(x[b])
        small = restored(f2, module)
        if module.mining.fusion == "sigmoid_mul":
            small = 1 / (1 + (-small).exp())
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                gate[:, i, j] = enlarged(small, i, j, x.shape[2:], module.mining.upsampling)
        mixed[b] = gated[b] + gate if module.mining.fusion == "add" else gated[b] * gate
    return batch_norm(mixed.clamp(min=0), module.bn_out)


def restored(f2: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """F5 of one image, C×h×w."""
    channels, height, width = f2.shape
    regions = windows(height, width, module.mining.pool, module.mining.ceil)
    across = -(-width // module.mining.pool) if module.mining.ceil else width // module.mining.pool

    def token(values: torch.Tensor) -> torch.Tensor:
        if isinstance(module.token_norm, nn.Identity):
            return values
        spread = math.sqrt(float(((values - values.mean()) ** 2).mean()) + module.token_norm.eps)
        return (values - values.mean()) / spread * module.token_norm.weight + module.token_norm.bias

    def place(y: float, x: float, across: int) -> torch.Tensor:
        if module.mining.positions == "none":
            return torch.zeros(channels, dtype=f2.dtype)
        if module.mining.positions == "sincos1d":
            return torch.tensor(sincos(y * across + x, channels), dtype=f2.dtype)
        half = channels // 2
        return torch.tensor(sincos(y, half) + sincos(x, channels - half), dtype=f2.dtype)

    queries = [token(f2[:, i, j]) + place(i, j, width) for i in range(height) for j in range(width)]
    keys, values = [], []
    for number, members in enumerate(regions):
        plain = token(sum(f2[:, i, j] for i, j in members) / len(members))
        if module.mining.key_positions == "own_index":
            where = place(number // across, number % across, across)
        else:
            middle = [sum(axis) / len(members) for axis in zip(*members, strict=True)]
            where = place(middle[0], middle[1], width)
        keys.append(plain + where)
        values.append(plain + where if module.mining.positions_on == "qkv" else plain)
    f4 = attended(queries, keys, values, module)
    f5 = [module.restore.weight @ token + module.restore.bias for token in f4]
    return torch.stack(f5, 1).view(-1, height, width)


def attended(
    queries: list[torch.Tensor], keys: list[torch.Tensor], values: list[torch.Tensor], module: nn.Module
) -> list[torch.Tensor]:
    """W_O [head 1, head 2, …], each head softmax(q·k / √d) v."""

    def project(layer: nn.Linear, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
        return [layer.weight @ token + (0 if layer.bias is None else layer.bias) for token in tokens]

    q, k, v = project(module.query, queries), project(module.key, keys), project(module.value, values)
    each = len(q[0]) // module.mining.heads
    result = []
    for query in q:
        heads = []
        for head in range(module.mining.heads):
            mine = slice(head * each, (head + 1) * each)
            powers = [math.exp(float(query[mine] @ key[mine]) / math.sqrt(each)) for key in k]
            heads.append(sum(p / math.fsum(powers) * value[mine] for p, value in zip(powers, v, strict=True)))
        result.append(module.output.weight @ torch.cat(heads) + module.output.bias)
    return result


def enlarged(small: torch.Tensor, i: int, j: int, size: Sequence[int], mode: str) -> torch.Tensor:
    """Position (i, j) of a C×h×w grid enlarged to `size`, corners not aligned."""
    if mode == "nearest":
        return small[:, i * small.shape[1] // size[0], j * small.shape[2] // size[1]]
    corners = []
    for at, length, whole in ((i, small.shape[1], size[0]), (j, small.shape[2], size[1])):
        source = max(0.0, (at + 0.5) * length / whole - 0.5)
        low = min(int(source), length - 1)
        corners.append((low, min(low + 1, length - 1), source - low))
    (top, bottom, down), (left, right, along) = corners
    upper = small[:, top, left] * (1 - along) + small[:, top, right] * along
    lower = small[:, bottom, left] * (1 - along) + small[:, bottom, right] * along
    return upper * (1 - down) + lower * down


def equation_4(
    features: Sequence[Sequence[float]],
    w1: Sequence[Sequence[float]],
    gain: Sequence[float],
    shift: Sequence[float],
    w2: Sequence[Sequence[float]],
    bias: Sequence[float],
) -> list[list[float]]:
    """z5 = W2 ReLU(BN(W1 R_g)), with the batch's own mean and variance and ε = 1e-5."""
    hidden = [[math.fsum(w * x for w, x in zip(weights, f, strict=True)) for weights in w1] for f in features]
    active = [[0.0] * len(w1) for _ in features]
    for unit in range(len(w1)):
        values = [sample[unit] for sample in hidden]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        for sample, value in enumerate(values):
            active[sample][unit] = max(0.0, (value - mean) / math.sqrt(variance + 1e-5) * gain[unit] + shift[unit])
    outputs = []
    for sample in active:
        products = [math.fsum(w * x for w, x in zip(weights, sample, strict=True)) for weights in w2]
        outputs.append([product + b for product, b in zip(products, bias, strict=True)])
    return outputs


def operations_of_modules(network: nn.Module, run: Callable[[], object]) -> int:
    """Operations by the rule that reproduces table 6: what modules do, as thop counted in 2020.

    A convolution and a linear layer count one per multiplication (and a convolution's bias one per output), a batch
    normalisation two per element, an average over all positions (also CBAM's) one per element. Products between
    modules count nothing; bilinear enlargement, which is no module here, is added by the caller at eleven per output.
    """
    total = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            per_output = module.in_channels // module.groups * math.prod(module.kernel_size)
            total += result.numel() * (per_output + (module.bias is not None))
        elif isinstance(module, nn.Linear):
            total += result.numel() * module.in_features
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            total += 2 * given[0].numel()
        elif isinstance(module, (AveragePool, CBAM)):
            total += given[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    run()
    for hook in hooks:
        hook.remove()
    return total
