"""A map's positions as a sequence of tokens: where each of them is, and attention between two sequences."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from vireid.data.errors import unknown

# With so few keys the plain products are faster on a CPU than the fused kernel; see benchmarks/wrim_net.py.
FEW_KEYS = 64


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, path: Literal["auto", "fused", "plain"] = "auto"
) -> torch.Tensor:
    """`softmax(query keyᵀ / √d) value`, at least in float32 within the softmax.

    Args:
        query: …×L×d.
        key: …×K×d.
        value: …×K×e.
        path: `fused`, PyTorch's scaled-dot-product attention; `plain`, two products with a softmax between; `auto`,
            whichever is faster here: plain for few keys on a CPU, fused otherwise. They agree up to rounding.

    Returns:
        …×L×e.

    Raises:
        BadInput: there is no such path.
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
    """The Transformer's table: `sin(p / 10000^(2i/width))` in column 2i and the cosine of the same in column 2i + 1.

    Args:
        position: L positions, whole or not.
        width: columns.

    Returns:
        L×width float32.
    """
    rate = 10000 ** -(torch.arange(0, width, 2, device=position.device) / width)
    angle = position.float()[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), 2).flatten(1)[:, :width]


def place(rows: torch.Tensor, columns: torch.Tensor, width: int, *, form: str, across: int) -> torch.Tensor:
    """Positions of a grid's tokens, row by row: `len(rows) · len(columns)`×width.

    Args:
        rows: where the grid's rows are.
        columns: where its columns are.
        width: of a token.
        form: `sincos1d`, the table at `row · across + column`; `sincos2d`, the row's in the first half and the
            column's in the second.
        across: how many columns a row counts in the one-dimensional form.
    """
    row, column = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
    if form == "sincos1d":
        return sincos(row * across + column, width)
    return torch.cat((sincos(row, width // 2), sincos(column, width - width // 2)), 1)


def window_centres(length: int, count: int, pool: int, device: torch.device) -> torch.Tensor:
    """The middle of each of `count` windows of `pool` positions; the last window may hold fewer of the `length`."""
    first = torch.arange(count, device=device) * pool
    return (first + (first + pool).clamp(max=length) - 1) / 2
