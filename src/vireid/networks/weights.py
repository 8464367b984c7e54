"""Pretrained weights, from ImageNet or from a file: read them and copy them into stems and stages."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vireid.data.errors import BadInput
from vireid.networks.foreign import unpacked
from vireid.networks.resnet import Stages, Stem, trunk_named

# The name of a file ends with the beginning of its SHA-256, which is checked. For ResNet-50 this is the first version
# of torchvision's weights, because the published numbers of the field start from it.
ADDRESSES: dict[str, str] = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}

# Names of torchvision's files, also of other versions than those above.
PUBLISHED = re.compile(r"resnet\d+-[0-9a-f]{8}\.pth")

# Weights that are part of this package, each with the SHA-256 of its file. studies/pretrain.py made them, from visible
# pictures of generated people only (docs/results/pretrained.md).
WORLD: dict[str, str] = {"tiny": "17eb722abbc42c8ce490e94b9721cac1ba5cc3a6033703df5c10d405ce86de4f"}

SUFFIXES = (".pth", ".pt", ".t", ".tar", ".safetensors")

State = Mapping[str, torch.Tensor]
Say = Callable[[str], None]


def imagenet_state(trunk: str, say: Say = lambda text: None) -> dict[str, torch.Tensor]:
    """Read torchvision's public ImageNet weights of a trunk.

    The file is downloaded once into the cache of torch.hub. Its SHA-256 is checked each time it is read. If it is
    wrong, the file is downloaded again and replaced.

    Args:
        trunk: a name in `vireid.networks.resnet.TRUNKS`.
        say: gets a sentence for the user if a damaged file is replaced.

    Returns:
        Tensors by torchvision's names.

    Raises:
        BadInput: the trunk is unknown or has no such weights, the download fails, or the file cannot be read.
    """
    trunk_named(trunk)
    if trunk not in ADDRESSES:
        raise BadInput(f"trunk '{trunk}' has no ImageNet weights; choices for weights: none, world, FILE, RUN")
    address = ADDRESSES[trunk]
    file = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    damage = _damage(file) if file.exists() else None
    if damage:
        say(f"weights: {damage}; it is downloaded again and replaced")
    if damage or not file.exists():
        _download(address, file, _hash_in(file), damage)
    return read_state(file)


def world_state(trunk: str) -> dict[str, torch.Tensor]:
    """Read the weights of a trunk that this package contains. They come from generated people only.

    Returns:
        Tensors by torchvision's names, float32.

    Raises:
        BadInput: there are none for this trunk, or the file is damaged.
    """
    trunk_named(trunk)
    if trunk not in WORLD:
        raise BadInput(f"weights: world is for trunk={' or trunk='.join(WORLD)}, and the trunk is '{trunk}'")
    file = Path(__file__).with_name(f"{trunk}.safetensors")
    if sha256(file) != WORLD[trunk]:
        raise BadInput(f"weights: {file} is damaged; install vireid again")
    return {name: tensor.float() for name, tensor in read_state(file).items()}


def sha256(file: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"weights: {file} cannot be read ({error.strerror})") from error


def _damage(file: Path) -> str | None:
    """How the SHA-256 of a file differs from the one in its name, in words; None if it does not."""
    digest, beginning = sha256(file), _hash_in(file)
    if digest.startswith(beginning):
        return None
    return (
        f"the file {file} is damaged or incomplete: its SHA-256 begins with {digest[: len(beginning)]} instead of "
        f"{beginning}"
    )


def _hash_in(file: Path) -> str:
    """The beginning of the SHA-256 in a file name such as `resnet18-f37072fd.pth`."""
    found = re.search(r"-([0-9a-f]{8,})$", file.stem)
    if found is None:
        raise ValueError(f"the name {file.name} does not end with the beginning of a SHA-256")
    return found[1]


def _download(address: str, file: Path, beginning: str, damage: str | None) -> None:
    """Download a file. It appears under its name only if it is complete and its SHA-256 is right.

    Args:
        address: where it is.
        file: where it is written to. A file that is there is replaced.
        beginning: the beginning of its SHA-256.
        damage: what is wrong with the file that is there; None if there is none.

    Raises:
        BadInput: the download fails, the cache folder cannot be written, or the SHA-256 is wrong.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(file), hash_prefix=beginning, progress=False)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a wrong hash
        before = f"weights: {damage}; " if damage else ""
        raise BadInput(
            f"{before}cannot download {address} ({error}); download it on another machine and give the file instead: "
            "weights=FILE"
        ) from error


def read_state(file: Path | str) -> dict[str, torch.Tensor]:
    """Read tensors by name from a file of torch or safetensors. No code in the file is executed.

    The tensors may also stand one level deeper, see `vireid.networks.foreign.unpacked`. Beside them, a file may hold
    numbers, texts, and numbers and arrays of NumPy. If the name of the file is one of torchvision's, such as
    `resnet50-0676ba61.pth`, its SHA-256 is checked.

    Raises:
        BadInput: the file is missing, has another suffix, is damaged, cannot be read, holds other objects, or is a
            checkpoint of vireid, which is read with its run directory.
    """
    file = Path(file)
    if not file.is_file():
        raise BadInput(f"weights: there is no file {file}; choices: none, imagenet, world, FILE, RUN")
    # torchreid writes names such as model.pth.tar-60.
    if re.sub(r"\.tar-\d+$", ".tar", file.suffix) not in SUFFIXES:
        raise BadInput(f"weights: {file} is not a file of weights; suffixes: {', '.join(SUFFIXES)}")
    if PUBLISHED.fullmatch(file.name) and (damage := _damage(file)):
        raise BadInput(f"weights: {damage}; download it again, or rename it if it is meant to have other contents")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else _load(file)
    except OSError as error:
        raise BadInput(f"weights: {file} cannot be read ({error.strerror or error})") from error
    # The text of these errors is left out: for such files torch advises to load without safety checks.
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(
            f"weights: {file} is not a checkpoint of plain tensors: it is damaged or incomplete, or it holds other "
            "objects, which are not loaded because they could execute code"
        ) from error
    if isinstance(state, Mapping) and str(state.get("format")).startswith("vireid-checkpoint"):
        raise BadInput(f"weights: {file} is a checkpoint of vireid; leave it in its run directory: weights=RUN")
    state = unpacked(state)
    if not _is_state(state):
        raise BadInput(f"weights: {file} does not hold tensors by name")
    return dict(state)


def _load(file: Path) -> object:
    """The content of torch's file, on the CPU."""
    with torch.serialization.safe_globals(list(_numpy_values())):
        return torch.load(file, "cpu", weights_only=True)


@cache
def _numpy_values() -> tuple[Any, ...]:
    """What torch must know to read numbers and arrays of numbers of NumPy, such as the measured results in AGW's files.

    Arrays of objects stay refused. The functions have two names, because NumPy 2 renamed their module.
    """
    makers: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]  # type: ignore[index]
    names = [(make, f"{room}.multiarray.{make.__name__}") for make in makers for room in ("numpy.core", "numpy._core")]
    kinds = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return (*names, np.ndarray, np.dtype, *kinds)


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
    kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
    copy_tensors(kept, _places(stems, stages), "the trunk")


def load_parts(stem_states: Sequence[State], stage_state: State, stems: Sequence[Stem], stages: Stages) -> int:
    """Copy the stems and stages of another network. A stem that the other network lacks gets its first one.

    Args:
        stem_states: the tensors of the other network's stems, by names in a stem.
        stage_state: those of its stages. Only the residual blocks (`layer1` to `layer4`) are used.
        stems, stages: they get the values.

    Returns:
        How many tensors were set.

    Raises:
        BadInput: as `load_trunk`.
    """
    state = {key: value for key, value in stage_state.items() if key.startswith("layer")}
    places = _places([], stages)
    for number, stem in enumerate(stems):
        source = stem_states[number] if number < len(stem_states) else stem_states[0]
        state |= {f"stem {number + 1}: {key}": value for key, value in source.items()}
        places |= {f"stem {number + 1}: {key}": [tensor] for key, tensor in stem.state_dict().items()}
    copy_tensors(state, places, "the trunk")
    return len(places)


def copy_tensors(state: State, places: Mapping[str, Sequence[torch.Tensor]], what: str) -> None:
    """Copy each tensor of a state into its places. Counters of normalisations may be missing.

    Args:
        state: tensors by name.
        places: for each name, the tensors that get its values.
        what: what the places are, for the sentence.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape. In this case nothing is changed.
    """
    missing = [key for key in places if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in places]
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensors[0].shape)}"
        for key, tensors in places.items()
        if key in state and state[key].shape != tensors[0].shape
    ]
    problems = [
        f"{len(found)} {kind} ({first(found)})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if found
    ]
    if problems:
        raise BadInput(f"weights do not fit {what}: {'; '.join(problems)}")
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


def first(found: Iterable[str], count: int = 3) -> str:
    """The first names of a list, for a sentence.

    >>> first(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    found = list(found)
    return ", ".join(found[:count]) + (", …" if len(found) > count else "")
