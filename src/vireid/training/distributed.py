"""What a recipe needs when its batch is spread over several processes."""

from __future__ import annotations

import torch
import torch.distributed
from torch.distributed.nn.functional import all_gather


def whole_batch(*columns: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The rows of every process, in process order; alone, the rows as they are.

    Losses that compare rows with each other see the whole batch this way. Gradients flow back to the process that a
    row came from. Every process then computes the same loss and the wrapper around the network averages gradients over
    processes, which together gives the gradient that one process with the whole batch would have.

    Args:
        columns: tensors with the same first dimension N on every process, e.g. features (N×D), identity (N).

    Returns:
        The same columns with first dimension N × processes.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return columns
    return tuple(torch.cat(_gather(column)) for column in columns)


def _gather(column: torch.Tensor) -> list[torch.Tensor]:
    if column.requires_grad:
        return list(all_gather(column))
    parts = [torch.empty_like(column) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, column.contiguous())
    return parts
