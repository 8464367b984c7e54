"""The interface of an augmentation: draw random numbers for many pictures, then change one picture at a time."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch

from vireid.data.shapes import check_shape


@runtime_checkable
class Operation(Protocol):
    """A random change in two steps: `draw` draws the random numbers, `change` applies them.

    All randomness comes from the generator of `draw`. `change` depends on its arguments only, so a test can pass known
    numbers to it. An operation may also have the method `collect` of `vireid.augment.onepass`, which makes it faster.
    """

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> Sequence[Any]:
        """Draw what to do with each of `count` pictures of this size (height, width): one entry for each picture."""
        ...

    def change(self, image: torch.Tensor, drawn: Any) -> None:
        """Apply one drawn entry to one 3×H×W picture, in place."""
        ...


class Augmentation(Protocol):
    """An augmentation as a plain function.

    It returns new memory of the same shape and type and does not change its argument.
    """

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor: ...


def changed(operation: Operation, images: torch.Tensor, drawn: Sequence[Any]) -> torch.Tensor:
    """Apply drawn entries to a copy of the pictures.

    Args:
        operation: what to apply.
        images: N×3×H×W. They are not changed.
        drawn: N entries, as `operation.draw` returns them.

    Returns:
        N×3×H×W, in new memory.
    """
    result = images.clone()
    for image, entry in zip(result, drawn, strict=True):
        operation.change(image, entry)
    return result


def augmented(operation: Operation, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw for each of N×3×H×W pictures and apply what is drawn to a copy of them."""
    check_shape(images, "images", "N×3×H×W")
    size = (images.shape[2], images.shape[3])
    return changed(operation, images, operation.draw(len(images), size=size, generator=generator))


def loops_for(image: torch.Tensor) -> ModuleType | None:
    """The compiled loops `vireid.augment.loops`, if they can change this picture: contiguous uint8 on a CPU."""
    if image.dtype != torch.uint8 or image.device.type != "cpu" or not image.is_contiguous():
        return None
    from vireid.augment import loops  # imports numba

    return loops


class EachSample:
    """Adapts a plain function to the interface `Operation`: the function is called on one sample at a time.

    Each sample gets a generator of its own. The generator of the pipeline draws its seed.
    """

    def __init__(self, function: Augmentation) -> None:
        self.function = function

    def draw(self, count: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        """Draw one seed for each sample."""
        return torch.randint(2**63 - 1, (count,), generator=generator).tolist()

    def change(self, image: torch.Tensor, drawn: int) -> None:
        generator = torch.Generator().manual_seed(drawn)
        image.copy_(self.function(image[None], generator=generator)[0])
