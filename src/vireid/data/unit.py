"""Features of length one."""

from __future__ import annotations

import torch
from torch.nn import functional

from vireid.data.shapes import check_shape


def unit(features: torch.Tensor) -> torch.Tensor:
    """`f / ‖f‖` for each feature: B×D to B×D, at least float32. A feature of zeros remains zero.

    Raises:
        BadInput: the features are not B×D.
    """
    check_shape(features, "features", "B×D")
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)))
