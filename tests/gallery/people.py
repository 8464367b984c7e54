"""Indexes of people whose vectors are made up, so that a search means something without a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import vireid.gallery
from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, calibrate_pairs
from vireid.gallery.index import Index, ModelFacts
from vireid.gallery.row import Row

WIDTH = 24
MODEL = "ab12" * 16
FACTS = ModelFacts("/nowhere", "agw", "last", "", (64, 32), WIDTH, MODEL)
VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


def vectors_of(people: Sequence[int], modality: Modality, *, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """A vector for each picture: of its person, of its modality, and noise. N×WIDTH float32 of length one.

    A person's direction is the same in each call, and so is a modality's, which makes two pictures of one modality more
    alike than two of different ones.
    """
    own = {one: np.random.default_rng((1, one)).normal(size=WIDTH) for one in set(people)}
    offset = 2.0 * np.random.default_rng((2, int(modality))).normal(size=WIDTH) / np.sqrt(WIDTH)
    drawn = np.random.default_rng((3, seed, int(modality))).normal(size=(len(people), WIDTH))
    found = np.array([own[one] for one in people]) / np.sqrt(WIDTH) + offset + noise * drawn / np.sqrt(WIDTH)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def calibrated(people: int = 60, each: int = 4, *, kinds: Sequence[str] = (), noise: float = 0.5) -> Calibration:
    """A calibration of people who are in no index here: of some kinds of pairs, or of all."""
    who = [10_000 + n for n in range(people) for _ in range(each)]
    features = np.concatenate([vectors_of(who, one, noise=noise, seed=9) for one in (VISIBLE, INFRARED)])
    modality = np.repeat([0, 1], len(who))
    pairs = calibrate_pairs(features, np.array(who * 2), modality, resamplings=20)
    chosen = {kind: pairs[kind] for kind in kinds or pairs}
    return Calibration(chosen, MODEL, "folder:/nowhere", "", people, 0)


def people_rows(people: Sequence[int], modality: Modality, *, noise: float = 0.5, seed: int = 0) -> list[Row]:
    """A row for each picture; camera, time, source and tracklet follow from its number."""
    vectors = vectors_of(people, modality, noise=noise, seed=seed)
    return [
        Row(
            source="hall" if n % 2 else "gate",
            path=f"{modality.word}/{seed}/{n:04d}.jpg",
            content=hashlib.sha256(f"{modality} {n} {seed}".encode()).hexdigest(),
            camera=str(n % 3),
            modality=modality,
            time=None if n % 7 == 0 else 1_772_330_000_000 + n * 60_000,
            tracklet=f"t{n // 2}",
            person=str(one),
            vector=vectors[n],
        )
        for n, one in enumerate(people)
    ]


def people_index(
    folder: Path, rows: Sequence[Row], calibration: Calibration | None = None, *, width: int = WIDTH
) -> Index:
    """An open index of these rows."""
    store = vireid.gallery.open(folder, model=MODEL, width=width)
    store.upsert(rows)
    return Index(str(folder), store, replace(FACTS, width=width), calibration, folder)


def vector_of(row: Row) -> np.ndarray:
    """The vector of a row that has one."""
    assert row.vector is not None
    return row.vector
