"""The carrier between the loader and a recipe: rows, never positional pairs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Batch:
    """One training step's rows.

    Nothing may depend on where a row stands: which rows belong together is said by `identity` and `modality`.

    Attributes:
        images: N×3×H×W float32, normalised with ImageNet's mean and standard deviation.
        identity: N int64, labels 0..n-1 of the training identities.
        modality: N int64, values of `Modality`.
        camera: N int64, the data set's own camera numbers.
        seed: seeds whatever the objective draws at random in this step. It is a function of the run's seed, the epoch
            and the step, so that a resumed run draws what an uninterrupted one would have drawn.
    """

    images: torch.Tensor
    identity: torch.Tensor
    modality: torch.Tensor
    camera: torch.Tensor
    seed: int = 0

    def __post_init__(self) -> None:
        rows = self.images.shape[0]
        if self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"a batch's images are N×3×H×W, not {tuple(self.images.shape)}")
        for name in ("identity", "modality", "camera"):
            column = getattr(self, name)
            if column.shape != (rows,) or column.dtype != torch.int64:
                raise ValueError(f"a batch's {name} is {rows} int64, not {tuple(column.shape)} {column.dtype}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            identity=self.identity.to(device, non_blocking=True),
            modality=self.modality.to(device, non_blocking=True),
            camera=self.camera.to(device, non_blocking=True),
        )

    def generator(self) -> torch.Generator:
        """A fresh CPU generator for this step's draws; two calls give the same stream."""
        return torch.Generator().manual_seed(self.seed)
