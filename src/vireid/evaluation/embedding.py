"""From pictures to features: every picture once, whatever the number of protocols and trials."""

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
    """Embed pictures batch by batch.

    Args:
        embed: (N×3×H×W float32 normalised images, N int64 modalities) → N×D features of length one.
        pictures: (rows, N×3×H×W uint8 images, N int64 modalities), rows ascending from 0 without a gap.
        flip: average each feature with that of the mirrored picture (and bring it back to length one).
        device: where `embed` computes.
        precision: `off` for float32, `bf16` or `fp16` for autocast.
        progress: called with the number of pictures done so far.

    Returns:
        rows×D float32.
    """
    kind = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    device = torch.device(device)
    found: list[np.ndarray] = []
    done = 0
    with torch.inference_mode(), torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None):
        for _rows, images, modality in pictures:
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
