"""Exact search of a gallery, compared with the plain NumPy method, and a filter compared with no filter.

The vectors are random, around as many centres as there would be people: 20 for each. Queries lie near a centre. The
plain method is a matrix product with all vectors in memory and `argpartition`; it computes no exact ties, reads no file
and knows no ids. `store` is the whole search of a gallery in a folder, with its database, checksums and ids. The
contenders run in turns, and the best of several rounds counts. All must find the same vectors.

    python benchmarks/search.py                            # 100,000 × 2048: 1.8 GB of memory and 1 GB of disk
    python benchmarks/search.py --count 20000 --width 512  # seconds
"""

from __future__ import annotations

import argparse
import hashlib
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vireid.data.modality import Modality
from vireid.gallery.product import best, encode
from vireid.gallery.row import Row, Where
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery

TOP = 20
CAMERAS = 6
BATCH = 1000


def vectors_of(count: int, width: int) -> np.ndarray:
    """count×width float32 of length one: 20 around each centre, with a cosine of about 0.7 to it."""
    draw = np.random.default_rng(0)
    found = np.empty((count, width), np.float32)
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        part = draw.normal(size=(-(-size // 20), width)).repeat(20, axis=0)[:size] + draw.normal(size=(size, width))
        found[start : start + size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return found


def filled(folder: str | Path, vectors: np.ndarray) -> tuple[Store, float]:
    """A gallery of visible pictures from six cameras, and the seconds that it took."""
    store, start = open_gallery(folder, model="be" * 32, width=vectors.shape[1]), time.perf_counter()
    for first in range(0, len(vectors), BATCH):
        rows = []
        for n, vector in enumerate(vectors[first : first + BATCH], first):
            content = hashlib.sha256(b"%d" % n).hexdigest()
            rows.append(Row("all", f"{n}", content, str(n % CAMERAS), Modality.VISIBLE, n, vector=vector))
        store.upsert(rows)
    return store, time.perf_counter() - start


def measured(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Smallest wall seconds of each contender. They run in turns."""
    found = dict.fromkeys(contenders, math.inf)
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="vectors (100000)")
    parser.add_argument("--width", type=int, default=2048, help="numbers of a vector (2048)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    vectors = vectors_of(options.count, options.width)
    codes, places = encode(vectors), np.arange(options.count)
    query, many = vectors[:1].copy(), vectors[:: max(1, options.count // 64)][:64].copy()
    everything, sixth = Where(modality=Modality.VISIBLE), Where(modality=Modality.VISIBLE, cameras=("3",))

    def plain(queries: np.ndarray) -> np.ndarray:
        return np.argpartition(-(queries @ vectors.T), TOP, axis=1)[:, :TOP]

    with tempfile.TemporaryDirectory() as folder:
        store, seconds = filled(Path(folder) / "gallery", vectors)
        print(f"{options.count} × {options.width}, best {TOP}; the gallery was filled in {seconds:.1f} s")
        expected = sorted(plain(query)[0].tolist())
        for coded in (codes, None):
            assert sorted(best(query, vectors, coded, places, TOP)[0][0].tolist()) == expected
        rows = store.get([hit.id for hit in store.search(query, TOP, everything)[0]])
        assert sorted(int(row.path) for row in rows.values()) == expected
        found = measured(
            {
                "NumPy, argpartition": lambda: plain(query),
                "float32": lambda: best(query, vectors, None, places, TOP),
                "int8 first": lambda: best(query, vectors, codes, places, TOP),
                "store": lambda: store.search(query, TOP, everything),
                "store, a filter that 1/6 pass": lambda: store.search(query, TOP, sixth),
                "NumPy, 64 queries": lambda: plain(many),
                "store, 64 queries": lambda: store.search(many, TOP, everything),
            },
            options.rounds,
        )
        store.close()
    for name, seconds in found.items():
        base = "store" if "filter" in name else "NumPy, 64 queries" if "64" in name else "NumPy, argpartition"
        print(f"{name:32}{1000 * seconds:9.1f} ms {seconds / found[base]:7.2f} of '{base}'")


if __name__ == "__main__":
    main()
