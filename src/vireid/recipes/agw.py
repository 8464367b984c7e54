"""AGW: the baseline that all three papers start from.

Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2022. What is new: non-local
attention in the middle stages, generalised-mean pooling, and a triplet loss whose weights come from the batch instead
of a margin. For two modalities each keeps its own stem, and everything after the stem is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.settings import Positive, settings
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.pairs import unit
from vireid.losses.triplet import weighted_regularised_triplet
from vireid.networks.encoder import Encoder
from vireid.networks.heads import Classifier
from vireid.networks.resnet import Stages
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training

# --- network ----------------------------------------------------------------------------------------------------------


class AGW(nn.Module):
    """Two stems, one trunk with non-local attention, GeM, a neck and a classifier.

    Args:
        config: the recipe's settings.
        identities: number of training identities, the width of the classifier.
    """

    def __init__(self, config: Config, identities: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.training.trunk, non_local=config.non_local, gem_power=config.gem_power)
        self.classifier = Classifier(self.encoder.width, identities)

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`, by name."""
        return self.encoder.maps(images, modality)

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Identity classification after the neck, triplet before it: two scalars whose sum is minimised."""
        features = self.encoder.pooled(batch.images, batch.modality)
        logits = self.classifier(self.encoder.neck(features))
        everywhere = all_gather(features, batch.identity)
        return {
            "identity": cross_entropy(logits, batch.identity),
            "triplet": weighted_regularised_triplet(*everywhere, negative_sign=self.config.negative_sign),
        }

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features after the neck, each of length one."""
        return unit(self.encoder.neck(self.encoder.pooled(images, modality)))

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features before the neck, each of length one."""
        return unit(self.encoder.pooled(images, modality))

    def new_parameters(self) -> list[nn.Parameter]:
        """Neck and classifier: everything else learns at a tenth of the rate, as in the code."""
        return [*self.encoder.neck.parameters(), *self.classifier.parameters()]

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The stems and the stages, which ImageNet weights are loaded into."""
        return self.encoder.pretrained_parts()


# --- settings ---------------------------------------------------------------------------------------------------------


@settings
class Config:
    """AGW's settings. "Code" means the authors' public code, which is what produced the printed numbers."""

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
    epochs: code: epochs 0 to 80.
    size: code: height×width in pixels.
    identities_per_batch, visible_per_identity, infrared_per_identity: code: 8 people, 4 pictures of each modality.
    epoch_length: code: floor(larger modality / 32) + 1 steps. It decides how much 81 epochs are, and papers do not
        print it.
    optimiser: code: SGD at 0.1 for neck and classifier, everything else at a tenth of it.
    schedule: code: ten epochs of warm-up, then ÷10 at epochs 20 and 50.
    trunk: paper: ResNet-50, with last stride 1.
    weights: paper: pretrained on ImageNet.
    """

    non_local: Literal["half", "code"] | None = "half"
    """paper: inner width of the non-local attention. `half` is half the channels, as the paper says. The public code
    divides a number by itself and so has width 1 (its pull request 28 reports it): `code`. null: no attention."""

    gem_power: Positive = 3.0
    """code: exponent of the pooling; 3 and not learnt, although the paper describes a learnt one."""

    negative_sign: Literal["minus", "plus"] = "minus"
    """paper: sign of the distance in the weights of negatives; with `minus` the nearest weigh most, also in the code.
    `plus` is how some later papers print it."""

    flip: Flip = Flip()
    """code: mirroring."""

    crop: PadCrop = PadCrop()
    """code: a shift by up to ten pixels, zeros at the border."""

    exchange: ChannelExchange | None = None
    """ours: CAJ's channel exchange on visible pictures, for rows that have it; not in AGW."""

    erasing: ChannelErasing | None = None
    """ours: CAJ's channel-level erasing, in both modalities as in its code, for rows that have it; not in AGW."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        return Pipeline(
            geometry=(self.flip, self.crop),
            visible=tuple(step for step in (self.exchange, self.erasing) if step),
            infrared=tuple(step for step in (self.erasing,) if step),
        )


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = AGW
