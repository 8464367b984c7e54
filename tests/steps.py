"""Some training steps of a recipe with tiny pictures, for tests that compare two ways to take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.small import SECOND
from vireid import recipes
from vireid.data.batch import Batch
from vireid.training.configuration import with_fields
from vireid.training.loop import seed_everything

Kept = dict[str, torch.Tensor]


def take_steps(name: str, count: int, change: Callable[[Any], object] = lambda network: None) -> tuple[list[Kept], Any]:
    """The terms of each step, and the network after them.

    Args:
        name: of the recipe.
        count: number of steps, each with other pictures.
        change: is called with the new network, before the first step.
    """
    own = [*SECOND, "visible_per_identity=4", "infrared_per_identity=4"]
    seed_everything(0)
    network: Any = recipes.build(name, with_fields(recipes.recipe(name).PAPER, own), 3, pretrained=False)
    change(network)
    kind, generator = torch.tensor([0, 1]).repeat(12), torch.Generator().manual_seed(0)
    optimiser, found = torch.optim.SGD(network.parameters(), 0.01), []
    for step in range(count):
        images = torch.randn(24, 3, 64, 32, generator=generator)
        terms = network.objective(Batch(images, torch.arange(3).repeat_interleave(8), kind, camera=kind, seed=step))
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        found.append({term: value.detach() for term, value in terms.items()})
    return found, network
