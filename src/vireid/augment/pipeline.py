"""From the pictures of a batch to what a network trains on, in CAJ's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vireid.augment.normalise import Normaliser
from vireid.augment.operation import Augmentation, EachRow, Operation
from vireid.data.modality import Modality

# What is still to be done to one picture: operations with what was drawn for it.
Steps = list[tuple[Operation, Any]]


@dataclass(frozen=True)
class Pipeline:
    """Geometry, normalisation, colour: what each modality's pictures go through in training.

    The default does nothing but normalise, which is what pictures at test time get. Each entry is an `Operation`, or
    a plain function `(images, *, generator) -> images`, which is called on one row at a time.

    Attributes:
        geometry: on all rows' uint8 values, in this order.
        visible: on visible rows' normalised values.
        infrared: on infrared rows' normalised values.
        visible_before: on visible rows' values of 0..1, before normalisation.
    """

    geometry: tuple[Operation | Augmentation, ...] = ()
    visible: tuple[Operation | Augmentation, ...] = ()
    infrared: tuple[Operation | Augmentation, ...] = ()
    visible_before: tuple[Operation | Augmentation, ...] = ()

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment and normalise one batch.

        Args:
            images: N×3×H×W uint8, left as they are.
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
        size = (images.shape[2], images.shape[3])
        everyone = range(len(images))
        visible = [row for row in everyone if modalities[row] == Modality.VISIBLE]
        infrared = [row for row in everyone if modalities[row] == Modality.INFRARED]
        geometry, before, after = ([Steps() for _ in everyone] for _ in range(3))
        _plan(geometry, self.geometry, everyone, size, generator)
        _plan(before, self.visible_before, visible, size, generator)
        _plan(after, self.visible, visible, size, generator)
        _plan(after, self.infrared, infrared, size, generator)

        whole, unit = Normaliser(torch.uint8, images.device), Normaliser(torch.float32, images.device)
        result = torch.empty(images.shape, device=images.device)
        # All steps of a picture before the next picture's: it stays in the cache.
        for image, source, moves, colours, covers in zip(result, images, geometry, before, after, strict=True):
            if moves:
                source = source.clone()
                _carry_out(moves, source)
            if colours:
                image.copy_(source).div_(255)
                _carry_out(colours, image)
                unit.write(image, image)
            else:
                whole.write(image, source)
            _carry_out(covers, image)
        return result


def _plan(
    steps: list[Steps],
    operations: Sequence[Operation | Augmentation],
    rows: Sequence[int],
    size: tuple[int, int],
    generator: torch.Generator,
) -> None:
    """Draw for these rows and note it in their steps."""
    if not rows:
        return
    for operation in operations:
        stepwise = operation if isinstance(operation, Operation) else EachRow(operation)
        drawn = stepwise.draw(len(rows), size=size, generator=generator)
        for row, what in zip(rows, drawn, strict=True):
            steps[row].append((stepwise, what))


def _carry_out(steps: Steps, image: torch.Tensor) -> None:
    for operation, drawn in steps:
        operation.change(image, drawn)
