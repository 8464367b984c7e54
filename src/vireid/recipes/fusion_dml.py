"""Feature fusion with deep mutual learning.

Lin and Wang, "Visible-Infrared Person Re-Identification via Feature Fusion and Deep Mutual Learning", ACML 2024. What
is new: visible pictures are trained on with their channels in any order, or grey (RCC). The maps of the middle stages
are weighted at every position and concatenated into a second, finer feature beside the global one. A third branch, the
two joined, teaches both and learns from both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.operation import augmented
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput, unknown
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.triplet import weighted_regularised_triplet
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem, trunk_named
from vireid.recipes import Row
from vireid.training.configuration import check_common_fields
from vireid.training.distributed import whole_batch
from vireid.training.optim import SGD, Adam, WarmUpSteps

# --- random combination of channels (section 3.1) ---------------------------------------------------------------------

# The orders as printed; case 6 is the grey picture. The first leaves the picture as it is.
ORDERS = ((0, 1, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0), (1, 0, 2))
GREY = len(ORDERS)


def random_channel_combination(
    images: torch.Tensor, *, grey: bool = True, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Replace each picture by one of seven, all equally likely: its channels in one of the six orders, or grey (RCC).

    Lin and Wang (ACML 2024), section 3.1 and figure 2. It belongs before the normalisation, whose mean and deviation
    are those of the channels in their own order. A picture whose channels are equal, as an infrared one's are, comes
    out exactly as it went in.

    Args:
        images: N×3×H×W, uint8 or floating point, not normalised; left as they are.
        grey: whether the grey picture is among the choices.
        generator: where the draws come from; torch's global stream when left out.

    Returns:
        The same shape and type.
    """
    device = generator.device if generator is not None else None
    return combine_channels(
        images, torch.randint(len(ORDERS) + grey, (len(images),), generator=generator, device=device)
    )


def combine_channels(images: torch.Tensor, case: torch.Tensor) -> torch.Tensor:
    """The pictures with their channels as the cases say.

    Args:
        images: N×3×H×W, uint8 or floating point.
        case: N int64: 0..5 an order of `ORDERS`, 6 grey.

    Returns:
        The same shape and type, new memory.
    """
    case = case.to(images.device)
    order = torch.tensor([*ORDERS, ORDERS[0]], device=images.device)[case]
    result = images[torch.arange(len(images), device=images.device)[:, None], order]
    if (grey := case == GREY).any():
        red, green, blue = images[grey].to(torch.promote_types(images.dtype, torch.float32)).unbind(1)
        # BT.601's luminance, written so that three equal channels give exactly their own value.
        luminance = green + 0.299 * (red - green) + 0.114 * (blue - green)
        luminance = luminance if images.is_floating_point() else luminance.round()
        result[grey] = luminance[:, None].to(images.dtype)
    return result


@dataclass(frozen=True)
class ChannelCombination:
    """`random_channel_combination` as a step of a pipeline. Draws the cases of `combine_channels`.

    Attributes:
        grey: whether the grey picture is among the choices.
    """

    grey: bool = True

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        return torch.randint(len(ORDERS) + self.grey, (rows,), generator=generator).tolist()

    def change(self, image: torch.Tensor, drawn: int) -> None:
        if drawn:
            image.copy_(combine_channels(image[None], torch.tensor([drawn]))[0])

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """N×3×H×W to the same."""
        return augmented(self, images, generator)


# --- hyper-parameters -------------------------------------------------------------------------------------------------

Pair = Literal["joint-global", "joint-fusion", "global-fusion"]
PAIRS = ("joint-global", "joint-fusion", "global-fusion")


@dataclass(frozen=True)
class Fusion:
    """Section 3.3.

    Attributes:
        stages: paper, 1, 2 and 3; table 2 has others. Any of 1..4, ascending.
        width: paper, each map is reduced to 256 channels.
        weights: `asff`, predicted from the maps with a sum of 1 at every position, as in the method the paper takes
            the idea from; `param`, free matrices shared by all pictures, as the paper's words "weight parameter
            matrix" can also be read. They start at 1.
        up: not stated; `nearest` is ASFF's, `bilinear` the other usual choice.
        activation: not stated beyond "1×1 convolution"; we chose convolution, normalisation and `relu`, so that the
            pooling's clamp cuts nothing off. `leaky_relu` (slope 0.1) is ASFF's; `none` is a bare convolution.
        full_rate: not stated; True lets these layers, which no pretrained weights exist for, learn like the
            classifiers; False at the backbone's rate, as AGW's code does with its non-local blocks.
    """

    stages: tuple[int, ...] = (1, 2, 3)
    width: int = 256
    weights: Literal["asff", "param"] = "asff"
    up: Literal["nearest", "bilinear"] = "nearest"
    activation: Literal["relu", "leaky_relu", "none"] = "relu"
    full_rate: bool = True

    def __post_init__(self) -> None:
        if not self.stages or list(self.stages) != sorted(set(self.stages) & {1, 2, 3, 4}):
            raise BadInput(f"field 'fusion.stages' is {list(self.stages)}; it takes some of 1, 2, 3, 4, ascending")


@dataclass(frozen=True)
class Mutual:
    """Sections 3.4 and 3.5: which branches learn from each other, and how strongly.

    Attributes:
        pairs: paper, joint-global and joint-fusion; table 4 has others. The first of a pair is the teacher.
        theta1: paper, section 4.4, weight of joint-global.
        theta2: paper, section 4.4, weight of joint-fusion.
        theta3: weight of global-fusion (table 4, row 2), not stated; θ2's, because the fusion branch is taught.
        direction: paper, `both`, equations 5 and 6; `one_way` keeps the first summand, with its ½.
        detach: not stated; `target` is deep mutual learning's own scheme (Zhang et al., CVPR 2018): in each summand
            the first distribution is a constant target for the second. `none` lets gradients into both, the literal
            reading of equation 5; `joint` makes the joint branch a teacher that does not learn from the others.
        reduction: equations 5 and 6 print a sum over the samples, equation 7 beside them a mean; `batchmean` is what
            deep mutual learning's code does. `sum` multiplies θ by 64.
        temperature: paper, equation 4 has none, which is 1.
    """

    pairs: tuple[Pair, ...] = ("joint-global", "joint-fusion")
    theta1: float = 0.6
    theta2: float = 1.8
    theta3: float = 1.8
    direction: Literal["both", "one_way"] = "both"
    detach: Literal["target", "none", "joint"] = "target"
    reduction: Literal["batchmean", "sum"] = "batchmean"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.pairs or len(set(self.pairs)) < len(self.pairs) or set(self.pairs) - set(PAIRS):
            raise BadInput(f"field 'mutual.pairs' is {list(self.pairs)}; it takes some of {', '.join(PAIRS)}")
        if not self.temperature > 0 or min(self.theta1, self.theta2, self.theta3) < 0:
            raise BadInput("field 'mutual' takes a temperature above 0 and weights theta1, theta2, theta3 of 0 or more")

    def weights(self) -> dict[tuple[str, str], float]:
        """θ by (teacher, student)."""
        theta = dict(zip(PAIRS, (self.theta1, self.theta2, self.theta3), strict=True))
        return {tuple(pair.split("-")): theta[pair] for pair in self.pairs}  # type: ignore[misc]


@dataclass(frozen=True)
class Config:
    """The paper's settings; "AGW" is its public code, whose schedule the paper prints.

    Attributes:
        seed: not stated; we chose 0.
        epochs: paper, section 4.2.
        trunk: paper, ResNet-50; the last stride of 1 is AGW's.
        size: paper, section 4.2, height×width in pixels.
        identities_per_batch: paper, section 4.2.
        visible_per_identity: paper, section 4.2.
        infrared_per_identity: paper, section 4.2.
        epoch_length: not stated; AGW's, floor(larger modality / (8·4)) + 1 steps; or a number of steps.
        precision: not stated; float32. `bf16` or `fp16` is ours, for speed.
        weights: ImageNet, as for AGW; `none` starts at random, a file is read with every key accounted for.
        optimiser: paper, section 4.2: SGD at 0.1, momentum 0.9, weight decay 5e-4. Not stated: AGW's Nesterov form,
            and its tenth of the rate for pretrained layers (`backbone_factor`). Adam is ours.
        schedule: paper, ÷10 at epoch 20 and ÷100 at 50. Not stated: AGW's ten warm-up epochs (`warm_up_epochs`).
        gradient_clip: not stated; None is off, a number is the largest norm let through.
        gem_power: not stated; AGW's 3.
        gem_learnable: not stated; False as in AGW's code. True learns one exponent for each pooled map.
        fusion: paper, section 3.3; None is the baseline of table 1, the global branch alone.
        branch_identity: paper, equations 7 and 8: classification of the global and the fusion branch (table 3); the
            joint one, or the only one, is always classified.
        mutual: paper, section 3.4; None is without deep mutual learning.
        label_smoothing: of the global and the fusion branch's classification, where there is a joint one. 0 under our
            reading of table 3's "LSR" (θ1 and θ2 themselves); 0.1 is the usual value under the other reading.
        negative_sign: `minus` is AGW's, far negatives weigh less; `plus` is equation 12 as printed.
        rcc: paper, section 3.1, on visible pictures; None is without.
        erasing: paper, section 4.2, channel-level erasing with CAJ's settings; None is without. The paper's "random
            values from all three channels" is `fill=random_per_channel`, CAJ's code, which it cites, `caj_const`.
        erasing_infrared: not stated; CAJ's code erases in both modalities. False: in visible pictures only.
        flip: paper, section 3.1, "random flipping"; AGW's probability.
        crop: paper, section 3.1, "random cropping"; AGW's ten pixels of padding.
    """

    seed: int = 0
    epochs: int = 80
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
    gem_power: float = 3.0
    gem_learnable: bool = False
    fusion: Fusion | None = Fusion()
    branch_identity: bool = True
    mutual: Mutual | None = Mutual()
    label_smoothing: float = 0.0
    negative_sign: Literal["minus", "plus"] = "minus"
    rcc: ChannelCombination | None = ChannelCombination()
    erasing: ChannelErasing | None = ChannelErasing()
    erasing_infrared: bool = True
    flip: Flip = Flip()
    crop: PadCrop = PadCrop()

    def __post_init__(self) -> None:
        check_common_fields(self)

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = tuple(step for step in (self.erasing,) if step)
        return Pipeline(
            geometry=(self.flip, self.crop),
            visible_before=tuple(step for step in (self.rcc,) if step),
            visible=erasing,
            infrared=erasing if self.erasing_infrared else (),
        )


PAPER = Config()

# --- fusion (section 3.3) ---------------------------------------------------------------------------------------------


Maps = Mapping[str, torch.Tensor] | Sequence[torch.Tensor]


class AdaptiveFusion(nn.Module):
    """Maps of several stages, weighted at every position of the finest grid and concatenated (equation 2).

    Each map is reduced to `width` channels by a 1×1 convolution and brought to the finest map's grid; `weights` says
    how its weight comes about. With `asff` (Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection",
    2019) the weights of one position are predicted from the reduced maps and sum to 1; with `param` they are
    parameters, shared by all pictures.

    Args:
        channels: of each map: a list, or a mapping by name, in the order of concatenation.
        width: channels of each reduced map.
        weights: `asff` or `param`.
        up: `nearest` or `bilinear`.
        activation: after the 1×1 convolution and its normalisation: `relu`, `leaky_relu`; `none` leaves the bare
            convolution, and negative values.
        grid: height and width of the finest map, needed for `param`.

    Attributes:
        names: of the maps; None where `channels` was a list.
        channels: of the result.

    Raises:
        BadInput: an unknown choice, or `param` without a grid.
    """

    def __init__(
        self,
        channels: Sequence[int] | Mapping[str, int],
        *,
        width: int = 256,
        weights: Literal["asff", "param"] = "asff",
        up: Literal["nearest", "bilinear"] = "nearest",
        activation: Literal["relu", "leaky_relu", "none"] = "relu",
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        for what, given, choices in (("weights", weights, ("asff", "param")), ("up", up, ("nearest", "bilinear"))):
            if given not in choices:
                raise unknown(what, given, choices)
        if weights == "param" and grid is None:
            raise BadInput("weights 'param' need the grid they are for, the height and width of the finest map")
        self.names = tuple(channels) if isinstance(channels, Mapping) else None
        counts = list(channels.values()) if isinstance(channels, Mapping) else list(channels)
        self.channels = width * len(counts)
        self.up: Literal["nearest", "bilinear"] = up
        self.separable = up == "nearest" and activation == "relu"
        self.reduce = nn.ModuleList(_convolution(count, width, activation) for count in counts)
        if weights == "asff":  # 16 channels of each map, then one number per map from all of them
            self.look = nn.ModuleList(_convolution(width, 16, "relu") for _ in counts)
            self.decide = nn.Conv2d(16 * len(counts), len(counts), 1)
        self.matrices = nn.Parameter(torch.ones(1, len(counts), *grid)) if weights == "param" and grid else None

    def forward(self, maps: Maps) -> torch.Tensor:
        """Maps B×C_i×H_i×W_i, as a list or by name, to B×(width · maps)×H×W of the finest grid.

        Other maps in a mapping are passed over if the names were given, and are not allowed if they were not.
        """
        reduced = self.reduced(maps)
        weights = self.weights(reduced).to(reduced[0].dtype)
        return torch.cat([weights[:, i : i + 1] * self.enlarged(x, weights) for i, x in enumerate(reduced)], 1)

    def pooled(self, maps: Maps, pool: GeM) -> torch.Tensor:
        """`pool(self(maps))` without writing the fused map, which is the largest of the network; B×channels."""
        reduced = self.reduced(maps)
        weights = self.weights(reduced)
        return torch.cat([self._pooled(x, weights[:, i : i + 1], pool) for i, x in enumerate(reduced)], 1)

    def _pooled(self, x: torch.Tensor, weights: torch.Tensor, pool: GeM) -> torch.Tensor:
        cell = weights.shape[2] // x.shape[2], weights.shape[3] // x.shape[3]
        whole = all(n * k == m for n, k, m in zip(x.shape[2:], cell, weights.shape[2:], strict=True))
        if not (self.separable and whole and isinstance(pool.p, float) and pool.p >= 1):
            return pool(weights.to(x.dtype) * self.enlarged(x, weights))
        # Where x ≥ 0 is constant over cells of the grid, mean (w x)^p is mean over cells (x^p · mean in the cell w^p).
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            largest = x.detach().amax((2, 3)).clamp(min=pool.eps)
            powers = (x / largest[..., None, None]).pow(pool.p).flatten(2)
            shares = functional.avg_pool2d(weights.to(x.dtype).clamp(min=0).pow(pool.p), cell)
            mean = powers @ shares.expand(len(x), -1, -1, -1).flatten(2).transpose(1, 2) / powers.shape[2]
            floor = (pool.eps / largest).pow(pool.p)
            return torch.maximum(mean[..., 0], floor).pow(1 / pool.p) * largest

    def reduced(self, maps: Maps) -> list[torch.Tensor]:
        """The maps reduced to `width` channels, each on its own grid."""
        if isinstance(maps, Mapping):
            maps = [maps[name] for name in self.names] if self.names is not None else list(maps.values())
        if len(maps) != len(self.reduce):
            raise ValueError(f"this fusion is for {len(self.reduce)} maps, not {len(maps)}")
        return [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]

    def enlarged(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """`x` on the grid of `like`."""
        grid = like.shape[2:]
        return x if x.shape[2:] == grid else functional.interpolate(x, size=grid, mode=self.up)

    def weights(self, reduced: Sequence[torch.Tensor]) -> torch.Tensor:
        """Reduced maps to B×maps×H×W of the finest grid: how much each counts where (1×maps×H×W with `param`).

        Raises:
            BadInput: free matrices were made for another grid.
        """
        finest = max(reduced, key=lambda x: x.shape[2] * x.shape[3])
        if self.matrices is None:
            # Looked at before they are enlarged: with `nearest` it makes no difference but to the cost.
            seen = [self.enlarged(look(x), finest) for look, x in zip(self.look, reduced, strict=True)]
            return self.decide(torch.cat(seen, 1)).softmax(1)
        if (made := self.matrices.shape[2:]) != (found := finest.shape[2:]):
            raise BadInput(f"free fusion weights were made for maps of {made[0]}x{made[1]}, not {found[0]}x{found[1]}")
        return self.matrices


def _convolution(inputs: int, outputs: int, activation: str) -> nn.Module:
    after = {"relu": nn.ReLU(inplace=True), "leaky_relu": nn.LeakyReLU(0.1, inplace=True), "none": None}
    if activation not in after:
        raise unknown("activation", activation, after)
    if (act := after[activation]) is None:
        return nn.Conv2d(inputs, outputs, 1)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), act)


# --- deep mutual learning (section 3.4) -------------------------------------------------------------------------------


def mutual_loss(
    joint_logits: torch.Tensor,
    branch_logits: torch.Tensor,
    *,
    detach: Literal["target", "none", "joint"] = "target",
    reduction: Literal["batchmean", "sum"] = "batchmean",
    direction: Literal["both", "one_way"] = "both",
    temperature: float = 1.0,
) -> torch.Tensor:
    """How far the predictions of two branches lie apart, seen from each.

    Lin and Wang (ACML 2024), equations 5 and 6: `½ [KL(pʲ ‖ pᵇ) + KL(pᵇ ‖ pʲ)]` with p the softmax of the logits and
    `KL(p ‖ q) = Σ p (ln p - ln q)`, over the batch's rows as `reduction` says. At least in float32.

    Args:
        joint_logits: B×identities, of the branch that teaches.
        branch_logits: B×identities, of the branch that is taught.
        detach: `target`, the first distribution of each KL is a constant, so that each branch follows the other as
            it stands; `none`, gradients into both everywhere; `joint`, none into `joint_logits`.
        reduction: `batchmean`, divided by B; `sum`, as printed.
        direction: `both`; `one_way` is `½ KL(pʲ ‖ pᵇ)`, with the same pull on the branch as in both.
        temperature: divides the logits; the loss is multiplied by its square, so that gradients keep their size.

    Returns:
        A scalar of 0 or more.

    Raises:
        BadInput: an unknown choice.
    """
    for what, given, choices in (
        ("detach", detach, ("target", "none", "joint")),
        ("reduction", reduction, ("batchmean", "sum")),
        ("direction", direction, ("both", "one_way")),
    ):
        if given not in choices:
            raise unknown(what, given, choices)
    joint, branch = (
        functional.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=1)
        for logits in (joint_logits, branch_logits)
    )
    divergence = partial(functional.kl_div, reduction=reduction, log_target=True)  # (ln q, ln p) → KL(p ‖ q)
    loss = divergence(branch, joint if detach == "none" else joint.detach())
    if direction == "both":
        loss = loss + divergence(
            joint.detach() if detach == "joint" else joint, branch.detach() if detach == "target" else branch
        )
    return 0.5 * temperature**2 * loss


# --- network ----------------------------------------------------------------------------------------------------------


class FusionDML(nn.Module):
    """Two stems, one trunk, and three branches: global, fusion, and both joined. Without a fusion, the global alone.

    A branch has a neck and a classifier if some term needs them.

    Args:
        identities: width of the classifiers.
        trunk: name of the ResNet.
        fusion: of maps by name (`stage1` …); None for the global branch alone.
        pairs: (teacher, student) → weight of the mutual loss between the two branches' logits.
        mutual: that loss.

    The others are as in `Config`, `Fusion` and `Mutual`.
    """

    def __init__(
        self,
        identities: int,
        *,
        trunk: str = "resnet50",
        fusion: AdaptiveFusion | None = None,
        fusion_full_rate: bool = True,
        gem_power: float = 3.0,
        gem_learnable: bool = False,
        branch_identity: bool = True,
        label_smoothing: float = 0.0,
        mutual: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = mutual_loss,
        pairs: Mapping[tuple[str, str], float] | None = None,
        negative_sign: Literal["minus", "plus"] = "minus",
    ) -> None:
        super().__init__()
        self.stems = PerModality(lambda: Stem(trunk))
        self.stages = Stages(trunk)
        self.fusion, self.fusion_full_rate = fusion, fusion_full_rate
        widths = {"global": self.stages.channels[-1]}
        if fusion is not None:
            widths |= {"fusion": fusion.channels, "joint": widths["global"] + fusion.channels}
        self.embedding_branch = "joint" if fusion is not None else "global"
        self.pools = nn.ModuleDict(
            {name: GeM(gem_power, learnable=gem_learnable) for name in widths if name != "joint"}
        )
        self.pairs = dict(pairs or {})
        needed = {self.embedding_branch, *(name for pair in self.pairs for name in pair)}
        heads = [name for name in widths if branch_identity or name in needed]
        self.necks = nn.ModuleDict({name: BNNeck(widths[name]) for name in heads})
        self.classifiers = nn.ModuleDict({name: Classifier(widths[name], identities) for name in heads})
        self.branch_identity, self.label_smoothing = branch_identity, label_smoothing
        self.mutual = mutual
        self.negative_sign: Literal["minus", "plus"] = negative_sign

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4` and, where there is one, `fusion`, by name."""
        maps = self.trunk_maps(images, modality)
        return maps if self.fusion is None else maps | {"fusion": self.fusion(maps)}

    def trunk_maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same without `fusion`."""
        stem = self.stems(images, modality)
        return {"stem": stem} | self.stages(stem)

    def branches(self, maps: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Maps to the pooled feature of each branch, N×D, by name: `global`, `fusion`, `joint` (equation 3).

        Without a map `fusion` its pooled feature is computed from the stages' maps.
        """
        pooled = {"global": self.pools["global"](maps["stage4"])}
        if self.fusion is not None:
            pool = self.pools["fusion"]
            pooled["fusion"] = pool(maps["fusion"]) if "fusion" in maps else self.fusion.pooled(maps, pool)  # type: ignore[arg-type]
            pooled["joint"] = torch.cat((pooled["global"], pooled["fusion"]), 1)
        return pooled

    def logits(self, branches: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of branches to N×identities logits, by name, of those that have a classifier."""
        return {name: head(self.necks[name](branches[name])) for name, head in self.classifiers.items()}

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Equation 13; every term carries its weight already, so their sum is the objective."""
        branches = self.branches(self.trunk_maps(batch.images, batch.modality))
        logits = self.logits(branches)
        terms = {}
        for name, scores in logits.items():
            if name == self.embedding_branch:
                terms[f"identity_{name}"] = cross_entropy(scores, batch.identity)
            elif self.branch_identity:
                terms[f"identity_{name}"] = cross_entropy(scores, batch.identity, label_smoothing=self.label_smoothing)
        for (teacher, student), theta in self.pairs.items():
            # Rows of every process, so that a sum over the samples is one over all of them.
            terms[f"mutual_{teacher}_{student}"] = theta * self.mutual(*whole_batch(logits[teacher], logits[student]))
        everybody, whose = whole_batch(branches[self.embedding_branch], batch.identity)
        terms["triplet"] = weighted_regularised_triplet(everybody, whose, negative_sign=self.negative_sign)
        return terms

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """The joint branch's N×D features (the global one's without fusion) after the neck, each of length one."""
        feature = self.branches(self.trunk_maps(images, modality))[self.embedding_branch]
        return functional.normalize(self.necks[self.embedding_branch](feature).float())

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """The same branch's N×D features before the neck, each of length one."""
        return functional.normalize(self.branches(self.trunk_maps(images, modality))[self.embedding_branch].float())

    def new_parameters(self) -> list[nn.Parameter]:
        """Necks, classifiers, learnt exponents and, unless told otherwise, the fusion."""
        new: list[nn.Module] = [self.necks, self.classifiers, self.pools]
        if self.fusion is not None and self.fusion_full_rate:
            new.append(self.fusion)
        return [parameter for module in new for parameter in module.parameters()]


def build(config: Config, identities: int) -> FusionDML:
    """The network of `config` for so many training identities.

    Raises:
        BadInput: mutual learning without a fusion, where there is only one branch.
    """
    fusion, mutual = config.fusion, config.mutual
    if fusion is None and mutual is not None:
        raise BadInput("field 'mutual' needs the branches that 'fusion' adds; set mutual=null too, or keep the fusion")
    return FusionDML(
        identities,
        trunk=config.trunk,
        fusion=_fusion(fusion, config.trunk, config.size) if fusion else None,
        fusion_full_rate=fusion is not None and fusion.full_rate,
        gem_power=config.gem_power,
        gem_learnable=config.gem_learnable,
        branch_identity=config.branch_identity,
        label_smoothing=config.label_smoothing,
        mutual=partial(
            mutual_loss,
            detach=mutual.detach,
            reduction=mutual.reduction,
            direction=mutual.direction,
            temperature=mutual.temperature,
        )
        if mutual
        else mutual_loss,
        pairs=mutual.weights() if mutual else None,
        negative_sign=config.negative_sign,
    )


def _fusion(fusion: Fusion, trunk: str, size: Size) -> AdaptiveFusion:
    stride = (4, 8, 16, 16)[fusion.stages[0] - 1]
    return AdaptiveFusion(
        {f"stage{stage}": trunk_named(trunk).channels[stage - 1] for stage in fusion.stages},
        width=fusion.width,
        weights=fusion.weights,
        up=fusion.up,
        activation=fusion.activation,
        grid=(-(-size.height // stride), -(-size.width // stride)),
    )


# --- rows -------------------------------------------------------------------------------------------------------------


def _mutual(**changes: object) -> Config:
    return replace(PAPER, mutual=replace(Mutual(), **changes))  # type: ignore[arg-type]


def _fused(*stages: int) -> Config:
    return replace(PAPER, fusion=replace(Fusion(), stages=stages))


_NO_DML = replace(PAPER, mutual=None)
_BASE = replace(_NO_DML, fusion=None, rcc=None, erasing=None)
_UNWEIGHTED = _mutual(theta1=1.0, theta2=1.0)
_FULL = (72.57, 96.60, 98.89, 68.61, 54.64)
_WITHOUT_DML = (69.68, 96.28, 98.87, 65.66, 50.86)

_PRINTED: Mapping[str, tuple[Config, tuple[float, ...]]] = {
    "table1/baseline": (_BASE, (49.86, 86.98, 93.70, 46.55, 33.10)),
    "table1/fusion": (replace(_BASE, fusion=Fusion()), (54.12, 89.90, 95.15, 52.99, 39.80)),
    "table1/rcc": (replace(_BASE, rcc=PAPER.rcc), (56.87, 91.64, 96.70, 54.30, 39.89)),
    "table1/cre": (replace(_BASE, erasing=PAPER.erasing), (59.48, 92.29, 96.43, 59.16, 43.82)),
    "table1/rcc_cre": (replace(_NO_DML, fusion=None), (65.45, 94.55, 97.96, 60.78, 44.92)),
    "table1/rcc_cre_fusion": (_NO_DML, _WITHOUT_DML),
    "table1/full": (PAPER, _FULL),
    "table2/l12": (_fused(1, 2), (66.01, 94.49, 98.19, 62.30, 47.68)),
    "table2/l13": (_fused(1, 3), (71.58, 95.90, 98.72, 67.19, 52.55)),
    "table2/l23": (_fused(2, 3), (72.39, 96.64, 99.02, 68.10, 53.47)),
    "table2/l123": (PAPER, _FULL),
    "table2/l124": (_fused(1, 2, 4), (67.59, 95.09, 98.31, 65.39, 52.52)),
    "table2/l134": (_fused(1, 3, 4), (70.21, 95.82, 98.66, 66.83, 53.66)),
    "table2/l234": (_fused(2, 3, 4), (71.08, 96.07, 98.84, 67.43, 53.96)),
    "table2/l1234": (_fused(1, 2, 3, 4), (71.69, 96.15, 98.87, 67.52, 54.39)),
    "table3/none": (replace(_NO_DML, branch_identity=False), (69.59, 96.06, 98.74, 65.36, 50.40)),
    "table3/id": (_NO_DML, _WITHOUT_DML),
    "table3/kd": (replace(_UNWEIGHTED, branch_identity=False), (68.37, 95.75, 98.56, 65.32, 50.35)),
    "table3/id_kd": (_UNWEIGHTED, (71.24, 96.02, 98.82, 67.38, 53.21)),
    "table3/id_kd_lsr": (PAPER, _FULL),
    "table4/none": (_NO_DML, _WITHOUT_DML),
    "table4/global_to_fusion": (
        _mutual(pairs=("global-fusion",), direction="one_way"), (68.67, 94.76, 97.84, 64.31, 49.44)
    ),
    "table4/joint_to_global": (_mutual(pairs=("joint-global",)), (70.18, 95.59, 98.48, 65.95, 51.31)),
    "table4/joint_to_fusion": (_mutual(pairs=("joint-fusion",)), (70.87, 95.68, 98.49, 66.78, 52.38)),
    "table4/joint_to_global_and_fusion": (PAPER, _FULL),
    "table5/v2i": (PAPER, (92.00, 97.34, 98.38, 88.01, 79.77)),
    "table5/i2v": (PAPER, (90.01, 96.90, 98.30, 86.15, 75.31)),
    "table6/all": (PAPER, _FULL),
    "table6/indoor": (PAPER, (78.01, 98.13, 99.64, 81.39, 77.54)),
}  # fmt: skip
_ON = {"table5/v2i": "regdb/v2i", "table5/i2v": "regdb/i2v", "table6/indoor": "sysu-mm01/indoor/single"}
_LSR = "LSR read as the weights of equations 9 and 10, so without it θ1 = θ2 = 1; see table3-smoothing"
_SMOOTHING = "the other reading of table 3's LSR, label-smoothed classification; the table prints {} for this row"
_FIGURE = "figure 4 has no legible numbers or steps; 0.2 is the widest step that meets every value the text names"
_NOTES = {
    "table3/kd": _LSR,
    "table3/id_kd": _LSR,
    "table3-smoothing/id_kd": _SMOOTHING.format("71.24 / 67.38"),
    "table3-smoothing/id_kd_lsr": _SMOOTHING.format("72.57 / 68.61"),
    "table4/global_to_fusion": "read as one-way; mutual.direction=both is the other reading",
}
_SWEPT = [step / 5 for step in range(11)]
_UNPRINTED: Mapping[str, Config] = {
    "table3-smoothing/id_kd": PAPER,
    "table3-smoothing/id_kd_lsr": replace(PAPER, label_smoothing=0.1),
    **{f"figure4/theta1={theta:.1f}": _mutual(theta1=theta, theta2=1.0) for theta in _SWEPT},
    **{f"figure4/theta2={theta:.1f}": _mutual(theta2=theta) for theta in _SWEPT},
}


def _row(name: str, config: Config, published: Mapping[str, float]) -> Row:
    table = name.partition("/")[0].partition("-")[0]
    note = _NOTES.get(name, _FIGURE if table == "figure4" else "")
    return Row(config, published, _ON.get(name, "sysu-mm01/all/single"), f"FFDML {table[:-1]} {table[-1]}", note)


ROWS: Mapping[str, Row] = {
    **{
        name: _row(name, config, dict(zip(("rank1", "rank10", "rank20", "map", "minp"), printed, strict=True)))
        for name, (config, printed) in _PRINTED.items()
    },
    **{name: _row(name, config, {}) for name, config in _UNPRINTED.items()},
}
