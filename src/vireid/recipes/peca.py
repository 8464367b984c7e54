"""PECA: partial enhancement and channel aggregation.

Jing and Li, "Partial Enhancement and Channel Aggregation for Visible-Infrared Person Re-Identification", IEICE Trans.
Inf. & Syst. 2024. What is new: three MLPs predict the features of the upper, middle and lower part of a picture from
the feature of the whole picture (GSL). Pictures that mix the channels of a visible and an infrared picture of one
person are a third, auxiliary modality between the two (ICAL). A contrastive loss replaces the triplet loss: it compares
samples with each other, and with a memory of the centroid of every identity in each modality.

Shapes: B samples, features of length D; identity and modality are B int64. Losses are scalars, at least float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vireid.augment.aggregation import KEPT, aggregate_channels, with_auxiliary_samples  # noqa: F401 equation 2
from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.operation import Operation, augmented
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.host import first, groups, on_host, repeat, where
from vireid.data.modality import Modality
from vireid.data.settings import Count, NonNegative, Positive, Temperature, Width, all_but, settings
from vireid.data.size import Size
from vireid.losses.centroids import CentroidMemory, Normalise, Order  # equations 7 to 10
from vireid.losses.classification import cross_entropy
from vireid.losses.mixing import Mixing, mixing, mixing_loss  # noqa: F401 equation 3
from vireid.losses.pairs import mean_over, same_identity, similarity, unit
from vireid.losses.triplet import batch_hard_triplet, squared_difference_triplet, weighted_regularised_triplet
from vireid.networks.encoder import Encoder, OneBranch
from vireid.networks.normalisation import Statistics, normalising_by
from vireid.networks.resnet import scaled
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training

# --- global-local similarity learning (section 3.1) -------------------------------------------------------------------

Between = Literal["bn_relu", "none"]


@settings
class GSL:
    """Global-local similarity learning."""

    hidden: Width = 512
    """not stated: width between the two layers of an MLP, for ResNet-50; in proportion on another trunk. A quarter of
    the feature, as in the predictor of SimSiam, which the paper cites."""
    input: Literal["bn", "pool"] = "bn"
    """not stated: the feature that MLPs take and parts give: `bn`, after the neck as in the other losses, or `pool`."""
    statistics: Statistics = "batch_stats_no_update"
    """not stated: which statistics normalise the three parts. `batch_stats_no_update`: those of the parts, while the
    running statistics, which are for whole pictures, do not change. `train` updates them, `eval` normalises by them."""
    between: Between = "bn_relu"
    """not stated: what is between the two layers of an MLP, which has "two fully connected layers, excluding BN and
    ReLU". `bn_relu`: BN and ReLU are not counted, but there, as in SimSiam. `none`: two linear layers only."""
    part_resize: Literal["none", "full"] = "none"
    """not stated: `none` keeps a part's 96×144 pixels; `full` stretches it to a whole picture, three times the cost."""


def similarity_loss(global_features: Tensor, local_features: Tensor) -> Tensor:
    """L_sim, equation 1: `-mean_i n(f^g_i) · stopgrad(n(f^s_i))` with `n(f) = f / ‖f‖`, between -1 and 1.

    Args:
        global_features: f^g, B×3D, the output of `LocalProjections`.
        local_features: f^s, B×3D, the features of the upper, middle and lower part side by side; gets no gradient.
    """
    return -(unit(global_features) * unit(local_features.detach())).sum(1).mean()


class LocalProjections(nn.Module):
    """Three MLPs without shared parameters: a whole picture's feature to one feature for each part, B×D to B×3D.

    Args:
        width: D.
        hidden: width between the two linear layers of an MLP.
        between: what else is between them. BN removes a bias, so the first layer has one only without BN.
    """

    def __init__(self, width: int, *, hidden: int, between: Between) -> None:
        super().__init__()
        plain = between == "none"
        for name in ("upper", "middle", "lower"):
            normalised = [] if plain else [nn.BatchNorm1d(hidden), nn.ReLU()]
            first = nn.Linear(width, hidden, bias=plain)
            self.add_module(name, nn.Sequential(first, *normalised, nn.Linear(hidden, width)))

    def forward(self, feature: Tensor) -> Tensor:
        return torch.cat([mlp(feature) for mlp in self.children()], 1)


def three_parts(images: Tensor) -> Tensor:
    """B×C×H×W to 3B×C×ceil(H/3)×W: all upper parts, all middle ones, all lower ones; they cover the whole height."""
    height = images.shape[2]
    part = -(-height // 3)
    return torch.cat([images[:, :, top : top + part] for top in (0, (height - part) // 2, height - part)])


# --- inter-modality channel aggregation learning (section 3.2) --------------------------------------------------------


@settings
class ICAL:
    """Inter-modality channel aggregation learning.

    Real and auxiliary samples go through the network together, so all batch normalisations behind the stems use the
    statistics of both.
    """

    margin: NonNegative = 0.7
    """paper, section 4.1.2: the margin m. Between features of length one, a distance of 0.7 is a cosine of 0.755."""
    mix: Mixing = "hinge"
    """ours, not equation 3 as printed: max[‖D - m‖₂, 0] is |D - m| (`abs`), which pushes pairs apart that are nearer
    than m, while the text says "encourages similar features". `hinge` is max(D - m, 0), `hinge_sq` its square."""
    source: Literal["before_colour_aug", "after_colour_aug"] = "before_colour_aug"
    """not stated: auxiliary samples are made before channel exchange and erasing; after an exchange the three channels
    of a visible sample may be equal, and the six patterns would be two, up to channel order."""
    in_ce: bool = False
    """not stated: whether auxiliary samples are classified, as "data augmentation"; equation 4 does not name them."""
    in_ins: bool = False
    """not stated: whether auxiliary samples take part in L_ins; as in equation 4 they do not."""
    in_mod: bool = False
    """not stated: whether auxiliary samples have centroids; equations 7 and 8 do not name them."""


# --- instance-modality contrastive loss (section 3.3) -----------------------------------------------------------------

Scale = Literal["sum_of_means", "batch_mean"]


@settings
class InstanceContrast:
    """The instance loss L_ins."""

    temperature: Temperature = 0.15
    """paper, section 4.2.1: τ_ins of equation 6."""
    negatives: Count = 50
    """paper, section 4.1.2: |Q|, the nearest of the 56 negatives in the batch (the memory holds no samples)."""
    positives: Literal["any", "cross_modality"] = "any"
    """paper, section 3.3: the hardest positive is of any modality; `cross_modality`: of another one than the anchor."""
    name: ClassVar[str] = "instance"

    def loss(self, pooled: Any, metric: Tensor, identity: Tensor, modality: Tensor) -> Tensor:
        """L_ins, equation 6, on the features `metric`."""
        other = modality if self.positives == "cross_modality" else None
        return instance_contrast(metric, identity, modality=other, **all_but(self, "positives"))


@settings
class Triplet:
    """The triplet loss that row M1 has in the place of L_ins, on features before the neck as in AGW."""

    kind: Literal["weighted", "squared_difference", "batch_hard"] = "weighted"
    """not stated: `weighted` is AGW's. `squared_difference` is CAJ's, which "following CAJ" may mean for row M1.
    `batch_hard` is the one with a margin."""
    margin: NonNegative = 0.3
    """not stated: of `batch_hard` only; 0.3 is usual in the field."""
    name: ClassVar[str] = "triplet"

    def loss(self, pooled: Tensor, metric: Any, identity: Tensor, modality: Any) -> Tensor:
        """The triplet loss on the features `pooled`."""
        if self.kind == "weighted":
            return weighted_regularised_triplet(pooled, identity)
        if self.kind == "squared_difference":
            return squared_difference_triplet(pooled, identity)
        return batch_hard_triplet(pooled, identity, margin=self.margin)


def instance_contrast(
    features: Tensor,
    identity: Tensor,
    *,
    negatives: int = InstanceContrast.negatives,
    temperature: float = InstanceContrast.temperature,
    modality: Tensor | None = None,
) -> Tensor:
    """L_ins, equation 6, with the features f scaled to length one:

        j(i) = the farthest other sample of the same identity,  Q(i) = the nearest samples of other identities
        mean_i -log( exp(f_i·f_j/τ) / ( exp(f_i·f_j/τ) + Σ_{k ∈ Q(i)} exp(f_i·f_k/τ) ) )

    Args:
        features: B×D, of any length.
        identity: B int64.
        negatives: |Q|, or as many as there are.
        temperature: τ_ins.
        modality: B int64; if given, j(i) must be of another modality than i.

    Returns:
        A scalar, the mean over the samples that have a positive; 0 if none has.
    """
    scores = similarity(unit(features), unit(features)) / temperature
    positive, negative = same_identity(identity)
    if modality is not None:
        positive = positive & (modality[:, None] != modality[None, :])
    usable = positive.any(1)
    # Between vectors of length one the farthest is the least similar.
    hardest = scores.masked_fill(~positive, math.inf).amin(1).masked_fill(~usable, 0.0)
    nearest = scores.masked_fill(~negative, torch.finfo(scores.dtype).min).topk(min(negatives, len(scores)), 1).values
    return mean_over(usable, torch.cat((hardest[:, None], nearest), 1).logsumexp(1) - hardest)


@settings
class ModalityContrast:
    """The modality loss L_mod and its memory."""

    temperature: Temperature = 0.10
    """paper, section 4.2.1: τ_mod of equation 10."""
    weight: NonNegative = 0.5
    """paper, section 4.2.2: λ_m of equation 5."""
    rate: Annotated[float, Interval(gt=0, le=1)] = 0.8
    """paper, section 4.1.2: α, the share of the new feature in equation 9."""
    start: Literal["calibrated", "extract", "first_seen"] = "calibrated"
    """paper, equations 7 and 8: means over all training pictures, of features of length one, before the first step.
    `calibrated`, not stated: the neck first gets the mean and variance of all pooled features as running statistics.
    Without it (`extract`) a new neck changes nothing: features of strangers then have a cosine of about 0.98. With
    `first_seen` a centroid starts at its first feature."""
    refill: bool = False
    """not stated: true takes the means of equations 7 and 8 again at the start of each epoch, as in the code of CAP,
    where pseudo labels change from epoch to epoch. PECA has no pseudo labels and does not mention it."""
    order: Order = "sequential"
    """not stated: `sequential` applies equation 9 to one sample after the other, as the code of CAP does; `batch_mean`
    applies it once, to the mean of a step's samples."""
    normalise: Normalise = "each"
    """not stated: centroids get length one after `each` sample as in the code of CAP, once a `step`, or `never`."""


def identity_loss(logits: Tensor, identity: Tensor, modality: Tensor, *, scale: Scale) -> Tensor:
    """L_ce, equation 4: mean cross-entropy of each modality, added. `batch_mean`: one mean over all samples."""
    if scale == "batch_mean":
        return cross_entropy(logits, identity)
    of_each = groups(on_host(modality), logits.device)
    return torch.stack([cross_entropy(logits[group], identity[group]) for group in of_each]).sum()


# --- network ----------------------------------------------------------------------------------------------------------


class PECA(OneBranch):
    """AGW's encoder with three stems, a classifier, the MLPs of GSL and the memory. What is off is not built.

    `identities` is the number of training identities, the width of the classifier.
    """

    def __init__(self, config: Config, identities: int) -> None:
        stems = list(Modality) if config.ical else [Modality.VISIBLE, Modality.INFRARED]
        encoder = Encoder(
            config.training.trunk, non_local=config.non_local, gem_power=config.gem_power, modalities=stems
        )
        super().__init__(encoder, identities)
        self.config = config
        self.draws_samples = config.ical is not None  # at random, so the order of the samples matters
        width = encoder.width
        self.projections = None
        if config.gsl:
            hidden = scaled(config.gsl.hidden, config.training.trunk)
            self.projections = LocalProjections(width, hidden=hidden, between=config.gsl.between)
        self.memory = None
        if config.modality:
            modalities = 3 if config.ical and config.ical.in_mod else 2
            how = all_but(config.modality, "temperature", "weight", "start", "refill")
            self.memory = CentroidMemory(identities, modalities, width, **how)

    def features(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×D features, by name: `pool` before the neck, `bn` after it."""
        pooled = self.encoder.pooled(images, modality)
        return {"pool": pooled, "bn": self.encoder.neck(pooled)}

    @torch.no_grad()
    def local_features(self, images: Tensor, modality: Tensor) -> Tensor:
        """f^s of equation 1, N×3D: upper, middle and lower part side by side. Equation 1 stops its gradient."""
        gsl = self.config.gsl or GSL()
        parts = three_parts(images)
        if gsl.part_resize == "full":
            parts = interpolate(parts, size=images.shape[2:], mode="bilinear")
        with normalising_by(self, gsl.statistics):
            features = self.features(parts, repeat(modality, 3))[gsl.input]
        return torch.cat(features.chunk(3), 1)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of equation 5 and equation 11, λ_m multiplied in, so that their sum is L_PECA.

        In training mode the memory is updated after its loss, with the features of all processes.
        """
        config, real = self.config, len(batch)
        ical = config.ical or ICAL()
        samples, visible, infrared = self._samples(batch)  # the auxiliary samples stand behind the real ones
        # The parts go first: what they need is free again before the maps of whole pictures are kept for the gradient.
        local = self.local_features(samples.images[:real], first(samples.modality, real)) if config.gsl else None
        features = self.features(samples.images, samples.modality)
        metric = unit(features[config.metric_features])
        # How many samples take part in a term: all of them, or the real ones.
        ce, ins, mod = (None if auxiliary_too else real for auxiliary_too in (ical.in_ce, ical.in_ins, ical.in_mod))
        logits, identity, kind = self.classifier(features["bn"][:ce]), samples.identity, samples.modality
        terms = {"identity": identity_loss(logits, identity[:ce], first(kind, ce), scale=config.ce_scale)}
        if config.gsl and self.projections is not None and local is not None:
            terms["similarity"] = similarity_loss(self.projections(features[config.gsl.input][:real]), local)
        if config.ical:
            of_each = metric[real:], metric[visible], metric[infrared]
            terms["mixing"] = mixing(*of_each, margin=ical.margin, form=ical.mix)
        if config.instance:
            everywhere = all_gather(features["pool"][:ins], metric[:ins], identity[:ins], kind[:ins])
            terms[config.instance.name] = config.instance.loss(*everywhere)
        if config.modality and self.memory is not None:
            # Gathered, because only samples with a centroid count and their number may differ between processes.
            everywhere = all_gather(metric[:mod], first(identity, mod), first(kind, mod))
            loss = self.memory.loss(*everywhere, temperature=config.modality.temperature)
            terms["modality"] = config.modality.weight * loss
            if self.training:
                self.memory.update(*everywhere)
        return terms

    def _samples(self, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
        """The batch with auxiliary samples where ICAL is on, then changed by the late operations of `Config.colour`."""
        if self.config.ical is None:
            return batch, batch.identity[:0], batch.identity[:0]
        generator = batch.generator()
        samples, visible, infrared = with_auxiliary_samples(batch, generator=generator)
        for modality, operations in self.config.colour(late=True).items():
            changed = where(on_host(samples.modality) == Modality[modality.upper()], samples.images.device)
            for operation in operations:
                samples.images[changed] = augmented(operation, samples.images[changed], generator)
        return samples, visible, infrared

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Fill the memory by equation 7 and equation 8, from all pictures, unless `modality.start` is `first_seen`."""
        modality = self.config.modality
        if modality and modality.start != "first_seen":
            self._fill_memory(batches, calibrate=modality.start == "calibrated")

    def before_epoch(self, batches: Iterable[Batch]) -> None:
        """Fill the memory again, if `modality.refill` says so. By now the neck has statistics from training."""
        if self.config.modality and self.config.modality.refill:
            self._fill_memory(batches, calibrate=False)

    def _fill_memory(self, batches: Iterable[Batch], *, calibrate: bool) -> None:
        """Centroids from all pictures, of the features that L_mod compares."""
        if self.memory is not None:
            before_neck = self.config.metric_features == "pool"
            neck = self.encoder.neck
            self.memory.fill(batches, self.encoder.pooled, neck, calibrate=calibrate, before_neck=before_neck)

    def new_parameters(self) -> list[nn.Parameter]:
        """Neck, classifier and MLPs: everything else learns at a tenth of the rate, as in the code of AGW."""
        return [*super().new_parameters(), *(self.projections.parameters() if self.projections is not None else [])]


# --- settings ---------------------------------------------------------------------------------------------------------


@settings
class Config:
    """PECA's settings. "Code" is the public code of methods that the paper builds on or cites: AGW, CAJ and CAP."""

    training: Training = Training(
        epochs=100,
        size=Size(288, 144),
        identities_per_batch=8,
        visible_per_identity=4,
        infrared_per_identity=4,
        epoch_length="agw",
        optimiser=SGD(),
        schedule=WarmUpSteps(),
    )
    """
    epochs, size, identities_per_batch, visible_per_identity, infrared_per_identity: paper, section 4.1.2: as printed.
    epoch_length: not stated: floor(larger modality / 32) + 1 steps, as in the code of AGW.
    optimiser: paper, section 4.1.2: SGD at 0.1. The rest is not stated and as in the code of AGW.
    schedule: paper, section 4.1.2: 10 epochs of warm-up. ÷10 at 20 and 50 is not stated; AGW's and CAJ's code does it.
    seed: not stated: 0 as in the code of AGW.
    trunk: paper, section 4.1.2: ResNet-50; last stride 1 as in AGW.
    weights: paper, section 4.1.2: pretrained on ImageNet, loaded into each of the three stems.
    """
    non_local: Literal["half", "code"] | None = "code"
    """paper, section 4.1.2: "the encoder follows AGW". `code`: attention of width 1, which AGW's public code has;
    `half`: half the channels, as AGW's paper says; null: no attention."""
    gem_power: Positive = 3.0
    """code of AGW: exponent of the pooling, not learnt."""
    metric_features: Literal["bn", "pool"] = "bn"
    """not stated: which feature is normalised for L_ins, L_mod and L_mix. `bn`, after the neck, as in the code of CAP,
    which has the same constants 0.8 and 50. Before it (`pool`) nearly all distances start below the margin."""
    ce_scale: Scale = "sum_of_means"
    """paper, equation 4: adds the means of the modalities; `batch_mean` is AGW's scale, half of it."""
    gsl: GSL | None = GSL()
    """paper, section 3.1: null switches it off."""
    ical: ICAL | None = ICAL()
    """paper, section 3.2: null switches it off, and there is no auxiliary stem."""
    instance: InstanceContrast | Triplet | None = InstanceContrast()
    """paper, section 3.3: L_ins, a triplet loss in its place, or null."""
    modality: ModalityContrast | None = ModalityContrast()
    """paper, section 3.3: null switches L_mod off, and there is no memory."""
    flip: Flip = Flip()
    """paper, section 4.1.2: random flipping; probability 0.5 as in the code of AGW."""
    crop: PadCrop = PadCrop()
    """paper, section 4.1.2: random cropping; ten pixels of zero padding as in the code of AGW."""
    exchange: ChannelExchange | None = ChannelExchange()
    """paper, section 4.1.2: CAJ's random channel exchange without grey, on visible samples; null switches it off."""
    erasing: ChannelErasing | None = ChannelErasing()
    """paper, section 4.1.2: CAJ's channel erasing; null switches it off."""
    erase_infrared: bool = False
    """paper, section 4.1.2: erasing is "for visible images"; true erases infrared ones too, as the code of CAJ does."""

    def colour(self, *, late: bool) -> dict[str, tuple[Operation, ...]]:
        """Operations on normalised values, by modality: those after (`late`) or before auxiliary samples are made.

        Erasing comes before exchange, as in the code of CAJ. So an exchange also changes an erased rectangle.
        """
        if late != (self.ical is not None and self.ical.source == "before_colour_aug"):
            return {}
        visible = tuple(step for step in (self.erasing, self.exchange) if step)
        return {"visible": visible, "infrared": (self.erasing,) if self.erasing and self.erase_infrared else ()}

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        colour = {"visible": (), "infrared": ()} | self.colour(late=False)
        return Pipeline((self.flip, self.crop), visible=colour["visible"], infrared=colour["infrared"])


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = PECA
