"""Features of a data set's test pictures, each picture embedded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from vireid.data.protocol import Trial
    from vireid.data.records import Records
    from vireid.data.size import Size
    from vireid.evaluation.embedding import Embed
    from vireid.training.progress import Progress


@dataclass(frozen=True)
class Inference:
    """How pictures are loaded and embedded.

    Attributes:
        size: height and width that pictures are resized to.
        flip: average each feature with that of the mirrored picture.
        batch: number of pictures that are embedded at once.
        precision: `off`, `bf16` or `fp16`.
        workers: loading processes.
        cache: folder for resized pictures, or None.
        device: where the network computes; None is the GPU if there is one.
        title: title of the progress bar.
    """

    size: Size
    flip: bool = False
    batch: int = 64
    precision: str = "off"
    workers: int = 2
    cache: Path | None = None
    device: Any = None
    title: str = "embedding"


def used_samples(trials: Iterable[Sequence[Trial]]) -> np.ndarray:
    """The samples that at least one trial uses, each once and ascending, as int64."""
    return np.unique(np.concatenate([side for drawn in trials for t in drawn for side in (t.query, t.gallery)]))


def embed_records(
    embed: Embed, network: nn.Module, records: Records, samples: np.ndarray, how: Inference, progress: Progress
) -> np.ndarray:
    """Features of these samples of the records.

    Args:
        embed: function from images and modalities to features; see `vireid.model.embedder`.
        network: the module that `embed` belongs to; it is moved to the device.
        records: the test pictures.
        samples: M positions in `records`, ascending: the pictures that are needed.
        how: how pictures are loaded and embedded.
        progress: where the bar is shown.

    Returns:
        N×D float32 for all N records; features of samples that are not needed are zero.

    Raises:
        BadInput: a picture cannot be read.
    """
    import torch

    from vireid.data.cache import PictureCache
    from vireid.data.loading import inference_batches
    from vireid.evaluation.embedding import embed_pictures

    used = records.take(samples)
    device = how.device or ("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    cache = PictureCache(how.cache, used, how.size) if how.cache else None
    with progress.bar(how.title) as advance:
        found = embed_pictures(
            embed,
            inference_batches(used, size=how.size, batch=how.batch, workers=how.workers, cache=cache),
            flip=how.flip,
            device=device,
            precision=how.precision,
            progress=lambda done: advance(done, len(used)),
        )
    features = np.zeros((len(records), found.shape[1]), dtype=np.float32)
    features[samples] = found
    return features
