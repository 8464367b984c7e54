"""Pretrained weights: ImageNet's, or a file's, into stems and stages, with every key accounted for."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vireid.data.errors import BadInput
from vireid.networks.resnet import Stages, Stem, trunk_named

# The hash in a name is the beginning of the file's SHA-256, and is checked. ResNet-50's is the first version of the
# weights, the one that the field's published numbers start from.
ADDRESSES: dict[str, str] = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Loaded:
    """What became of a file's tensors.

    Attributes:
        used: how many tensors were copied into each stem and the stages.
        unused: keys that the trunk has no place for and that may stay behind: the classifier's.
    """

    used: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; unused: {', '.join(self.unused)}" if self.unused else ""
        return f"{self.used} tensors loaded{rest}"


def imagenet_state(trunk: str) -> dict[str, torch.Tensor]:
    """torchvision's public ImageNet weights, downloaded once into torch's cache and checked against their hash.

    Raises:
        BadInput: the trunk is unknown or has no such weights, or the file cannot be had.
    """
    trunk_named(trunk)
    if trunk not in ADDRESSES:
        raise BadInput(f"trunk '{trunk}' has no ImageNet weights; choices for weights: none, FILE")
    address = ADDRESSES[trunk]
    try:
        return torch.hub.load_state_dict_from_url(address, check_hash=True, weights_only=True, progress=False)
    # A failure of the network or of the cache folder is an OSError; a wrong hash or a torn file is one of the others.
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"cannot download {address} ({error}); fetch it on another machine and give the file instead: weights=FILE"
        ) from error


def read_state(file: Path | str) -> dict[str, torch.Tensor]:
    """Read tensors by name from a `.pth`, `.pt` or `.safetensors` file. Nothing in the file is executed.

    A file that holds its tensors one level down, under `state_dict`, is read as well.

    Raises:
        BadInput: the file is missing, of another kind, or not a checkpoint.
    """
    file = Path(file)
    if not file.is_file():
        raise BadInput(f"weights: there is no file {file}; choices: none, imagenet, FILE")
    if file.suffix not in (".pth", ".pt", ".safetensors"):
        raise BadInput(f"weights: {file} is not a .pth, .pt or .safetensors file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BadInput(f"weights: {file} is not a checkpoint of plain tensors ({_first_line(error)})") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not _is_state(state):
        raise BadInput(f"weights: {file} does not hold tensors by name")
    return dict(state)


def load_trunk(state: State, stems: Sequence[Stem], stages: Stages) -> Loaded:
    """Copy a residual network's tensors into every stem and into the stages.

    What a recipe put between or into the blocks is left alone. The classifier (`fc.*`) is not needed, and the
    counters of batches that normalisations keep (`num_batches_tracked`) may be missing, as they are in old files.

    Args:
        state: tensors by torchvision's names.
        stems: each gets the same `conv1` and `bn1`.

    Returns:
        What was used and what was not.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape. Nothing has been changed then.
    """
    places = _places(stems, stages)
    unused = tuple(sorted(key for key in state if key.startswith("fc.")))
    missing = [key for key in places if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in places and key not in unused]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensors[0].shape)}"
        for key, tensors in places.items()
        if key in state and state[key].shape != tensors[0].shape
    ]
    troubles = [
        f"{len(found)} {kind} ({_first(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if found
    ]
    if troubles:
        raise BadInput(f"weights do not fit the trunk: {'; '.join(troubles)}")
    used = [key for key in places if key in state]
    with torch.no_grad():
        for key in used:
            for tensor in places[key]:
                tensor.copy_(state[key])
    return Loaded(used=len(used), unused=unused)


def _places(stems: Sequence[Stem], stages: Stages) -> dict[str, list[torch.Tensor]]:
    """Where each of torchvision's keys goes."""
    places: dict[str, list[torch.Tensor]] = {}
    for stem in stems:
        for key, tensor in stem.state_dict().items():
            places.setdefault(key, []).append(tensor)
    for key, tensor in stages.state_dict().items():
        if key.startswith("layer"):
            places[key] = [tensor]
    return places


def _is_state(state: object) -> TypeGuard[State]:
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    )


def _first(found: Iterable[str], count: int = 3) -> str:
    found = list(found)
    return ", ".join(found[:count]) + (", …" if len(found) > count else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
