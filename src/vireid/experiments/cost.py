"""`vireid cost`: parameters, multiply-accumulates, memory and embedding width of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.training.configuration import with_fields


@dataclass(frozen=True)
class Costs:
    """The cost of a recipe in counts and bytes, without its classifier. A path is the path of one modality.

    Attributes:
        recipe, row: names of the recipe and of the table row; the row is None for the paper's own configuration.
        size: height and width of the picture, in pixels.
        counts: `parameters_stored`, `parameters_path`, `macs_path`, `memory_weights`, `memory_activations` and
            `embedding`, see `vireid.networks.cost.Cost`.
        published: the numbers that the paper printed for this row, by metric, in part with the names of `counts`.
    """

    recipe: str
    row: str | None
    size: Size
    counts: Mapping[str, int]
    published: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """What `--json` writes."""
        facts = {"recipe": self.recipe, "row": self.row, "size": str(self.size)}
        return {**facts, **self.counts, "published": dict(self.published)}


def cost(spec: str, *, size: Size | None = None, set: Sequence[str] | Mapping[str, Any] = ()) -> Costs:
    """Count parameters, multiply-accumulates and memory of one picture's path through a recipe.

    Args:
        spec: `RECIPE` or `RECIPE:ROW`.
        size: height and width of the picture; None for the size in the configuration.
        set: changes of the configuration, as texts `field=value` or as a mapping.

    Raises:
        BadInput: unknown recipe, row or field, or pictures too small for the network.
    """
    name, row_name, row = recipes.find_row(spec)
    config = with_fields(row.config, set)
    chosen = size or config.training.size
    return Costs(name, row_name, chosen, counts(name, config, chosen), row.published)


def counts(recipe: str, config: Any, size: Size) -> Mapping[str, int]:
    """The counts of a configuration, as `Costs.counts`.

    Args:
        recipe: name of the recipe.
        config: its configuration.
        size: height and width of the picture.

    Raises:
        BadInput: pictures too small for the network.
    """
    import torch

    from vireid.networks.cost import measure

    network: Any = recipes.build(recipe, config, identities=2, pretrained=False)
    visible = torch.tensor([int(Modality.VISIBLE)])
    try:
        return vars(measure(network, lambda images: network.embed(images, visible), torch.zeros(1, 3, *size)))
    except RuntimeError as error:
        raise BadInput(f"{recipe} cannot take pictures of {size}: {str(error).splitlines()[0]}") from error
