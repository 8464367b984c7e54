"""Checkpoints: safe against a killed process, a full disk and a malicious file.

A checkpoint holds only tensors, numbers and texts, so that torch can read it with `weights_only=True`.
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
from torch import nn

from vireid.data.errors import BadInput
from vireid.data.stored import sync_folder

FORMAT = "vireid-checkpoint-2"
FORMAT_1 = "vireid-checkpoint-1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint. At every moment `path` holds the whole old one or the whole new one.

    Args:
        path: the file to replace.
        state: nested dicts and lists of tensors, numbers and texts.

    Raises:
        BadInput: the disk is full or the folder cannot be written; the old checkpoint is kept.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with open(unfinished, "wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        unfinished.unlink(missing_ok=True)
        # torch raises RuntimeError where the system refuses to write, and its text names lines of its own source.
        why = getattr(error, "strerror", None) or "the file cannot be written; is the disk full?"
        raise BadInput(f"cannot save checkpoint {path}: {why}; the last one, if there was any, is kept") from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint that `save` wrote, in this version (format 2) or an older one (format 1, see `fitted`).

    Raises:
        BadInput: there is no such file, it is cut short or of another format, or it is a pickle that holds more than
            tensors and numbers. Such a pickle is never executed.
    """
    if not path.is_file():
        raise BadInput(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise BadInput(f"{path} is not a vireid checkpoint, or was cut short ({reason})") from error
    if not isinstance(state, dict) or state.get("format") not in (FORMAT, FORMAT_1):
        raise BadInput(f"{path} is not a vireid checkpoint (format {FORMAT} or {FORMAT_1})")
    return state


def fitted(state: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """A checkpoint with the names that this version uses.

    In format 1, the stems, stages and neck of AGW and PECA had names without the prefix `encoder.`, WRIM-Net had a
    buffer that only counted, and the optimiser's group `trunk` was `backbone`. A checkpoint of format 2 is returned as
    it is.

    Args:
        state: from `load`.
        network: the network that the weights are for.

    Raises:
        KeyError: the checkpoint has no weights.
    """
    if state["format"] != FORMAT_1:
        return state
    known = network.state_dict().keys()
    weights = {
        f"encoder.{name}" if name not in known and f"encoder.{name}" in known else name: value
        for name, value in state["model"].items()
        if name != "anchors_skipped"
    }
    upgraded = {**state, "format": FORMAT, "model": weights}
    if "optimiser" in state:  # best.pt has none
        groups = [
            {**group, "name": "trunk" if group["name"] == "backbone" else group["name"]}
            for group in state["optimiser"]["param_groups"]
        ]
        upgraded["optimiser"] = {**state["optimiser"], "param_groups": groups}
    return upgraded


def random_states() -> dict[str, Any]:
    """The states of the global random number generators of this process: Python, NumPy, torch, and CUDA if present.

    Batches and augmentation do not depend on these states, because they are functions of (seed, epoch, step). Dropout
    depends on them, and so does everything that a recipe draws without a generator.
    """
    version, words, position = random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 the third-party code uses the legacy global generator
    states: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), position],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Set the global random number generators to the states that `random_states` returned."""
    version, words, position = states["python"]
    random.setstate((version, tuple(words.tolist()), position))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
