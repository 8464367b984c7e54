"""What a field of a configuration changes: found by setting another legal value, with everything else held equal."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import pickle
import typing
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import torch
from annotated_types import Interval

from vireid.data.batch import Batch
from vireid.data.sampling import ModalityBalancedSampler
from vireid.data.settings import alternatives, hints, parts_of
from vireid.data.size import Size
from vireid.recipes import build, recipe
from vireid.training.configuration import Field, full_path, with_fields
from vireid.training.loop import seed_everything

IDENTITIES, SIZE = 4, Size(48, 24)
SMALL = ("trunk=tiny", "weights=none", f"size={SIZE}")

# --- other values -----------------------------------------------------------------------------------------------------


def hint_of(kind: type, path: str, part: str) -> Any:
    """The annotation of a field by its full path; `part` is the class that it belongs to, for parts that are off."""
    name, dot, rest = path.partition(".")
    hint = hints(kind)[name]
    if not dot:
        return hint
    inner = [found for found in parts_of(hint).values() if rest.partition(".")[0] in hints(found)]
    chosen = next((found for found in inner if found.__name__ == part), inner[0])
    return hint_of(chosen, rest, part)


def others(hint: Any, value: Any) -> list[Any]:
    """Other legal values of a field: every other choice, and one other number."""
    found: list[Any] = []
    for member in alternatives(hint):
        if member is type(None):
            found += [] if value is None else [None]
        elif typing.get_origin(member) is typing.Literal:
            found += [word for word in typing.get_args(member) if word != value]
        elif member is bool:
            found.append(not value)
        elif isinstance(member, type) and hasattr(member, "__dataclass_fields__") and member is not Size:
            found += [] if member.__name__ == value else [member.__name__]
        elif typing.get_origin(member) is Annotated and isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append(_other_number(member, value))
    return found


def _other_number(hint: Any, value: float) -> float:
    """A number in the range that is not the value."""
    kind, *marks = typing.get_args(hint)
    most = next((mark.le if mark.le is not None else mark.lt for mark in marks if isinstance(mark, Interval)), None)
    if kind is int:
        return value + 1
    return value / 2 if most is not None and value else 0.25 if most is not None else 2 * value if value else 0.5


# --- what is observed -------------------------------------------------------------------------------------------------


def a_batch(seed: int) -> Batch:
    """4 identities with 3 visible and 3 infrared samples each, with the colours of normalised pictures."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(IDENTITIES).repeat_interleave(6)
    modality = torch.tensor([0, 0, 0, 1, 1, 1]).repeat(IDENTITIES)
    images = torch.randn(len(identity), 3, *SIZE, generator=generator) + identity.view(-1, 1, 1, 1) * 0.3
    return Batch(images, identity, modality, modality + 1, seed=seed)


@dataclass
class Observed:
    """Everything that a field could change, by what it is called in the table.

    Attributes:
        fixed: what does not need the network: name → value that can be compared.
        network: name → tensor.
    """

    fixed: dict[str, Any]
    network: dict[str, torch.Tensor]


@functools.cache
def observed(name: str, given: tuple[str, ...]) -> Observed:
    """What a configuration does, from equal weights and equal random numbers."""
    config = with_fields(recipe(name).PAPER, [*SMALL, *given])
    network, start = _network(name, config), {}
    for key, value in network.state_dict().items():
        start[key] = value.clone()
    return Observed(_fixed(config, network, start), _run_of(name, network))


_RUNS: dict[tuple[str, bytes], dict[str, torch.Tensor]] = {}


def _run_of(name: str, network: Any) -> dict[str, torch.Tensor]:
    """The result of `_run`. It is computed once for networks that are equal in everything that they hold.

    The shared settings (`config.training`) are removed first, because most fields that do not change a network are
    among them. A network that reads one of them after it was built raises an error here.
    """
    if hasattr(network, "config"):
        network.config = copy.copy(network.config)
        object.__setattr__(network.config, "training", None)
    file = io.BytesIO()
    _Holds(file).dump(network)
    key = name, hashlib.sha256(file.getbuffer()).digest()
    if key not in _RUNS:
        _RUNS[key] = _run(name, network)
    return _RUNS[key]


class _Holds(pickle.Pickler):
    """Writes all that an object holds, tensors with their values and not with the places where they lie."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            return tuple, (
                (type(obj).__name__, obj.requires_grad, str(obj.dtype), obj.shape, obj.detach().numpy().tobytes()),
            )
        return NotImplemented


def _network(name: str, config: Any) -> Any:
    seed_everything(0)
    return build(name, config, IDENTITIES, pretrained=True)


@functools.cache
def _weights(name: str) -> dict[str, torch.Tensor]:
    """Weights that networks of a recipe have in common."""
    config = with_fields(recipe(name).PAPER, SMALL)
    return {key: value.clone() for key, value in _network(name, config).state_dict().items()}


def _fixed(config: Any, network: Any, start: dict[str, torch.Tensor]) -> dict[str, Any]:
    training = config.training
    optimiser = training.optimiser.build(network, network.new_parameters())
    keys = ("lr", "momentum", "nesterov", "weight_decay", "betas")
    groups = {
        group["name"]: (len(group["params"]), type(optimiser).__name__, *(group.get(key) for key in keys))
        for group in optimiser.param_groups
    }
    places = [(epoch, step) for epoch in range(0, 130, 3) for step in (0, 40, 99)]
    return {
        "parameters": {key: tuple(value.shape) for key, value in start.items()},
        "start": {key: value.double().sum().item() for key, value in start.items()},
        "pictures": _pictures(config),
        "optimiser": groups,
        "schedule": [training.schedule.factor(epoch, step, 100, training.epochs) for epoch, step in places],
        "length": (training.epochs, str(training.epoch_length)),
        "samples": _samples(training),
        "size": training.size,
    }


def _pictures(config: Any) -> list[list[float]]:
    """Augmented pictures, two sums of each; a second view of visible ones behind them.

    In one of the sums the columns have weights, because mirroring keeps the other one.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (48, 3, 48, 24), dtype=torch.uint8, generator=generator)
    modality = torch.arange(48) % 2
    pipeline = config.augmentation()
    views = [pipeline(images, modality, generator)]
    if pipeline.second_view is not None:
        views.append(pipeline.second_view(images[::2], modality[::2], generator))
    ramp = torch.arange(24, dtype=torch.double)
    sums = [(view.double().sum((2, 3)), (view.double() * ramp).sum((2, 3))) for view in views]
    return [torch.stack(pair).flatten().tolist() for pair in sums]


def _samples(training: Any) -> list[list[int]]:
    """The samples of three steps, of 12 identities with 9 pictures of each modality."""
    labels, modality = torch.arange(12).repeat_interleave(18).numpy(), (torch.arange(216) % 2).numpy()
    how = ("visible_per_identity", "infrared_per_identity", "with_replacement", "seed", "identities_per_batch")
    chosen = {name: getattr(training, name) for name in how}
    sampler = ModalityBalancedSampler(labels, modality, epoch_length=3, **chosen)
    return [sampler.samples(0, step).tolist() for step in range(3)]


def _run(name: str, network: Any) -> dict[str, torch.Tensor]:
    """Memory, terms of two steps, gradients and embeddings, from weights that are equal where they fit."""
    common, own = _weights(name), network.state_dict()
    network.load_state_dict({k: common[k] if k in common and common[k].shape == v.shape else v for k, v in own.items()})
    _enlarge(network)
    found: dict[str, torch.Tensor] = {}
    batches = [replace(a_batch(7), identity=(a_batch(7).identity + shift) % IDENTITIES) for shift in (0, 1)]
    if hasattr(network, "before_training"):
        with torch.no_grad():
            network.eval().before_training(batches)
        found["memory"] = _memory(network)
    network.train()
    for step in range(2):
        terms = network.objective(a_batch(step))
        found |= {f"{step}:{term}": value.detach().double() for term, value in terms.items()}
    sum(terms.values()).backward()
    gradients = [p.grad.double().abs().sum() for p in network.parameters() if p.grad is not None]
    found["gradient"] = torch.stack(gradients).sum()
    network.zero_grad()
    network.eval()
    images, modality = a_batch(5).images, a_batch(5).modality
    with torch.no_grad():
        found["embedding"] = network.embed(images, modality).double()
        if hasattr(network, "before_epoch"):
            network.before_epoch(batches)
            found["refilled"] = _memory(network)
    return found


@torch.no_grad()
def _enlarge(network: Any) -> None:
    """Make the weights outside the trunk larger. Some parts change little at the start, because theirs are small."""
    stems, stages = network.pretrained_parts()
    trunk = {id(parameter) for module in (*stems, stages) for parameter in module.parameters()}
    for parameter in network.parameters():
        if parameter.ndim > 1 and id(parameter) not in trunk:
            parameter.mul_(4)


def _memory(network: Any) -> torch.Tensor:
    return torch.cat(
        [b.double().flatten() for key, b in network.named_buffers() if "centroid" in key] or [torch.zeros(1)]
    )


# --- what differs -----------------------------------------------------------------------------------------------------


def changes(name: str, given: tuple[str, ...], changed: tuple[str, ...]) -> set[str]:
    """What differs between two configurations: of the fixed things, of terms (`term identity`), and of the rest.

    `gradient` is named only if no term differs. `start` (of weights), `embedding` and `memory` are named only if the
    parameters have the same names and shapes.
    """
    before, after = observed(name, given), observed(name, changed)
    found = {key for key in before.fixed if before.fixed[key] != after.fixed[key]}
    if "parameters" in found:  # start values cannot be compared, and the number of parameters in a group says nothing
        found.discard("start")
        if _without_counts(before) == _without_counts(after):
            found.discard("optimiser")
    keys = before.network.keys() | after.network.keys()
    different = {key for key in keys if not _equal(before.network.get(key), after.network.get(key))}
    terms = {f"term {key.partition(':')[2]}" for key in different if ":" in key}
    found |= terms | {key for key in different if key in ("embedding", "memory", "refilled")}
    return found | ({"gradient"} if "gradient" in different and not terms else set())


def _without_counts(one: Observed) -> dict[str, Any]:
    return {name: group[1:] for name, group in one.fixed["optimiser"].items()}


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    return torch.allclose(one, other, rtol=2e-6, atol=1e-7)


def shown(field: Field) -> str:
    """`PATH`, or `PATH (PART)` for a field of a part that is not chosen."""
    return field.path if field.chosen else f"{field.path} ({field.part})"


def other_values(name: str, field: Field) -> list[Any]:
    """Other legal values of a field of a recipe, see `others`."""
    config = recipe(name).PAPER
    hint = hint_of(type(config), full_path(config, field.path), field.part)
    return others(hint, field.default if field.chosen else _default(config, field))


def as_text(value: Any) -> str:
    """A value as `--set` takes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _default(config: Any, field: Field) -> Any:
    """The default of a field of a part that is off."""
    hint = hint_of(type(config), full_path(config, field.path).rpartition(".")[0], field.part)
    kind = parts_of(hint)[field.part]
    return next(f.default for f in fields(kind) if f.name == field.path.rpartition(".")[2])
