"""Positions of a map as a sequence of tokens: attention between two sequences, and positional encodings."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from vireid.data.errors import unknown

# With at most this many keys, plain matrix products are faster on a CPU than the fused kernel. It is measured by
# `vireid bench training`.
FEW_KEYS = 64


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, path: Literal["auto", "fused", "plain"] = "auto"
) -> torch.Tensor:
    """Scaled dot-product attention, `softmax(query keyᵀ / √d) value`, with the softmax at least in float32.

    Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), equation 1.

    Args:
        query: …×L×d.
        key: …×K×d.
        value: …×K×e.
        path: `fused` uses PyTorch's scaled dot-product attention; `plain` uses two matrix products and a softmax;
            `auto` takes the faster one, which is `plain` for few keys on a CPU and `fused` otherwise. The results are
            equal up to rounding.

    Returns:
        …×L×e.

    Raises:
        BadInput: `path` is unknown.
    """
    if path not in ("auto", "fused", "plain"):
        raise unknown("attention path", path, ("auto", "fused", "plain"))
    if path == "auto":
        path = "plain" if query.device.type == "cpu" and key.shape[-2] <= FEW_KEYS else "fused"
    if path == "fused":
        return functional.scaled_dot_product_attention(query, key, value)
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(value.dtype) @ value


def sincos(position: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoidal positional encoding of the Transformer (Vaswani et al., NeurIPS 2017, section 3.5).

    Channel 2i is `sin(p / 10000^(2i/width))` and channel 2i + 1 is the cosine of the same angle.

    Args:
        position: L positions, integers or fractions.
        width: number of channels.

    Returns:
        L×width float32.
    """
    rate = 10000 ** -(torch.arange(0, width, 2, device=position.device) / width)
    angle = position.float()[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[:, :width]


def place(vertical: torch.Tensor, horizontal: torch.Tensor, width: int, *, form: str, across: int) -> torch.Tensor:
    """Positional encodings of the tokens of a grid, from top to bottom and within that from left to right.

    Args:
        vertical: H coordinates y of the tokens, from the top.
        horizontal: W coordinates x of the tokens, from the left.
        width: channels of a token.
        form: `sincos1d` encodes the number `y · across + x`. `sincos2d` encodes y in the first half of the channels
            and x in the second half.
        across: width of the map in positions, which `sincos1d` multiplies y by.

    Returns:
        (H·W)×width float32.
    """
    y, x = (axis.flatten() for axis in torch.meshgrid(vertical, horizontal, indexing="ij"))
    if form == "sincos1d":
        return sincos(y * across + x, width)
    return torch.cat((sincos(y, width // 2), sincos(x, width - width // 2)), 1)


def window_centres(length: int, count: int, pool: int, device: torch.device) -> torch.Tensor:
    """Centre coordinates of consecutive pooling windows.

    Args:
        length: number of positions that are pooled.
        count: number of windows.
        pool: positions in one window. The last window may have fewer, because it ends at `length`.
        device: where to make the result.

    Returns:
        `count` float32 coordinates; a centre between two positions ends in .5.
    """
    first = torch.arange(count, device=device) * pool
    return (first + (first + pool).clamp(max=length) - 1) / 2
