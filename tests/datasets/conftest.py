"""Small data sets in each layout, with pictures of noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TreeWriter = Callable[..., Path]


def write_picture(file: Path, seed: int, size: tuple[int, int] = (12, 6)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def write_sysu(root: Path, suffix: str = ".jpg", numbers: int = 2) -> Path:
    """Identities 1, 2 (train), 3 (val), 6, 10 (test), 20 (in no list), each at all cameras 1 to 6."""
    seed = 0
    for camera in range(1, 7):
        for identity in (1, 2, 3, 6, 10, 20):
            for number in range(1, numbers + 1):
                seed += 1
                write_picture(root / f"cam{camera}" / f"{identity:04d}" / f"{number:04d}{suffix}", seed)
    (root / "exp").mkdir()
    (root / "exp" / "train_id.txt").write_text("2,1\n")
    (root / "exp" / "val_id.txt").write_text("3")
    (root / "exp" / "test_id.txt").write_text("10, 6\r\n")
    return root


def write_regdb(root: Path, suffix: str = ".bmp", folds: int = 2, identities: int = 4) -> Path:
    """Identities 1..n, two pictures each. In fold k, the half that begins at identity k is for training."""
    seed = 0
    files: dict[tuple[str, int], list[str]] = {}
    for folder in ("Visible", "Thermal"):
        for identity in range(1, identities + 1):
            for number in (1, 2):
                seed += 1
                name = f"{folder}/{identity}/male_back_{folder[0].lower()}_{number:05d}_{identity}{suffix}"
                write_picture(root / name, seed)
                files.setdefault((folder, identity), []).append(name)
    (root / "idx").mkdir()
    for fold in range(1, folds + 1):
        order = [(fold - 1 + k) % identities + 1 for k in range(identities)]
        halves = {"train": order[: identities // 2], "test": order[identities // 2 :]}
        for split, members in halves.items():
            for word, folder in (("visible", "Visible"), ("thermal", "Thermal")):
                lines = [f"{name} {label}" for label, i in enumerate(members) for name in files[folder, i]]
                (root / "idx" / f"{split}_{word}_{fold}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_llcm(root: Path, suffix: str = ".jpg", foldered: bool = False) -> Path:
    """Identities 0 and 9 (train), 3 and 12 (test); cameras 1 and 4; the lists are deliberately not sorted by name."""
    seed = 0
    for word in ("vis", "nir"):
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for label, (identity, split) in enumerate([(9, "train"), (0, "train"), (12, "test"), (3, "test")]):
            for camera in (4, 1):
                for frame in (250, 30, 1000):
                    seed += 1
                    name = f"{identity:04d}_c{camera:02d}_s170446_f{frame}_{word}{suffix}"
                    path = f"{word}/{identity:04d}/{name}"
                    write_picture(root / path, seed)
                    if foldered and split == "test":
                        write_picture(root / f"test_{word}/cam{camera}/{identity:04d}/{name}", seed)
                    lines[split].append(f"{path} {label % 2}")
        (root / "idx").mkdir(exist_ok=True)
        for split, text in lines.items():
            (root / "idx" / f"{split}_{word}.txt").write_text("\n".join(text) + "\n")
    return root


def write_folder(root: Path, suffix: str = ".png") -> Path:
    """Identities 3 and 9 (train), 7 and 12 (test)."""
    seed = 0
    for split, identities in (("train", ("3", "9")), ("test", ("7", "12"))):
        for word in ("visible", "infrared"):
            for identity in identities:
                for name in ("cam3_a", "b"):
                    seed += 1
                    write_picture(root / split / word / identity / f"{name}{suffix}", seed)
    return root


@pytest.fixture
def trees() -> dict[str, TreeWriter]:
    return {"sysu-mm01": write_sysu, "regdb": write_regdb, "llcm": write_llcm, "folder": write_folder}


@pytest.fixture
def picture() -> Callable[..., None]:
    return write_picture
