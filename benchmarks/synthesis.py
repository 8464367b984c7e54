"""Speed of the generated world: the compiled ray caster compared with the same formulas in NumPy, and whole files.

    python benchmarks/synthesis.py [--size 288x144] [--people 6]

Both renderers draw the same scenes in the same run. The rates depend on the machine; the ratio hardly does.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vireid.data.size import Size
from vireid.synthesis import World, render, world, write_world

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import synthesis as slow

Scene = tuple[np.ndarray, np.ndarray, np.ndarray, int, int]


def scenes(people: int, size: Size) -> list[Scene]:
    """The tables of one visible and one infrared picture of each person."""
    kept: list[Scene] = []

    def keep(*tables):
        kept.append(tables)
        return render.render(*tables)

    world.render = keep
    for identity in range(people):
        for modality in (0, 1):
            world.render_person(World(people), identity, camera=identity + 1, modality=modality, moment=0, size=size)
    world.render = render.render
    return kept


def rate(draw: Callable, tables: list[Scene], rounds: int) -> float:
    """Pictures per second on one core, the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for scene in tables:
            draw(*scene)
        best = min(best, time.perf_counter() - start)
    return len(tables) / best


def main() -> None:
    """Print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=Size.parse, default=Size(288, 144))
    parser.add_argument("--people", type=int, default=6)
    options = parser.parse_args()
    tables = scenes(options.people, options.size)
    fast, reference = rate(render.render, tables, 5), rate(slow.render, tables, 1)
    print(f"ray caster, {options.size}, one core: compiled {fast:.1f} pictures/s, NumPy {reference:.2f} pictures/s")
    print(f"ratio compiled : NumPy = {fast / reference:.1f}")
    rates = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = write_world(
                Path(folder) / "w", World(2 * options.people), layout="llcm", size=options.size, workers=workers
            )
            rates[workers] = done["pictures"] / (time.perf_counter() - start)
        print(f"files with sensor and JPEG, {workers} process(es): {rates[workers]:.1f} pictures/s")
    print(f"ratio two processes : one = {rates[2] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
