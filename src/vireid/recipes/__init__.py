"""One file per paper, found by its file name.

A recipe module holds a paper's configuration `PAPER`, its table rows `ROWS`, and `build(config, identities)`, which
gives a network with

- `objective(batch) -> {term: scalar tensor}`,
- `embed(images, modality) -> features`: N×3×H×W normalised images and N modalities to N×D, each of length one,
- `embed_pooled(images, modality) -> features`, only if there is a feature before the neck to compare,
- `maps(images, modality) -> {name: map}`, each N×C×h×w, only for figures that look into the network,
- `by_branch(images, modality) -> {branch: (feature after the neck, logits)}`, for the same figures,
- `new_parameters() -> [parameter]`: those that learn at the full rate,
- `own_rates() -> {name: OwnRate}`, only if some parameters have a rate of their own (`vireid.training.optim.OwnRate`),
- `before_training(batches)`, only where a memory starts from the features of all training pictures,
- `before_epoch(batches)`, only where a memory is filled again: it is called at the start of each epoch but the first,
  also in a run that was resumed there, but not in one that was resumed within an epoch,
- `pretrained_parts() -> ([stem, …], stages)`: the modules that ImageNet weights are loaded into.

The rows of its tables may stand in a YAML file of the same name beside it: see `read_rows`. Nothing else has to be
edited to add a recipe. A module from outside the package is one too, after `register`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vireid import augment
from vireid.data.errors import BadInput, unknown
from vireid.data.outside import entry_points, load_entry_point
from vireid.data.protocol import parse_protocol
from vireid.data.settings import hints, settings
from vireid.evaluation.report import METRICS
from vireid.training.configuration import digest, from_json, to_json, with_fields


@dataclass(frozen=True)
class Row:
    """One row of a paper's table: a configuration, and what was printed for it.

    Attributes:
        config: the recipe's configuration for this row.
        published: metric name (`rank1`, `rank10`, `rank20`, `map`, `minp`) → percent as printed; empty where nothing
            was printed, None for a cell that is not legible.
        on: the protocol that the printed numbers belong to; None for a row without printed numbers.
        where: where the numbers stand, e.g. "FFDML table 6".
        note: what a reader must know before comparing.
    """

    config: Any
    published: Mapping[str, float | None] = field(default_factory=dict)
    on: str | None = None
    where: str = ""
    note: str = ""

    @cached_property
    def settings(self) -> str:
        """A name of the configuration without its seed, see `vireid.training.configuration.digest`."""
        return digest(to_json(self.config))


def read_rows(config: Any, module_file: str) -> dict[str, Row]:
    """The rows of a recipe's tables, from the YAML file beside its module.

    A table has `rows` (name → row), and `where`, `protocol`, `metrics` and `note` for all of its rows. A row has `set`
    (what `--set` takes, on top of the paper's configuration) and `printed` (one number for each of `metrics`, null if
    the cell is not legible). A row may also state `where`, `protocol`, `metrics` and `note` for itself. Row names are
    `TABLE/ROW`. A table without `rows` is a row itself.

    Args:
        config: the paper's configuration.
        module_file: `__file__` of the recipe.

    Raises:
        BadInput: the file names an unknown key, field, metric or protocol, or a row lacks a number for some metric.
    """
    import yaml

    file = Path(module_file).with_suffix(".yaml")
    found: dict[str, Row] = {}
    for table, said in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        shared = {key: value for key, value in said.items() if key != "rows"}
        rows = {f"{table}/{name}": own or {} for name, own in said["rows"].items()} if "rows" in said else {table: {}}
        for name, own in rows.items():
            try:
                found[name] = _row(config, {**shared, **own})
            except BadInput as error:
                raise BadInput(f"{file.name}, {name}: {error}") from error
    return found


COUNTS = ("parameters_path", "macs_path")  # printed by tables of cost, see `vireid.networks.cost.Cost`
_ROW_KEYS = ("set", "printed", "metrics", "protocol", "where", "note")


def _row(config: Any, said: Mapping[str, Any]) -> Row:
    if strange := [key for key in said if key not in _ROW_KEYS]:
        raise unknown("key", strange[0], _ROW_KEYS)
    printed, metrics = said.get("printed", []), said.get("metrics", [])
    if strange := [metric for metric in metrics if metric not in (*METRICS, *COUNTS)]:
        raise unknown("metric", strange[0], (*METRICS, *COUNTS))
    if printed and len(printed) != len(metrics):
        raise BadInput(f"{len(printed)} printed numbers for {len(metrics)} metrics")
    protocol = said.get("protocol")
    if protocol is not None:
        parse_protocol(protocol)
    elif printed:
        raise BadInput("printed numbers need 'protocol', the one that they belong to")
    published = dict(zip(metrics, printed, strict=True)) if printed else {}
    return Row(
        with_fields(config, said.get("set", [])), published, protocol, said.get("where", ""), said.get("note", "")
    )


_outside: dict[str, ModuleType] = {}


def register(name: str, module: ModuleType) -> None:
    """Make a module from outside the package known as a recipe. One of the same name that was registered is replaced.

    Raises:
        BadInput: the package has a recipe of this name, or the module lacks something that a recipe needs.
    """
    if name in _inside():
        raise BadInput(f"the package has a recipe '{name}' already; give yours another name")
    if lacking := [needed for needed in ("PAPER", "ROWS", "build") if not hasattr(module, needed)]:
        raise BadInput(f"recipe '{name}' has no {lacking[0]}; a recipe needs PAPER, ROWS and build")
    if not hasattr(module.PAPER, "training") or not hasattr(module.PAPER, "augmentation"):
        raise BadInput(f"recipe '{name}': PAPER needs the field training and the method augmentation()")
    strange = [row for row, found in module.ROWS.items() if not isinstance(found, Row)]
    if strange:
        raise BadInput(f"recipe '{name}': ROWS['{strange[0]}'] is no vireid.recipes.Row")
    forget(name)
    _outside[name] = module


def forget(name: str) -> None:
    """Remove a registered recipe, and everything that was made from it."""
    _outside.pop(name, None)
    for made in [one for one in _extended if one.split("+")[0] == name]:
        del _extended[made]


def _inside() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)}


def recipes() -> tuple[str, ...]:
    """The names of all recipes: of the package, of plug-ins, and of entry points `vireid.recipes`.

    >>> "agw" in recipes()
    True
    """
    return tuple(sorted({*_inside(), *_outside, *entry_points("vireid.recipes")}))


def recipe(name: str) -> ModuleType:
    """The module of one recipe. `RECIPE+NAME` is a recipe with an augmentation from outside the package.

    Raises:
        BadInput: no recipe or augmentation of that name (the sentence lists them), or it cannot be loaded.
    """
    base, plus, names = name.partition("+")
    if plus:
        if name not in _extended:
            _extended[name] = _with_augmentations(name, recipe(base), names.split("+"))
        return _extended[name]
    if name in _inside():
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _outside:
        found = load_entry_point("vireid.recipes", name)
        if found is None:
            raise unknown("recipe", name, recipes())
        register(name, found.module)
    return _outside[name]


_extended: dict[str, ModuleType] = {}


def _with_augmentations(name: str, module: ModuleType, names: Sequence[str]) -> ModuleType:
    """A recipe that has one more field for each of these augmentations.

    Nothing was printed for its rows, so they have no numbers.
    """
    base = type(module.PAPER)
    added = {one: augment.augmentation(one) for one in names}
    if len(added) < len(names):
        raise BadInput(f"'{name}' names an augmentation twice")
    if there := [one for one in names if one in hints(base) or one in hints(hints(base)["training"])]:
        raise BadInput(f"recipe '{name.partition('+')[0]}' has a field '{there[0]}'; rename the augmentation")

    def augmentation(self: Any) -> Any:
        pipeline = base.augmentation(self)
        for one, what in added.items():
            if (operation := getattr(self, one)) is not None:
                pipeline = what.to(pipeline, operation)
        return pipeline

    body = {
        "__module__": __name__,
        "__doc__": f"{base.__doc__} With {', '.join(names)} from outside the package.",
        "__annotations__": {one: type(what.operation) | None for one, what in added.items()},
        "augmentation": augmentation,
        **{one: what.operation for one, what in added.items()},
    }
    kind = settings(type("Config", (base,), body))
    for one, what in added.items():
        text = " ".join((type(what.operation).__doc__ or "an augmentation.").split())
        kind.__pydantic_fields__[one].description = f"ours: {text}"  # type: ignore[attr-defined]

    def extended(config: Any) -> Any:
        return kind(**{f.name: getattr(config, f.name) for f in fields(config)})

    made = ModuleType(f"{__name__}.{name}", module.__doc__)
    made.__file__ = module.__file__
    made.__dict__.update(
        build=module.build,
        PAPER=extended(module.PAPER),
        ROWS={row: Row(extended(found.config), note=found.note) for row, found in module.ROWS.items()},
    )
    return made


def find_row(spec: str) -> tuple[str, str | None, Row]:
    """`RECIPE` or `RECIPE:ROW` → (recipe name, row name, row); without a row, the paper's own configuration.

    Raises:
        BadInput: unknown recipe, or unknown row of it.
    """
    name, colon, row = spec.partition(":")
    module = recipe(name)
    if not colon:
        return name, None, Row(module.PAPER)
    if row not in module.ROWS:
        raise unknown(f"row of {name}", row, module.ROWS)
    return name, row, module.ROWS[row]


def build(
    name: str, config: Any, identities: int, *, pretrained: bool, say: Callable[[str], None] = lambda text: None
) -> nn.Module:
    """The network of a recipe.

    Args:
        name: the recipe.
        config: its configuration.
        identities: how many training identities the classifier tells apart.
        pretrained: start from `config.weights`; False leaves the random start (a checkpoint will fill it).
        say: gets one sentence about what was loaded from a file or a run, and what was not.

    Raises:
        BadInput: fewer than two identities, or the weights cannot be had or do not fit.
    """
    if identities < 2:
        raise BadInput(f"training needs pictures of at least 2 identities, found {identities}")
    network = recipe(name).build(config, identities)
    training = config.training
    if pretrained and training.weights != "none":
        from vireid.networks import weights

        if training.weights == "imagenet":
            weights.load_trunk(weights.imagenet_state(training.trunk, say), *network.pretrained_parts())
        elif training.weights == "world":
            weights.load_trunk(weights.world_state(training.trunk), *network.pretrained_parts())
        else:
            say(_start(network, name, config, identities))
    return network


def _start(network: nn.Module, name: str, config: Any, identities: int) -> str:
    """Start a network from a file or a run, and say what was loaded."""
    from vireid.training import checkpoint, start

    source = start.open_source(config.training.weights)
    if source.recipe == name.partition("+")[0]:
        make = recipe(name).build
        sized = start.sized_by_identities(lambda count: make(config, count), identities)
        theirs: Iterable[str] = ()
        if source.run is not None:
            source = start.fitted(source, network)
            if source.tensors.keys() - network.state_dict().keys():
                theirs = start.sized_by_identities(lambda count: _network_of(source.run, count), identities)
        return start.load_whole(source, network, config, sized, theirs)
    other = None
    if source.run is not None:
        states = checkpoint.random_states()
        other = _network_of(source.run, source.run.facts.data.identities)
        checkpoint.set_random_states(states)
        source = start.restored(source, other)
    return start.load_stems_and_trunk(source, network, name, other)


def _network_of(run: Any, identities: int) -> nn.Module:
    """A new network like that of a run, for a number of identities."""
    name = run.facts.recipe
    return recipe(name).build(from_json(type(recipe(name).PAPER), run.facts.config), identities)


class _Room(ModuleType):
    """Lets `vireid.recipes()` list the recipes, while `vireid.recipes.agw` stays the module of one."""

    def __call__(self) -> tuple[str, ...]:
        return recipes()


sys.modules[__name__].__class__ = _Room
