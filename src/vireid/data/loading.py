"""From rows to batches: decode, stack, augment, in this process or in workers, always the same numbers.

An item of the data loader is a whole step. A worker is told (epoch, step) and nothing else; what it draws at random is
a function of the seed and of these, so neither the number of workers nor a resumption can be seen in the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vireid.data.batch import Batch
from vireid.data.cache import PictureCache
from vireid.data.errors import BadInput
from vireid.data.pictures import Resample, read_picture
from vireid.data.records import Records
from vireid.data.sampling import ModalityBalancedSampler, mixed, seed_of
from vireid.data.size import Size

Augment = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]

# Purposes of derived seeds, so that the augmentation's draws and the objective's are not the same stream.
_AUGMENT, _OBJECTIVE, _REPLACE = 101, 102, 103


@dataclass(frozen=True)
class _Failed:
    """A refusal on its way from a worker to the main process, where it becomes an exception again."""

    message: str


@dataclass(frozen=True)
class _Pictures:
    """Reads rows of some records at one size, from their files or from a cache."""

    records: Records
    size: Size
    resample: Resample
    cache: PictureCache | None

    def __post_init__(self) -> None:
        cache = self.cache
        if cache is None:
            return
        asked = (self.size, self.resample, self.records.fingerprint())
        if (cache.size, cache.resample, cache.fingerprint) != asked:
            raise BadInput(
                f"the picture cache {cache.folder} was made for other records, another size than {self.size} or "
                f"another resampling than {self.resample}"
            )

    def read(self, row: int) -> np.ndarray:
        if self.cache is not None:
            return self.cache.read(row)
        return read_picture(self.records.file(row), self.size, resample=self.resample)

    def empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, 3, self.size.height, self.size.width), dtype=np.uint8)


class _Steps(Dataset):
    """(epoch, step) → the step's batch, the paths that were skipped in it, or a refusal."""

    def __init__(
        self,
        pictures: _Pictures,
        sampler: ModalityBalancedSampler,
        labels: np.ndarray,
        augment: Augment,
        seed: int,
        rank: int,
        skip_unreadable: bool,
    ) -> None:
        self.pictures, self.sampler, self.augment = pictures, sampler, augment
        self.labels = np.asarray(labels, dtype=np.int64)
        self.seed, self.rank, self.skip_unreadable = seed, rank, skip_unreadable
        if len(self.labels) != len(pictures.records):
            raise BadInput(f"{len(self.labels)} labels for {len(pictures.records)} rows")

    def __getitem__(self, item: tuple[int, int]) -> tuple[Batch, list[str]] | _Failed:
        try:
            return self._batch(*item)
        except BadInput as error:
            return _Failed(str(error))

    def _batch(self, epoch: int, step: int) -> tuple[Batch, list[str]]:
        records = self.pictures.records
        rows = self.sampler.rows(epoch, step)
        stacked = self.pictures.empty(len(rows))
        skipped: list[str] = []
        for place, row in enumerate(rows.tolist()):
            try:
                picture = self.pictures.read(row)
            except BadInput:
                if not self.skip_unreadable:
                    raise
                skipped.append(str(records.file(row)))
                rows[place], picture = self._replacement(row, epoch, step, place)
            stacked[place] = picture.transpose(2, 0, 1)
        modality = torch.from_numpy(records.modality[rows].astype(np.int64))
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, step, self.rank, _AUGMENT))
        batch = Batch(
            images=self.augment(torch.from_numpy(stacked), modality, generator),
            identity=torch.from_numpy(self.labels[rows]),
            modality=modality,
            camera=torch.from_numpy(records.camera[rows]),
            seed=seed_of(self.seed, epoch, step, self.rank, _OBJECTIVE),
        )
        return batch, skipped

    def _replacement(self, row: int, epoch: int, step: int, place: int) -> tuple[int, np.ndarray]:
        """Another row of the same label and modality whose picture can be read, and that picture."""
        records = self.pictures.records
        alike = (self.labels == self.labels[row]) & (records.modality == records.modality[row])
        alike[row] = False
        others = np.flatnonzero(alike)
        keys = mixed(self.seed, epoch, step, self.rank, _REPLACE, place, np.arange(len(others)))
        for other in others[np.argsort(keys)]:
            try:
                return int(other), self.pictures.read(int(other))
            except BadInput:
                continue
        raise BadInput(
            f"{records.file(row)} cannot be read, and its identity has no other readable picture of that modality"
        )


class _Span(Sampler[tuple[int, int]]):
    """Steps of the epoch that is being loaded; moved on by the loader, so that its workers may live on."""

    def __init__(self) -> None:
        self.epoch, self.first, self.stop = 0, 0, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, step) for step in range(self.first, self.stop)])

    def __len__(self) -> int:
        return self.stop - self.first


class TrainingLoader:
    """Batches of one training run, epoch by epoch, with workers that live from one epoch to the next.

    Attributes:
        steps: steps per epoch.
    """

    def __init__(
        self,
        records: Records,
        *,
        size: Size,
        sampler: ModalityBalancedSampler,
        labels: np.ndarray,
        augment: Augment,
        seed: int,
        rank: int = 0,
        workers: int = 0,
        cache: PictureCache | None = None,
        resample: Resample = "lanczos",
        skip_unreadable: bool = False,
        on_skip: Callable[[str], None] | None = None,
    ) -> None:
        """Set up loading.

        Args:
            records: the training rows; the sampler's rows count from their start.
            size: height and width to resize to.
            sampler: says which rows each step has.
            labels: N int64, the label of each row, 0..n-1.
            augment: `augment(images uint8 N×3×H×W, modality int64 N, generator) -> float32 N×3×H×W`.
            seed: the run's seed.
            rank: this process's number, so that processes draw differently.
            workers: processes that prepare steps ahead; 0 prepares them here.
            cache: pictures already resized, made for the same records, size and resampling.
            resample: see `read_picture`.
            skip_unreadable: put another picture of the same identity and modality in the place of an unreadable one.
            on_skip: called, here, with the path of each picture that was skipped.

        Raises:
            BadInput: the labels or the cache do not belong to the records.
        """
        pictures = _Pictures(records, size, resample, cache)
        dataset = _Steps(pictures, sampler, labels, augment, seed, rank, skip_unreadable)
        self.steps, self._span, self._on_skip = sampler.steps, _Span(), on_skip
        self._loader = _loader(dataset, self._span, workers, persistent=True)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of one epoch, from `first_step` on, in order.

        Raises:
            BadInput: a picture cannot be read; names it.
        """
        self._span.epoch, self._span.first, self._span.stop = epoch, first_step, self.steps
        for made in self._loader:
            if isinstance(made, _Failed):
                raise BadInput(made.message)
            batch, skipped = made
            for path in skipped:
                if self._on_skip is not None:
                    self._on_skip(path)
            yield batch


class _Chunks(Dataset):
    """First row → row numbers, pictures and modalities of a run of rows, or a refusal."""

    def __init__(self, pictures: _Pictures, batch: int) -> None:
        self.pictures, self.batch = pictures, batch

    def __getitem__(self, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | _Failed:
        records = self.pictures.records
        rows = np.arange(first, min(first + self.batch, len(records)))
        stacked = self.pictures.empty(len(rows))
        try:
            for place, row in enumerate(rows.tolist()):
                stacked[place] = self.pictures.read(row).transpose(2, 0, 1)
        except BadInput as error:
            return _Failed(str(error))
        modality = torch.from_numpy(records.modality[rows].astype(np.int64))
        return torch.from_numpy(rows), torch.from_numpy(stacked), modality


def inference_batches(
    records: Records,
    *,
    size: Size,
    batch: int = 64,
    workers: int = 0,
    cache: PictureCache | None = None,
    resample: Resample = "lanczos",
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Every row once, in order.

    Yields:
        rows: B int64, consecutive row numbers.
        images: B×3×H×W uint8.
        modality: B int64, values of `Modality`.

    Raises:
        BadInput: a picture cannot be read (names it), `batch` is below 1, or the cache belongs to other records.
    """
    if batch < 1:
        raise BadInput(f"batch is {batch}; it must be at least 1")
    dataset = _Chunks(_Pictures(records, size, resample, cache), batch)
    return _chunks(_loader(dataset, range(0, len(records), batch), workers, persistent=False))


def _chunks(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for made in loader:
        if isinstance(made, _Failed):
            raise BadInput(made.message)
        yield made


def _loader(dataset: Dataset, items: Sampler | range, workers: int, *, persistent: bool) -> DataLoader:
    if workers < 0:
        raise BadInput(f"workers is {workers}; it must be 0 or more")
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=items,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_one_thread,
        persistent_workers=persistent and workers > 0,
        # Left alone, a loader seeds its workers from the global stream and so moves it; nothing here may touch it.
        generator=torch.Generator(),
    )


def _as_it_is(item: object) -> object:
    return item


def _one_thread(worker: int) -> None:
    """Workers share the cores; each of them starting a team of threads would slow all of them down."""
    torch.set_num_threads(1)
