"""AGW: the baseline that all three papers start from.

Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2022. What is new: non-local
attention in the middle stages, generalised-mean pooling, and a triplet loss whose weights come from the batch instead
of a margin. For two modalities each keeps its own stem, and everything after the stem is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from vireid.augment.aggregation import with_auxiliary_samples
from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing, RandomErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.modality import Modality
from vireid.data.settings import NonNegative, Positive, settings
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.mixing import ICAL
from vireid.losses.pairs import unit
from vireid.losses.triplet import EPSILON, squared_difference_triplet, weighted_regularised_triplet
from vireid.networks.encoder import Encoder, OneBranch
from vireid.networks.heads import NeckStart
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training

# --- triplet loss -----------------------------------------------------------------------------------------------------


@settings
class WeightedTriplet:
    """AGW's weighted regularised triplet loss."""

    negative_sign: Literal["minus", "plus"] = "minus"
    """paper: sign of the distance in the weights of negatives; with `minus` the nearest weigh most, also in the code.
    `plus` is how some later papers print it."""

    epsilon: NonNegative = 0.0
    """paper: the weights are a softmax, to which nothing is added. The public code adds 1e-6 to its denominators: then
    the negative term vanishes beyond a distance of about 13."""

    def loss(self, features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """The loss of B×D features before the neck."""
        return weighted_regularised_triplet(features, identity, **vars(self))


@settings
class SquaredTriplet:
    """CAJ's triplet loss on the squared difference, which its code calls `TripletLoss_ADP`."""

    alpha: Positive = 1.0
    """code of CAJ: how sharply the weights prefer far positives and near negatives."""

    gamma: Positive = 1.0
    """code of CAJ: factor of the squared difference."""

    epsilon: NonNegative = EPSILON
    """code of CAJ: added to the denominators of the weights."""

    def loss(self, features: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """The loss of B×D features before the neck."""
        return squared_difference_triplet(features, identity, **vars(self))


# --- network ----------------------------------------------------------------------------------------------------------


class AGW(OneBranch):
    """Two stems, one trunk with non-local attention, GeM, a neck and a classifier.

    With `ical` there is a third stem, for auxiliary samples.

    Args:
        config: the recipe's settings.
        identities: number of training identities, the width of the classifier.
    """

    def __init__(self, config: Config, identities: int) -> None:
        stems = list(Modality) if config.ical else [Modality.VISIBLE, Modality.INFRARED]
        encoder = Encoder(
            config.training.trunk,
            non_local=config.non_local,
            gem_power=config.gem_power,
            modalities=stems,
            neck_start=config.neck_start,
        )
        super().__init__(encoder, identities)
        self.config = config
        self.draws_samples = config.ical is not None  # at random, so the order of the samples matters

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Identity classification after the neck, triplet before it: two scalars whose sum is minimised.

        With `ical` there is one more term, `mixing`.
        """
        ical, real, parents = self.config.ical, len(batch), ()
        if ical:
            batch, *parents = with_auxiliary_samples(batch)
        # How many samples are classified, and how many the triplet loss compares: all of them, or the real ones.
        ce, ins = ical.counts(real) if ical else (None, None)
        features = self.encoder.pooled(batch.images, batch.modality)
        necked = self.encoder.neck(features)
        everywhere = all_gather(features[:ins], batch.identity[:ins])
        terms = {
            "identity": cross_entropy(self.classifier(necked[:ce]), batch.identity[:ce]),
            "triplet": self.config.triplet.loss(*everywhere),
        }
        if ical:
            compared = unit(necked)
            terms["mixing"] = ical.loss(compared[real:], *(compared[parent] for parent in parents))
        return terms


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

    neck_start: NeckStart = "ones"
    """not stated: how the weight of the neck starts. `ones`: at 1, as usual. `code`: N(1, 0.01), as in the public
    code."""

    triplet: WeightedTriplet | SquaredTriplet = WeightedTriplet()
    """paper: the weighted regularised triplet loss, or CAJ's, for rows that have it."""

    ical: ICAL | None = None
    """ours: PECA's auxiliary samples and mixing loss, which are not in AGW; null is without. Auxiliary samples have a
    stem of their own."""

    flip: Flip = Flip()
    """code: mirroring."""

    crop: PadCrop = PadCrop()
    """code: a shift by up to ten pixels, zeros at the border."""

    erasing: ChannelErasing | RandomErasing | None = None
    """ours: not in AGW. In both modalities, for rows that have it: CAJ's channel-level erasing, or random erasing,
    which the public training of AGW on LLCM has."""

    exchange: ChannelExchange | None = None
    """ours: not in AGW. CAJ's channel exchange on visible pictures, after the erasing as in its code, for rows that
    have it."""

    exchange_infrared: ChannelExchange | None = None
    """ours: not in AGW. The same on infrared pictures, as in the code of CAJ. It is not the identity there, because
    normalisation has made the three channels different."""

    views: Literal[1, 2] = 1
    """ours: 1 in AGW. With 2, as in the code of CAJ, each visible picture is in the step twice, with a flip and a crop
    of its own each time: once erased, once erased and exchanged."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        geometry = (self.flip, self.crop)
        erased = tuple(step for step in (self.erasing,) if step)
        exchanged = (*erased, *(step for step in (self.exchange,) if step))
        infrared = (*erased, *(step for step in (self.exchange_infrared,) if step))
        if self.views == 1:
            return Pipeline(geometry, visible=exchanged, infrared=infrared)
        second = Pipeline(geometry, visible=exchanged)
        return Pipeline(geometry, visible=erased, infrared=infrared, second_view=second)


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = AGW
