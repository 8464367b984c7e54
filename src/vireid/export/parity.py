"""Whether exported files compute the same features as the network that they came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.evaluation.embedding import Embedder

LIMIT = 1e-4
PICTURES = 64
BATCHES = (1, 3, 17)


def difference(
    embedder: Embedder, modality: Modality, compute: Callable[[np.ndarray], np.ndarray], size: Size
) -> float:
    """The largest difference of an exported feature from PyTorch's, over 64 pictures in batches of 1, 3 and 17.

    The difference of two features is half of their squared distance. If both have length one, that is one minus their
    cosine; if an exported feature has another length, it is larger.

    Args:
        embedder: the whole network, with its own normalisation and the choice of the parts for a modality.
        modality: the modality of all pictures.
        compute: the exported network of this modality, N×3×H×W uint8 to N×D float32.
        size: height and width of the pictures.

    Returns:
        0 or more; infinite if the shape differs or a number is not finite.
    """
    images = patterns(PICTURES, size)
    wanted = embedder(torch.from_numpy(images), torch.full((PICTURES,), int(modality))).cpu().numpy().astype(np.float64)
    parts, first = [], 0
    while first < PICTURES:
        last = first + BATCHES[len(parts) % len(BATCHES)]
        parts.append(compute(images[first:last]))
        first = last
    found = np.concatenate(parts).astype(np.float64)
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(((found - wanted) ** 2).sum(1).max() / 2)


def check(differences: dict[str, float], to: str) -> None:
    """Refuse files that compute something else.

    Raises:
        BadInput: a modality's difference is above `LIMIT`.
    """
    for modality, found in differences.items():
        if not found <= LIMIT:
            raise BadInput(
                f"the {to} file of {modality} pictures is not kept: its features differ from PyTorch's by {found:.1e} "
                f"(one minus the cosine), and {LIMIT:.0e} is the limit"
            )


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
