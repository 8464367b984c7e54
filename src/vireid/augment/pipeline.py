"""From the uint8 pictures of a batch to the normalised images that a network trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vireid.augment.normalise import Normaliser
from vireid.augment.onepass import OnePass, collects
from vireid.augment.operation import Augmentation, EachSample, Operation
from vireid.data.modality import Modality

# What to do with one picture: operations, each with the entry that was drawn for this picture.
Steps = list[tuple[Operation, Any]]


@dataclass(frozen=True)
class Pipeline:
    """Geometry, then normalisation, then colour operations. Each group is applied in the order given.

    The default only normalises, which is what images at test time need. Each entry is an `Operation`, or a plain
    function `(images, *, generator) -> images`, which is called on one sample at a time.

    Attributes:
        geometry: operations on the uint8 values of all samples.
        visible: operations on the normalised values of visible samples.
        infrared: operations on the normalised values of infrared samples.
        visible_before: operations on the values (0..1) of visible samples, after geometry and before normalisation.
        second_view: the pipeline of a second view of visible samples, or None. The loader adds these views to the step.
    """

    geometry: tuple[Operation | Augmentation, ...] = ()
    visible: tuple[Operation | Augmentation, ...] = ()
    infrared: tuple[Operation | Augmentation, ...] = ()
    visible_before: tuple[Operation | Augmentation, ...] = ()
    second_view: Pipeline | None = None

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment and normalise one view of each sample of a batch.

        Args:
            images: N×3×H×W uint8. They are not changed.
            modality: N int64, values of `Modality`. Samples that are neither visible nor infrared get the geometry
                and the normalisation only.
            generator: source of all random numbers. Each operation draws once, for all its samples together.

        Returns:
            N×3×H×W float32, normalised with the mean and the standard deviation of ImageNet.

        Raises:
            ValueError: the images are not N×3×H×W uint8, or the number of modalities is not N.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"a pipeline takes N×3×H×W uint8, not {tuple(images.shape)} {images.dtype}")
        if modality.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images need as many modalities, not {tuple(modality.shape)}")
        modalities = modality.tolist()
        size = (images.shape[2], images.shape[3])
        samples = range(len(images))
        visible = [sample for sample in samples if modalities[sample] == Modality.VISIBLE]
        infrared = [sample for sample in samples if modalities[sample] == Modality.INFRARED]
        geometry, before, after = ([Steps() for _ in samples] for _ in range(3))
        _plan(geometry, self.geometry, samples, size, generator)
        _plan(before, self.visible_before, visible, size, generator)
        _plan(after, self.visible, visible, size, generator)
        _plan(after, self.infrared, infrared, size, generator)

        result = torch.empty(images.shape, device=images.device)
        images, together = images.contiguous(), images.device.type == "cpu"
        # One memory for the moved pixels of all pictures, because it stays in the cache.
        moved = torch.empty(images.shape[1:], dtype=torch.uint8, device=images.device)
        # All steps of one picture come before the next picture, so that the picture stays in the cache.
        for image, source, moves, unnormalised, normalised in zip(result, images, geometry, before, after, strict=True):
            if moves:
                source = moved.copy_(source)
                _apply(moves, source)
            rest = _in_one_pass(image, source, unnormalised, normalised) if together else None
            if rest is None:
                _step_by_step(image, source, unnormalised, normalised)
            else:
                _apply(rest, image)
        return result


def _in_one_pass(image: torch.Tensor, source: torch.Tensor, before: Steps, after: Steps) -> Steps | None:
    """Write the normalised picture and make as many changes as possible in the same pass. Returns the other steps.

    Returns None, and writes nothing, if a change of the values before normalisation cannot be made in this way.
    """
    onepass = OnePass(before=bool(before))
    if _collected(before, onepass) < len(before):
        return None
    onepass.normalised = True
    done = _collected(after, onepass)
    onepass.write(image.numpy(), source.numpy())
    return after[done:]


def _collected(steps: Steps, onepass: OnePass) -> int:
    """How many of the first steps are part of the pass."""
    for place, (operation, drawn) in enumerate(steps):
        if not collects(operation, onepass, drawn):
            return place
    return len(steps)


def _step_by_step(image: torch.Tensor, source: torch.Tensor, before: Steps, after: Steps) -> None:
    """The plain way, for any operation and device: one step after another on the whole picture."""
    if before:
        image.copy_(source).div_(255)
        _apply(before, image)
        source = image
    Normaliser(source.dtype, image.device).write(image, source)
    _apply(after, image)


def _plan(
    steps: list[Steps],
    operations: Sequence[Operation | Augmentation],
    samples: Sequence[int],
    size: tuple[int, int],
    generator: torch.Generator,
) -> None:
    """Draw for these samples and append the operation and the drawn entry to the steps of each sample."""
    if not samples:
        return
    for operation in operations:
        stepwise = operation if isinstance(operation, Operation) else EachSample(operation)
        drawn = stepwise.draw(len(samples), size=size, generator=generator)
        for sample, entry in zip(samples, drawn, strict=True):
            steps[sample].append((stepwise, entry))


def _apply(steps: Steps, image: torch.Tensor) -> None:
    for operation, drawn in steps:
        operation.change(image, drawn)
