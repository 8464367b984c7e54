"""Checkpoints that survive a killed process, a full disk and a hostile file.

One file holds tensors, numbers and texts only, so that it can be read with `weights_only=True`.
"""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.data.errors import BadInput

FORMAT = "vireid-checkpoint-1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that `path` holds either the old or the new checkpoint whole, whatever happens meanwhile.

    Args:
        path: the file to replace.
        state: nested dicts and lists of tensors, numbers and texts.

    Raises:
        BadInput: the disk is full or the folder cannot be written; the old checkpoint is untouched.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with open(unfinished, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        raise BadInput(f"cannot save checkpoint {path}: {error}; the last one, if there was any, is kept") from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save` wrote.

    Raises:
        BadInput: no such file, or it is not a checkpoint of ours (cut short, another format, or a pickle that holds
            more than tensors and numbers, which is never run).
    """
    if not path.is_file():
        raise BadInput(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BadInput(f"{path} is not a vireid checkpoint, or was cut short ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadInput(f"{path} is not a vireid checkpoint (format {FORMAT})")
    return state


def random_states() -> dict[str, Any]:
    """The state of every global random stream of this process.

    Batches and augmentation do not depend on these (they are functions of seed, epoch and step); dropout, and whatever
    a recipe draws without a generator, do.
    """
    version, words, position = random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 the legacy global stream is what third-party code uses
    states: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), position],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Put every global random stream back where `random_states` found it."""
    version, words, position = states["python"]
    random.setstate((version, tuple(words.tolist()), position))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; a no-op where folders cannot be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
