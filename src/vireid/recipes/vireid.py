"""vireid's own recipe: the parts of the published methods that helped on the generated world.

Parts of WRIM-Net, PECA, and feature fusion with deep mutual learning were added one after another to a plain baseline.
What helped people of a validation world was kept: CAJ's channel exchange, and PECA's memory with the centroid of every
identity in each modality. docs/results/choice.md has every step, docs/papers/vireid.md what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.settings import Positive, all_but, settings
from vireid.data.size import Size
from vireid.losses.centroids import CentroidMemory, Centroids
from vireid.losses.classification import cross_entropy
from vireid.losses.pairs import unit
from vireid.losses.triplet import weighted_regularised_triplet
from vireid.networks.encoder import Encoder, OneBranch
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training


class ViReID(OneBranch):
    """Two stems, one trunk without attention, GeM, a neck, a classifier, and the memory of centroids.

    Args:
        config: the recipe's settings.
        identities: number of training identities, the width of the classifier and the length of the memory.
    """

    def __init__(self, config: Config, identities: int) -> None:
        super().__init__(Encoder(config.training.trunk, non_local=None, gem_power=config.gem_power), identities)
        self.config = config
        self.memory = None
        if config.memory:
            how = all_but(config.memory, "temperature", "weight")
            self.memory = CentroidMemory(identities, 2, self.encoder.width, **how)

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Two or three scalars whose sum is minimised.

        `identity` is the cross-entropy after the neck, `triplet` AGW's weighted regularised triplet loss before it, and
        `modality` the loss against the memory, with its weight. In training mode the memory is updated after its loss,
        with the features of all processes.
        """
        pooled = self.encoder.pooled(batch.images, batch.modality)
        necked = self.encoder.neck(pooled)
        everywhere = all_gather(pooled, unit(necked), batch.identity, batch.modality)
        terms = {
            "identity": cross_entropy(self.classifier(necked), batch.identity),
            "triplet": weighted_regularised_triplet(everywhere[0], everywhere[2]),
        }
        memory = self.config.memory
        if memory and self.memory is not None:
            terms["modality"] = memory.weight * self.memory.loss(*everywhere[1:], temperature=memory.temperature)
            if self.training:
                self.memory.update(*everywhere[1:])
        return terms

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Fill the memory from all pictures, after the neck has got their mean and variance as running statistics."""
        if self.memory is not None:
            self.memory.fill(batches, self.encoder.pooled, self.encoder.neck)


@settings
class Config:
    """The settings. No paper prints numbers for them. They are those of the methods that the parts come from."""

    training: Training = Training(
        epochs=81,
        size=Size(288, 144),
        identities_per_batch=8,
        visible_per_identity=4,
        infrared_per_identity=4,
        epoch_length="agw",
        optimiser=SGD(),
        schedule=WarmUpSteps(),
    )
    """
    epochs, size, identities_per_batch, visible_per_identity, infrared_per_identity, epoch_length: ours: as AGW.
    optimiser, schedule: ours: as AGW.
    """

    gem_power: Positive = 3.0
    """ours: exponent of the pooling; 3 as in the code of AGW."""

    memory: Centroids | None = Centroids()
    """ours: the part that helped most, of PECA; null is without, the plain baseline with colour augmentation."""

    flip: Flip = Flip()
    """ours: mirroring, as AGW."""

    crop: PadCrop = PadCrop()
    """ours: a shift by up to ten pixels, as AGW."""

    erasing: ChannelErasing | None = ChannelErasing()
    """ours: CAJ's channel-level erasing in both modalities; null is without."""

    exchange: ChannelExchange | None = ChannelExchange()
    """ours: CAJ's channel exchange on visible pictures, after the erasing; null is without."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = (self.erasing,) if self.erasing else ()
        exchange = (self.exchange,) if self.exchange else ()
        return Pipeline((self.flip, self.crop), visible=(*erasing, *exchange), infrared=erasing)


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = ViReID
