"""Pretrained weights, from ImageNet or from a file: read them and copy them into stems and stages."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vireid.data.errors import BadInput
from vireid.networks.resnet import Stages, Stem, trunk_named

# The name of a file ends with the beginning of its SHA-256, which is checked. For ResNet-50 this is the first version
# of torchvision's weights, because the published numbers of the field start from it.
ADDRESSES: dict[str, str] = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}

State = Mapping[str, torch.Tensor]


def imagenet_state(trunk: str) -> dict[str, torch.Tensor]:
    """Read torchvision's public ImageNet weights of a trunk.

    The file is downloaded once into the cache of torch.hub. Its SHA-256 is checked each time it is read.

    Returns:
        Tensors by torchvision's names.

    Raises:
        BadInput: the trunk is unknown or has no such weights, the download fails, or the SHA-256 of the file in the
            cache is wrong.
    """
    trunk_named(trunk)
    if trunk not in ADDRESSES:
        raise BadInput(f"trunk '{trunk}' has no ImageNet weights; choices for weights: none, FILE")
    address = ADDRESSES[trunk]
    file = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    beginning = _hash_in(file)
    if not file.exists():
        _download(address, file, beginning)
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"weights: {file} cannot be read ({error.strerror})") from error
    if not digest.startswith(beginning):
        raise BadInput(
            f"weights: the file {file} is damaged or incomplete: its SHA-256 begins with {digest[:8]} instead of "
            f"{beginning}; delete this file, and the next run downloads it again"
        )
    return read_state(file)


def _hash_in(file: Path) -> str:
    """The beginning of the SHA-256 in a file name such as `resnet18-f37072fd.pth`."""
    found = re.search(r"-([0-9a-f]{8,})$", file.stem)
    if found is None:
        raise ValueError(f"the name {file.name} does not end with the beginning of a SHA-256")
    return found[1]


def _download(address: str, file: Path, beginning: str) -> None:
    """Download a file. It appears under its name only if it is complete and its SHA-256 is right.

    Raises:
        BadInput: the download fails, the cache folder cannot be written, or the SHA-256 is wrong.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file), hash_prefix=beginning, progress=False)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a wrong hash
        raise BadInput(
            f"cannot download {address} ({error}); download it on another machine and give the file instead: "
            "weights=FILE"
        ) from error


def read_state(file: Path | str) -> dict[str, torch.Tensor]:
    """Read tensors by name from a `.pth`, `.pt` or `.safetensors` file. No code in the file is executed.

    The tensors may also stand one level deeper, under the key `state_dict`.

    Raises:
        BadInput: the file is missing, has another suffix, cannot be read, or does not hold plain tensors by name.
    """
    file = Path(file)
    if not file.is_file():
        raise BadInput(f"weights: there is no file {file}; choices: none, imagenet, FILE")
    if file.suffix not in (".pth", ".pt", ".safetensors"):
        raise BadInput(f"weights: {file} is not a .pth, .pt or .safetensors file")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"weights: {file} cannot be read ({error.strerror or error})") from error
    # The text of these errors is left out: for such files torch advises to load without safety checks.
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(
            f"weights: {file} is not a checkpoint of plain tensors: it is damaged or incomplete, or it holds other "
            "objects, which are not loaded because they could execute code"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not _is_state(state):
        raise BadInput(f"weights: {file} does not hold tensors by name")
    return dict(state)


def load_trunk(state: State, stems: Sequence[Stem], stages: Stages) -> None:
    """Copy the tensors of a residual network into all stems and into the stages.

    Modules that a recipe added between or into the blocks do not change. The classifier (`fc.*`) is not used. The batch
    counters of normalisations (`num_batches_tracked`) may be missing, because old files do not have them.

    Args:
        state: tensors by torchvision's names.
        stems: all of them get the same `conv1` and `bn1`.
        stages: they get `layer1` to `layer4`.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape. In this case nothing is changed.
    """
    places = _places(stems, stages)
    missing = [key for key in places if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in places and not key.startswith("fc.")]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensors[0].shape)}"
        for key, tensors in places.items()
        if key in state and state[key].shape != tensors[0].shape
    ]
    problems = [
        f"{len(found)} {kind} ({_first(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if found
    ]
    if problems:
        raise BadInput(f"weights do not fit the trunk: {'; '.join(problems)}")
    with torch.no_grad():
        for key, tensors in places.items():
            for tensor in tensors if key in state else ():
                tensor.copy_(state[key])


def _places(stems: Sequence[Stem], stages: Stages) -> dict[str, list[torch.Tensor]]:
    """For each of torchvision's names, the tensors that get its values."""
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
