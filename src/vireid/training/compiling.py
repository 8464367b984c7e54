"""`torch.compile` for the part of a network in which a training step spends its time: stems and stages.

Only these are compiled: they are called with pictures of one or two shapes. The rest of an objective (memories, mining,
random draws) depends on values, and would be cut into pieces of a few operations. The names of parameters stay the
same, so a checkpoint can be read with and without it, and copies of the network are not compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from torch import nn


def compile_trunk(model: nn.Module, mode: str, device: torch.device) -> None:
    """Let stems and stages be compiled when they are first called.

    Args:
        model: what a recipe built, see `vireid.training.loop.Trainable`.
        mode: `off`, or a mode of `torch.compile`.
        device: where it computes.

    Raises:
        BadInput: nothing can be compiled here, for example because there is no C++ compiler, or maps are to be computed
            again for the gradient, which torch cannot trace with the running statistics kept.
    """
    if mode == "off":
        return
    trainable: Any = model
    stems, stages = trainable.pretrained_parts()
    if any(getattr(part, "recompute", False) for part in (*stems, stages)):
        raise BadInput(f"compile={mode} and --recompute do not work together; leave one of them out")
    _try(mode, device)
    for part in dict.fromkeys((*stems, stages)):
        part.compile(mode=mode, dynamic=False)


def _try(mode: str, device: torch.device) -> None:
    """Compile one addition. A mistake in the first step would come after minutes of loading."""
    try:
        torch.compile(lambda x: x + 1, mode=mode)(torch.zeros(2, device=device))
    except Exception as error:  # compilers fail in many ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"compile={mode} does not work here: {reason}; choices here: off") from error
