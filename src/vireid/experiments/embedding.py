"""Features of a data set's test pictures, each picture embedded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vireid.data.loading import Loaded
    from vireid.data.protocol import Trial
    from vireid.data.records import Records
    from vireid.data.size import Size
    from vireid.evaluation.embedding import Embedder
    from vireid.training.progress import Progress


@dataclass(frozen=True)
class Inference:
    """How pictures are loaded, and shown to an embedder.

    Attributes:
        size: height and width that pictures are resized to.
        flip: average each feature with that of the mirrored picture.
        batch: number of pictures that are embedded at once.
        workers: loading processes.
        cache: folder for resized pictures, or None.
        title: title of the progress bar.
    """

    size: Size
    flip: bool = False
    batch: int = 64
    workers: int = 2
    cache: Path | None = None
    title: str = "embedding"


LESS_MEMORY = "--batch (fewer pictures at once), --precision bf16"


def used_samples(trials: Iterable[Sequence[Trial]]) -> np.ndarray:
    """The samples that at least one trial uses, each once and ascending, as int64."""
    return np.unique(np.concatenate([trial.pictures for drawn in trials for trial in drawn]))


def embed_records(
    embedder: Embedder,
    records: Records,
    samples: np.ndarray,
    how: Inference,
    progress: Progress,
    on_skip: Callable[[int, str], None] | None = None,
) -> np.ndarray:
    """Features of these samples of the records.

    Args:
        embedder: pictures to features; see `vireid.model.Model.embedder`.
        records: the test pictures.
        samples: M positions in `records`, ascending: the pictures that are needed.
        how: how pictures are loaded.
        progress: where the bar is shown.
        on_skip: called with the position and the reason of each picture that cannot be read; None refuses it.

    Returns:
        N×D float32 for all N records; features of samples that are not needed or were skipped are zero.

    Raises:
        BadInput: a picture cannot be read and there is no `on_skip`.
    """
    from vireid.data.cache import PictureCache
    from vireid.data.loading import inference_batches
    from vireid.evaluation.embedding import embed_pictures
    from vireid.training.memory import advice_on_full_memory

    used = records.take(samples)
    cache = PictureCache(how.cache, used, how.size) if how.cache else None
    kept: list[np.ndarray] = []

    def loaded() -> Iterator[Loaded]:
        skipped = None if on_skip is None else _at(samples, on_skip)
        for made in inference_batches(
            used, size=how.size, batch=how.batch, workers=how.workers, cache=cache, on_skip=skipped
        ):
            kept.append(made[0].numpy())
            yield made

    with progress.bar(how.title) as advance, advice_on_full_memory(LESS_MEMORY):
        found = embed_pictures(embedder, loaded(), flip=how.flip, progress=lambda done: advance(done, len(used)))
    features = np.zeros((len(records), found.shape[1]), dtype=np.float32)
    if kept:
        features[samples[np.concatenate(kept)]] = found
    return features


def _at(samples: np.ndarray, on_skip: Callable[[int, str], None]) -> Callable[[int, str], None]:
    """`on_skip` for positions in `samples`."""
    return lambda place, reason: on_skip(int(samples[place]), reason)
