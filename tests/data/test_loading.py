"""Batches do not depend on the number of workers, on a resumption or on a cache."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from vireid.data.cache import PictureCache
from vireid.data.errors import BadInput
from vireid.data.loading import TrainingLoader, inference_batches
from vireid.data.pictures import read_picture
from vireid.data.records import Records
from vireid.data.sampling import ModalityBalancedSampler
from vireid.data.size import Size

SIZE = Size(24, 16)


def training_batches(records, *, epoch, first_step=0, **chosen):
    """One epoch of a loader of its own."""
    return TrainingLoader(records, **chosen).batches(epoch, first_step)


def noisy(images, modality, generator):
    assert images.dtype == torch.uint8 and modality.dtype == torch.int64
    return images.float() / 255 + torch.rand(images.shape, generator=generator) + modality[:, None, None, None]


def plain(images, modality, generator):
    return images.float()


@pytest.fixture
def records(tmp_path):
    """Identities 10, 20, 30, 40 with three pictures of each modality."""
    root = tmp_path / "pictures"
    root.mkdir()
    kinds = [(i, m) for i in (10, 20, 30, 40) for m in (0, 1) for _ in range(3)]
    for record in range(len(kinds)):
        noise = np.random.default_rng(record).integers(0, 256, (30, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{record}.png")
    return Records(
        layout="folder",
        root=root,
        path=[f"{record}.png" for record in range(len(kinds))],
        identity=[i for i, _ in kinds],
        camera=[5 + m for _, m in kinds],
        modality=[m for _, m in kinds],
        split=["train"] * len(kinds),
    )


def sampler(records, **options):
    return ModalityBalancedSampler(
        records.labels()[0],
        records.modality,
        **{
            "identities_per_batch": 2,
            "visible_per_identity": 2,
            "infrared_per_identity": 1,
            "epoch_length": 5,
            "seed": 1,
            **options,
        },
    )


def options(records, **changes):
    usual = {
        "size": SIZE,
        "sampler": sampler(records),
        "labels": records.labels()[0],
        "augment": noisy,
        "seed": 7,
    }
    return usual | changes


def same(first, second):
    names = ("images", "identity", "modality", "camera")
    return first.seed == second.seed and all(torch.equal(getattr(first, n), getattr(second, n)) for n in names)


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


def test_a_batch_holds_the_samplers_samples(records):
    made = list(training_batches(records, epoch=2, **options(records, augment=plain)))
    assert len(made) == 5
    for step, batch in enumerate(made):
        samples = sampler(records).samples(2, step)
        want = np.stack([read_picture(records.file(record), SIZE) for record in samples]).transpose(0, 3, 1, 2)
        assert torch.equal(batch.images, torch.from_numpy(want).float())
        assert batch.images.is_contiguous() and batch.images.dtype == torch.float32
        assert batch.identity.tolist() == (records.identity[samples] // 10 - 1).tolist()
        assert batch.modality.tolist() == records.modality[samples].tolist()
        assert batch.camera.tolist() == records.camera[samples].tolist()


def darker(images, modality, generator):
    assert (modality == 0).all(), "only visible samples have a second view"
    return -images.float() - torch.rand(len(images), 1, 1, 1, generator=generator)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_view_of_visible_samples_stands_behind_the_step(records, workers):
    usual = list(training_batches(records, epoch=1, **options(records)))
    two = options(records, second_view=darker, workers=workers)
    made = list(training_batches(records, epoch=1, **two))
    pictures = list(training_batches(records, epoch=1, **options(records, augment=plain)))
    drawn = []
    for once, twice, picture in zip(usual, made, pictures, strict=True):
        count, visible = len(once), once.modality == 0
        assert torch.equal(twice.images[:count], once.images), "the first views and their random numbers stay"
        for name in ("identity", "modality", "camera"):
            column = getattr(once, name)
            assert torch.equal(getattr(twice, name), torch.cat((column, column[visible])))
        extra = -twice.images[count:] - picture.images[visible]
        assert len(extra) == visible.sum() > 0 and (extra - extra[:, :1, :1, :1]).abs().max() < 1e-4
        assert extra.min() >= 0 and extra.max() <= 1
        assert twice.seed == once.seed
        drawn += [round(number, 4) for number in extra[:, 0, 0, 0].tolist()]
    assert len(set(drawn)) > 0.9 * len(drawn), "each step and each sample has random numbers of its own"
    assert all_same(training_batches(records, epoch=1, first_step=3, **two), made[3:]), "resumed"


def test_workers_cannot_be_seen(records):
    alone = list(training_batches(records, epoch=0, **options(records)))
    for workers in (1, 2):
        assert all_same(training_batches(records, epoch=0, workers=workers, **options(records)), alone)


def test_resuming_cannot_be_seen(records):
    whole = list(training_batches(records, epoch=1, **options(records)))
    for first in range(6):
        assert all_same(training_batches(records, epoch=1, first_step=first, **options(records)), whole[first:])


def test_a_cache_cannot_be_seen(records, tmp_path):
    alone = list(training_batches(records, epoch=0, **options(records)))
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    for workers in (0, 2):
        assert all_same(training_batches(records, epoch=0, cache=cache, workers=workers, **options(records)), alone)
    stored = np.fromfile(cache.folder / "state.bin", dtype=np.uint8)
    asked = {record for step in range(5) for record in sampler(records).samples(0, step).tolist()}
    assert np.count_nonzero(stored) == len(asked)


def test_global_random_state_is_neither_read_nor_moved(records):
    torch.manual_seed(1)
    first = list(training_batches(records, epoch=0, workers=1, **options(records)))
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    torch.manual_seed(2)
    assert all_same(training_batches(records, epoch=0, **options(records)), first)


def test_seeds_differ_by_seed_epoch_step_and_rank(records):
    def seeds(epoch=0, **changes):
        return [b.seed for b in training_batches(records, epoch=epoch, **options(records, **changes))]

    every = [*seeds(), *seeds(epoch=1), *seeds(seed=8), *seeds(rank=1)]
    assert len(set(every)) == 20 and all(seed >= 0 for seed in every)
    assert seeds() == seeds(workers=2)
    # Augmentation and objective draw different numbers.
    batch = next(
        training_batches(records, epoch=0, **options(records, augment=lambda i, m, g: torch.rand(i.shape, generator=g)))
    )
    assert not torch.equal(batch.images, torch.rand(batch.images.shape, generator=batch.generator()))


def test_ranks_share_a_step(records):
    alone = list(training_batches(records, epoch=0, **options(records, augment=plain)))
    parts = [
        list(
            training_batches(
                records, epoch=0, rank=r, **options(records, augment=plain, sampler=sampler(records, rank=r, world=2))
            )
        )
        for r in (0, 1)
    ]
    for step, batch in enumerate(alone):
        assert torch.equal(torch.cat([part[step].images for part in parts]), batch.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_loader_serves_all_epochs(records, workers):
    loader = TrainingLoader(records, workers=workers, **options(records))
    assert loader.steps == 5
    for epoch, first in ((0, 0), (1, 3), (0, 0)):
        want = training_batches(records, epoch=epoch, first_step=first, **options(records))
        assert all_same(loader.batches(epoch, first), want)
    # An epoch that is not finished does not change the next one.
    next(loader.batches(4))
    assert all_same(loader.batches(2), training_batches(records, epoch=2, **options(records)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_stops_training_by_name(records, workers):
    for record in range(12):
        records.file(record).write_bytes(b"")
    with pytest.raises(BadInput) as refused:
        list(training_batches(records, epoch=0, workers=workers, **options(records)))
    assert str(refused.value).endswith(".png is empty") and "\n" not in str(refused.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_can_be_skipped(records, workers):
    bad = [0, 1, 8, 23]
    for record in bad:
        records.file(record).write_bytes(b"nothing")
    skipped = []
    made = list(
        training_batches(
            records,
            epoch=0,
            workers=workers,
            skip_unreadable=True,
            on_skip=skipped.append,
            **options(records, augment=plain),
        )
    )
    asked = [sampler(records).samples(0, step) for step in range(5)]
    wanted = [str(records.file(record)) for samples in asked for record in samples if record in bad]
    assert skipped == wanted and skipped
    for batch, samples in zip(made, asked, strict=True):
        assert batch.identity.tolist() == (records.identity[samples] // 10 - 1).tolist()
        assert batch.modality.tolist() == records.modality[samples].tolist()
        for place, record in enumerate(samples):
            alike = [r for r in range(24) if r // 3 == record // 3 and r not in bad]
            kept = [r for r in alike if np.array_equal(batch.images[place], _planes(records, r))]
            assert kept and (record in bad or kept == [record])


def _planes(records, record):
    return read_picture(records.file(record), SIZE).transpose(2, 0, 1).astype(np.float32)


def test_skipping_gives_up_where_nothing_is_left(records):
    for record in range(24):
        records.file(record).write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no other readable picture of that modality"):
        list(training_batches(records, epoch=0, skip_unreadable=True, **options(records)))


def test_our_own_mistakes_are_not_dressed_as_the_users(records):
    def broken(images, modality, generator):
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        list(training_batches(records, epoch=0, **options(records, augment=broken)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch", [1, 7, 24, 100])
def test_inference_gives_every_picture_in_order(records, workers, batch):
    made = list(inference_batches(records, size=SIZE, batch=batch, workers=workers))
    samples, images, modality = (torch.cat(parts) for parts in zip(*made, strict=True))
    assert samples.dtype == modality.dtype == torch.int64 and images.dtype == torch.uint8
    assert samples.tolist() == list(range(24))
    assert modality.tolist() == records.modality.tolist()
    assert all(np.array_equal(images[record], _planes(records, record)) for record in range(24))
    assert [len(part) for part, _, _ in made][:-1] == [batch] * (len(made) - 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_inference_stops_by_name(records, workers):
    records.file(9).unlink()
    with pytest.raises(BadInput, match=r"9\.png does not exist$"):
        list(inference_batches(records, size=SIZE, workers=workers))


def test_refusals(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    for wrong in (Size(16, 16), SIZE):
        with pytest.raises(BadInput, match="was made for other records"):
            inference_batches(records.take([1, 2]) if wrong == SIZE else records, size=wrong, cache=cache)
    with pytest.raises(BadInput, match="batch is 0"):
        inference_batches(records, size=SIZE, batch=0)
    with pytest.raises(BadInput, match="workers is -1"):
        inference_batches(records, size=SIZE, workers=-1)
    with pytest.raises(BadInput, match="3 labels for 24 records"):
        training_batches(records, epoch=0, **options(records, labels=np.zeros(3)))


def test_workers_live_from_one_epoch_to_the_next(records):
    def process(images, modality, generator):
        return torch.full(images.shape, float(os.getpid()))

    loader = TrainingLoader(records, workers=1, **options(records, augment=process))
    seen = {batch.images[0, 0, 0, 0].item() for epoch in (0, 1) for batch in loader.batches(epoch)}
    assert len(seen) == 1 and os.getpid() not in seen
