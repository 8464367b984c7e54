"""Compute the embedding of each picture once, for all protocols and all trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from vireid.augment.normalise import normalise

Embed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pictures = Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Way:
    """How features are computed, and how far they are from those of the network as it is, in float32.

    Attributes:
        name: in words.
        precision: `off` for float32, `bf16` or `fp16`.
        difference: the largest difference over a few pictures of both modalities, see
            `vireid.evaluation.parity.difference`; None if it is the network as it is, or if it was not compared.
        note: why it is not a faster way; empty if it is the fastest known one.
    """

    name: str
    precision: str = "off"
    difference: float | None = None
    note: str = ""

    @property
    def words(self) -> str:
        """One line for people.

        >>> Way("folded", "bf16", 2e-05).words
        'folded, bf16, at most 2.0e-05 from the network as it is (one minus the cosine)'
        """
        parts = [self.name, *([self.precision] if self.precision != "off" else [])]
        if self.difference is not None:
            parts.append(f"at most {self.difference:.1e} from the network as it is (one minus the cosine)")
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")


AS_IT_IS = "the network as it is, channels-last"


class Embedder(Protocol):
    """Pictures to features. `NetworkEmbedder` is one, an exported model (`vireid.export.runtime`) is another."""

    @property
    def way(self) -> Way:
        """How it computes."""
        ...

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, /) -> torch.Tensor:
        """N×3×H×W uint8 images on the CPU and N int64 modalities to N×D float32 features of length one."""
        ...


@dataclass(frozen=True)
class NetworkEmbedder:
    """A network of PyTorch as an `Embedder`.

    Attributes:
        embed: (N×3×H×W float32 normalised images, N int64 modalities) → N×D features of length one.
        device: where `embed` computes.
        way: how; `bf16` and `fp16` as its precision are computed by autocast.
    """

    embed: Embed
    device: torch.device | str = "cpu"
    way: Way = Way(AS_IT_IS)

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, /) -> torch.Tensor:
        kind, device = PRECISIONS[self.way.precision], torch.device(self.device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None),
        ):
            images = normalise(images).to(device).contiguous(memory_format=torch.channels_last)
            return self.embed(images, modality.to(device)).float()


def fastest_device() -> str:
    """`cuda` if there is a GPU, otherwise `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def embed_pictures(
    embedder: Embedder,
    pictures: Pictures,
    *,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Compute the embeddings of all pictures, batch by batch.

    Args:
        embedder: pictures to features.
        pictures: batches (N record numbers, N×3×H×W uint8 images, N int64 modalities). The record numbers of all
            batches together are 0, 1, 2, … in ascending order.
        flip: true to add the feature of the mirrored picture to each feature and normalise the sum to length one.
        progress: called after each batch with the number of pictures that are done.

    Returns:
        R×D float32 for R records, in their order; 0×0 if there are no pictures.
    """
    found: list[np.ndarray] = []
    done = 0
    with torch.inference_mode():
        for _records, images, modality in pictures:
            features = embedder(images, modality)
            if flip:
                features = torch.nn.functional.normalize(features + embedder(images.flip(3), modality))
            found.append(features.cpu().numpy())
            done += len(modality)
            if progress:
                progress(done)
    return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)
