"""Made-up pictures: JPEGs of blurred noise, which compresses like a photograph, in sizes that crops of cameras have."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter


def jpegs(count: int) -> Iterator[bytes]:
    """JPEGs of 110–190 × 320–480 pixels and about 17 kB."""
    draw = np.random.default_rng(9)
    for _ in range(count):
        width, height = int(draw.integers(110, 191)), int(draw.integers(320, 481))
        noise = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        made = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(1.5)).save(made, "JPEG", quality=90)
        yield made.getvalue()


def write_pictures(folder: Path, count: int) -> Path:
    """`jpegs` as files of a new folder."""
    folder.mkdir(parents=True)
    for number, data in enumerate(jpegs(count)):
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return folder
