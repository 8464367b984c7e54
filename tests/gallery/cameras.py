"""Folders of pictures as cameras leave them, and everything that an index holds, for comparison."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vireid.gallery.build import BuildOptions, Built, build
from vireid.gallery.row import Row
from vireid.gallery.store import open as open_store

PAST = 1_700_000_000
"""A time of change, in seconds, after which nothing else has changed a file."""


def picture(number: int, *, grey: bool = False, size: tuple[int, int] = (64, 32)) -> Image.Image:
    """A picture of blocks that no other number has."""
    drawn = np.random.default_rng(number).integers(0, 256, (8, 4, 1 if grey else 3), dtype=np.uint8)
    made = Image.fromarray(drawn[:, :, 0] if grey else drawn)
    return made.resize((size[1], size[0]), Image.Resampling.NEAREST)


def save(file: Path, number: int, *, time: float = PAST, **how: Any) -> Path:
    """Write a picture, changed long ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    made = io.BytesIO()
    picture(number, **how).save(made, {"jpg": "JPEG", "png": "PNG"}[file.suffix[1:]])
    return write(file, made.getvalue(), time=time)


def write(file: Path, data: bytes, *, time: float = PAST) -> Path:
    """Write bytes, changed long ago."""
    file.write_bytes(data)
    os.utime(file, (time, time))
    return file


def station(folder: Path, *, visible: int = 6, infrared: int = 4) -> Path:
    """Pictures of three cameras: `gate` and `yard` are visible, `cellar` is infrared."""
    for number in range(visible):
        save(folder / "visible" / ("gate" if number % 2 else "yard") / f"{number:03d}.jpg", number)
    for number in range(infrared):
        save(folder / "infrared" / "cellar" / f"{number:03d}.png", 1000 + number, grey=True)
    return folder


def built(index: str | Path, run: Path, *sources: str | Path, **options: Any) -> Built:
    """Build in this process, without loading processes."""
    return build(BuildOptions(index=index, model=run, sources=sources, **{"workers": 0, "batch": 4, **options}))


def rows(index: str | Path) -> dict[str, Row]:
    """Path → row with its vector."""
    with open_store(index) as store:
        return {row.path: row for row in store.iterate(vectors=True)}


def everything(index: str | Path) -> dict[str, tuple[Row, bytes, bytes | None]]:
    """Id → row, the bytes of its vector, its thumbnail."""
    with open_store(index) as store:
        found = list(store.iterate(vectors=True))
        return {row.id: (row, np.asarray(row.vector).tobytes(), store.thumbnail(row.id)) for row in found}
