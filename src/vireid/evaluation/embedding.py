"""Compute the embedding of each picture once, for all protocols and all trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch

from vireid.augment.normalise import normalise

Embed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pictures = Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def embed_pictures(
    embed: Embed,
    pictures: Pictures,
    *,
    flip: bool = False,
    device: torch.device | str = "cpu",
    precision: str = "off",
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Compute the embeddings of all pictures, batch by batch.

    Args:
        embed: (N×3×H×W float32 normalised images, N int64 modalities) → N×D features of length one.
        pictures: batches (N record numbers, N×3×H×W uint8 images, N int64 modalities). The record numbers of all
            batches together are 0, 1, 2, … in ascending order.
        flip: true to add the feature of the mirrored picture to each feature and normalise the sum to length one.
        device: where `embed` computes.
        precision: `off` for float32, `bf16` or `fp16` for autocast.
        progress: called after each batch with the number of pictures that are done.

    Returns:
        R×D float32 for R records, in their order; 0×0 if there are no pictures.
    """
    kind = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    device = torch.device(device)
    found: list[np.ndarray] = []
    done = 0
    with torch.inference_mode(), torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
        for _records, images, modality in pictures:
            images = normalise(images).to(device).contiguous(memory_format=torch.channels_last)
            modality = modality.to(device)
            features = embed(images, modality).float()
            if flip:
                features = torch.nn.functional.normalize(features + embed(images.flip(3), modality).float())
            found.append(features.cpu().numpy())
            done += len(modality)
            if progress:
                progress(done)
    return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)
