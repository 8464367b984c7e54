"""Whether exported files compute the same features as the network that they came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.evaluation import parity
from vireid.evaluation.embedding import Embedder
from vireid.evaluation.parity import LIMIT, patterns

PICTURES = 64
BATCHES = (1, 3, 17)


def difference(
    embedder: Embedder, modality: Modality, compute: Callable[[np.ndarray], np.ndarray], size: Size
) -> float:
    """The largest difference of an exported feature from PyTorch's, over 64 pictures in batches of 1, 3 and 17.

    See `vireid.evaluation.parity.difference`.

    Args:
        embedder: the whole network, with its own normalisation and the choice of the parts for a modality.
        modality: the modality of all pictures.
        compute: the exported network of this modality, N×3×H×W uint8 to N×D float32.
        size: height and width of the pictures.

    Returns:
        0 or more; infinite if the shape differs or a number is not finite.
    """
    images = patterns(PICTURES, size)
    wanted = embedder(torch.from_numpy(images), torch.full((PICTURES,), int(modality))).cpu().numpy()
    parts, first = [], 0
    while first < PICTURES:
        last = first + BATCHES[len(parts) % len(BATCHES)]
        parts.append(compute(images[first:last]))
        first = last
    return parity.difference(np.concatenate(parts), wanted)


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
