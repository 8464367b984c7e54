"""The check that a block makes of the tensors that it is given."""

from __future__ import annotations

import torch

from vireid.data.errors import BadInput


def check_shape(given: object, name: str, shape: str) -> None:
    """Check that an argument of a block is a tensor with the right number of dimensions.

    Args:
        given: the argument.
        name: how the sentence calls it.
        shape: the dimensions that it takes, such as `B×D`.

    Raises:
        BadInput: it is no tensor, or has another number of dimensions.

    >>> check_shape(torch.zeros(3, 8, 4), "images", "N×3×H×W")
    Traceback (most recent call last):
    vireid.data.errors.BadInput: images are 3×8×4; they must be N×3×H×W
    """
    if not isinstance(given, torch.Tensor):
        raise BadInput(f"{name} are a {type(given).__name__}; they must be a tensor of {shape}")
    if given.ndim != shape.count("×") + 1:
        raise BadInput(f"{name} are {'×'.join(map(str, given.shape)) or 'one number'}; they must be {shape}")
