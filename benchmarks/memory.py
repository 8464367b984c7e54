"""What a training step keeps for its gradient, at the batch and size of each paper, with and without `--recompute`.

    python benchmarks/memory.py

Counted on a CPU, in float32: the bytes of all tensors that the forward pass keeps, without parameters, for a few
pictures, in proportion to the batch of the paper. Weights, gradients and the state of the optimiser come on top, and a
GPU needs more for the work of its kernels. It is a count and no measurement of time, so other work beside it does not
matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch

from vireid import recipes
from vireid.data.batch import Batch
from vireid.networks.resnet import recompute
from vireid.training.configuration import with_fields
from vireid.training.loop import seed_everything

PEOPLE, PICTURES = 2, 4  # pictures of each person in each modality
GIB = 2**30


def kept_bytes(forward: Callable[[], object], own: Iterable[torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for the gradient.

    Args:
        forward: the pass; what it returns is thrown away.
        own: tensors that are not counted: parameters and inputs.
    """
    others = {tensor.untyped_storage().data_ptr() for tensor in own}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()  # held until the count is made, so that no storage is used twice
        total = sum(seen.values())
    del result
    return total


def main() -> None:
    """Print the table."""
    kind = torch.tensor([0, 1]).repeat(PEOPLE * PICTURES)
    identity = torch.arange(PEOPLE).repeat_interleave(2 * PICTURES)
    print("| recipe | pictures in a step | size | weights, gradients, optimiser | kept maps | with `--recompute` |")
    print("|---|---|---|---|---|---|")
    for name in recipes.recipes():
        paper = recipes.recipe(name).PAPER
        few = [
            f"identities_per_batch={PEOPLE}",
            f"visible_per_identity={PICTURES}",
            f"infrared_per_identity={PICTURES}",
        ]
        config = with_fields(paper, [*few, "weights=none"])
        seed_everything(0)
        network = recipes.build(name, config, 395, pretrained=False).to(memory_format=torch.channels_last)
        size = paper.training.size
        images = torch.randn(len(kind), 3, size.height, size.width).contiguous(memory_format=torch.channels_last)
        kept = {}
        for economical in (False, True):
            if economical:
                recompute(network)
            step = partial(network.objective, Batch(images, identity, kind, camera=kind))  # type: ignore[operator]
            kept[economical] = kept_bytes(step, (*network.parameters(), images)) / len(kind)
        weights = sum(parameter.nbytes for parameter in network.parameters())
        states = 2 if type(paper.training.optimiser).__name__ == "Adam" else 1
        pictures = paper.training.pictures_per_step
        line = [weights * (2 + states), kept[False] * pictures, kept[True] * pictures]
        print(f"| {name} | {pictures} | {size} | " + " | ".join(f"{value / GIB:.1f} GiB" for value in line) + " |")


if __name__ == "__main__":
    main()
