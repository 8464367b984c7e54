"""Less memory for the same numbers: maps inside a part of a network are computed a second time for the gradient.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import Tensor, is_grad_enabled, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def economical(parts: Sequence[nn.Module], function: Callable[[Tensor], Tensor], x: Tensor, *, when: bool) -> Tensor:
    """`function(x)`, of which only `x` and the result are kept for the gradient.

    Value and gradient are the same, bit for bit, and batch normalisations update their running statistics once. The
    function is computed twice, so a training step takes about a third longer.

    Args:
        parts: the modules that the function uses. They are all in training mode, or none of them is.
        function: a part of a network.
        x: its input.
        when: False calls the function as it is. Without gradients it is always called as it is.
    """
    if not (when and is_grad_enabled() and any(part.training for part in parts)):
        return function(x)
    return checkpoint(  # type: ignore[return-value]
        function, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _with_copies_of_statistics(parts))
    )


@contextmanager
def _with_copies_of_statistics(parts: Sequence[nn.Module]) -> Iterator[None]:
    """A `with` block in which batch normalisations update copies of their running statistics."""
    norms = [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
    own = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    try:
        for norm, buffers in zip(norms, own, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer.clone())
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
