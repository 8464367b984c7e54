"""One file per paper, found by its file name.

A recipe module holds a paper's configuration `PAPER`, its table rows `ROWS`, and `build(config, identities)`, which
gives a network with

- `objective(batch) -> {term: scalar tensor}`,
- `embed(images, modality) -> features`: N×3×H×W normalised images and N modalities to N×D, each of length one,
- `embed_pooled(images, modality) -> features`, only where something can be compared before the neck,
- `new_parameters() -> [parameter]`: those that learn at the full rate,
- `before_training(batches)`, only where a memory starts from the features of all training pictures,
- `stems` (a `PerModality` of `Stem`s), or `stem_modules()` where modalities share one, and `stages` (`Stages`), so
  that ImageNet weights find their place.

Nothing else has to be edited to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import nn

from vireid.data.errors import BadInput, unknown


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
    if pretrained and config.weights != "none":
        from vireid.networks import weights

        state = (
            weights.imagenet_state(config.trunk) if config.weights == "imagenet" else weights.read_state(config.weights)
        )
        stems = network.stem_modules() if hasattr(network, "stem_modules") else list(network.stems.copies.values())
        weights.load_trunk(state, stems, network.stages)
    return network


class _Room(ModuleType):
    """Lets `vireid.recipes()` list the recipes, while `vireid.recipes.agw` stays the module of one."""

    def __call__(self) -> tuple[str, ...]:
        return recipes()


sys.modules[__name__].__class__ = _Room
