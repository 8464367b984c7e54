"""The samples of one training step, as the loader hands them to a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vireid.data.host import to_device


@dataclass(frozen=True)
class Batch:
    """The samples of one training step.

    Nothing may depend on the order of the samples. `identity` and `modality` say which samples belong together.

    Attributes:
        images: N×3×H×W float32, normalised with ImageNet's mean and standard deviation.
        identity: N int64, labels 0..n-1 of the n training identities.
        modality: N int64, values of `Modality`.
        camera: N int64, the data set's own camera numbers.
        seed: the seed of everything that the objective draws at random in this step. It is a function of the run's
            seed, the epoch, the step and the rank, so a resumed run draws the same as an uninterrupted one.
    """

    images: torch.Tensor
    identity: torch.Tensor
    modality: torch.Tensor
    camera: torch.Tensor
    seed: int = 0

    def __post_init__(self) -> None:
        samples = self.images.shape[0]
        if self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"a batch's images are N×3×H×W, not {tuple(self.images.shape)}")
        for name in ("identity", "modality", "camera"):
            column = getattr(self, name)
            if column.shape != (samples,) or column.dtype != torch.int64:
                raise ValueError(f"a batch's {name} is {samples} int64, not {tuple(column.shape)} {column.dtype}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on another device. `vireid.data.host.on_host` still finds the columns without waiting."""
        columns = {name: to_device(getattr(self, name), device) for name in ("identity", "modality", "camera")}
        return replace(self, images=self.images.to(device, non_blocking=True), **columns)

    def pin_memory(self) -> Batch:
        """The same samples in memory that a GPU copies from while it computes. The loader calls this."""
        names = ("images", "identity", "modality", "camera")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})

    def generator(self) -> torch.Generator:
        """A new CPU generator, seeded with `seed`. Two calls give generators that draw the same numbers."""
        return torch.Generator().manual_seed(self.seed)
