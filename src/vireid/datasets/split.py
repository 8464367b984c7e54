"""Divide the people of own pictures into training, validation and test."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import SPLITS, UNLABELLED, Records
from vireid.data.settings import Share, Whole, options
from vireid.data.stored import check_output, writing
from vireid.datasets import folder
from vireid.datasets.tree import DESCRIPTION, scaling_of

FEWEST = 2  # people in a split: with one, every answer is right


@options
class SplitOptions:
    """What `vireid data split` is asked to do.

    Attributes:
        source: a table or a folder that the layout `folder` reads. A split that it has already is not used.
        out: the table to write.
        train, val, test: shares of the people; they add up to 1.
        seed: the same seed and the same people give the same splits, whatever the order of the pictures.
    """

    source: Path
    out: Path
    train: Share = 0.5
    val: Share = 0.1
    test: Share = 0.4
    seed: Whole = 0


@dataclass(frozen=True)
class Divided:
    """The table that was written.

    Attributes:
        out: its path.
        splits: split → `people`, `visible` and `infrared` pictures.
        notes: what a user has to know about it.
    """

    out: Path
    splits: dict[str, dict[str, int]]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {"out": str(self.out), "splits": self.splits, "notes": list(self.notes)}


def divide(asked: SplitOptions) -> Divided:
    """Give each person one split, and write a table that the layout `folder` reads.

    The shares hold for the people with pictures of both modalities, who are drawn at random. Nobody else can be tested:
    people with one modality only, and unlabelled pictures, are put into `train`. All other columns of a table are kept.
    Paths are relative to the new table if the pictures are below its folder, otherwise absolute.

    Raises:
        BadInput: the pictures cannot be read, the shares do not add up to 1 or are too small for the number of people,
            or the table cannot be written there.
    """
    check_output(asked.out)
    root, table = folder.place(asked.source) if asked.source.exists() else (asked.source, None)
    if table is not None and asked.out.exists() and os.path.samefile(root / table, asked.out):
        raise BadInput(f"--out {asked.out} is the table that is read; give another name")
    records = datasets.read("folder", asked.source)
    if scaling_of(asked.out.parent) != records.scaling:
        raise BadInput(
            f"{root / DESCRIPTION} states scaling '{records.scaling}', and {asked.out.parent} does not; copy the file "
            "there first, or give an --out beside it"
        )
    split_of, notes = _drawn(records, asked)
    split = np.array([split_of.get(int(identity), "train") for identity in records.identity])
    _write(asked.out, _lines(records, split, root, table, asked.out.parent))
    known = records.identity != UNLABELLED
    splits = {
        name: {
            "people": len(np.unique(records.identity[known & (split == name)])),
            **{m.word: int(((split == name) & (records.modality == m)).sum()) for m in list(Modality)[:2]},
        }
        for name in SPLITS
    }
    return Divided(asked.out, splits, tuple(notes))


def _drawn(records: Records, asked: SplitOptions) -> tuple[dict[int, str], list[str]]:
    """The split of each person with both modalities, and notes about everybody else."""
    known = records.labelled()
    visible, infrared = (np.unique(known.identity[known.modality == modality]) for modality in (0, 1))
    both = np.intersect1d(visible, infrared)
    shares = np.array([getattr(asked, name) for name in SPLITS])
    if abs(shares.sum() - 1) > 1e-6:
        raise BadInput(f"--train, --val and --test are shares of the people and add up to {shares.sum():g}, not to 1")
    counts = np.floor(shares * len(both) + 1e-9).astype(int)
    for place in np.argsort(counts - shares * len(both), kind="stable")[: len(both) - counts.sum()]:
        counts[place] += 1
    if short := [name for name, share, n in zip(SPLITS, shares, counts, strict=True) if share and n < FEWEST]:
        raise BadInput(
            f"{asked.source} has {len(both)} people with pictures of both modalities, which leaves fewer than {FEWEST} "
            f"for {' and '.join(short)}; give larger shares, or 0 for a split that is not needed"
        )
    order = np.random.default_rng(asked.seed).permutation(both).tolist()
    names = [name for name, count in zip(SPLITS, counts.tolist(), strict=True) for _ in range(count)]
    lonely, unlabelled = len(np.setxor1d(visible, infrared)), len(records) - len(known)
    notes = [f"{lonely} people have pictures of one modality only and are put into train"] if lonely else []
    notes += [f"{unlabelled} unlabelled pictures are put into train, and are not trained on"] if unlabelled else []
    return dict(zip(order, names, strict=True)), notes


def _lines(records: Records, split: np.ndarray, root: Path, table: str | None, place: Path) -> list[list[str]]:
    """The header and the lines of the new table."""
    if table is not None:
        header, found = folder.table_lines(root, table)
        columns = [name for name in header if name and name != "split"]
        cells = [line for _, line in found]
    else:
        columns = ["path", "identity", "camera", "modality"]
        cells = [
            {
                "identity": folder.identity_name(path),
                "camera": str(camera),
                "modality": Modality(modality).word,
            }
            for path, camera, modality in zip(records.path, records.camera, records.modality, strict=True)
        ]
    lines = [[*columns, "split"]]
    for path, line, word in zip(records.path, cells, split, strict=True):
        line = {**line, "path": _from(place, root / path)}
        lines.append([*(line[name] for name in columns), str(word)])
    return lines


def _from(place: Path, file: Path) -> str:
    """A path with forward slashes: relative to `place` if it is below, otherwise absolute."""
    absolute, base = PurePosixPath(os.path.abspath(file)), PurePosixPath(os.path.abspath(place))
    return str(absolute.relative_to(base) if absolute.is_relative_to(base) else absolute)


def _write(file: Path, lines: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    try:
        with writing(file) as stream:
            stream.write(text.getvalue().encode("utf-8"))
    except OSError as error:
        raise BadInput(f"cannot write {file}: {error.strerror}") from error
