"""From the pictures of a batch to what a network trains on, in CAJ's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from vireid.augment.normalise import normalise
from vireid.data.modality import Modality


class Operation(Protocol):
    """Changes pictures at random, each row on its own.

    It returns new memory, of the same shape and type, and leaves its argument as it was; everything random comes from
    the generator, so the result is a function of the arguments.
    """

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor: ...


@runtime_checkable
class Editing(Operation, Protocol):
    """An operation that can also change chosen rows where they stand, which saves the pipeline a copy."""

    def edit(self, images: torch.Tensor, rows: Sequence[int], *, generator: torch.Generator) -> None: ...


@dataclass(frozen=True)
class Pipeline:
    """Geometry, normalisation, colour: what each modality's pictures go through in training.

    The default does nothing but normalise, which is what pictures at test time get.

    Attributes:
        geometry: on all rows' uint8 values, in this order.
        visible_before: on visible rows' values of 0..1, before normalisation.
        visible: on visible rows' normalised values.
        infrared: on infrared rows' normalised values.
    """

    geometry: tuple[Operation, ...] = ()
    visible: tuple[Operation, ...] = ()
    infrared: tuple[Operation, ...] = ()
    visible_before: tuple[Operation, ...] = ()

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment and normalise one batch.

        Args:
            images: N×3×H×W uint8, not changed.
            modality: N int64, values of `Modality`; rows that are neither visible nor infrared get the geometry only.
            generator: where every draw comes from, one call per operation for all the rows it is for.

        Returns:
            N×3×H×W float32, normalised with ImageNet's mean and standard deviation.

        Raises:
            ValueError: the images are not N×3×H×W uint8, or there is not one modality for each.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"a pipeline takes N×3×H×W uint8, not {tuple(images.shape)} {images.dtype}")
        if modality.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images need as many modalities, not {tuple(modality.shape)}")
        modalities = modality.tolist()
        visible = [row for row, value in enumerate(modalities) if value == Modality.VISIBLE]
        infrared = [row for row, value in enumerate(modalities) if value == Modality.INFRARED]
        moved = self._moved(images, generator)
        if self.visible_before:
            moved = moved.float().div_(255)
            for operation in self.visible_before:
                _apply(operation, moved, visible, generator)
        result = normalise(moved)
        for operations, rows in ((self.visible, visible), (self.infrared, infrared)):
            for operation in operations:
                _apply(operation, result, rows, generator)
        return result

    def _moved(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        moved = images
        for operation in self.geometry:
            if moved is not images and isinstance(operation, Editing):
                operation.edit(moved, range(len(moved)), generator=generator)
            else:
                moved = operation(moved, generator=generator)
        return moved


def _apply(operation: Operation, images: torch.Tensor, rows: Sequence[int], generator: torch.Generator) -> None:
    """Apply to these rows of `images`, in place."""
    if not rows:
        return
    if isinstance(operation, Editing):
        operation.edit(images, rows, generator=generator)
    else:
        chosen = torch.tensor(rows)
        images[chosen] = operation(images[chosen], generator=generator)
