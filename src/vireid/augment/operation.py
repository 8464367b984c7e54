"""What an augmentation is: draws for many rows at once, and a change to one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class Operation(Protocol):
    """A change at random, in two halves, so that the random half can be replaced by known numbers.

    All randomness comes from the generator of `draw`; `change` is a function of its arguments.
    """

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> Sequence[Any]:
        """What to do with each of `rows` pictures of this size (height, width): one item per row."""
        ...

    def change(self, image: torch.Tensor, drawn: Any) -> None:
        """Do it to one 3×H×W picture, in place."""
        ...


class Augmentation(Protocol):
    """The same thing as a plain function: new memory of the same shape and type, its argument left as it was."""

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor: ...


def changed(operation: Operation, images: torch.Tensor, drawn: Sequence[Any]) -> torch.Tensor:
    """The pictures after what was drawn for them.

    Args:
        images: N×3×H×W, left as they are.
        drawn: N items, as `operation.draw` gives them.
    """
    result = images.clone()
    for image, what in zip(result, drawn, strict=True):
        operation.change(image, what)
    return result


def augmented(operation: Operation, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The pictures after what the generator draws for them."""
    size = (images.shape[2], images.shape[3])
    return changed(operation, images, operation.draw(len(images), size=size, generator=generator))


class EachRow:
    """Lets a plain function take part in a pipeline: it is called on one row at a time.

    Each row gets a generator of its own, seeded from the pipeline's.
    """

    def __init__(self, function: Augmentation) -> None:
        self.function = function

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        """One seed per row."""
        return torch.randint(2**63 - 1, (rows,), generator=generator).tolist()

    def change(self, image: torch.Tensor, drawn: int) -> None:
        generator = torch.Generator().manual_seed(drawn)
        image.copy_(self.function(image[None], generator=generator)[0])
