"""Whether two ways of computing features give the same ones."""

from __future__ import annotations

import numpy as np

from vireid.data.size import Size

LIMIT = 1e-4
"""How far a feature may be from that of the network as it is: one minus the cosine."""


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of two features of the same picture.

    The difference of two features is half of their squared distance. If both have length one, that is one minus their
    cosine; if one has another length, it is larger.

    Args:
        found, wanted: N×D features of the same N pictures, N at least 1.

    Returns:
        0 or more; infinite if the shape differs or a number is not finite.
    """
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(((found.astype(np.float64) - wanted) ** 2).sum(1).max() / 2)


def patterns(count: int, size: Size, seed: int = 0) -> np.ndarray:
    """Pictures of coloured patches, from a few large ones to one for each pixel, in different contrasts.

    They are unlike each other, so that their features are, too. Every second one is grey, as infrared pictures are.

    Returns:
        count×3×H×W uint8, always the same for equal arguments.
    """
    generator = np.random.default_rng(seed)
    found = np.empty((count, 3, *size), dtype=np.uint8)
    for number in range(count):
        cells = 2 ** int(generator.integers(1, 7))
        rows = np.arange(size.height) * min(cells, size.height) // size.height
        columns = np.arange(size.width) * min(cells, size.width) // size.width
        low, high = np.sort(generator.integers(0, 256, 2))
        values = generator.integers(low, high + 1, (3, cells, cells))
        if number % 2:
            values[1:] = values[:1]
        found[number] = values[:, rows][:, :, columns]
    return found
