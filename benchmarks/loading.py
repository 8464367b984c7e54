"""Loading: decode, resize and stack pictures, from files and from the cache, compared with the usual pipeline.

The baseline does what public code does for each picture: open it with Pillow, convert to RGB, resize, make an array,
transpose it, and stack the tensors of a step. The pictures are generated: JPEGs of 110–190 × 320–480 pixels and about
17 kB, like crops of surveillance cameras. The numbers are pictures per second of CPU time, the best of several rounds.
Both pipelines take turns in the rounds.

    python benchmarks/loading.py             # half a minute
    python benchmarks/loading.py --small     # seconds
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from vireid import datasets
from vireid.data.cache import PictureCache
from vireid.data.loading import inference_batches
from vireid.data.pictures import Resample
from vireid.data.records import Records
from vireid.data.sampling import ModalityBalancedSampler
from vireid.data.size import Size

SIZE = Size(288, 144)
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX}
BATCH = 64


def write_pictures(root: Path, pictures: int) -> Records:
    """Write JPEGs of blurred noise, which compresses like a photograph."""
    random = np.random.default_rng(0)
    for number in range(pictures):
        width, height = int(random.integers(110, 191)), int(random.integers(320, 481))
        noise = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        file = root / "test" / ("visible", "infrared")[number % 2] / str(number // 20) / f"cam1_{number:04d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise.filter(ImageFilter.GaussianBlur(1.5)).save(file, quality=90)
    return datasets.read("folder", root)


def textbook(records: Records, resample: Resample) -> int:
    """Read one picture after another with Pillow and NumPy."""
    for first in range(0, len(records), BATCH):
        step = []
        for record in range(first, min(first + BATCH, len(records))):
            with Image.open(records.file(record)) as picture:
                small = picture.convert("RGB").resize((SIZE.width, SIZE.height), FILTERS[resample])
            step.append(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy()))
        torch.stack(step)
    return len(records)


def ours(records: Records, resample: Resample, cache: PictureCache | None = None) -> int:
    """Read the pictures with this package."""
    batches = inference_batches(records, size=SIZE, batch=BATCH, resample=resample, cache=cache)
    return sum(len(samples) for samples, _, _ in batches)


def best_rates(paths: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Pictures per second of CPU time. The functions take turns, so that other load affects all of them equally."""
    best = dict.fromkeys(paths, 0.0)
    for _ in range(rounds):
        for name, run in paths.items():
            begun = time.process_time()
            pictures = run()
            best[name] = max(best[name], pictures / (time.process_time() - begun))
    return best


def report(title: str, rates: dict[str, float], baseline: str) -> None:
    """Print the rate of each function and its ratio to the baseline."""
    print(f"\n{title}")
    for name, rate in rates.items():
        print(f"  {name:<34} {rate:>10,.0f} /s {rate / rates[baseline]:>8.2f}x")


def epoch_by_picking(labels: np.ndarray, modality: np.ndarray, steps: int) -> int:
    """The usual sampler: one random stream, and NumPy's choice for each step and identity."""
    random = np.random.default_rng(0)
    own = {m: [np.flatnonzero((labels == i) & (modality == m)) for i in range(labels.max() + 1)] for m in (0, 1)}
    for _ in range(steps):
        for identity in random.choice(len(own[0]), 8, replace=False):
            for m in (0, 1):
                random.choice(own[m][identity], 4, replace=len(own[m][identity]) < 4)
    return steps


def sampling(rounds: int) -> None:
    """Draw an epoch of SYSU-MM01's size: 395 identities, 22,258 visible and 11,909 infrared pictures."""
    random = np.random.default_rng(0)
    modality = np.repeat([0, 1], [22_258, 11_909]).astype(np.int8)
    labels = random.integers(0, 395, len(modality))
    epochs = iter(range(10**6))
    sampler = ModalityBalancedSampler(
        labels, modality, identities_per_batch=8, visible_per_identity=4, infrared_per_identity=4
    )

    def epoch() -> int:
        number = next(epochs)
        return sum(1 for step in range(sampler.steps) if len(sampler.samples(number, step)))

    paths = {"textbook: choice by choice": lambda: epoch_by_picking(labels, modality, sampler.steps), "ours": epoch}
    report(f"steps drawn, {sampler.steps} an epoch", best_rates(paths, rounds), "textbook: choice by choice")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="fewer pictures and rounds")
    options = parser.parse_args()
    pictures, rounds = (64, 2) if options.small else (512, 5)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        records = write_pictures(Path(folder) / "pictures", pictures)
        for resample in ("lanczos", "bilinear"):
            cache = PictureCache(Path(folder) / "cache", records, SIZE, resample)
            textbook(records, resample)
            ours(records, resample, cache)
            paths = {
                "textbook": lambda r=resample: textbook(records, r),
                "ours, from files": lambda r=resample: ours(records, r),
                "ours, from the cache": lambda r=resample, c=cache: ours(records, r, c),
            }
            report(f"{pictures} pictures to {SIZE}, {resample}", best_rates(paths, rounds), "textbook")
    sampling(rounds)


if __name__ == "__main__":
    main()
