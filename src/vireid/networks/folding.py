"""Folding: a batch normalisation that follows a convolution becomes part of its weights, for inference.

With fixed statistics, a batch normalisation is a scale and a shift for each channel. Both can be multiplied into the
weights and the bias of the convolution before it. The result is the same up to rounding, without one pass over the map.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network for inference, in evaluation mode, whose batch normalisations are folded where that is exact.

    Two places are known: a batch normalisation directly behind a convolution in an `nn.Sequential`, and the pairs that
    a block names in its class attribute `FOLDS`: name of the convolution → name of the normalisation. A block may name
    a pair only if the result of the convolution is used by that normalisation and by nothing else. Other normalisations
    stay as they are. In the place of a folded one stands an `nn.Identity`, so the code of the block needs no change.

    Args:
        network: any module. It is not changed, and shares no memory with the copy.
    """
    found = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(found.modules()):
        for convolution, norm in list(_pairs(module)):
            before, after = getattr(module, convolution), getattr(module, norm)
            if _foldable(before, after):
                setattr(module, convolution, fuse_conv_bn_eval(before, after))
                setattr(module, norm, nn.Identity())
    return found


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of the children of a module that may be a convolution and its normalisation."""
    if type(module) is nn.Sequential:  # a subclass may call its children in another way
        yield from pairwise(module._modules)
    yield from getattr(module, "FOLDS", {}).items()


def _foldable(before: Any, after: Any) -> bool:
    """Whether these are a plain convolution and a batch normalisation with statistics of its own.

    A parametrised convolution (`torch.nn.utils.parametrize`) computes its weights, and has another type.
    """
    return type(before) is nn.Conv2d and isinstance(after, _BatchNorm) and after.running_mean is not None
