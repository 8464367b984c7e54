"""Augmentation compared with the textbook pipeline, which processes one picture at a time with Pillow and NumPy.

Both apply the operations of CAJ to uint8 pictures in memory: pad by 10 and crop, flip, normalise, channel exchange
(visible samples only) and channel-level erasing. A batch has 64 pictures, half of them visible. The time is CPU time on
one thread. The contenders run in turns, and the best of several rounds counts.

    python benchmarks/augment.py [--size 288x144] [--rounds 9]
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps

from vireid.augment.colour import ChannelExchange, Grey
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.normalise import MEAN, STD
from vireid.augment.pipeline import Pipeline
from vireid.data.size import Size

SAMPLES = 64
CAJ = (0.4914, 0.4822, 0.4465)


def textbook(images: list[np.ndarray], modality: list[int]) -> torch.Tensor:
    """The pipeline as tutorials write it, one picture after another."""
    return torch.from_numpy(
        np.stack([_textbook_one(image, which) for image, which in zip(images, modality, strict=True)])
    )


def _textbook_one(image: np.ndarray, modality: int) -> np.ndarray:
    height, width = image.shape[:2]
    picture = ImageOps.expand(Image.fromarray(image), border=10, fill=0)
    left, top = random.randint(0, 20), random.randint(0, 20)
    picture = picture.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = np.asarray(picture, dtype=np.float32) / 255
    values = ((values - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1).copy()
    if modality == 0 and (case := random.randint(0, 3)) < 3:
        values[:] = values[case].copy()
    if random.random() < 0.5:
        _textbook_erase(values)
    return values


def _textbook_erase(values: np.ndarray) -> None:
    height, width = values.shape[1:]
    for _ in range(100):
        area, aspect = random.uniform(0.02, 0.4) * height * width, random.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            for channel in range(3):
                values[channel, top : top + h, left : left + w] = CAJ[channel]
            return


def measured(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Smallest CPU seconds of each contender. They run in turns."""
    best = dict.fromkeys(contenders, math.inf)
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=Size.parse, default=Size(288, 144), help="height x width (288x144)")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (SAMPLES, 3, *options.size), dtype=torch.uint8, generator=generator)
    modality = torch.arange(SAMPLES) // (SAMPLES // 2)
    channels_last = [image.permute(1, 2, 0).contiguous().numpy() for image in images]
    caj = Pipeline((PadCrop(), Flip()), (ChannelErasing(), ChannelExchange()), (ChannelErasing(),))
    wrim = Pipeline((MultiScaleCrop(), Flip()), (RandomErasing(),), (RandomErasing(),), visible_before=(Grey(),))

    baseline = "textbook (Pillow, NumPy)"
    best = measured(
        {
            baseline: lambda: textbook(channels_last, modality.tolist()),
            "pipeline, as CAJ": lambda: caj(images, modality, generator),
            "pipeline, multi-scale crop": lambda: wrim(images, modality, generator),
            "pipeline, normalise only": lambda: Pipeline()(images, modality, generator),
            "lower limit: convert and copy": lambda: images.float(),
        },
        options.rounds,
    )
    print(f"{options.size}, {SAMPLES} pictures a batch, one thread")
    for name, seconds in best.items():
        print(f"{name:34s}{SAMPLES / seconds:9.0f} pictures/s{best[baseline] / seconds:8.1f}x")


if __name__ == "__main__":
    main()
