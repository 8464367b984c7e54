"""Read pictures for a gallery: bytes, hash, pixels of the model's size and a thumbnail, each file opened once."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from vireid.data.errors import BadInput
from vireid.data.loading import loader
from vireid.data.pictures import decoded, read_file, three_channels
from vireid.data.resampling import resize
from vireid.data.size import Size

SIDE = 256
"""The longer side of a thumbnail, in pixels."""
QUALITY = 85
MOMENT = 2_000_000_000
"""Nanoseconds after a change in which a file can change again with the same size and time."""


class Wanted(NamedTuple):
    """A file to read.

    Attributes:
        file: its path.
        scaling: how grey pictures with 16 bits become 8 bits.
        known: the content that needs no new vector, as SHA-256; empty if there is none.
    """

    file: str
    scaling: str
    known: str


class Read(NamedTuple):
    """What was found in a file.

    Attributes:
        size, modified: bytes, and time of change in nanoseconds; -1 if they say nothing about the content.
        content: SHA-256; empty if the file could not be opened.
        thumbnail: JPEG; None if the picture is known already, or cannot be read.
        error: why it cannot be read; empty if it can.
    """

    size: int
    modified: int
    content: str
    thumbnail: bytes | None
    error: str = ""


Batch = tuple[int, torch.Tensor, list[Read]]
"""Position of the first file, N×3×H×W uint8 pictures of those with a thumbnail, and what was found in each file."""


def batches(wanted: Sequence[Wanted], size: Size, *, batch: int, workers: int) -> Iterator[Batch]:
    """Read files in their order, `batch` at a time.

    The batches are those of the order alone: a picture that cannot be read makes its batch smaller. So a build that is
    taken up again between two batches computes the same as one without a break.

    Raises:
        BadInput: `workers` is negative.
    """
    return iter(loader(_Files(wanted, size, batch), range(0, len(wanted), batch), workers))


@dataclass(frozen=True)
class _Files(Dataset):
    wanted: Sequence[Wanted]
    size: Size
    batch: int

    def __getitem__(self, first: int) -> Batch:
        found, pictures = [], []
        for one in self.wanted[first : first + self.batch]:
            read, pixels = read_one(one, self.size)
            found.append(read)
            if pixels is not None:
                pictures.append(pixels.transpose(2, 0, 1))
        stacked = np.stack(pictures) if pictures else np.empty((0, 3, self.size.height, self.size.width), np.uint8)
        return first, torch.from_numpy(np.ascontiguousarray(stacked)), found


def read_one(wanted: Wanted, size: Size) -> tuple[Read, np.ndarray | None]:
    """What is in a file, and its picture as size.height×size.width×3 uint8; None if it has a known content or none."""
    try:
        data, status = read_file(wanted.file)
    except BadInput as error:
        return Read(-1, -1, "", None, reason(error, wanted.file)), None
    # A file that was changed just now could change again without another size or time: it is looked at once more.
    settled = status.st_mtime_ns < time.time_ns() - MOMENT and status.st_size == len(data)
    about = (status.st_size, status.st_mtime_ns) if settled else (-1, -1)
    content = hashlib.sha256(data).hexdigest()
    if content == wanted.known:
        return Read(*about, content, None), None
    try:
        pixels = decoded(data, wanted.file, wanted.scaling)
        small = thumbnail(pixels)
    except BadInput as error:
        return Read(*about, content, None, reason(error, wanted.file)), None
    return Read(*about, content, small), three_channels(resize(pixels, size, "lanczos"))


def reason(error: BadInput, file: str | Path) -> str:
    """Why a picture cannot be read, without its name."""
    return str(error).removeprefix(f"{file} ")


def thumbnail(pixels: np.ndarray) -> bytes:
    """A JPEG of a picture with up to 256 pixels on its longer side, without any metadata.

    Args:
        pixels: H×W×3 or H×W×1 uint8.
    """
    height, width = pixels.shape[:2]
    shrink = SIDE / max(height, width)
    if shrink < 1:
        pixels = resize(pixels, Size(max(1, round(height * shrink)), max(1, round(width * shrink))), "area")
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=QUALITY)
    return made.getvalue()
