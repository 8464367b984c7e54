"""Read, stack and augment pictures, and give them out in batches, for training and for inference.

In training, one item of the data loader is a whole step. A worker gets only (epoch, step). Everything that it draws at
random is a function of the run's seed, the epoch, the step and the rank. So the batches do not depend on the number of
workers, and a resumed run gets the same batches as an uninterrupted one.
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
from vireid.data.modality import Modality
from vireid.data.outside import Needed
from vireid.data.pictures import Resample, read_picture
from vireid.data.records import Records
from vireid.data.resampling import write_planes
from vireid.data.sampling import ModalityBalancedSampler, seed_of
from vireid.data.size import Size

Augment = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
Loaded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A batch of inference: positions of the records, B×3×H×W uint8 images, and modalities."""

# Each purpose has a number, which is part of its seeds, so that their random numbers differ.
_AUGMENT, _OBJECTIVE, _REPLACE = 101, 102, 103


@dataclass(frozen=True)
class _Failed:
    """The message of a BadInput that a worker hands to the main process, which raises it again."""

    message: str


@dataclass(frozen=True)
class _Pictures:
    """Reads the pictures of some records at one size, from their files or from a cache."""

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

    def read(self, record: int, planes: np.ndarray) -> None:
        """Write a picture into 3×H×W uint8."""
        if self.cache is not None:
            planes[:] = self.cache.read(record).transpose(2, 0, 1)
            return
        scaling = self.records.scaling
        pixels = read_picture(self.records.file(record), self.size, resample=self.resample, scaling=scaling)
        write_planes(planes, pixels)

    def readable(self, record: int) -> bool:
        """Whether the file can be read. If `read` fails for it, the cache cannot be written."""
        try:
            read_picture(self.records.file(record), self.size, resample=self.resample)
        except BadInput:
            return False
        return True

    def empty(self, pictures: int) -> np.ndarray:
        """Memory for a number of pictures, N×3×H×W uint8."""
        return np.empty((pictures, 3, self.size.height, self.size.width), dtype=np.uint8)


class _Steps(Dataset):
    """The data set of the training loader: (epoch, step) → the batch and the paths of skipped pictures."""

    def __init__(
        self,
        pictures: _Pictures,
        sampler: ModalityBalancedSampler,
        labels: np.ndarray,
        augment: Augment,
        second_view: Augment | None,
        seed: int,
        rank: int,
        skip_unreadable: bool,
    ) -> None:
        self.needed = Needed()  # first: a new process unpickles attributes in this order, and augmentations need it
        self.pictures, self.sampler, self.augment, self.second_view = pictures, sampler, augment, second_view
        self.labels = np.asarray(labels, dtype=np.int64)
        self.seed, self.rank, self.skip_unreadable = seed, rank, skip_unreadable
        if len(self.labels) != len(pictures.records):
            raise BadInput(f"{len(self.labels)} labels for {len(pictures.records)} records")

    def __getitem__(self, item: tuple[int, int]) -> tuple[Batch, list[str]] | _Failed:
        try:
            return self._batch(*item)
        except BadInput as error:
            return _Failed(str(error))

    def _batch(self, epoch: int, step: int) -> tuple[Batch, list[str]]:
        records = self.pictures.records
        chosen = self.sampler.samples(epoch, step)
        stacked = self.pictures.empty(len(chosen))
        skipped: list[str] = []
        for place, record in enumerate(chosen.tolist()):
            try:
                self.pictures.read(record, stacked[place])
            except BadInput:
                if not self.skip_unreadable:
                    raise
                skipped.append(str(records.file(record)))
                chosen[place] = self._replacement(record, epoch, step, place, stacked[place])
        modality = torch.from_numpy(records.modality[chosen].astype(np.int64))
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch, step, self.rank, _AUGMENT))
        pictures = torch.from_numpy(stacked)
        views, samples = [self.augment(pictures, modality, generator)], torch.from_numpy(chosen)
        if self.second_view is not None:
            visible = (modality == Modality.VISIBLE).nonzero()[:, 0]
            views.append(self.second_view(pictures[visible], modality[visible], generator))
            samples, modality = torch.cat((samples, samples[visible])), torch.cat((modality, modality[visible]))
        batch = Batch(
            images=torch.cat(views) if len(views) > 1 else views[0],
            identity=torch.from_numpy(self.labels[samples]),
            modality=modality,
            camera=torch.from_numpy(records.camera[samples]),
            seed=seed_of(self.seed, epoch, step, self.rank, _OBJECTIVE),
        )
        return batch, skipped

    def _replacement(self, record: int, epoch: int, step: int, place: int, planes: np.ndarray) -> int:
        """Draw another record of the same label and modality with a readable picture, and write its picture."""
        records = self.pictures.records
        alike = (self.labels == self.labels[record]) & (records.modality == records.modality[record])
        alike[record] = False
        rng = np.random.default_rng((self.seed, epoch, step, self.rank, place, _REPLACE))
        for other in rng.permutation(np.flatnonzero(alike)).tolist():
            try:
                self.pictures.read(other, planes)
                return other
            except BadInput:
                continue
        raise BadInput(
            f"{records.file(record)} cannot be read, and its identity has no other readable picture of that modality"
        )


class _Span(Sampler[tuple[int, int]]):
    """The steps of the current epoch. The loader changes them for each epoch and so keeps its worker processes."""

    def __init__(self) -> None:
        self.epoch, self.first, self.stop = 0, 0, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, step) for step in range(self.first, self.stop)])

    def __len__(self) -> int:
        return self.stop - self.first


class TrainingLoader:
    """Gives the batches of a training run, epoch by epoch, and keeps its workers from one epoch to the next.

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
        second_view: Augment | None = None,
        seed: int,
        rank: int = 0,
        workers: int = 0,
        cache: PictureCache | None = None,
        resample: Resample = "lanczos",
        skip_unreadable: bool = False,
        on_skip: Callable[[str], None] | None = None,
        pinned: bool = False,
    ) -> None:
        """Prepare the loader and its workers.

        Args:
            records: the N training records. The sampler gives positions in them.
            size: height and width to resize to.
            sampler: draws the samples of each step.
            labels: N int64, the label of each record, 0..n-1.
            augment: `augment(images uint8 N×3×H×W, modality int64 N, generator) -> float32 N×3×H×W`.
            second_view: makes a second view of the visible samples of a step. These stand behind the other samples.
            seed: the run's seed, 0 or more.
            rank: the number of this process, so that processes draw different numbers.
            workers: number of processes that prepare steps in advance; 0 prepares them in this process.
            cache: a cache of the same records, size and resampling.
            resample: see `read_picture`.
            skip_unreadable: replace an unreadable picture by another one of the same identity and modality.
            on_skip: called in this process with the path of each replaced picture.
            pinned: give batches in memory that a GPU copies from while it computes. This needs a GPU.

        Raises:
            BadInput: the labels or the cache do not fit the records, or `workers` is negative.
        """
        pictures = _Pictures(records, size, resample, cache)
        dataset = _Steps(pictures, sampler, labels, augment, second_view, seed, rank, skip_unreadable)
        self.steps, self._span, self._on_skip = sampler.steps, _Span(), on_skip
        self._loader = loader(dataset, self._span, workers, persistent=True, pinned=pinned)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch in order, starting at `first_step`.

        Raises:
            BadInput: a picture cannot be read; the sentence names it.
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
    """The data set of inference: position of the first record → a batch of consecutive records, and who is missing."""

    def __init__(self, pictures: _Pictures, batch: int, skip_unreadable: bool) -> None:
        self.pictures, self.batch, self.skip_unreadable = pictures, batch, skip_unreadable

    def __getitem__(self, first: int) -> tuple[Loaded, dict[int, str]] | _Failed:
        records = self.pictures.records
        chosen = np.arange(first, min(first + self.batch, len(records)))
        stacked = self.pictures.empty(len(chosen))
        skipped: dict[int, str] = {}
        for place, record in enumerate(chosen.tolist()):
            try:
                self.pictures.read(record, stacked[place])
            except BadInput as error:
                if not self.skip_unreadable or self.pictures.readable(record):
                    return _Failed(str(error))
                skipped[record] = str(error)
        if skipped:
            kept = ~np.isin(chosen, list(skipped))
            chosen, stacked = chosen[kept], stacked[kept]
        modality = torch.from_numpy(records.modality[chosen].astype(np.int64))
        return (torch.from_numpy(chosen), torch.from_numpy(stacked), modality), skipped


def inference_batches(
    records: Records,
    *,
    size: Size,
    batch: int = 64,
    workers: int = 0,
    cache: PictureCache | None = None,
    resample: Resample = "lanczos",
    on_skip: Callable[[int, str], None] | None = None,
) -> Iterator[Loaded]:
    """Yield every picture once, in the order of the records.

    Args:
        records: the N records.
        size: height and width to resize to.
        batch: number of pictures in a batch.
        workers: number of processes that read pictures; 0 reads them in this process.
        cache: a cache of the same records, size and resampling.
        resample: see `read_picture`.
        on_skip: called with the position of each picture that cannot be read, and the reason; such pictures are left
            out. None does not leave out any.

    Yields:
        samples: B int64, positions in the records, ascending; consecutive unless a picture was left out.
        images: B×3×H×W uint8.
        modality: B int64, values of `Modality`.

    Raises:
        BadInput: a picture cannot be read (the sentence names it) and there is no `on_skip`, `batch` is below 1,
            `workers` is negative, or the cache belongs to other records.
    """
    if batch < 1:
        raise BadInput(f"batch is {batch}; it must be at least 1")
    dataset = _Chunks(_Pictures(records, size, resample, cache), batch, on_skip is not None)
    return _chunks(loader(dataset, range(0, len(records), batch), workers, persistent=False), on_skip)


def _chunks(loader: DataLoader, on_skip: Callable[[int, str], None] | None) -> Iterator[Loaded]:
    for made in loader:
        if isinstance(made, _Failed):
            raise BadInput(made.message)
        loaded, skipped = made
        for record, reason in skipped.items():
            if on_skip is not None:
                on_skip(record, reason)
        if len(loaded[0]):
            yield loaded


def loader(
    dataset: Dataset, items: Sampler | range, workers: int, *, persistent: bool = False, pinned: bool = False
) -> DataLoader:
    """A loader whose processes each use one thread, and which leaves torch's random numbers alone.

    Args:
        dataset: item → whatever a batch is.
        items: the items, in the order of the batches.
        workers: processes; 0 loads in this one.
        persistent: keep the processes for another pass.
        pinned: copy each batch into pinned memory.

    Raises:
        BadInput: `workers` is negative.
    """
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
        pin_memory=pinned,
        # Without this generator, the loader would draw the seeds of its workers from the global one and change it.
        generator=torch.Generator(),
    )


def _as_it_is(item: object) -> object:
    return item


def _one_thread(worker: int) -> None:
    """Use one thread in a worker. Workers share the cores, and several threads in each would slow all of them down."""
    torch.set_num_threads(1)
