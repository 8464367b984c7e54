"""The centroid of every identity in each modality, which samples are compared with: PECA's memory.

Jing and Li, "Partial Enhancement and Channel Aggregation for Visible-Infrared Person Re-Identification" (PECA, 2024),
section 3.3. Shapes: B samples, features of length D; identity and modality are B int64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.functional import normalize, one_hot

from vireid.data.batch import Batch
from vireid.data.host import groups, on_host, to_device
from vireid.data.settings import NonNegative, Temperature, settings
from vireid.losses.pairs import mean_over, similarity, unit

Order = Literal["sequential", "batch_mean"]
Normalise = Literal["each", "step", "never"]


@settings
class Centroids:
    """The memory of centroids and its loss, PECA's L_mod, as a part of another recipe.

    Before the first step the neck gets the mean and variance of all pooled features as running statistics, and the
    centroids are means over all training pictures.
    """

    temperature: Temperature = 0.10
    """ours: τ_mod of PECA's equation 10, as PECA's paper prints it."""
    weight: NonNegative = 0.5
    """ours: λ_m of PECA's equation 5, as PECA's paper prints it."""
    rate: Annotated[float, Interval(gt=0, le=1)] = 0.8
    """ours: α, the share of the new feature in PECA's equation 9, as PECA's paper prints it."""
    order: Order = "sequential"
    """ours: `sequential` applies equation 9 to one sample after the other, as PECA does; `batch_mean` applies
    it once, to the mean of a step's samples."""
    normalise: Normalise = "each"
    """ours: centroids get length one after `each` sample, as in PECA by default, once a `step`, or `never`."""


class CentroidMemory(nn.Module):
    """The centroid of every identity in each modality. It is a buffer, so a checkpoint holds all of it.

    A centroid that was not seen yet is zero and takes no part in the loss; its first feature replaces it. The shape is
    identities × modalities (2, or 3 with auxiliary) × width; for the other arguments see `Centroids`.
    """

    def __init__(
        self,
        identities: int,
        modalities: int,
        width: int,
        *,
        rate: float = Centroids.rate,
        order: Order = Centroids.order,
        normalise: Normalise = Centroids.normalise,
    ) -> None:
        super().__init__()
        Centroids(rate=rate, order=order, normalise=normalise)  # BadInput where a value is not allowed
        self.rate, self.order, self.normalise = rate, order, normalise
        self.centroids: Tensor
        self.register_buffer("centroids", torch.zeros(identities, modalities, width))

    @torch.no_grad()
    def start(self, pieces: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Means over pieces of (features, identity, modality): equation 7 for visible, equation 8 for infrared ones."""
        total = torch.zeros_like(self.centroids, dtype=torch.float64)
        count = torch.zeros_like(total[:, :, :1])
        for features, identity, modality in pieces:
            total.index_put_((identity, modality), unit(features).double(), accumulate=True)
            count.index_put_((identity, modality), torch.ones_like(count[0, 0]), accumulate=True)
        mean = total / count.clamp(min=1)
        self.centroids.copy_(mean if self.normalise == "never" else normalize(mean, dim=2))

    def fill(
        self,
        batches: Iterable[Batch],
        pooled: Callable[[Tensor, Tensor], Tensor],
        neck: nn.Module,
        *,
        calibrate: bool = True,
        before_neck: bool = False,
    ) -> None:
        """Set the centroids from all pictures, see `start`.

        The pooled features of all pictures are in memory at once: 8 KB for each with ResNet-50.

        Args:
            batches: all pictures; call it without gradients, in evaluation mode.
            pooled: N×3×H×W images and N modalities to N×D features before the neck.
            neck: N×D features to N×D, with a batch normalisation `bn`.
            calibrate: first give the neck the mean and variance of all pooled features as running statistics.
            before_neck: the centroids are of features before the neck.
        """
        seen = [(pooled(b.images, b.modality), b.identity, b.modality) for b in batches]
        if calibrate and seen:
            set_statistics(neck.bn, torch.cat([features for features, _, _ in seen]))  # type: ignore[arg-type]
        self.start((f if before_neck else neck(f), identity, modality) for f, identity, modality in seen)

    @torch.no_grad()
    def update(self, features: Tensor, identity: Tensor, modality: Tensor) -> None:
        """Apply equation 9, `c ← (1 - α) c + α f`, for every sample in order, after the loss of the step."""
        features = unit(features).to(self.centroids.dtype)
        cells = torch.stack((on_host(identity), on_host(modality)), 1)
        alike = (cells[:, None] == cells[None, :]).all(2)
        turn = alike.tril(-1).sum(1)  # how many samples of the same centroid come before this one
        turns = groups(turn, features.device)
        if self.order == "batch_mean":
            same = to_device(alike, features.device)
            features, turns = (same.to(features.dtype) @ features) / same.sum(1, keepdim=True), turns[:1]
        # Different centroids do not interact: the first samples of all go together, then the second ones, …
        for samples in turns:
            cell = identity[samples], modality[samples]
            old, new = self.centroids[cell], features[samples]
            new = torch.where(old.any(1, keepdim=True), (1 - self.rate) * old + self.rate * new, new)
            self.centroids[cell] = normalize(new) if self.normalise == "each" else new
        if self.normalise == "step":
            self.centroids[identity, modality] = normalize(self.centroids[identity, modality])

    def loss(
        self, features: Tensor, identity: Tensor, modality: Tensor, *, temperature: float = Centroids.temperature
    ) -> Tensor:
        """L_mod, equation 10, with the features f scaled to length one:

            P(i) = the centroids of i's identity,  U(i) = those of other identities in i's modality
            mean_i -1/|P(i)| Σ_{c ∈ P(i)} log( exp(f_i·c/τ) / Σ_{c' ∈ P(i) ∪ U(i)} exp(f_i·c'/τ) )

        Args:
            features: B×D, of any length.
            identity: B int64.
            modality: B int64, below the memory's number of modalities.
            temperature: τ_mod.

        Returns:
            A scalar, the mean over the samples that have a known centroid; 0 if none has.
        """
        f = unit(features)
        centroids = self.centroids.to(f.dtype, copy=True)  # `update` may change the buffer before the backward pass
        seen = centroids.any(2)
        scores = similarity(f, centroids.flatten(0, 1)).unflatten(1, seen.shape) / temperature
        lowest = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~seen, lowest)
        samples = torch.arange(len(f), device=f.device)
        positive, known = scores[samples, identity], seen[identity]
        negative = scores[samples, :, modality].masked_fill(one_hot(identity, len(centroids)).bool(), lowest)
        terms = (torch.cat((positive, negative), 1).logsumexp(1, keepdim=True) - positive).masked_fill(~known, 0.0)
        return mean_over(known.any(1), terms.sum(1) / known.sum(1).clamp(min=1))


@torch.no_grad()
def set_statistics(norm: nn.BatchNorm1d, features: Tensor) -> None:
    """Set the running mean and variance of a batch normalisation to those of N×D features."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(features.double().mean(0))
    norm.running_var.copy_(features.double().var(0, correction=min(1, len(features) - 1)))
