"""One file per paper, found by its file name.

A recipe module holds a paper's configuration `PAPER`, its table rows `ROWS`, and `build(config, identities)`, which
gives a network with

- `objective(batch) -> {term: scalar tensor}`,
- `embed(images, modality) -> features`: N×3×H×W normalised images and N modalities to N×D, each of length one,
- `embed_pooled(images, modality) -> features`, only if there is a feature before the neck to compare,
- `new_parameters() -> [parameter]`: those that learn at the full rate,
- `before_training(batches)`, only where a memory starts from the features of all training pictures,
- `before_epoch(batches)`, only where a memory is filled again: it is called at the start of each epoch but the first,
  also in a run that was resumed there, but not in one that was resumed within an epoch,
- `pretrained_parts() -> ([stem, …], stages)`: the modules that ImageNet weights are loaded into.

The rows of its tables may stand in a YAML file of the same name beside it: see `read_rows`. Nothing else has to be
edited to add a recipe.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from vireid.data.errors import BadInput, unknown
from vireid.data.protocol import parse_protocol
from vireid.evaluation.report import METRICS
from vireid.training.configuration import digest, to_json, with_fields


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


def recipes() -> tuple[str, ...]:
    """The names of all recipes.

    >>> "agw" in recipes()
    True
    """
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def recipe(name: str) -> ModuleType:
    """The module of one recipe.

    Raises:
        BadInput: no recipe of that name; the sentence lists them.
    """
    if name not in recipes():
        raise unknown("recipe", name, recipes())
    return importlib.import_module(f"{__name__}.{name}")


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


def build(name: str, config: Any, identities: int, *, pretrained: bool) -> nn.Module:
    """The network of a recipe.

    Args:
        name: the recipe.
        config: its configuration.
        identities: how many training identities the classifier tells apart.
        pretrained: start from `config.weights`; False leaves the random start (a checkpoint will fill it).

    Raises:
        BadInput: fewer than two identities, or the weights cannot be had or do not fit.
    """
    if identities < 2:
        raise BadInput(f"training needs pictures of at least 2 identities, found {identities}")
    network = recipe(name).build(config, identities)
    training = config.training
    if pretrained and training.weights != "none":
        from vireid.networks import weights

        imagenet = training.weights == "imagenet"
        state = weights.imagenet_state(training.trunk) if imagenet else weights.read_state(training.weights)
        weights.load_trunk(state, *network.pretrained_parts())
    return network


class _Room(ModuleType):
    """Lets `vireid.recipes()` list the recipes, while `vireid.recipes.agw` stays the module of one."""

    def __call__(self) -> tuple[str, ...]:
        return recipes()


sys.modules[__name__].__class__ = _Room
