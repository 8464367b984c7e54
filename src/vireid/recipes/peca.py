"""PECA: partial enhancement and channel aggregation.

Jing and Li, "Partial Enhancement and Channel Aggregation for Visible-Infrared Person Re-Identification", IEICE Trans.
Inf. & Syst. 2024. What is new: three small networks learn to tell from the feature of a whole picture what its upper,
middle and lower third look like (GSL). Pictures with channels of a visible and of an infrared picture of one person
are a third, auxiliary modality half-way between the two (ICAL). A contrastive loss replaces the triplet, between
instances of the batch and between each row and a memory of every identity's centroid in each modality.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.operation import Operation, augmented
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.distance import SMALLEST
from vireid.losses.triplet import batch_hard_triplet, weighted_regularised_triplet
from vireid.networks.attention import agw_non_local
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem
from vireid.recipes import Row
from vireid.training.configuration import check_common_fields
from vireid.training.distributed import whole_batch
from vireid.training.optim import SGD, Adam, WarmUpSteps

# --- hyper-parameters -------------------------------------------------------------------------------------------------

Statistics = Literal["batch_stats_no_update", "train", "eval"]
Mixing = Literal["hinge", "abs", "hinge_sq"]


@dataclass(frozen=True)
class GSL:
    """Global-local similarity learning, section 3.1.

    Attributes:
        hidden: not stated; 512, the predictor of SimSiam, which the paper cites for the stop-gradient.
        input: not stated; what goes into the MLPs and what the thirds give. `bn` is the feature after the neck, as in
            the other losses, `pool` the one before it.
        statistics: not stated; by what the thirds are normalised. `batch_stats_no_update`: by their own batch, and the
            running statistics, which whole pictures are tested with, stay as they are. `train` mixes the thirds into
            them; `eval` normalises by them.
        part_resize: not stated; `none` leaves a third its size, `full` stretches it to the picture's at three times
            the cost.
    """

    hidden: int = 512
    input: Literal["bn", "pool"] = "bn"
    statistics: Statistics = "batch_stats_no_update"
    part_resize: Literal["none", "full"] = "none"


@dataclass(frozen=True)
class ICAL:
    """Inter-modality channel aggregation learning, section 3.2.

    Attributes:
        margin: paper, section 4.1.2.
        mix: the paper prints `abs`, which pushes a pair apart as soon as it is nearer than the margin; it also says
            that the loss "encourages similar features", which only `hinge` and its square do. We chose `hinge`.
        source: not stated; auxiliary rows are made before channel exchange and erasing touch the visible row. After
            an exchange its three channels may be equal, and the six patterns would be two.
        in_ce: not stated whether auxiliary rows are classified; equation 4 sums visible and infrared ones only.
        in_ins: not stated whether they take part in L_ins; we follow equation 4.
        in_mod: not stated whether they have centroids; equations 7 and 8 name visible and infrared ones only.
    """

    margin: float = 0.7
    mix: Mixing = "hinge"
    source: Literal["before_colour_aug", "after_colour_aug"] = "before_colour_aug"
    in_ce: bool = False
    in_ins: bool = False
    in_mod: bool = False


@dataclass(frozen=True)
class InstanceContrast:
    """L_ins, equation 6.

    Attributes:
        temperature: paper, section 4.2.1 (τ_ins).
        negatives: paper, section 4.1.2 (|Q|); of the batch, where the equation's samples are.
        positives: paper, `any` modality; `cross_modality` takes the hardest of the other modalities.
    """

    temperature: float = 0.15
    negatives: int = 50
    positives: Literal["any", "cross_modality"] = "any"
    name: ClassVar[str] = "instance"

    def __call__(self, pooled: Any, unit: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        return instance_contrast(
            unit,
            identity,
            modality=modality if self.positives == "cross_modality" else None,
            negatives=self.negatives,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class Triplet:
    """What stands in the place of L_ins in row M1, on features before the neck as in AGW.

    Attributes:
        kind: not stated; `weighted` is AGW's, `batch_hard` the one with a margin.
        margin: not stated; of `batch_hard` only, the field's custom.
    """

    kind: Literal["weighted", "batch_hard"] = "weighted"
    margin: float = 0.3
    name: ClassVar[str] = "triplet"

    def __call__(self, pooled: torch.Tensor, unit: Any, identity: torch.Tensor, modality: Any) -> torch.Tensor:
        if self.kind == "weighted":
            return weighted_regularised_triplet(pooled, identity)
        return batch_hard_triplet(pooled, identity, margin=self.margin)


@dataclass(frozen=True)
class ModalityContrast:
    """L_mod, equations 7 to 10.

    Attributes:
        temperature: paper, section 4.2.1 (τ_mod).
        weight: paper, section 4.2.2 (λ_m).
        rate: paper, section 4.1.2 (α, the share of the new feature).
        start: paper, `extract`: means over all training pictures. `first_seen` starts a centroid at its first feature.
        order: not stated; `sequential` applies equation 9 row by row, as the public code of CAP, a method that the
            paper cites, does. `batch_mean` applies it once, to the mean of a step's rows.
        normalise: not stated; after `each` application of equation 9 as in CAP's code, once a `step`, or `never`.
    """

    temperature: float = 0.10
    weight: float = 0.5
    rate: float = 0.8
    start: Literal["extract", "first_seen"] = "extract"
    order: Literal["sequential", "batch_mean"] = "sequential"
    normalise: Literal["each", "step", "never"] = "each"


@dataclass(frozen=True)
class Config:
    """PECA's settings. "AGW's code" and "CAJ's code" are the public ones of the methods that PECA builds on.

    Attributes:
        seed: not stated; 0 as in AGW's code.
        epochs: paper, section 4.1.2.
        trunk: paper, ResNet-50; last stride 1 as in AGW.
        size: paper, section 4.1.2, height×width in pixels.
        identities_per_batch: paper, 8.
        visible_per_identity: paper, 4.
        infrared_per_identity: paper, 4.
        epoch_length: not stated; AGW's code, floor(larger modality / (8·4)) + 1 steps; or a number of steps.
        precision: not stated; `bf16` or `fp16` is ours, for speed.
        weights: paper, ImageNet, into each of the three stems.
        optimiser: paper, SGD at 0.1; the rest is not stated and AGW's: trunk and non-local at a tenth, momentum 0.9.
        schedule: paper, 10 warm-up epochs; the steps ÷10 at 20 and 50 are not stated, AGW's and CAJ's codes have them.
        gradient_clip: not stated; None is off, a number is the largest norm let through.
        non_local: paper, "the encoder follows AGW"; `code` is width 1, which AGW's public code has, `half` half the
            channels, which AGW's paper says. None: no attention.
        gem_power: AGW's code, 3, and not learnt.
        metric_features: not stated which feature is normalised for L_ins, L_mod, L_mix; `bn`, after the neck, as in
            CAP's code, whose constants PECA shares. Before it (`pool`) all distances start below the margin.
        ce_scale: paper, equation 4 adds the means of the modalities; `batch_mean`, AGW's scale, is half of it.
        gsl: paper, section 3.1; None switches it off.
        ical: paper, section 3.2; None switches it off, and there is no auxiliary stem.
        instance: paper, section 3.3; a triplet loss in its place, or None.
        modality: paper, section 3.3; None switches it off, and there is no memory.
        flip: paper; probability 0.5 as in AGW's code.
        crop: paper; ten pixels of zero padding as in AGW's code.
        exchange: paper, CAJ's random channel exchange without grey, on visible rows; None switches it off.
        erasing: paper, CAJ's channel erasing; None switches it off.
        erase_infrared: paper, erasing is "for visible images"; CAJ's code erases infrared ones too.
    """

    seed: int = 0
    epochs: int = 100
    trunk: Literal["tiny", "resnet18", "resnet34", "resnet50"] = "resnet50"
    size: Size = Size(288, 144)
    identities_per_batch: int = 8
    visible_per_identity: int = 4
    infrared_per_identity: int = 4
    epoch_length: Literal["agw", "fastreid"] | int = "agw"
    precision: Literal["off", "bf16", "fp16"] = "off"
    weights: str = "imagenet"
    optimiser: SGD | Adam = SGD()
    schedule: WarmUpSteps = WarmUpSteps()
    gradient_clip: float | None = None
    non_local: Literal["half", "code"] | None = "code"
    gem_power: float = 3.0
    metric_features: Literal["bn", "pool"] = "bn"
    ce_scale: Literal["sum_of_means", "batch_mean"] = "sum_of_means"
    gsl: GSL | None = GSL()
    ical: ICAL | None = ICAL()
    instance: InstanceContrast | Triplet | None = InstanceContrast()
    modality: ModalityContrast | None = ModalityContrast()
    flip: Flip = Flip()
    crop: PadCrop = PadCrop()
    exchange: ChannelExchange | None = ChannelExchange()
    erasing: ChannelErasing | None = ChannelErasing()
    erase_infrared: bool = False

    def __post_init__(self) -> None:
        check_common_fields(self)
        _check_terms(self)

    def colour(self) -> dict[Modality, tuple[Operation, ...]]:
        """What changes normalised values, by modality."""
        visible = tuple(step for step in (self.exchange, self.erasing) if step)
        infrared = (self.erasing,) if self.erasing and self.erase_infrared else ()
        return {Modality.VISIBLE: visible, Modality.INFRARED: infrared}

    def colour_in_objective(self) -> bool:
        """Whether the colour operations wait until the auxiliary rows are made."""
        return self.ical is not None and self.ical.source == "before_colour_aug"

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        geometry = (self.flip, self.crop)
        if self.colour_in_objective():
            return Pipeline(geometry=geometry)
        colour = self.colour()
        return Pipeline(geometry=geometry, visible=colour[Modality.VISIBLE], infrared=colour[Modality.INFRARED])


def _check_terms(config: Config) -> None:
    """Refuse a number that would only show as a loss that is not finite."""
    for name in ("gsl", "ical", "instance", "modality"):
        term = getattr(config, name)
        for field, least in (("hidden", 1), ("margin", 0), ("temperature", 1e-6), ("negatives", 1), ("weight", 0)):
            if getattr(term, field, least) < least:
                raise BadInput(f"field '{name}.{field}' is {getattr(term, field)}; it takes {least} or more")
    if config.modality and not 0 < config.modality.rate <= 1:
        raise BadInput(f"field 'modality.rate' is {config.modality.rate}; it takes a share above 0 and up to 1")


PAPER = Config()

# --- global-local similarity (section 3.1) ----------------------------------------------------------------------------

THIRDS = ("upper", "middle", "lower")


def thirds(images: torch.Tensor) -> torch.Tensor:
    """Cut pictures into three strips of equal height.

    Where 3 does not divide the height, neighbours share a row of pixels.

    Args:
        images: B×C×H×W.

    Returns:
        3B×C×ceil(H/3)×W: all upper strips, all middle ones, all lower ones, each in the order of the rows.
    """
    height = images.shape[2]
    part = -(-height // 3)
    return torch.cat([images[:, :, top : top + part] for top in (0, (height - part) // 2, height - part)])


class LocalProjections(nn.Module):
    """Three networks that share nothing: what a whole picture's feature says about each third.

    Args:
        width: length D of the features.
        hidden: width of the layer between.
    """

    def __init__(self, width: int, *, hidden: int = 512) -> None:
        super().__init__()
        for name in THIRDS:
            layers = nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width)
            self.add_module(name, nn.Sequential(*layers))

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """B×D to B×3D: upper, middle, lower."""
        return torch.cat([mlp(feature) for mlp in self.children()], 1)


@contextmanager
def normalising_by(network: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Choose what a network's batch normalisations, those in training mode, use and keep inside the block.

    Args:
        network: any module.
        statistics: `batch_stats_no_update` normalises by the batch and keeps no trace of it, `train` as always in
            training, `eval` by the running statistics.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    switch = {"batch_stats_no_update": "track_running_stats", "eval": "training", "train": None}[statistics]
    norms = [norm for norm in norms if switch and getattr(norm, switch)]
    try:
        for norm in norms:
            setattr(norm, switch, False)  # type: ignore[arg-type]
        yield
    finally:
        for norm in norms:
            setattr(norm, switch, True)  # type: ignore[arg-type]


def similarity_loss(global_features: torch.Tensor, local_features: torch.Tensor) -> torch.Tensor:
    """L_sim, equation 1: `-mean_i n(f^g_i) · sg(n(f^s_i))` with `n(f) = f / ‖f‖`.

    Args:
        global_features: B×3D, what `LocalProjections` says about the thirds.
        local_features: B×3D, the features of the upper, middle and lower third side by side; gets no gradient.

    Returns:
        A scalar in -1..1, -1 where every row's two vectors point the same way.
    """
    return -(_unit(global_features) * _unit(local_features.detach())).sum(1).mean()


# --- channel aggregation (section 3.2) --------------------------------------------------------------------------------

# Which channels stay the visible row's, in the order of equation 2: RG, RB, GB, R, G, B.
KEPT = ((1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))


def aggregate_channels(
    images: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor, *, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Equation 2: for each visible row a picture with one or two channels of an infrared row of the same identity.

    The partner and one of the six patterns are drawn uniformly. Channel c comes from channel c of either, so values
    that were normalised per channel stay so. A visible row whose identity has no infrared row in the batch makes none.

    Args:
        images: N×3×H×W of any number type.
        identity: N int64.
        modality: N int64, values of `Modality`.
        generator: where the draws come from; torch's global stream when left out.

    Returns:
        images: G×3×H×W, G at most the number of visible rows.
        visible_rows: G int64, which visible row made each, ascending.
        infrared_rows: G int64, which infrared row.
    """
    visible = (modality == Modality.VISIBLE).nonzero()[:, 0]
    infrared = (modality == Modality.INFRARED).nonzero()[:, 0]
    alike = identity[visible][:, None] == identity[infrared][None, :]
    visible, alike = visible[alike.any(1)], alike[alike.any(1)]
    if not len(visible):
        return images[:0], visible, visible
    device = generator.device if generator is not None else torch.device("cpu")
    pattern = torch.randint(len(KEPT), (len(visible),), generator=generator, device=device).to(images.device)
    drawn = torch.rand(len(visible), generator=generator, device=device, dtype=torch.float64).to(images.device)
    nth = (drawn * alike.sum(1)).long() + 1
    infrared = infrared[(alike.cumsum(1) == nth[:, None]).int().argmax(1)]
    kept = torch.tensor(KEPT, dtype=torch.bool, device=images.device)[pattern][:, :, None, None]
    return torch.where(kept, images[visible], images[infrared]), visible, infrared


def with_auxiliary_rows(
    batch: Batch, *, modality: Modality = Modality.AUXILIARY, generator: torch.Generator | None = None
) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """A batch with its generated rows behind the others: ICAL for any recipe.

    Args:
        batch: visible and infrared rows.
        modality: what the generated rows are called. A network without an auxiliary stem takes them as `VISIBLE`.
        generator: where the draws come from; the batch's own when left out.

    Returns:
        batch: N + G rows; a generated row has the identity and camera of its visible row.
        visible_rows: G int64, which visible row made each.
        infrared_rows: G int64, which infrared row.
    """
    generator = generator or batch.generator()
    made, visible, infrared = aggregate_channels(batch.images, batch.identity, batch.modality, generator=generator)
    grown = replace(
        batch,
        images=torch.cat((batch.images, made)),
        identity=torch.cat((batch.identity, batch.identity[visible])),
        modality=torch.cat((batch.modality, torch.full_like(visible, int(modality)))),
        camera=torch.cat((batch.camera, batch.camera[visible])),
    )
    return grown, visible, infrared


def mixing_loss(distance: torch.Tensor, *, margin: float = 0.7, form: Mixing = "hinge") -> torch.Tensor:
    """One summand of L_mix, equation 3, as a mean over pairs.

    The equation prints `max[‖D - m‖₂, 0]`. D is a number, so that is |D - m| and the maximum never acts.

    Args:
        distance: Euclidean distances between features of length one; a margin of 0.7 is a cosine of 0.755.
        margin: m.
        form: `hinge` is max(D - m, 0), `abs` is |D - m| as printed, `hinge_sq` is max(D - m, 0)².

    Returns:
        A scalar; 0 where there are no pairs.

    Raises:
        BadInput: there is no such form.
    """
    forms = {"hinge": (distance - margin).relu(), "abs": (distance - margin).abs()}
    forms["hinge_sq"] = forms["hinge"].square()
    if form not in forms:
        raise unknown("form of the mixing loss", form, forms)
    return forms[form].sum() / max(distance.numel(), 1)


def _distance(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """‖f_i - g_i‖ of G×D rows, with a gradient that is finite where they coincide."""
    return (f - g).square().sum(1).clamp(min=SMALLEST).sqrt()


# --- instance and modality contrast (section 3.3) ---------------------------------------------------------------------


def identity_loss(
    logits: torch.Tensor,
    identity: torch.Tensor,
    modality: torch.Tensor,
    *,
    scale: Literal["sum_of_means", "batch_mean"] = "sum_of_means",
) -> torch.Tensor:
    """L_ce, equation 4: cross-entropy as a mean over each modality's rows, added.

    Args:
        logits: B×identities.
        identity: B int64.
        modality: B int64.
        scale: `batch_mean` is one mean over all rows instead.

    Returns:
        A scalar, at least float32.
    """
    if scale == "batch_mean":
        return cross_entropy(logits, identity)
    groups = [modality == value for value in modality.unique()]
    return torch.stack([cross_entropy(logits[group], identity[group]) for group in groups]).sum()


def instance_contrast(
    features: torch.Tensor,
    identity: torch.Tensor,
    *,
    negatives: int = 50,
    temperature: float = 0.15,
    modality: torch.Tensor | None = None,
) -> torch.Tensor:
    """L_ins, equation 6.

        j*(i) = farthest other row of the same identity,  Q(i) = the nearest rows of other identities
        mean_i -log( exp(f_i·f_j*/τ) / ( exp(f_i·f_j*/τ) + Σ_{k ∈ Q(i)} exp(f_i·f_k/τ) ) )

    Anchors are the rows of all modalities; one without a positive is left out of the mean.

    Args:
        features: B×D; brought to length one here, as section 3.2 has it.
        identity: B int64.
        negatives: |Q|; all there are where the batch has fewer.
        temperature: τ_ins.
        modality: B int64; where given, a positive must be of another modality than its anchor.

    Returns:
        A scalar, at least float32.
    """
    similarity = _similarity(_unit(features), _unit(features)) / temperature
    lowest = torch.finfo(similarity.dtype).min
    same = identity[:, None] == identity[None, :]
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    if modality is not None:
        positive = positive & (modality[:, None] != modality[None, :])
    # Between vectors of length one the farthest is the least similar.
    hardest = similarity.masked_fill(~positive, math.inf).amin(1)
    usable = positive.any(1)
    hardest = hardest.masked_fill(~usable, 0.0)
    nearest = similarity.masked_fill(same, lowest).topk(min(negatives, len(same)), dim=1).values
    return _mean_over(usable, torch.cat((hardest[:, None], nearest), 1).logsumexp(1) - hardest)


class CentroidMemory(nn.Module):
    """Every identity's centroid in each modality, equations 7 to 9. A buffer, so that a checkpoint holds all of it.

    A centroid that has not been seen is zero and takes no part in the loss; the first feature becomes it.

    Args:
        identities: number of training identities.
        modalities: how many, counted as `Modality` counts: 2 for visible and infrared, 3 with auxiliary.
        width: length D of the features.
        rate: α, the share of the new feature.
        order: `sequential` or `batch_mean`, see `ModalityContrast`.
        normalise: `each`, `step` or `never`, see `ModalityContrast`.
    """

    centroids: torch.Tensor

    def __init__(
        self,
        identities: int,
        modalities: int,
        width: int,
        *,
        rate: float = 0.8,
        order: Literal["sequential", "batch_mean"] = "sequential",
        normalise: Literal["each", "step", "never"] = "each",
    ) -> None:
        super().__init__()
        self.rate, self.order, self.normalise = rate, order, normalise
        self.register_buffer("centroids", torch.zeros(identities, modalities, width))

    @torch.no_grad()
    def start(self, rows: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Equations 7 and 8: the mean over all rows of an identity and modality, then length one.

        Args:
            rows: pieces of (features B×D, identity B int64, modality B int64); the features count at length one.
        """
        total = torch.zeros_like(self.centroids, dtype=torch.float64)
        count = torch.zeros_like(total[:, :, :1])
        for features, identity, modality in rows:
            total.index_put_((identity, modality), _unit(features).double(), accumulate=True)
            count.index_put_((identity, modality), torch.ones_like(count[0, 0]), accumulate=True)
        mean = total / count.clamp(min=1)
        self.centroids.copy_(mean if self.normalise == "never" else functional.normalize(mean, dim=2))

    @torch.no_grad()
    def update(self, features: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor) -> None:
        """Equation 9, `c ← (1 - α) c + α f`, for every row in its order. Call it after the loss of the step.

        Args:
            features: B×D; brought to length one here.
            identity: B int64.
            modality: B int64, below the memory's number of modalities.
        """
        features = _unit(features).to(self.centroids.dtype)
        same = (identity[:, None] == identity[None, :]) & (modality[:, None] == modality[None, :])
        turn = same.tril(-1).sum(1)  # how many rows of the same centroid come before this one
        if self.order == "batch_mean":
            means = (same.to(features.dtype) @ features) / same.sum(1, keepdim=True)
            self._blend(means[turn == 0], identity[turn == 0], modality[turn == 0])
        else:
            # Rows of different centroids do not meet, so all first rows move at once, then all second ones, …
            for now in range(int(turn.max()) + 1 if len(turn) else 0):
                chosen = turn == now
                self._blend(features[chosen], identity[chosen], modality[chosen])
        if self.normalise == "step":
            self.centroids[identity, modality] = functional.normalize(self.centroids[identity, modality])

    def _blend(self, new: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor) -> None:
        old = self.centroids[identity, modality]
        new = torch.where(old.any(1, keepdim=True), (1 - self.rate) * old + self.rate * new, new)
        self.centroids[identity, modality] = functional.normalize(new) if self.normalise == "each" else new

    def loss(
        self, features: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor, *, temperature: float = 0.10
    ) -> torch.Tensor:
        """L_mod, equation 10.

            P(i) = the centroids of i's identity,  U(i) = those of other identities in i's modality
            mean_i -1/|P(i)| Σ_{c ∈ P(i)} log( exp(f_i·c/τ) / Σ_{c' ∈ P(i) ∪ U(i)} exp(f_i·c'/τ) )

        Args:
            features: B×D; brought to length one here.
            identity: B int64.
            modality: B int64.
            temperature: τ_mod.

        Returns:
            A scalar, at least float32; 0 where no row has a centroid yet.
        """
        f = _unit(features)
        # A copy: what autograd keeps for the backward pass must not be what `update` writes into.
        centroids = self.centroids.to(f.dtype, copy=True)
        seen = centroids.any(2)
        similarity = _similarity(f, centroids.flatten(0, 1)).unflatten(1, seen.shape) / temperature
        lowest = torch.finfo(similarity.dtype).min
        similarity = similarity.masked_fill(~seen, lowest)
        rows = torch.arange(len(f), device=f.device)
        positive, known = similarity[rows, identity], seen[identity]
        own = functional.one_hot(identity, len(centroids)).bool()
        negative = similarity[rows, :, modality].masked_fill(own, lowest)
        everyone = torch.cat((positive, negative), 1).logsumexp(1, keepdim=True)
        terms = (everyone - positive).masked_fill(~known, 0.0)
        return _mean_over(known.any(1), terms.sum(1) / known.sum(1).clamp(min=1))


def _unit(features: torch.Tensor) -> torch.Tensor:
    """f / ‖f‖ of B×D rows, at least in float32."""
    return functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)))


def _similarity(f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """f_i · g_j, not in the half precision that autocast would choose: temperatures magnify its errors tenfold."""
    with torch.autocast(f.device.type, enabled=False):
        return f @ g.T


def _mean_over(usable: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(~usable, 0.0).sum() / usable.sum().clamp(min=1)


# --- network ----------------------------------------------------------------------------------------------------------


class PECA(nn.Module):
    """AGW's encoder with three stems, the MLPs of GSL and the centroid memory; a part that is off is not built.

    Args:
        identities: width of the classifier.
        trunk: name of the ResNet.
        non_local: width of the attention, or None.
        gem_power: exponent of the pooling.
        metric_features: `bn` or `pool`, see `Config`.
        ce_scale: `sum_of_means` or `batch_mean`, see `Config`.
        gsl, ical, instance, modality: the terms, or None.
        colour: operations on normalised rows that wait until the auxiliary rows are made, by modality.

    Attributes:
        draws_rows: whether the objective draws partners from the batch.
    """

    def __init__(
        self,
        identities: int,
        *,
        trunk: str = "resnet50",
        non_local: Literal["half", "code"] | None = "code",
        gem_power: float = 3.0,
        metric_features: Literal["bn", "pool"] = "bn",
        ce_scale: Literal["sum_of_means", "batch_mean"] = "sum_of_means",
        gsl: GSL | None = None,
        ical: ICAL | None = None,
        instance: InstanceContrast | Triplet | None = None,
        modality: ModalityContrast | None = None,
        colour: Mapping[Modality, Sequence[Operation]] | None = None,
    ) -> None:
        super().__init__()
        modalities = [Modality.VISIBLE, Modality.INFRARED] + ([Modality.AUXILIARY] if ical else [])
        self.stems = PerModality(lambda: Stem(trunk), modalities)
        self.stages = Stages(trunk, inserted=agw_non_local(trunk, non_local) if non_local else None)
        self.pool = GeM(gem_power)
        self.width = self.stages.channels[-1]
        self.neck = BNNeck(self.width)
        self.classifier = Classifier(self.width, identities)
        self.projections = LocalProjections(self.width, hidden=gsl.hidden) if gsl else None
        self.memory = None
        if modality:
            kept = 3 if ical and ical.in_mod else 2
            self.memory = CentroidMemory(
                identities, kept, self.width, rate=modality.rate, order=modality.order, normalise=modality.normalise
            )
        self.gsl, self.ical, self.instance, self.modality = gsl, ical, instance, modality
        self.metric_features, self.colour = metric_features, dict(colour or {})
        self.ce_scale: Literal["sum_of_means", "batch_mean"] = ce_scale
        self.draws_rows = ical is not None

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`, by name."""
        stem = self.stems(images, modality)
        return {"stem": stem} | self.stages(stem)

    def features(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×D features, by name: `pool` before the neck, `bn` after it."""
        pooled = self.pool(self.maps(images, modality)["stage4"])
        return {"pool": pooled, "bn": self.neck(pooled)}

    @torch.no_grad()
    def local_features(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """The features of the upper, middle and lower third side by side, N×3D, in one pass without a gradient.

        Nothing but the stopped side of equation 1 uses them, so a backward pass through the thirds would be thrown
        away.
        """
        gsl = self.gsl or GSL()
        strips = thirds(images)
        if gsl.part_resize == "full":
            strips = functional.interpolate(strips, size=images.shape[2:], mode="bilinear")
        with normalising_by(self, gsl.statistics):
            features = self.features(strips, modality.repeat(len(THIRDS)))[gsl.input]
        return torch.cat(features.chunk(len(THIRDS)), 1)

    # --- objective ----------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of equations 5 and 11, λ_m multiplied in, so that their sum is L_PECA.

        Real rows stand before the auxiliary ones throughout. In training mode the memory takes the step's features in
        after its loss was computed, those of all processes, so that it is the same on each.
        """
        rows, visible, infrared = self._rows(batch)
        real = len(batch)
        # The thirds go first: what they need is free again before the whole pictures' maps are kept for the gradient.
        local = self.local_features(rows.images[:real], rows.modality[:real]) if self.projections is not None else None
        features = self.features(rows.images, rows.modality)
        unit = _unit(features[self.metric_features])

        def taking_part(auxiliary_too: bool) -> slice:
            return slice(None if auxiliary_too else real)

        ical = self.ical or ICAL()
        part = taking_part(ical.in_ce)
        logits = self.classifier(features["bn"][part])
        terms = {"identity": identity_loss(logits, rows.identity[part], rows.modality[part], scale=self.ce_scale)}
        if self.gsl and self.projections is not None and local is not None:
            terms["similarity"] = similarity_loss(self.projections(features[self.gsl.input][:real]), local)
        if self.ical:
            mixing = partial(mixing_loss, margin=ical.margin, form=ical.mix)
            pulls = (mixing(_distance(unit[parents], unit[real:])) for parents in (visible, infrared))
            terms["mixing"] = torch.stack(list(pulls)).sum()
        if self.instance:
            part = taking_part(ical.in_ins)
            columns = (features["pool"][part], unit[part], rows.identity[part], rows.modality[part])
            terms[self.instance.name] = self.instance(*whole_batch(*columns))
        if self.modality and self.memory is not None:
            part = taking_part(ical.in_mod)
            # A mean over the rows that have a centroid, of which processes may have different numbers.
            columns = whole_batch(unit[part], rows.identity[part], rows.modality[part])
            loss = self.memory.loss(*columns, temperature=self.modality.temperature)
            terms["modality"] = self.modality.weight * loss
            if self.training:
                self.memory.update(*columns)
        return terms

    def _rows(self, batch: Batch) -> tuple[Batch, torch.Tensor, torch.Tensor]:
        """The batch, with auxiliary rows where ICAL is on, and then the colour operations that waited for them."""
        if self.ical is None:
            nothing = batch.identity[:0]
            return batch, nothing, nothing
        generator = batch.generator()
        rows, visible, infrared = with_auxiliary_rows(batch, generator=generator)
        for modality, operations in self.colour.items():
            chosen = (rows.modality == modality).nonzero()[:, 0]
            for operation in operations:
                rows.images[chosen] = augmented(operation, rows.images[chosen], generator)
        return rows, visible, infrared

    # --- embedding ----------------------------------------------------------------------------------------------------

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features after the neck, each of length one: no MLP and no auxiliary stem."""
        return _unit(self.features(images, modality)["bn"])

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features before the neck, each of length one."""
        return _unit(self.features(images, modality)["pool"])

    # --- training set-up ----------------------------------------------------------------------------------------------

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Fill the memory from every training picture, as at test time. Without batches it fills as rows are seen."""
        if self.memory is None or self.modality is None or self.modality.start == "first_seen":
            return
        self.memory.start(
            (self.features(batch.images, batch.modality)[self.metric_features], batch.identity, batch.modality)
            for batch in batches
        )

    def new_parameters(self) -> list[nn.Parameter]:
        """Neck, classifier and the MLPs: everything else learns at a tenth of the rate, as in AGW's code."""
        fresh = [self.neck, self.classifier, *([self.projections] if self.projections is not None else [])]
        return [parameter for module in fresh for parameter in module.parameters()]


def build(config: Config, identities: int) -> PECA:
    """The network of `config` for so many training identities."""
    return PECA(
        identities,
        trunk=config.trunk,
        non_local=config.non_local,
        gem_power=config.gem_power,
        metric_features=config.metric_features,
        ce_scale=config.ce_scale,
        gsl=config.gsl,
        ical=config.ical,
        instance=config.instance,
        modality=config.modality,
        colour=config.colour() if config.colour_in_objective() else None,
    )


# --- rows -------------------------------------------------------------------------------------------------------------

_M1 = replace(PAPER, instance=Triplet(), modality=None, gsl=None, ical=None)
_M2 = replace(_M1, instance=InstanceContrast())
_M3 = replace(_M2, modality=ModalityContrast())
_M4, _M5 = replace(_M3, gsl=GSL()), replace(_M3, ical=ICAL())

# name: configuration, SYSU-MM01 all search, RegDB visible to infrared; each rank-1, rank-10, rank-20, mAP
_TABLE3 = {
    "m1": (_M1, (65.12, 92.37, 96.03, 61.25), (80.23, 92.10, 95.87, 73.06)),
    "m2": (_M2, (65.98, 92.79, 96.30, 62.17), (81.25, 92.57, 95.88, 73.86)),
    "m3": (_M3, (67.23, 93.25, 96.39, 62.83), (83.17, 93.69, 96.85, 75.32)),
    "m4": (_M4, (72.86, 96.12, 98.16, 68.25), (88.96, 96.03, 97.81, 83.19)),
    "m5": (_M5, (70.23, 95.83, 98.62, 66.83), (85.36, 95.27, 97.22, 80.07)),
    "peca": (PAPER, (74.89, 96.57, 99.03, 72.28), (94.97, 99.23, 99.56, 89.07)),
}


def _printed(values: Sequence[float]) -> dict[str, float]:
    return dict(zip(("rank1", "rank10", "rank20", "map"), values, strict=True))


def _sweeps() -> dict[str, Row]:
    """Figures 4 to 6 print curves and no numbers; each passes through PECA's own point. The grid is ours."""
    ins, mod, taus = InstanceContrast(), ModalityContrast(), (0.05, 0.10, 0.15, 0.20, 0.25)
    points = {f"figure4/tau_ins={t:.2f}": replace(PAPER, instance=replace(ins, temperature=t)) for t in taus}
    points |= {f"figure5/tau_mod={t:.2f}": replace(PAPER, modality=replace(mod, temperature=t)) for t in taus}
    weights = (0.0, 0.25, 0.5, 0.75, 1.0)
    points |= {f"figure6/lambda_m={w:.2f}": replace(PAPER, modality=replace(mod, weight=w)) for w in weights}
    own = Row(PAPER, _printed(_TABLE3["peca"][1]), "sysu-mm01/all/single", "PECA table 3", "PECA's own point")
    return {name: own if config == PAPER else Row(config) for name, config in points.items()}


ROWS: Mapping[str, Row] = {
    "table1/all": Row(PAPER, _printed((74.89, 96.57, 99.03, 72.28)), "sysu-mm01/all/single", "PECA table 1"),
    "table1/indoor": Row(PAPER, _printed((79.96, 98.90, 99.78, 83.96)), "sysu-mm01/indoor/single", "PECA table 1"),
    "table2/v2i": Row(PAPER, _printed((94.97, 99.23, 99.56, 89.07)), "regdb/v2i", "PECA table 2", "mean of 10 splits"),
    "table2/i2v": Row(PAPER, _printed((93.06, 98.97, 99.51, 90.22)), "regdb/i2v", "PECA table 2", "mean of 10 splits"),
    **{
        f"table3/{name}": Row(config, _printed(sysu), "sysu-mm01/all/single", "PECA table 3")
        for name, (config, sysu, _) in _TABLE3.items()
    },
    **{
        f"table3-regdb/{name}": Row(config, _printed(regdb), "regdb/v2i", "PECA table 3", "mean of 10 splits")
        for name, (config, _, regdb) in _TABLE3.items()
    },
    **_sweeps(),
}
