"""Pictures from JPEG files, from the cache and augmented, and sampling, against what tutorials do picture by picture.

Processor time of one thread counts, so a rate is one of a core. The pictures are made up: JPEGs like crops of
surveillance cameras, and noise in memory where only augmentation is measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps

from vireid.augment.colour import ChannelExchange, Grey
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import MEAN, STD
from vireid.augment.pipeline import Pipeline
from vireid.bench.growth import grown
from vireid.bench.measure import Line, Timed, close, counted, one_thread
from vireid.bench.pictures import write_pictures
from vireid.bench.run import Bench
from vireid.data.cache import PictureCache
from vireid.data.loading import inference_batches
from vireid.data.pictures import Resample, decoded
from vireid.data.records import Records
from vireid.data.sampling import ModalityBalancedSampler
from vireid.data.size import Size
from vireid.experiments.embed import listed

SIZE = Size(288, 144)
FILTERS: dict[Resample, Image.Resampling] = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
}
BATCH = 64
LEVELS = 2.0
"""Grey levels, of 256, by which pictures of two decoders may differ on average."""
CAJ = (0.4914, 0.4822, 0.4465)
TEXTBOOK, OURS, DECODING, COPY = "Pillow and NumPy", "vireid", "decoding alone", "converting alone"


def measure(bench: Bench) -> Iterator[Line]:
    """Loading, augmentation and sampling."""
    with one_thread():
        yield from loading(bench)
        yield from augmentation(bench)
        yield sampling(bench)


def growth(bench: Bench) -> Iterator[Line]:
    """The time of loading against the loading processes."""
    count = bench.size(2048, 32)
    records, _ = listed(write_pictures(bench.folder / "many", count), "visible")
    works = {workers: lambda w=workers: load(records, "lanczos", workers=w) for workers in (1, 2)}
    yield grown(bench, f"{count:,} pictures from JPEG files", works, unit="loading processes")


def loading(bench: Bench) -> Iterator[Line]:
    """Decode, resize and stack pictures, from files and from the cache."""
    count = bench.size(512, 16)
    records, _ = listed(write_pictures(bench.folder / "pictures", count), "visible")
    files = [records.file(record) for record in range(len(records))]
    for resample in FILTERS:
        cache = PictureCache(bench.folder / f"cache-{resample}", records, SIZE, resample)
        load(records, resample, cache)  # fills it
        cached = f"{OURS}, from the cache"
        timed = bench.timed(
            {
                TEXTBOOK: lambda r=resample: load_by_pillow(records, r),
                OURS: lambda r=resample: load(records, r),
                cached: lambda r=resample, c=cache: load(records, r, c),
            },
            agree=alike,
            others={DECODING: lambda: [decoded(file.read_bytes(), file) for file in files]},
            rounds=5,
        )
        what = f"{count} JPEG files to {SIZE}, {resample}"
        goal = 3.2 if resample == "lanczos" else None
        first = timed.line(what, baseline=TEXTBOOK, ours=OURS, goal=goal, limit=DECODING, clock="cpu")
        yield counted(first, count, "pictures")
        yield counted(timed.line(what, baseline=TEXTBOOK, ours=cached, clock="cpu"), count, "pictures")


def load(
    records: Records, resample: Resample, cache: PictureCache | None = None, *, workers: int = 0
) -> list[torch.Tensor]:
    """Batches of pictures by this package, each N×3×H×W uint8."""
    batches = inference_batches(records, size=SIZE, batch=BATCH, resample=resample, cache=cache, workers=workers)
    return [images for _, images, _ in batches]


def load_by_pillow(records: Records, resample: Resample) -> list[torch.Tensor]:
    """The same, one picture after another, by Pillow and NumPy."""
    batches = []
    for first in range(0, len(records), BATCH):
        step = []
        for record in range(first, min(first + BATCH, len(records))):
            with Image.open(records.file(record)) as picture:
                small = picture.convert("RGB").resize((SIZE.width, SIZE.height), FILTERS[resample])
            step.append(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy()))
        batches.append(torch.stack(step))
    return batches


def alike(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> bool:
    """Whether two lists of batches show the same pictures, up to the rounding of decoders and filters."""
    return len(wanted) == len(found) and all(
        first.shape == second.shape and (first.float() - second.float()).abs().mean().item() < LEVELS
        for first, second in zip(wanted, found, strict=True)
    )


def augmentation(bench: Bench) -> Iterator[Line]:
    """A batch of pictures in memory, half of them visible: normalised only, with the operations of CAJ, and cropped at
    several scales.

    What is drawn at random differs between the contenders, so only the pictures that are just normalised are compared.
    """
    generator = torch.Generator().manual_seed(0)
    size = bench.size(SIZE, Size(24, 12))
    images = torch.randint(256, (BATCH, 3, *size), dtype=torch.uint8, generator=generator)
    modality = torch.arange(BATCH) // (BATCH // 2)
    pixels = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    caj = Pipeline((PadCrop(), Flip()), (ChannelErasing(), ChannelExchange()), (ChannelErasing(),))
    wrim = Pipeline((MultiScaleCrop(), Flip()), (RandomErasing(),), (RandomErasing(),), visible_before=(Grey(),))
    plain = bench.timed(
        {
            TEXTBOOK: lambda: torch.from_numpy(np.stack([normalised(one) for one in pixels])),
            OURS: lambda: Pipeline()(images, modality, generator),
        },
        agree=close(1e-5),
        others={COPY: images.float},
    )
    crop = f"{OURS}, multi-scale crop"
    drawn = bench.timed(
        {},
        others={
            TEXTBOOK: lambda: augment_by_pillow(pixels, modality.tolist()),
            OURS: lambda: caj(images, modality, generator),
            crop: lambda: wrim(images, modality, generator),
            COPY: images.float,
        },
    )
    yield _batch(plain, f"normalising, {BATCH} × {size}", OURS, None)
    yield _batch(drawn, f"augmentation of CAJ, {BATCH} × {size}", OURS, 8.4)
    yield _batch(drawn, f"augmentation of WRIM-Net against CAJ, {BATCH} × {size}", crop, 4.2)


def _batch(timed: Timed, what: str, ours: str, goal: float | None) -> Line:
    line = timed.line(what, baseline=TEXTBOOK, ours=ours, goal=goal, limit=COPY, clock="cpu")
    return counted(line, BATCH, "pictures")


def augment_by_pillow(images: list[np.ndarray], modality: list[int]) -> torch.Tensor:
    """The operations of CAJ as tutorials write them, one picture after another: N×3×H×W float32."""
    return torch.from_numpy(np.stack([_augmented(image, which) for image, which in zip(images, modality, strict=True)]))


def normalised(pixels: np.ndarray) -> np.ndarray:
    """H×W×3 uint8 to 3×H×W float32."""
    values = np.asarray(pixels, dtype=np.float32) / 255
    return ((values - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1).copy()


def _augmented(image: np.ndarray, modality: int) -> np.ndarray:
    """Pad by 10 and crop, flip, normalise, exchange channels (visible only), erase."""
    height, width = image.shape[:2]
    picture = ImageOps.expand(Image.fromarray(image), border=10, fill=0)
    left, top = random.randint(0, 20), random.randint(0, 20)
    picture = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = normalised(np.asarray(picture))
    if modality == 0 and (case := random.randint(0, 3)) < 3:
        values[:] = values[case].copy()
    if random.random() < 0.5:
        _erase(values)
    return values


def _erase(values: np.ndarray) -> None:
    height, width = values.shape[1:]
    for _ in range(100):
        area, aspect = random.uniform(0.02, 0.4) * height * width, random.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            for channel in range(3):
                values[channel, top : top + h, left : left + w] = CAJ[channel]
            return


def sampling(bench: Bench) -> Line:
    """Draw an epoch of SYSU-MM01's size: 395 identities, 22,258 visible and 11,909 infrared pictures."""
    draw = np.random.default_rng(0)
    modality = np.repeat([0, 1], bench.size([22_258, 11_909], [800, 800])).astype(np.int8)
    labels = draw.integers(0, bench.size(395, 10), len(modality))
    sampler = ModalityBalancedSampler(
        labels, modality, identities_per_batch=8, visible_per_identity=4, infrared_per_identity=4
    )
    epochs = iter(range(10**6))

    def ours() -> list[int]:
        number = next(epochs)
        return [len(sampler.samples(number, step)) for step in range(sampler.steps)]

    picking = "NumPy's choice for each identity"
    timed = bench.timed(
        {picking: lambda: pick(labels, modality, sampler.steps), OURS: ours},
        agree=lambda wanted, found: wanted == found,
        rounds=5,
    )
    line = timed.line(f"an epoch of {sampler.steps} steps drawn", baseline=picking, ours=OURS, clock="cpu")
    return counted(line, sampler.steps, "steps")


def pick(labels: np.ndarray, modality: np.ndarray, steps: int) -> list[int]:
    """The usual sampler: one random stream, and NumPy's choice for each step and identity. The sizes of the steps."""
    draw = np.random.default_rng(0)
    own = {m: [np.flatnonzero((labels == i) & (modality == m)) for i in range(labels.max() + 1)] for m in (0, 1)}
    sizes = []
    for _ in range(steps):
        chosen = []
        for identity in draw.choice(len(own[0]), 8, replace=False):
            for m in (0, 1):
                chosen.append(draw.choice(own[m][identity], 4, replace=len(own[m][identity]) < 4))
        sizes.append(len(np.concatenate(chosen)))
    return sizes
