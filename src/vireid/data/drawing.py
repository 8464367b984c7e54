"""How gallery pictures are drawn for each identity and camera: AGW's seeded draw, and the official one of SYSU-MM01."""

from __future__ import annotations

import random

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.permutation import SOURCE, Permutation

DRAWS = 10
"""Trials of a protocol that draws."""

Cell = tuple[int, int, np.ndarray]
"""Identity, camera, and its samples in file order."""


def cells(samples: np.ndarray, identity: np.ndarray, camera: np.ndarray, cameras: tuple[int, ...] | None) -> list[Cell]:
    """The samples of each (identity, camera), with ascending identities and the cameras in the order given."""
    order = {number: place for place, number in enumerate(cameras or sorted(set(camera[samples].tolist())))}
    place = np.array([order[number] for number in camera[samples].tolist()])
    samples = samples[np.lexsort((samples, place, identity[samples]))]
    pairs = np.stack([identity[samples], camera[samples]], axis=1)
    edges = np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1
    return [(int(identity[own[0]]), int(camera[own[0]]), own) for own in np.split(samples, edges)]


def agw(found: list[Cell], trial: int, shots: int) -> np.ndarray:
    """The samples that AGW's generator draws from all (identity, camera)."""
    generator = random.Random(trial)
    chosen: list[int] = []
    for _, _, samples in found:
        files = samples.tolist()
        if shots == 1:
            chosen.append(generator.choice(files))
        else:
            chosen.extend(generator.sample(files, min(shots, len(files))))
    return np.array(chosen, dtype=np.int64)


def official(cell: Cell, permutation: Permutation, trial: int, shots: int) -> np.ndarray:
    """The samples that the official file draws from one (identity, camera).

    Raises:
        BadInput: the file has no such identity and camera, or another number of pictures or trials.
    """
    identity, camera, samples = cell
    table = permutation.get((camera, identity))
    if table is None:
        raise BadInput(f"the official permutation has no camera {camera}, identity {identity}; expected {SOURCE}")
    if table.shape[1] != len(samples) or trial >= len(table):
        raise BadInput(
            f"the official permutation is for {table.shape[1]} pictures of identity {identity} at camera {camera} in "
            f"{len(table)} trials, but there are {len(samples)} pictures and {DRAWS} trials"
        )
    return samples[table[trial, :shots] - 1]
