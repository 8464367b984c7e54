"""A small index for tests: the test pictures of a generated world, embedded by a run, with thumbnails."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vireid import datasets
from vireid.data.modality import Modality
from vireid.gallery.index import Index, make_index
from vireid.gallery.row import Row

HOUR = 3_600_000
START = 1_772_330_000_000  # 2026-03-01, in milliseconds


def station(url: str | Path, run: Path, world: Path, layout: str = "sysu-mm01") -> Index:
    """Make an index of a world's test pictures, and open it. The picture n was taken n hours after the start."""
    records = datasets.read(layout, world).where(split="test")
    index = make_index(url, run)
    files = [Path(records.file(n)) for n in range(len(records))]
    vectors = np.empty((len(records), index.facts.width), np.float32)
    for modality in (Modality.VISIBLE, Modality.INFRARED):
        chosen = np.flatnonzero(records.modality == modality)
        vectors[chosen] = index.embed([files[n] for n in chosen], modality)
    index.store.upsert(
        Row(
            source=layout,
            path=str(records.path[n]),
            content=hashlib.sha256(files[n].read_bytes()).hexdigest(),
            camera=str(records.camera[n]),
            modality=Modality(int(records.modality[n])),
            time=START + n * HOUR,
            person=str(records.identity[n]),
            vector=vectors[n],
            thumbnail=_thumbnail(files[n]),
        )
        for n in range(len(records))
    )
    return index


def _thumbnail(file: Path) -> bytes:
    made = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").save(made, "JPEG")
    return made.getvalue()
