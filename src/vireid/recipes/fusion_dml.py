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
from vireid.training.optim import SGD, WarmUpSteps

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
    return combine_channels(images, _draw_cases(len(images), grey, generator))


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


def _draw_cases(rows: int, grey: bool, generator: torch.Generator | None) -> torch.Tensor:
    device = generator.device if generator is not None else None
    return torch.randint(len(ORDERS) + grey, (rows,), generator=generator, device=device)


@dataclass(frozen=True)
class ChannelCombination:
    """`random_channel_combination` as a step of a pipeline. Draws the cases of `combine_channels`.

    Attributes:
        grey: whether the grey picture is among the choices.
    """

    grey: bool = True

    def draw(self, rows: int, *, size: tuple[int, int], generator: torch.Generator) -> list[int]:
        return _draw_cases(rows, self.grey, generator).tolist()

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
            and its tenth of the rate for pretrained layers (`backbone_factor`).
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
    optimiser: SGD = SGD()
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
        self.names = tuple(channels) if isinstance(channels, Mapping) else None
        counts = list(channels.values()) if isinstance(channels, Mapping) else list(channels)
        self.channels = width * len(counts)
        self.up: Literal["nearest", "bilinear"] = up
        self.reduce = nn.ModuleList(_convolution(count, width, activation) for count in counts)
        if weights == "asff":
            self.weigh = PredictedWeights(len(counts), width)
        elif grid is not None:
            self.weigh = FreeWeights(len(counts), grid)
        else:
            raise BadInput("weights 'param' need the grid they are for, the height and width of the finest map")

    def forward(self, maps: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps B×C_i×H_i×W_i, as a list or by name, to B×(width · maps)×H×W of the finest grid.

        Other maps in a mapping are passed over if the names were given, and are not allowed if they were not.
        """
        aligned = self.aligned(maps)
        weights = self.weigh(aligned).to(aligned[0].dtype)
        return torch.cat([weights[:, i : i + 1] * x for i, x in enumerate(aligned)], 1)

    def weight_maps(self, maps: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
        """B×maps×H×W (1×maps×H×W with `param`): how much each map counts at each position."""
        return self.weigh(self.aligned(maps))

    def aligned(self, maps: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The maps reduced to `width` channels, all on the finest one's grid."""
        if isinstance(maps, Mapping):
            maps = [maps[name] for name in self.names] if self.names is not None else list(maps.values())
        if len(maps) != len(self.reduce):
            raise ValueError(f"this fusion is for {len(self.reduce)} maps, not {len(maps)}")
        grid = max((x.shape[2:] for x in maps), key=lambda shape: shape[0] * shape[1])
        reduced = [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]
        return [x if x.shape[2:] == grid else functional.interpolate(x, size=grid, mode=self.up) for x in reduced]


class PredictedWeights(nn.Module):
    """ASFF's weights: each map to 16 channels, all of them to one number per map, softmax over the maps.

    Args:
        maps: how many.
        width: channels of each.
        inner: channels that each map is looked at through.
    """

    def __init__(self, maps: int, width: int, *, inner: int = 16) -> None:
        super().__init__()
        self.look = nn.ModuleList(_convolution(width, inner, "relu") for _ in range(maps))
        self.decide = nn.Conv2d(inner * maps, maps, 1)

    def forward(self, aligned: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps B×width×H×W to B×maps×H×W, positive, with a sum of 1 at every position."""
        seen = torch.cat([look(x) for look, x in zip(self.look, aligned, strict=True)], 1)
        return self.decide(seen).softmax(1)


class FreeWeights(nn.Module):
    """One learnt matrix per map, shared by all pictures, starting at 1.

    Args:
        maps: how many.
        grid: their height and width.
    """

    def __init__(self, maps: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.matrices = nn.Parameter(torch.ones(1, maps, *grid))

    def forward(self, aligned: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps B×width×H×W to 1×maps×H×W.

        Raises:
            BadInput: the maps have another grid than the matrices.
        """
        grid, found = tuple(self.matrices.shape[2:]), tuple(aligned[0].shape[2:])
        if found != grid:
            raise BadInput(f"free fusion weights were made for maps of {grid[0]}x{grid[1]}, not {found[0]}x{found[1]}")
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
        fusion: for the maps of some stages, by name (`stage1` …); None for the global branch alone.
        fusion_full_rate: whether the fusion is among the parameters that learn at the full rate.
        gem_power: exponent of the pooling.
        gem_learnable: whether it is learnt.
        branch_identity: whether the global and the fusion branch are classified beside the joint one.
        label_smoothing: of those two classifications.
        mutual: the loss between the logits of two branches.
        pairs: its weight by (teacher, student).
        negative_sign: sign in the negatives' weights of the triplet loss.
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
        stem = self.stems(images, modality)
        maps = {"stem": stem} | self.stages(stem)
        return maps if self.fusion is None else maps | {"fusion": self.fusion(maps)}

    def branches(self, maps: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Maps to the pooled feature of each branch, N×D, by name: `global`, `fusion`, `joint` (equation 3)."""
        pooled = {"global": self.pools["global"](maps["stage4"])}
        if self.fusion is not None:
            pooled["fusion"] = self.pools["fusion"](maps["fusion"])
            pooled["joint"] = torch.cat((pooled["global"], pooled["fusion"]), 1)
        return pooled

    def logits(self, branches: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of branches to N×identities logits, by name, of those that have a classifier."""
        return {name: head(self.necks[name](branches[name])) for name, head in self.classifiers.items()}

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Equation 13; every term carries its weight already, so their sum is the objective."""
        branches = self.branches(self.maps(batch.images, batch.modality))
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
        feature = self.branches(self.maps(images, modality))[self.embedding_branch]
        return functional.normalize(self.necks[self.embedding_branch](feature).float())

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

_ALL = "sysu-mm01/all/single"
_LSR = "the other reading of table 3's LSR, label-smoothed classification; that table prints {} for this row"
_FIGURE = "figure 4 has no legible numbers or steps; 0.2 is the widest step that meets every value the text names"
_ONE_WAY = "read as one-way, global teaching fusion; mutual.direction=both is the other reading"


def _row(config: Config, where: str, *printed: float, on: str = _ALL, note: str = "") -> Row:
    names = ("rank1", "rank10", "rank20", "map", "minp")
    return Row(config, dict(zip(names, printed, strict=True)) if printed else {}, on, f"FFDML {where}", note)


def _mutual(**changes: object) -> Config:
    return replace(PAPER, mutual=replace(Mutual(), **changes))  # type: ignore[arg-type]


_NO_DML = replace(PAPER, mutual=None)
_BASE = replace(_NO_DML, fusion=None, rcc=None, erasing=None)
_FULL = (72.57, 96.60, 98.89, 68.61, 54.64)
_WITHOUT_DML = (69.68, 96.28, 98.87, 65.66, 50.86)

_TABLE2: Mapping[tuple[int, ...], tuple[float, ...]] = {
    (1, 2): (66.01, 94.49, 98.19, 62.30, 47.68),
    (1, 3): (71.58, 95.90, 98.72, 67.19, 52.55),
    (2, 3): (72.39, 96.64, 99.02, 68.10, 53.47),
    (1, 2, 3): _FULL,
    (1, 2, 4): (67.59, 95.09, 98.31, 65.39, 52.52),
    (1, 3, 4): (70.21, 95.82, 98.66, 66.83, 53.66),
    (2, 3, 4): (71.08, 96.07, 98.84, 67.43, 53.96),
    (1, 2, 3, 4): (71.69, 96.15, 98.87, 67.52, 54.39),
}
_TABLE3 = {
    "none": _row(replace(_NO_DML, branch_identity=False), "table 3", 69.59, 96.06, 98.74, 65.36, 50.40),
    "id": _row(_NO_DML, "table 3", *_WITHOUT_DML),
    "kd": _row(
        replace(_mutual(theta1=1.0, theta2=1.0), branch_identity=False), "table 3", 68.37, 95.75, 98.56, 65.32, 50.35
    ),
    "id_kd": _row(_mutual(theta1=1.0, theta2=1.0), "table 3", 71.24, 96.02, 98.82, 67.38, 53.21),
    "id_kd_lsr": _row(PAPER, "table 3", *_FULL),
}
_SWEPT = [step / 5 for step in range(11)]

ROWS: Mapping[str, Row] = {
    "table1/baseline": _row(_BASE, "table 1", 49.86, 86.98, 93.70, 46.55, 33.10),
    "table1/fusion": _row(replace(_BASE, fusion=Fusion()), "table 1", 54.12, 89.90, 95.15, 52.99, 39.80),
    "table1/rcc": _row(replace(_BASE, rcc=PAPER.rcc), "table 1", 56.87, 91.64, 96.70, 54.30, 39.89),
    "table1/cre": _row(replace(_BASE, erasing=PAPER.erasing), "table 1", 59.48, 92.29, 96.43, 59.16, 43.82),
    "table1/rcc_cre": _row(replace(_NO_DML, fusion=None), "table 1", 65.45, 94.55, 97.96, 60.78, 44.92),
    "table1/rcc_cre_fusion": _row(_NO_DML, "table 1", *_WITHOUT_DML),
    "table1/full": _row(PAPER, "table 1", *_FULL),
    **{
        f"table2/l{''.join(map(str, stages))}": _row(
            replace(PAPER, fusion=replace(Fusion(), stages=stages)), "table 2", *printed
        )
        for stages, printed in _TABLE2.items()
    },
    **{f"table3/{name}": row for name, row in _TABLE3.items()},
    "table3-smoothing/id_kd": _row(PAPER, "table 3", note=_LSR.format("71.24 / 67.38")),
    "table3-smoothing/id_kd_lsr": _row(
        replace(PAPER, label_smoothing=0.1), "table 3", note=_LSR.format("72.57 / 68.61")
    ),
    "table4/none": _row(_NO_DML, "table 4", *_WITHOUT_DML),
    "table4/global_to_fusion": _row(
        _mutual(pairs=("global-fusion",), direction="one_way"),
        "table 4",
        *(68.67, 94.76, 97.84, 64.31, 49.44),
        note=_ONE_WAY,
    ),
    "table4/joint_to_global": _row(_mutual(pairs=("joint-global",)), "table 4", 70.18, 95.59, 98.48, 65.95, 51.31),
    "table4/joint_to_fusion": _row(_mutual(pairs=("joint-fusion",)), "table 4", 70.87, 95.68, 98.49, 66.78, 52.38),
    "table4/joint_to_global_and_fusion": _row(PAPER, "table 4", *_FULL),
    "table5/v2i": _row(PAPER, "table 5", 92.00, 97.34, 98.38, 88.01, 79.77, on="regdb/v2i"),
    "table5/i2v": _row(PAPER, "table 5", 90.01, 96.90, 98.30, 86.15, 75.31, on="regdb/i2v"),
    "table6/all": _row(PAPER, "table 6", *_FULL),
    "table6/indoor": _row(PAPER, "table 6", 78.01, 98.13, 99.64, 81.39, 77.54, on="sysu-mm01/indoor/single"),
    **{
        f"figure4/theta1={value:.1f}": _row(_mutual(theta1=value, theta2=1.0), "figure 4", note=_FIGURE)
        for value in _SWEPT
    },
    **{f"figure4/theta2={value:.1f}": _row(_mutual(theta2=value), "figure 4", note=_FIGURE) for value in _SWEPT},
}
