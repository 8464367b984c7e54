"""What a network starts from instead of random values: a file of weights, or an earlier run (fine-tuning).

`weights=RUN` names a run directory, and its last checkpoint is used; `weights=RUN/best.pt` names one of its
checkpoints. Every other name is that of a file, see `vireid.networks.foreign` for the files that are known.

Whatever its source, every tensor is accounted for: it is loaded, or it is left out for a stated reason, or it is an
error. The sentence that says so is for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vireid.data.errors import BadInput
from vireid.networks import foreign
from vireid.networks.weights import copy_tensors, first, load_parts, load_trunk, read_state, sha256
from vireid.training import checkpoint as checkpoints
from vireid.training.configuration import to_json
from vireid.training.run import Run, WeightsFacts, open_run
from vireid.training.settings import Training

WORDS = ("none", "imagenet", "world")
"""Values of `weights` that are not the name of a file or a run."""

ENCODER = "encoder."
"""The prefix of AGW's stems, trunk and neck in the recipe `agw`."""

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Source:
    """The tensors that a network starts from.

    Attributes:
        words: where they come from, for the user.
        file: the file that they were read from.
        tensors: by the names of a network of the recipe `recipe`; by torchvision's names if that is None.
        recipe: the recipe of the network that the tensors belong to. None if they are a trunk only.
        run: the run, if they come from one.
        checkpoint: the run's checkpoint.
        left_out: for each tensor of the file that is no use for any network here, why.
    """

    words: str
    file: Path
    tensors: State
    recipe: str | None = None
    run: Run | None = None
    checkpoint: dict[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


# --- the file or the run ----------------------------------------------------------------------------------------------


def file_of(weights: str) -> tuple[Path, Run | None]:
    """The file that `weights` names, and the run that it belongs to, if it belongs to one.

    Raises:
        BadInput: there is no such file or run.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        run = open_run(path)
        return run.checkpoint, run
    run = open_run(path.parent) if path.suffix == ".pt" and (path.parent / "run.json").is_file() else None
    if not path.is_file():
        raise BadInput(f"weights: there is no file and no run {weights}; choices: {', '.join(WORDS)}, FILE, RUN")
    return path, run


def facts_of(weights: str) -> WeightsFacts | None:
    """What `run.json` says about the weights; None for `none` and for weights that have a name of their own.

    Raises:
        BadInput: the file or the run is missing or cannot be read.
    """
    if weights in WORDS:
        return None
    file, run = file_of(weights)
    if not file.is_file():
        raise BadInput(f"weights: {weights} has no checkpoint {file.name} yet")
    earlier = run.facts.weights if run else None
    trained_on = (*(earlier.trained_on if earlier else ()), run.facts.data) if run else ()
    return WeightsFacts(str(file.resolve()), sha256(file), run.facts.name if run else None, trained_on)


def open_source(weights: str) -> Source:
    """Read the tensors that `weights` names.

    Raises:
        BadInput: the file or the run is missing, or cannot be read.
    """
    file, run = file_of(weights)
    if run is None:
        found = foreign.named(read_state(file))
        if not found.encoder:
            return Source(f"{file} ({found.code})", file, found.tensors, left_out=found.left_out)
        tensors = {f"{ENCODER}{name}": value for name, value in found.tensors.items()}
        return Source(f"{file} ({found.code})", file, tensors, "agw", left_out=found.left_out)
    if not file.is_file():
        raise BadInput(f"weights: {weights} has no checkpoint {file.name} yet")
    state = checkpoints.load(file)
    if not isinstance(state.get("model"), dict):
        raise BadInput(f"weights: {file} has no weights")
    epochs = state.get("progress", {}).get("epoch", 0)
    words = f"{file} ({run.facts.name}, {epochs} of {run.facts.config.get('epochs', '?')} epochs)"
    return Source(words, file, state["model"], run.facts.recipe.partition("+")[0], run, state)


def fitted(source: Source, network: nn.Module) -> Source:
    """The source of a run with the tensor names of this version, see `vireid.training.checkpoint.fitted`.

    Args:
        source: from `open_source`, of a run.
        network: a network of the source's recipe.
    """
    return replace(source, tensors=checkpoints.fitted(source.checkpoint, network)["model"])


def restored(source: Source, network: nn.Module) -> Source:
    """Give a network that was built like that of the source's run the values of the run.

    Returns:
        The source, as from `fitted`.

    Raises:
        BadInput: the checkpoint does not fit.
    """
    source = fitted(source, network)
    try:
        network.load_state_dict(source.tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"weights: {source.words} does not fit its recipe '{source.recipe}' ({reason})") from error
    return source


# --- the whole network ------------------------------------------------------------------------------------------------


def sized_by_identities(make: Callable[[int], nn.Module], identities: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a network that grow with the number of identities: classifiers, and memories of identities.

    The random number generators are as before afterwards.

    Args:
        make: builds the network for a number of identities.
        identities: the number that it is built for.

    Returns:
        Their shapes by name.
    """
    states = checkpoints.random_states()
    shapes = [{name: tuple(t.shape) for name, t in make(n).state_dict().items()} for n in (identities, identities + 1)]
    checkpoints.set_random_states(states)
    return {name: shape for name, shape in shapes[0].items() if shapes[1].get(name) != shape}


def load_whole(
    source: Source, network: nn.Module, config: Any, sized: Iterable[str], theirs: Iterable[str] = ()
) -> str:
    """Start a network from another network of its recipe.

    Tensors that grow with the number of identities keep their start, because they belong to other people.

    Args:
        source: the other network's tensors.
        network: gets the values.
        config: its configuration, for the sentence.
        sized: its tensors that grow with the number of identities.
        theirs: those of the source, if it has tensors that the network does not have.

    Returns:
        What was loaded, and what was not.

    Raises:
        BadInput: a tensor of the source has no place or another shape. In this case nothing is changed.
    """
    own, sized, theirs = network.state_dict(), set(sized), set(theirs)
    skipped = {name for name in source.tensors if name in sized or name in theirs}
    wanted = {name: value for name, value in source.tensors.items() if name not in skipped}
    new = [name for name in own if name not in source.tensors and name not in sized and not _is_counter(name)]
    if source.run is None and new:
        raise BadInput(f"weights: {source.words} lacks {len(new)} tensors ({first(new)}){_advice(new, own, wanted)}")
    places = {name: [tensor] for name, tensor in own.items() if name in wanted}
    try:
        copy_tensors(wanted, places, "the network")
    except BadInput as error:
        hint = _advice([], own, wanted) if source.run is None else _differences(source.run, config)
        raise BadInput(f"weights: {source.words}: {error}{hint}") from None
    left = [_resized(name, source.tensors[name], own.get(name)) for name in source.tensors if name in skipped]
    return _sentence(len(places), source, left, new)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _resized(name: str, value: torch.Tensor, own: torch.Tensor | None) -> str:
    if own is None or own.ndim != value.ndim:
        return f"{name} (of its identities)"
    return f"{name} (identities {value.shape[0]} → {own.shape[0]})"


def _advice(new: Sequence[str], own: State, found: State) -> str:
    """Which settings AGW's public code has that this network does not have."""
    if _layers(own) != _layers(found):
        return "; it has another trunk than this network"
    blocks = [name for name in found if ".inserted." in name]
    if new and all(".inserted." in name for name in new) and not blocks:
        return "; it was trained without non-local blocks: set non_local=null gem_power=1"
    name = next((name for name in blocks if name.endswith(".theta.weight")), None)
    if name is None:
        return ""
    if name not in own or found[name].shape[0] != own[name].shape[0]:
        return f"; set non_local={'code' if found[name].shape[0] == 1 else 'half'}, as in the code that wrote it"
    return ""


def _layers(state: State) -> dict[str, tuple[int, ...]]:
    """The shapes of the convolutions of a trunk."""
    return {name: tuple(value.shape) for name, value in state.items() if ".layer" in name and value.ndim == 4}


def _differences(run: Run, config: Any) -> str:
    """The settings in which the network of a run differs from this one, for an error message."""
    shared = {f.name for f in fields(Training)} - {"trunk", "size"}
    now, was = to_json(config), run.facts.config
    names = [name for name in now if name not in shared and now[name] != was.get(name)]
    found = [f"{name}={_short(was.get(name))} instead of {_short(now[name])}" for name in names]
    return f"; it has {first(found)}" if found else ""


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", "…"))
    return "null" if value is None else str(value)


# --- stems and trunk only ---------------------------------------------------------------------------------------------


def load_stems_and_trunk(source: Source, network: Any, recipe: str, other: nn.Module | None) -> str:
    """Start the stems and the trunk of a network from a network of another recipe, or from a trunk.

    Args:
        source: the tensors.
        network: gets the values.
        recipe: its recipe, for the sentence.
        other: a network of the source's run that has the values. None if there is no run.

    Returns:
        What was loaded, and what was not.

    Raises:
        BadInput: the stems or the trunk do not fit. In this case nothing is changed.
    """
    stems, stages = network.pretrained_parts()
    try:
        if source.recipe is None:
            load_trunk(source.tensors, stems, stages)
            return _sentence(len(source.tensors), source, [], [])
        used = _parts(source, other)
        load_parts(used[0], used[1], stems, stages)
    except BadInput as error:
        raise BadInput(f"weights: {source.words}: {error}") from None
    taken = sum(map(len, used[0])) + sum(name.startswith("layer") for name in used[1])
    rest = len(source.tensors) - taken
    why = f"only its stems and trunk, because its recipe is {source.recipe} and this one is {recipe}"
    return _sentence(taken, source, [f"{rest} other tensors"] if rest else [], [], why)


def _parts(source: Source, other: Any) -> tuple[list[State], State]:
    """The tensors of each stem and of the stages, by the names within them."""
    if other is not None:
        stems, stages = other.pretrained_parts()
        return [stem.state_dict() for stem in stems], stages.state_dict()
    inside = [f"{ENCODER}stems.copies.{word}." for word in foreign.STEMS.values()]
    return [_under(source.tensors, prefix) for prefix in inside], _under(source.tensors, f"{ENCODER}stages.")


def _under(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _sentence(loaded: int, source: Source, left: Sequence[str], new: Sequence[str], why: str = "") -> str:
    """`weights: 121 tensors of …; left out: …; new here: …`."""
    reasons: dict[str, list[str]] = {}
    for name, reason in source.left_out.items():
        reasons.setdefault(reason, []).append(name)
    left = [*left, *(f"{first(names)} ({len(names)}, {reason})" for reason, names in reasons.items())]
    parts = [f"weights: {loaded} tensors of {source.words}", why]
    parts.append(f"left out: {', '.join(left)}" if left else "nothing left out")
    parts.append(f"new here, at their start: {first(new)} ({len(new)})" if new else "")
    return "; ".join(part for part in parts if part)
