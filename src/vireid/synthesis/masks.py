"""Where the person is in the pictures of a generated world that is on disk.

A world on disk says which numbers it was made from. So each picture can be planned and rendered again, this time as a
mask of the person. Figures use it: they say how much of an attention map is on the person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture
from vireid.data.size import Size
from vireid.data.stored import read_json
from vireid.synthesis.layout import Picture
from vireid.synthesis.world import MARK, World, plan, render_mask, render_person

ALIKE = 12.0
"""Largest mean difference in levels (0..255) of a picture on disk to the same one rendered again. JPEG changes the
pixels by 2 to 4 levels. Pictures of two people differ by 20 and more."""


def masks(root: str | Path, paths: Sequence[str], size: Size | tuple[int, int]) -> np.ndarray:
    """Masks of the person in pictures of a generated world.

    Args:
        root: the folder of the world.
        paths: N paths of pictures, relative to `root`, as `Records.path` has them.
        size: height and width of the masks; a picture can be resized to any size, and its mask rendered at it.

    Returns:
        N×height×width float32, the share of each pixel that the person covers, 0 to 1.

    Raises:
        BadInput: the folder holds no generated world, or a picture is not the one that this world has there.
    """
    root = Path(root)
    if not (root / MARK).is_file():
        raise BadInput(f"{root} is not a generated world: it has no {MARK}")
    facts = read_json(root / MARK)
    world = World(**{f.name: facts[f.name] for f in fields(World) if f.name in facts})  # type: ignore[arg-type]
    planned = _planned(root, world, facts, paths)
    found = np.zeros((len(paths), *size), dtype=np.float32)
    for place, path in enumerate(paths):
        if path not in planned or not _same(root, world, planned[path]):
            raise BadInput(f"{root / path} is not the picture that the generated world of {MARK} has there")
        found[place] = render_mask(world, **_asked(planned[path]), size=size)
    return found


def _planned(root: Path, world: World, facts: dict, paths: Sequence[str]) -> dict[str, Picture]:
    """The pictures of a world by path.

    An older world does not say what its plan was made from. A plan with more pictures gives the others the same paths,
    so it is made for as many as there are files beside a picture.
    """
    asked: dict[str, Any] = facts.get("plan") or {
        "pictures": max(len(list((root / path).parent.iterdir())) for path in paths)
    }
    return {picture.path: picture for picture in plan(world, facts["layout"], **asked).pictures}


def _asked(picture: Picture) -> dict:
    return {name: getattr(picture, name) for name in ("identity", "camera", "modality", "moment")}


def _same(root: Path, world: World, picture: Picture) -> bool:
    """Whether the file holds this picture."""
    there = read_picture(root / picture.path).astype(float)
    again = render_person(world, **_asked(picture), size=there.shape[:2])
    return float(np.abs(there - again).mean()) < ALIKE
