"""Feature fusion with deep mutual learning.

Lin and Wang, "Visible-Infrared Person Re-Identification via Feature Fusion and Deep Mutual Learning", ACML 2024. What
is new: each visible training picture gets its channels in a random order, or becomes grey (RCC). The maps of the first
three stages are weighted at every position and concatenated; they give a second feature beside the global one. Both
features together are a third, joint branch, and the joint branch and the two others learn from each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, kl_div, log_softmax

from vireid.augment.aggregation import with_auxiliary_samples
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.operation import augmented
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.settings import NonNegative, Positive, Share, Temperature, Width, all_but, settings
from vireid.data.shapes import check_shape
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.mixing import ICAL
from vireid.losses.pairs import unit
from vireid.losses.triplet import weighted_regularised_triplet
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem, scaled, trunk_named
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training

# --- random combination of channels (section 3.1) ---------------------------------------------------------------------

# Cases 0 to 5: the channel orders as printed. Case 0 leaves the picture as it is. Case 6 is the grey picture.
ORDERS = ((0, 1, 2), (0, 2, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0), (1, 0, 2))
GREY = len(ORDERS)


def random_channel_combination(images: Tensor, *, grey: bool = True, generator: Generator | None = None) -> Tensor:
    """Replace each picture by one of seven with equal probability: one of six channel orders, or grey (RCC).

    Section 3.1 and figure 2. Use it before normalisation, because the means and deviations of normalisation belong to
    channels in their own order. A picture with three equal channels, such as an infrared one, does not change.

    Args:
        images: N×3×H×W, uint8 or floating point, not normalised. The result has the same shape and type.
        grey: whether the grey picture is one of the choices.
        generator: source of the random numbers; by default torch's global one.
    """
    check_shape(images, "images", "N×3×H×W")
    device = generator.device if generator is not None else None
    case = torch.randint(len(ORDERS) + grey, (len(images),), generator=generator, device=device)
    return combine_channels(images, case)


def combine_channels(images: Tensor, case: Tensor) -> Tensor:
    """The pictures of given cases. The grey picture is BT.601's luminance, `0.299 R + 0.587 G + 0.114 B`.

    Args:
        images: N×3×H×W, uint8 or floating point. The result has the same shape and type, in new memory.
        case: N int64: 0 to 5 for an order in `ORDERS`, 6 for grey.
    """
    case = case.to(images.device)
    order = torch.tensor([*ORDERS, ORDERS[0]], device=images.device)[case]
    result = images[torch.arange(len(images), device=images.device)[:, None], order]
    if (grey := case == GREY).any():
        red, green, blue = images[grey].to(torch.promote_types(images.dtype, torch.float32)).unbind(1)
        # In this form three equal channels give exactly their own value.
        luminance = green + 0.299 * (red - green) + 0.114 * (blue - green)
        luminance = luminance if images.is_floating_point() else luminance.round()
        result[grey] = luminance[:, None].to(images.dtype)
    return result


@settings
class ChannelCombination:
    """`random_channel_combination` as a step of a pipeline. `draw` returns cases of `combine_channels`."""

    grey: bool = True
    """paper, section 3.1: whether the grey picture is one of the choices. The formula of grey is not stated; it is
    BT.601's luminance, computed so that pictures without colour do not change."""

    def draw(self, count: int, *, size: tuple[int, int], generator: Generator) -> list[int]:
        return torch.randint(len(ORDERS) + self.grey, (count,), generator=generator).tolist()

    def change(self, image: Tensor, drawn: int) -> None:
        if drawn:
            image.copy_(combine_channels(image[None], torch.tensor([drawn]))[0])

    def __call__(self, images: Tensor, *, generator: Generator) -> Tensor:
        """N×3×H×W to the same shape and type."""
        return augmented(self, images, generator)


# --- feature fusion (section 3.3) -------------------------------------------------------------------------------------

Weights = Literal["asff", "param"]
Up = Literal["nearest", "bilinear"]
Activation = Literal["relu", "leaky_relu", "none"]
Maps = Mapping[str, Tensor] | Sequence[Tensor]


@settings
class Fusion:
    """Which maps are fused, and how."""

    stages: tuple[Literal[1, 2, 3, 4], ...] = (1, 2, 3)
    """paper, section 3.3: stages that give a map, ascending; table 2 has other choices."""
    width: Width = 256
    """paper, section 3.3: channels that each map is reduced to, for ResNet-50; in proportion on another trunk."""
    weights: Weights = "asff"
    """not stated: what the weights α, β and γ are. `asff`: they are predicted from the maps, with a softmax over the
    maps, as in ASFF, which the paper takes the idea from. `param`: free matrices that all pictures share, the other
    reading of "weight parameter matrix"; they start at 1, have no softmax, and belong to one picture size."""
    up: Up = "nearest"
    """not stated: how maps are enlarged; `nearest` as in ASFF, or `bilinear`."""
    activation: Activation = "relu"
    """not stated: what follows the 1×1 convolutions. `relu`: normalisation and ReLU, so that pooling cuts no negative
    value off. `leaky_relu`: normalisation and slope 0.1, as in ASFF. `none`: nothing, so there are negative values."""
    full_rate: bool = True
    """not stated: these layers learn at the full rate, because they have no pretrained weights; false: at a tenth, as
    everything but neck and classifier in the code of AGW."""

    def __post_init__(self) -> None:
        if not self.stages or list(self.stages) != sorted(set(self.stages)):
            raise BadInput(f"field 'fusion.stages' is {list(self.stages)}; it takes some of 1, 2, 3, 4, ascending")


class AdaptiveFusion(nn.Module):
    """Equation 2: maps of several stages, weighted at every position of the finest grid and concatenated.

        f_fusion = (α ⊗ f'_1) ⊕ (β ⊗ f''_2) ⊕ (γ ⊗ f''_3)    ⊗ product at each position, ⊕ concatenation of channels

    A 1×1 convolution reduces each map to `width` channels (f'), then the map is enlarged to the finest grid (f''). With
    `asff` (Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", 2019) the weights α, β, γ of a
    position are predicted from the maps and their sum is 1; with `param` they are parameters that all pictures share.

    Args:
        channels: channels of each map, as a list or by name, in the order of concatenation.
        width, weights, up, activation: see `Fusion`. An unknown choice raises BadInput.
        grid: height and width of the finest map; `weights="param"` needs it.
    """

    def __init__(
        self,
        channels: Sequence[int] | Mapping[str, int],
        *,
        width: int = Fusion.width,
        weights: Weights = Fusion.weights,
        up: Up = Fusion.up,
        activation: Activation = Fusion.activation,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        Fusion(width=width, weights=weights, up=up, activation=activation)  # checks them
        if weights == "param" and grid is None:
            raise BadInput("weights 'param' need the grid they are for, the height and width of the finest map")
        self.names = tuple(channels) if isinstance(channels, Mapping) else None
        counts = list(channels.values()) if isinstance(channels, Mapping) else list(channels)
        self.channels = width * len(counts)
        self.up: Up = up
        self.separable = up == "nearest" and activation == "relu"
        self.reduce = nn.ModuleList(_convolution(count, width, activation) for count in counts)
        if weights == "asff":  # 16 channels of each map, then one number per map from all of them
            self.look = nn.ModuleList(_convolution(width, 16, "relu") for _ in counts)
            self.decide = nn.Conv2d(16 * len(counts), len(counts), 1)
        self.matrices = nn.Parameter(torch.ones(1, len(counts), *grid)) if weights == "param" and grid else None

    def forward(self, maps: Maps) -> Tensor:
        """Maps B×C_i×H_i×W_i, a list or by name (others are then ignored), to B×(width · maps)×H×W, the finest grid."""
        reduced = self.reduced(maps)
        weights = self.weights(reduced).to(reduced[0].dtype)
        return torch.cat([weights[:, i : i + 1] * self.enlarged(x, weights) for i, x in enumerate(reduced)], 1)

    def pooled(self, maps: Maps, pool: GeM) -> Tensor:
        """`pool(self(maps))`, B×channels, without the fused map in memory, which is the largest of the network."""
        reduced = self.reduced(maps)
        weights = self.weights(reduced)
        return torch.cat([self._pooled(x, weights[:, i : i + 1], pool) for i, x in enumerate(reduced)], 1)

    def _pooled(self, x: Tensor, weights: Tensor, pool: GeM) -> Tensor:
        """Pool one reduced map with its weights, without enlarging it where that gives the same result."""
        cell = weights.shape[2] // x.shape[2], weights.shape[3] // x.shape[3]
        whole = all(n * k == m for n, k, m in zip(x.shape[2:], cell, weights.shape[2:], strict=True))
        if not (self.separable and whole and isinstance(pool.p, float) and pool.p >= 1):
            return pool(weights.to(x.dtype) * self.enlarged(x, weights))
        # Here x ≥ 0 is constant in each cell of the finest grid: mean (w x)^p = mean over cells of (x^p · mean of w^p).
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            largest = x.detach().amax((2, 3)).clamp(min=pool.eps)
            powers = (x / largest[..., None, None]).pow(pool.p).flatten(2)
            shares = avg_pool2d(weights.to(x.dtype).clamp(min=0).pow(pool.p), cell)
            mean = powers @ shares.expand(x.shape[0], -1, -1, -1).flatten(2).transpose(1, 2) / powers.shape[2]
            return torch.maximum(mean[..., 0], (pool.eps / largest).pow(pool.p)).pow(1 / pool.p) * largest

    def reduced(self, maps: Maps) -> list[Tensor]:
        """f' of equation 2: each map with `width` channels, on its own grid."""
        if isinstance(maps, Mapping):
            maps = [maps[name] for name in self.names or maps]
        if len(maps) != len(self.reduce):
            raise ValueError(f"this fusion is for {len(self.reduce)} maps, not {len(maps)}")
        return [reduce(x) for reduce, x in zip(self.reduce, maps, strict=True)]

    def enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        """`x` on the grid of `like`."""
        return x if x.shape[2:] == like.shape[2:] else interpolate(x, size=like.shape[2:], mode=self.up)

    def weights(self, reduced: Sequence[Tensor]) -> Tensor:
        """α, β, γ of equation 2 from reduced maps: B×maps×H×W on the finest grid, 1×maps×H×W with `param`."""
        finest = max(reduced, key=lambda x: x.shape[2] * x.shape[3])
        if self.matrices is None:
            # Enlarged after the convolutions: with `nearest` the result is the same, and it costs less.
            seen = [self.enlarged(look(x), finest) for look, x in zip(self.look, reduced, strict=True)]
            return self.decide(torch.cat(seen, 1)).softmax(1)
        if (made := self.matrices.shape[2:]) != (found := finest.shape[2:]):
            raise BadInput(f"free fusion weights were made for maps of {made[0]}x{made[1]}, not {found[0]}x{found[1]}")
        return self.matrices


def _convolution(inputs: int, outputs: int, activation: Activation) -> nn.Module:
    """A 1×1 convolution, with normalisation and activation unless it is `none`."""
    if activation == "none":
        return nn.Conv2d(inputs, outputs, 1)
    after = nn.ReLU(inplace=True) if activation == "relu" else nn.LeakyReLU(0.1, inplace=True)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), after)


# --- deep mutual learning (section 3.4) -------------------------------------------------------------------------------

Pair = Literal["joint-global", "joint-fusion", "global-fusion"]
Detach = Literal["target", "none", "joint"]
Reduction = Literal["batchmean", "sum"]
Direction = Literal["both", "one_way"]


@settings
class Mutual:
    """Which branches learn from each other, and how strongly."""

    pairs: tuple[Pair, ...] = ("joint-global", "joint-fusion")
    """paper, section 3.4: pairs of branches, the teacher first; table 4 has other choices."""
    theta1: NonNegative = 0.6
    """paper, section 4.4: θ1, the weight of joint-global."""
    theta2: NonNegative = 1.8
    """paper, section 4.4: θ2, the weight of joint-fusion."""
    theta3: NonNegative = 1.8
    """not stated: the weight of global-fusion (table 4); the value of θ2, which also teaches the fusion branch."""
    direction: Direction = "both"
    """paper, equations 5 and 6: `both` has two summands, `one_way` only the first, with its ½. The row
    "Joint-to-Global&Fusion" of table 4 is the full model, so "-to-" does not mean one way there. "Global-to-Fusion" is
    `one_way`, because the caption says "from the global branch to the fusion branch"."""
    detach: Detach = "target"
    """not stated: where gradients stop. `target` is the scheme of deep mutual learning (Zhang et al., CVPR 2018): in
    each summand the first distribution is a constant target for the second. `none`: gradients flow into both, the
    literal reading of equation 5. `joint`: the teacher of a pair does not learn from the other branch."""
    reduction: Reduction = "batchmean"
    """code of deep mutual learning: the mean over the samples. Equations 5 and 6 print a sum (`sum`), equation 7 a
    mean. A sum would make θ 64 times as large, beside cross-entropies that are means."""
    temperature: Temperature = 1.0
    """paper, equation 4: 1, because the equation has none. It divides the logits, and its square multiplies the loss,
    so that gradients keep their size."""

    def __post_init__(self) -> None:
        if not self.pairs or len(set(self.pairs)) < len(self.pairs):
            raise BadInput(f"field 'mutual.pairs' is {list(self.pairs)}; it takes some of {', '.join(get_args(Pair))}")

    def weights(self) -> dict[tuple[str, str], float]:
        """Weight by (teacher, student): θ1 of equation 9, θ2 of equation 10, and θ3, of the pairs that are used."""
        theta = dict(zip(get_args(Pair), (self.theta1, self.theta2, self.theta3), strict=True))
        return {(pair.partition("-")[0], pair.partition("-")[2]): theta[pair] for pair in self.pairs}


def mutual_loss(
    joint_logits: Tensor,
    branch_logits: Tensor,
    *,
    detach: Detach = Mutual.detach,
    reduction: Reduction = Mutual.reduction,
    direction: Direction = Mutual.direction,
    temperature: float = Mutual.temperature,
) -> Tensor:
    """L_KD1 and L_KD2, equations 5 and 6: how much the predictions of two branches differ, a scalar of 0 or more.

        ½ [KL(pʲ ‖ pᵇ) + KL(pᵇ ‖ pʲ)]  with  KL(p ‖ q) = Σ_i Σ_m p_im (ln p_im - ln q_im)

    pʲ and pᵇ are the softmax of the logits (equation 4), at least in float32, of samples i and identities m.

    Args:
        joint_logits: B×identities, of the branch that teaches.
        branch_logits: B×identities, of the branch that is taught.
        detach, reduction, direction, temperature: see `Mutual`. An unknown choice raises BadInput.
    """
    Mutual(detach=detach, reduction=reduction, direction=direction, temperature=temperature)  # checks them
    joint, branch = (
        log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature, dim=1)
        for logits in (joint_logits, branch_logits)
    )
    divergence = partial(kl_div, reduction=reduction, log_target=True)  # (ln q, ln p) → KL(p ‖ q)
    loss = divergence(branch, joint if detach == "none" else joint.detach())
    if direction == "both":
        target = branch.detach() if detach == "target" else branch
        loss = loss + divergence(joint.detach() if detach == "joint" else joint, target)
    return 0.5 * temperature**2 * loss


# --- network and loss (sections 3.2 and 3.5) --------------------------------------------------------------------------


class FusionDML(nn.Module):
    """Two stems, one trunk, and the branches `global`, `fusion` and `joint`; without a fusion only `global`.

    With `ical` there is a third stem, for auxiliary samples.

    A branch has a neck and a classifier if a term needs its logits. Mutual learning without a fusion raises BadInput.

    Args:
        config: the recipe's settings.
        identities: number of training identities, the width of the classifiers.
    """

    def __init__(self, config: Config, identities: int) -> None:
        super().__init__()
        if config.mutual and not config.fusion:
            raise BadInput("field 'mutual' needs the branches of 'fusion'; set mutual=null too, or keep the fusion")
        self.config, trunk = config, config.training.trunk
        self.draws_samples = config.ical is not None  # at random, so the order of the samples matters
        # Made before the stems, so that a seed gives the same start values as in earlier versions.
        fusion = _fusion(config.fusion, trunk, config.training.size) if config.fusion else None
        real = (Modality.VISIBLE, Modality.INFRARED)
        self.stems = PerModality(lambda: Stem(trunk), (*real, Modality.AUXILIARY) if config.ical else real)
        self.stages = Stages(trunk)
        self.fusion = fusion
        widths = {"global": self.stages.channels[-1]}
        if fusion is not None:
            widths |= {"fusion": fusion.channels, "joint": widths["global"] + fusion.channels}
        self.embedding_branch = "joint" if fusion is not None else "global"
        pool = partial(GeM, config.gem_power, learnable=config.gem_learnable)
        self.pools = nn.ModuleDict({name: pool() for name in widths if name != "joint"})
        pairs = config.mutual.weights() if config.mutual else {}
        needed = {self.embedding_branch, *(name for pair in pairs for name in pair)}
        heads = [name for name in widths if config.branch_identity or name in needed]
        self.necks = nn.ModuleDict({name: BNNeck(widths[name]) for name in heads})
        self.classifiers = nn.ModuleDict({name: Classifier(widths[name], identities) for name in heads})

    def maps(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×3×H×W images to the maps of `trunk_maps` and, if there is a fusion, the map `fusion`, by name."""
        maps = self.trunk_maps(images, modality)
        return maps if self.fusion is None else maps | {"fusion": self.fusion(maps)}

    def trunk_maps(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`. Equation 1: `f_i = layer_i(f_{i-1})`."""
        stem = self.stems(images, modality)
        return {"stem": stem} | self.stages(stem)

    def branches(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps to the pooled N×D feature of each branch, by name: `global`, `fusion`, and `joint` (equation 3).

        The map `fusion` may be missing. Its pooled feature is then computed from the maps of the stages.
        """
        pooled = {"global": self.pools["global"](maps["stage4"])}
        if self.fusion is not None:
            pool = self.pools["fusion"]
            pooled["fusion"] = pool(maps["fusion"]) if "fusion" in maps else self.fusion.pooled(maps, pool)  # type: ignore[arg-type]
            pooled["joint"] = torch.cat((pooled["global"], pooled["fusion"]), 1)
        return pooled

    def necked(self, branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features by branch to the features after the neck of each branch that has one."""
        return {name: neck(branches[name]) for name, neck in self.necks.items()}

    def logits(self, branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features by branch to the N×identities logits of each classifier. Their softmax is p of equation 4."""
        return self._classified(self.necked(branches))

    def _classified(self, necked: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: head(necked[name]) for name, head in self.classifiers.items()}

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The summands of equation 13. Each has its weight already, so their sum is L_total.

        `identity_…` is the cross-entropy of a branch (equations 7 and 8), `mutual_…` the mutual loss of two branches
        times θ (equations 9 and 10), `triplet` the weighted regularised triplet loss of the joint branch, or of the
        only one (equations 11 and 12, with AGW's sum over all positives and all negatives). With `ical` there is one
        more, `mixing`.
        """
        config, terms = self.config, {}
        ical, real, parents = config.ical, len(batch), ()
        if ical:
            batch, *parents = with_auxiliary_samples(batch)
        ce, ins = ical.counts(real) if ical else (None, None)
        branches = self.branches(self.trunk_maps(batch.images, batch.modality))
        necked = self.necked(branches)
        logits = self._classified({name: feature[:ce] for name, feature in necked.items()})
        for name, scores in logits.items():
            last = name == self.embedding_branch
            if last or config.branch_identity:
                smoothing = 0.0 if last else config.label_smoothing
                terms[f"identity_{name}"] = cross_entropy(scores, batch.identity[:ce], label_smoothing=smoothing)
        if config.mutual:
            how = all_but(config.mutual, "pairs", "theta1", "theta2", "theta3")
            for (teacher, student), theta in config.mutual.weights().items():
                # Samples of all processes, so that `reduction="sum"` is a sum over the whole batch.
                both = all_gather(logits[teacher], logits[student])
                terms[f"mutual_{teacher}_{student}"] = theta * mutual_loss(*both, **how)
        everywhere = all_gather(branches[self.embedding_branch][:ins], batch.identity[:ins])
        terms["triplet"] = weighted_regularised_triplet(*everywhere, negative_sign=config.negative_sign)
        if ical:
            compared = unit(necked[self.embedding_branch])
            terms["mixing"] = ical.loss(compared[real:], *(compared[parent] for parent in parents))
        return terms

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """N×D features of the joint branch, or of the only one, after the neck, each of length one."""
        feature = self.branches(self.trunk_maps(images, modality))[self.embedding_branch]
        return unit(self.necks[self.embedding_branch](feature))

    def embed_pooled(self, images: Tensor, modality: Tensor) -> Tensor:
        """N×D features of the same branch before the neck, each of length one."""
        return unit(self.branches(self.trunk_maps(images, modality))[self.embedding_branch])

    def by_branch(self, images: Tensor, modality: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """N×D features after the neck and N×identities logits of each branch that has them, from the map `fusion`."""
        necked = self.necked(self.branches(self.maps(images, modality)))
        return {name: (necked[name], logits) for name, logits in self._classified(necked).items()}

    def new_parameters(self) -> list[nn.Parameter]:
        """Necks, classifiers, learnt exponents and, with `fusion.full_rate`, the fusion."""
        new: list[nn.Module] = [self.necks, self.classifiers, self.pools]
        if self.fusion is not None and self.config.fusion and self.config.fusion.full_rate:
            new.append(self.fusion)
        return [parameter for module in new for parameter in module.parameters()]

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The stems and the stages, which ImageNet weights are loaded into."""
        return list(self.stems.copies.values()), self.stages


def _fusion(fusion: Fusion, trunk: str, size: Size) -> AdaptiveFusion:
    """The fusion of the chosen stages of a trunk, for pictures of one size."""
    stride = (4, 8, 16, 16)[fusion.stages[0] - 1]
    channels = trunk_named(trunk).channels
    return AdaptiveFusion(
        {f"stage{stage}": channels[stage - 1] for stage in fusion.stages},
        grid=(-(-size.height // stride), -(-size.width // stride)),
        width=scaled(fusion.width, trunk),
        **all_but(fusion, "stages", "width", "full_rate"),
    )


# --- settings ---------------------------------------------------------------------------------------------------------


@settings
class Config:
    """The paper's settings. Its schedule is that of AGW's public code, so what is not stated is taken from there."""

    training: Training = Training(
        epochs=80,
        size=Size(288, 144),
        identities_per_batch=8,
        visible_per_identity=4,
        infrared_per_identity=4,
        epoch_length="agw",
        optimiser=SGD(),
        schedule=WarmUpSteps(),
    )
    """
    epochs, size, identities_per_batch, visible_per_identity, infrared_per_identity: paper, section 4.2: as printed.
    epoch_length: not stated: floor(larger modality / 32) + 1 steps, as in the code of AGW.
    optimiser: paper, section 4.2: SGD at 0.1, momentum 0.9, weight decay 5e-4. Nesterov and a tenth of the rate for
        pretrained layers (`trunk_factor`) are not stated; the code of AGW has them.
    schedule: paper, section 4.2: ÷10 at epoch 20, ÷100 at 50. Warm-up is not stated; ten epochs as in the code of AGW.
    trunk: paper, section 3.2: ResNet-50 with a first layer for each modality. Its last stride is not stated; it is 1 as
        in the code of AGW. The enlargement of stages 2 and 3 by 2 and 4 does not depend on it.
    weights: not stated: pretrained on ImageNet as for AGW.
    """
    gem_power: Positive = 3.0
    """not stated: exponent of the pooling; 3 as in the code of AGW."""
    gem_learnable: bool = False
    """not stated: false as in the code of AGW; true learns one exponent for each pooled map."""
    fusion: Fusion | None = Fusion()
    """paper, section 3.3: null is the baseline of table 1, the global branch alone; `mutual` must then be null too."""
    branch_identity: bool = True
    """paper, equations 7 and 8: whether the global and the fusion branch are classified (table 3). The joint branch,
    or the only one, is always classified."""
    mutual: Mutual | None = Mutual()
    """paper, section 3.4: null is without deep mutual learning."""
    ical: ICAL | None = None
    """ours: PECA's auxiliary samples and mixing loss, which are not in this paper; null is without. Auxiliary samples
    have a stem of their own. If they are classified (`ical.in_ce`), they take part in mutual learning too."""
    label_smoothing: Share = 0.0
    """not stated: ε in the classification of the global and the fusion branch, if there is a joint one. No ε is printed
    for "LSR" in table 3, and the text calls L_KD1 and L_KD2 "label smoothing regularization terms". So LSR is read as
    the weights θ1 and θ2 of equations 9 and 10. The rows of table3-smoothing have the other reading, the usual 0.1."""
    negative_sign: Literal["minus", "plus"] = "minus"
    """code of AGW: with `minus` the nearest negatives weigh most: 0.59, 0.36 and 0.05 at distances 0.5, 1 and 3.
    `plus` is equation 12 as printed: 0.07, 0.11 and 0.82, against the purpose of the loss."""
    rcc: ChannelCombination | None = ChannelCombination()
    """paper, section 3.1: random combination of channels in visible pictures; null is without. It comes before
    normalisation (not stated), because later it would also exchange the means and deviations of channels."""
    erasing: ChannelErasing | None = ChannelErasing()
    """paper, section 4.2: channel-level erasing; null is without. Its settings are those of CAJ's code, which the paper
    cites. The paper's "random values from all three channels" is `erasing.fill=random_per_channel`."""
    erasing_infrared: bool = True
    """code of CAJ: erasing in both modalities, which the paper does not state; false is for visible pictures only."""
    flip: Flip = Flip()
    """paper, section 3.1: random flipping; the probability is that of AGW's code."""
    crop: PadCrop = PadCrop()
    """paper, section 3.1: random cropping; ten pixels of padding as in AGW's code."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = (self.erasing,) if self.erasing else ()
        return Pipeline(
            geometry=(self.flip, self.crop),
            visible_before=(self.rcc,) if self.rcc else (),
            visible=erasing,
            infrared=erasing if self.erasing_infrared else (),
        )


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = FusionDML
