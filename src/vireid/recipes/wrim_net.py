"""WRIM-Net: mine what both modalities share, over all positions and channels, in each modality and across both.

Wu et al., "WRIM-Net: Wide-Ranging Information Mining Network for Visible-Infrared Person Re-Identification", 2024.
What is new: a gate for a map (MIIM), cheap enough for the shallow stages, in which every position attends to coarse
regions of the whole picture, with one copy per modality after stages 1 and 2 and a shared one after stages 3 and 4.
A contrastive loss (CMKIC) whose positives are the rows of the other modality that look least alike. And auxiliary
losses and features from stage 3. The paper calls our stages blocks, and the maps of stages 3 and 4 P4 and P5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from vireid.augment.colour import Grey
from vireid.augment.erasing import RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.triplet import batch_hard_triplet
from vireid.networks.attention import CBAM, NonLocal
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.parts import Parts
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import AveragePool
from vireid.networks.resnet import Stages, Stem, last_blocks, trunk_named
from vireid.networks.tokens import attend, place, window_centres
from vireid.recipes import Row
from vireid.training.configuration import check_common_fields
from vireid.training.distributed import whole_batch
from vireid.training.optim import SGD, Adam, WarmUpSteps

Place = Literal["separate", "shared"] | None
_COLUMNS = ("images", "identity", "modality", "camera")

# --- hyper-parameters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mining:
    """What every MIIM is built with; where they stand is `Config.miim`.

    Attributes:
        spatial_ratio: paper, table 7: 4, 2, 1, 1 after stages 1 to 4.
        channel_ratio: paper, table 8: 2, 2, 4, 4.
        pool: paper, table 9: keys and values are means of 3×3 compressed positions.
        heads: paper, section 3.1.
        ceil: not stated; we keep the regions that stand over the edge, so that no row of a map is dropped. It changes
            nothing at 384×144.
        positions: paper says "sin-cos positional embedding" of the Transformer; read literally that is the table over
            the flattened sequence. `sincos2d` gives half of the channels to the row and half to the column.
        key_positions: not stated; each sequence counts for itself, as in a Transformer. `pooled_centre` puts a key at
            the middle of the positions that it is the mean of.
        positions_on: not stated; added to the tokens before the projections, so values get them too, as in a
            Transformer. `qk` leaves them out of the values.
        upsampling: not stated; bilinear is closer to the FLOPs of table 6.
        gate_input: not stated which of its two F1 the paper multiplies in equation 3; the normalised one, because the
            raw one is never negative and the ReLU would do nothing.
        fusion: paper, equation 3 and table S3. `mul` leaves the sigmoid out, `add` adds instead of multiplying, and
            without the sigmoid (the table's label "W/O(ADD)" suggests it).
        affine: paper, "standard batch normalisation". False: at entry and exit without weight and bias, as a public
            reading note has it, which also fits table 6.
        token_norm: not in the paper, so off. True: one layer normalisation on both token sequences (that note).
        projection_bias: not stated; nn.MultiheadAttention has biases. False: none on query, key and value (that note).
        attention: ours, see `attend`.
    """

    spatial_ratio: tuple[int, int, int, int] = (4, 2, 1, 1)
    channel_ratio: tuple[int, int, int, int] = (2, 2, 4, 4)
    pool: int = 3
    heads: int = 8
    ceil: bool = True
    positions: Literal["sincos1d", "sincos2d", "none"] = "sincos1d"
    key_positions: Literal["own_index", "pooled_centre"] = "own_index"
    positions_on: Literal["qkv", "qk"] = "qkv"
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    gate_input: Literal["bn", "raw"] = "bn"
    fusion: Literal["sigmoid_mul", "mul", "add"] = "sigmoid_mul"
    affine: bool = True
    token_norm: bool = False
    projection_bias: bool = True
    attention: Literal["auto", "fused", "plain"] = "auto"


@dataclass(frozen=True)
class KeyInstance:
    """The CMKIC term.

    Attributes:
        weight: supplement B, λ1.
        top_k: paper, table 10.
        temperature: supplement B, τ.
        reduction: equation 5 prints a sum over the anchors, and so does the paper of the supervised contrastive loss
            whose code takes the mean. We take the mean: at the start the sum would be 20 times the cross-entropy.
        selection: paper; `random` is table 10's other column and, with one positive, table 5's "common contrastive
            loss (randomly selecting one positive sample)".
        hidden: width inside the MLP head: not stated; 2048 as in the cited MoCo v2.
        width: of its output: not stated; 128 as there.
    """

    weight: float = 0.5
    top_k: int = 4
    temperature: float = 0.07
    reduction: Literal["mean", "sum"] = "mean"
    selection: Literal["hardest", "random"] = "hardest"
    hidden: int = 2048
    width: int = 128

    def head(self, channels: int) -> nn.Module:
        return projection_head(channels, self.hidden, self.width)

    def loss(self, z: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor, *, generator: torch.Generator):
        return key_instance_contrast(
            z,
            identity,
            modality,
            top_k=self.top_k,
            temperature=self.temperature,
            reduction=self.reduction,
            selection=self.selection,
            generator=generator,
        )


@dataclass(frozen=True)
class BatchHardTriplet:
    """Table 5's triplet loss in the place of CMKIC: on the global feature itself, not stated.

    Attributes:
        weight: not stated; as for CMKIC.
        margin: supplement B gives 0.3 for the other triplet.
    """

    weight: float = 0.5
    margin: float = 0.3

    def head(self, channels: int) -> nn.Module:
        return nn.Identity()

    def loss(self, z: torch.Tensor, identity: torch.Tensor, modality: torch.Tensor, *, generator: torch.Generator):
        return batch_hard_triplet(z, identity, margin=self.margin)


@dataclass(frozen=True)
class Auxiliary:
    """Losses and features of stage 3 (P4).

    Attributes:
        weight: supplement B, λ2.
        margin: supplement B, of the triplet on the global feature. Its mining is not stated; batch-hard is fast-reid's.
        parts: paper, section 4.2: M, 0 and 2 on RegDB.
        source: figure 2 draws P4 behind the MIIM; not stated in words.
    """

    weight: float = 0.1
    margin: float = 0.3
    parts: int = 0
    source: Literal["after_miim", "before_miim"] = "after_miim"


@dataclass(frozen=True)
class Config:
    """WRIM-Net's settings on LLCM, the data set of its ablations. "fast-reid" means the framework it was written in.

    Attributes:
        seed: not stated; 0.
        epochs: supplement B.
        trunk: paper, ResNet-50.
        last_stride: not stated; 1, which alone gives the FLOPs of table 6.
        size: supplement B, height×width in pixels (RegDB 256x144).
        identities_per_batch: supplement B, 8 (SYSU-MM01 4), the same ones in both modalities.
        visible_per_identity: supplement B, 8 (SYSU-MM01 16).
        infrared_per_identity: supplement B, 8 (SYSU-MM01 16).
        epoch_length: not stated; as fast-reid counts, all pictures of both modalities once.
        precision: not stated; float32. `bf16` or `fp16` is for speed.
        weights: paper, pre-trained on ImageNet.
        optimiser: supplement B, Adam. One group and coupled decay are fast-reid's.
        schedule: supplement B, ÷10 at 80 and at 120. The 2000 warm-up steps are not stated but fast-reid's.
        gradient_clip: not stated; None is off.
        miim: paper, figure 2 and tables 3, 4, S1, S2: after each stage `separate` (a copy per modality), `shared`, or
            None.
        mining: what every MIIM is built with.
        attention: table 6, instead of MIIM: `cbam` in every residual block, `non_local` after five of them.
        parts: paper, section 4.2: N stripes of P5 (RegDB 6).
        part_width: not stated; 0 leaves the parts' features as wide as the map, a number reduces them linearly first.
        contrast: the loss across modalities: CMKIC, what table 5 has in its place, or None.
        auxiliary: losses and features of stage 3, or None.
        label_smoothing: not stated; none. fast-reid's base configuration has 0.1.
        compared: features at test time after the necks, as fast-reid's head gives them; `pool` takes them before.
        normalised: not stated; the concatenation as a whole, as in fast-reid. `per_part` gives parts equal lengths.
        crop: supplement B, "multi-scale cropping", of strengths not stated; MultiScaleCrop's fit upright people.
        flip: supplement B, "random horizontal flip"; 0.5.
        grey: supplement B, "random greyscale"; 0.5 as in LLCM's own code. It leaves infrared pictures as they are.
        erasing: supplement B, "random erase", of both modalities; strengths of the method's paper, ImageNet's mean.
    """

    seed: int = 0
    epochs: int = 140
    trunk: Literal["tiny", "resnet18", "resnet34", "resnet50"] = "resnet50"
    last_stride: Literal[1, 2] = 1
    size: Size = Size(384, 144)
    identities_per_batch: int = 8
    visible_per_identity: int = 8
    infrared_per_identity: int = 8
    epoch_length: Literal["agw", "fastreid"] | int = "fastreid"
    precision: Literal["off", "bf16", "fp16"] = "off"
    weights: str = "imagenet"
    optimiser: SGD | Adam = Adam(lr=3.5e-4, backbone_factor=1.0, weight_decay=5e-4)
    schedule: WarmUpSteps = WarmUpSteps(warm_up_epochs=0, warm_up_steps=2000, milestones=(80, 120))
    gradient_clip: float | None = None
    miim: tuple[Place, Place, Place, Place] = ("separate", "separate", "shared", "shared")
    mining: Mining = Mining()
    attention: Literal["cbam", "non_local"] | None = None
    parts: int = 2
    part_width: int = 0
    contrast: KeyInstance | BatchHardTriplet | None = KeyInstance()
    auxiliary: Auxiliary | None = Auxiliary()
    label_smoothing: float = 0.0
    compared: Literal["bn", "pool"] = "bn"
    normalised: Literal["whole", "per_part"] = "whole"
    crop: MultiScaleCrop | PadCrop = MultiScaleCrop()
    flip: Flip = Flip()
    grey: Grey | None = Grey()
    erasing: RandomErasing | None = RandomErasing()

    def __post_init__(self) -> None:
        check_common_fields(self)
        for name, value in (("parts", self.parts), ("part_width", self.part_width)):
            if value < 0:
                raise BadInput(f"field '{name}' is {value}; it takes a whole number of 0 or more")

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = (self.erasing,) if self.erasing else ()
        grey = (self.grey,) if self.grey else ()
        return Pipeline(geometry=(self.crop, self.flip), visible_before=grey, visible=erasing, infrared=erasing)


PAPER = Config()

# --- blocks -----------------------------------------------------------------------------------------------------------


class MIIM(nn.Module):
    """Multi-dimension interactive information mining: a gate for a map, from attention to coarse regions of all of it.

    The paper's section 3.1, with F1 = BN(x):

        F2 = conv(F1)                        kernel = stride = spatial_ratio, channels / channel_ratio wide
        F3 = mean of F2 over pool×pool
        F4 = attention(query F2, key F3, value F3), heads of equal width, with positions        (equation 1)
        M1 = σ(W F4 + b), as wide as x again; M2 = M1 enlarged to the size of x                 (equation 2)
        F6 = BN(ReLU(F1 ⊗ M2))                                                                  (equation 3)

    Usable on any map. The result is signed, as the last step is a normalisation.

    Args:
        channels: of the map.
        spatial_ratio: positions per side that one query stands for; rows and columns left over are not queried.
        channel_ratio: how many times narrower the tokens are.
        pool: queries per side that one key and value stands for; 1 for as many keys as queries.
        heads: of the attention; must divide the tokens' width.
        ceil, positions, key_positions, positions_on, upsampling, gate_input, fusion, affine, token_norm,
            projection_bias, attention: see `Mining`.

    Raises:
        BadInput: the ratios and heads do not divide the width, or there is no such choice.
    """

    def __init__(
        self,
        channels: int,
        *,
        spatial_ratio: int,
        channel_ratio: int,
        pool: int = 3,
        heads: int = 8,
        ceil: bool = True,
        positions: Literal["sincos1d", "sincos2d", "none"] = "sincos1d",
        key_positions: Literal["own_index", "pooled_centre"] = "own_index",
        positions_on: Literal["qkv", "qk"] = "qkv",
        upsampling: Literal["bilinear", "nearest"] = "bilinear",
        gate_input: Literal["bn", "raw"] = "bn",
        fusion: Literal["sigmoid_mul", "mul", "add"] = "sigmoid_mul",
        affine: bool = True,
        token_norm: bool = False,
        projection_bias: bool = True,
        attention: Literal["auto", "fused", "plain"] = "auto",
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("positions", positions, ("sincos1d", "sincos2d", "none")),
            ("key_positions", key_positions, ("own_index", "pooled_centre")),
            ("positions_on", positions_on, ("qkv", "qk")),
            ("upsampling", upsampling, ("bilinear", "nearest")),
            ("gate_input", gate_input, ("bn", "raw")),
            ("fusion", fusion, ("sigmoid_mul", "mul", "add")),
        ):
            if value not in choices:
                raise unknown(name, value, choices)
        if min(spatial_ratio, channel_ratio, pool, heads) < 1 or channels % (channel_ratio * heads):
            raise BadInput(
                f"MIIM: {channels} channels cannot be {channel_ratio} times narrower in {heads} equal heads "
                f"(spatial ratio {spatial_ratio}, pool {pool}; all 1 or more)"
            )
        width = channels // channel_ratio
        self.spatial_ratio, self.pool, self.heads, self.ceil = spatial_ratio, pool, heads, ceil
        self.positions, self.key_positions, self.positions_on = positions, key_positions, positions_on
        self.upsampling, self.gate_input, self.fusion = upsampling, gate_input, fusion
        self.attention: Literal["auto", "fused", "plain"] = attention
        self.bn_in = nn.BatchNorm2d(channels, affine=affine)
        self.compress = nn.Conv2d(channels, width, spatial_ratio, stride=spatial_ratio)
        self.token_norm = nn.LayerNorm(width) if token_norm else nn.Identity()
        self.query = nn.Linear(width, width, bias=projection_bias)
        self.key = nn.Linear(width, width, bias=projection_bias)
        self.value = nn.Linear(width, width, bias=projection_bias)
        self.output = nn.Linear(width, width)
        self.restore = nn.Linear(width, channels)
        self.bn_out = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B×channels×H×W to the same shape.

        Raises:
            BadInput: the map has no room for one query, or (without `ceil`) for one key.
        """
        rows, columns = (side // self.spatial_ratio for side in x.shape[2:])
        if not rows or not columns or (not self.ceil and min(rows, columns) < self.pool):
            raise BadInput(
                f"MIIM: a map of {x.shape[2]}×{x.shape[3]} positions is too small for spatial ratio "
                f"{self.spatial_ratio} and pool {self.pool}; take larger pictures"
            )
        f1 = self.bn_in(x)
        f2 = self.compress(f1)
        f3 = functional.avg_pool2d(f2, self.pool, ceil_mode=self.ceil)
        f5 = self.restore(self.interact(f2, f3)).transpose(1, 2).unflatten(2, f2.shape[2:])
        gate = f5.sigmoid() if self.fusion == "sigmoid_mul" else f5
        if gate.shape != x.shape:
            # `align_corners` is False by default, and may not be named for `nearest`.
            gate = functional.interpolate(gate, size=x.shape[2:], mode=self.upsampling)
        gated = f1 if self.gate_input == "bn" else x
        mixed = gated + gate if self.fusion == "add" else gated * gate
        return self.bn_out(mixed.relu_())

    def interact(self, f2: torch.Tensor, f3: torch.Tensor) -> torch.Tensor:
        """Global region interaction (equation 1).

        Args:
            f2: B×C×H×W, where the queries come from.
            f3: B×C×h×w, where the keys and values come from.

        Returns:
            B×(H·W)×C.
        """
        queries, keys = (self.token_norm(grid.flatten(2).transpose(1, 2)) for grid in (f2, f3))
        values = keys
        if self.positions != "none":
            of_queries, of_keys = self.places(f2.shape[2:], f3.shape[2:], f2.device)
            queries, keys = queries + of_queries.to(queries.dtype), keys + of_keys.to(keys.dtype)
            values = keys if self.positions_on == "qkv" else values
        projected = (self.query(queries), self.key(keys), self.value(values))
        q, k, v = (tokens.unflatten(2, (self.heads, -1)).transpose(1, 2) for tokens in projected)
        return self.output(attend(q, k, v, path=self.attention).transpose(1, 2).flatten(2))

    def places(
        self, grid: Sequence[int], regions: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Position tables of the queries (H·W×C) and of the keys (h·w×C)."""
        width, form = self.query.in_features, self.positions
        rows, columns = (torch.arange(side, device=device) for side in grid)
        of_queries = place(rows, columns, width, form=form, across=grid[1])
        if self.key_positions == "own_index":
            rows, columns = (torch.arange(side, device=device) for side in regions)
            return of_queries, place(rows, columns, width, form=form, across=regions[1])
        rows, columns = (window_centres(*sides, self.pool, device) for sides in zip(grid, regions, strict=True))
        return of_queries, place(rows, columns, width, form=form, across=grid[1])


def projection_head(channels: int, hidden: int, width: int) -> nn.Module:
    """`z = W2 ReLU(BN(W1 r))` (equation 4); W1 has no bias, which the normalisation would take away."""
    first = nn.Linear(channels, hidden, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))


# --- losses -----------------------------------------------------------------------------------------------------------


def key_instance_contrast(
    features: torch.Tensor,
    identity: torch.Tensor,
    modality: torch.Tensor,
    *,
    top_k: int = 4,
    temperature: float = 0.07,
    reduction: Literal["mean", "sum"] = "mean",
    selection: Literal["hardest", "random"] = "hardest",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Cross-modality key-instance contrast (CMKIC): equations 5 and 6, and equation 1 of the supplement.

    With z the rows of length one, P(i) the `top_k` rows of the anchor's identity and the other modality that are least
    similar to it (all of them where there are fewer), and A(i) these and all rows of other identities of the other
    modality:

        l_i = -1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ∈ A(i)} exp(z_i·z_a/τ) )
        ½ (mean of l_i over visible anchors + mean of l_i over infrared anchors)

    The other rows of the anchor's identity appear nowhere. Which rows are in P(i) has no gradient; everything else has.
    Anchors without any positive are left out (`anchors_without_positives` counts them); a direction without anchors
    is 0. Rows that are neither visible nor infrared take no part. Computed at least in float32, outside autocast.

    Args:
        features: B×D, of any length.
        identity: B int64.
        modality: B int64, values of `Modality`.
        top_k: largest number of positives of an anchor.
        temperature: τ.
        reduction: over the anchors of a direction: `mean`, or `sum` as equation 5 prints it.
        selection: of the positives: `hardest`, or `random` among all.
        generator: for random selection; torch's own where it is left out.

    Returns:
        A scalar, at least float32.

    Raises:
        BadInput: no such reduction or selection, or `top_k` or `temperature` is not above 0.
    """
    if reduction not in ("mean", "sum"):
        raise unknown("reduction", reduction, ("mean", "sum"))
    if selection not in ("hardest", "random"):
        raise unknown("selection", selection, ("hardest", "random"))
    if top_k < 1 or temperature <= 0:
        raise BadInput(f"key-instance contrast needs top_k and temperature above 0, not {top_k} and {temperature}")
    with torch.autocast(features.device.type, enabled=False):
        z = functional.normalize(features.to(torch.promote_types(features.dtype, torch.float32)))
        scores = z @ z.T / temperature
    positive, negative = _across(identity, modality)
    if selection == "hardest":
        order = scores.detach()
    else:
        on = generator.device if generator is not None else scores.device
        order = torch.rand(scores.shape, generator=generator, device=on).to(scores.device)
    chosen = order.masked_fill(~positive, float("inf")).topk(min(top_k, len(z)), dim=1, largest=False).indices
    is_positive = positive.gather(1, chosen)
    # The lowest finite number rather than -inf: a row without pairs would become NaN, and so would its gradient.
    lowest = torch.finfo(scores.dtype).min
    keys = scores.gather(1, chosen)
    among = torch.cat((scores.masked_fill(~negative, lowest), keys.masked_fill(~is_positive, lowest)), 1)
    mean_positive = (keys * is_positive).sum(1) / is_positive.sum(1).clamp(min=1)
    losses = among.logsumexp(1) - mean_positive
    directions = [(modality == one) & positive.any(1) for one in (Modality.VISIBLE, Modality.INFRARED)]
    sums = torch.stack([losses.masked_fill(~anchors, 0.0).sum() for anchors in directions])
    counts = torch.stack([anchors.sum() for anchors in directions]).clamp(min=1)
    return (sums / counts if reduction == "mean" else sums).mean()


def anchors_without_positives(identity: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
    """How many visible and infrared rows have no row of their identity in the other modality: a scalar int64."""
    positive, _ = _across(identity, modality)
    return ((modality <= Modality.INFRARED) & ~positive.any(1)).sum()


def _across(identity: torch.Tensor, modality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of a visible and an infrared row, B×B: of the same identity, and of different ones."""
    visible, infrared = modality == Modality.VISIBLE, modality == Modality.INFRARED
    across = visible[:, None] & infrared[None, :]
    across = across | across.T
    same = identity[:, None] == identity[None, :]
    return across & same, across & ~same


# --- network ----------------------------------------------------------------------------------------------------------


class WRIMNet(nn.Module):
    """One stem and one trunk for both modalities; MIIMs after the stages; parts, necks and classifiers.

    Args:
        identities: width of the classifiers.
        trunk: name of the ResNet.
        last_stride: of stage 4.
        miim: after each of the four stages, `separate` for a copy per modality, `shared`, or None.
        make_miim: (stage 1..4, channels) → one MIIM.
        inserted: what stands after residual blocks (non-local), as in `Stages`.
        within: what stands inside them (CBAM), as in `Stages`.
        parts: stripes of stage 4.
        part_width: what a part's feature is reduced to; 0 for no reduction.
        contrast: the loss across modalities, or None.
        auxiliary: losses and features of stage 3, or None.
        label_smoothing: of every cross-entropy.
        compared: embed features after the necks (`bn`) or before (`pool`).
        normalised: give length one to the `whole` embedding only, or to each branch before (`per_part`).

    Attributes:
        draws_rows: whether the objective draws rows from the batch at random.
        anchors_skipped: how many anchors the contrast has left out so far for want of a positive.
    """

    def __init__(
        self,
        identities: int,
        *,
        make_miim: Callable[[int, int], nn.Module],
        trunk: str = "resnet50",
        last_stride: int = 1,
        miim: Sequence[Place] = ("separate", "separate", "shared", "shared"),
        inserted: Mapping[tuple[int, int], nn.Module] | None = None,
        within: Mapping[tuple[int, int], nn.Module] | None = None,
        parts: int = 2,
        part_width: int = 0,
        contrast: KeyInstance | BatchHardTriplet | None = None,
        auxiliary: Auxiliary | None = None,
        label_smoothing: float = 0.0,
        compared: Literal["bn", "pool"] = "bn",
        normalised: Literal["whole", "per_part"] = "whole",
    ) -> None:
        super().__init__()
        self.stem = Stem(trunk)
        self.stages = Stages(trunk, last_stride=last_stride, inserted=inserted, within=within)
        self.miims = nn.ModuleDict()
        for stage, (channels, kind) in enumerate(zip(self.stages.channels, miim, strict=True), start=1):
            if kind == "separate":
                self.miims[f"stage{stage}"] = PerModality(lambda s=stage, c=channels: make_miim(s, c))
            elif kind == "shared":
                self.miims[f"stage{stage}"] = make_miim(stage, channels)
        self.contrast, self.auxiliary, self.label_smoothing = contrast, auxiliary, label_smoothing
        self.compared, self.normalised = compared, normalised
        self.draws_rows = isinstance(contrast, KeyInstance) and contrast.selection == "random"
        *_, middle, last = self.stages.channels
        self.branches = nn.ModuleDict({"global": Branch(identities, last)})
        for part in range(parts):
            self.branches[f"part{part + 1}"] = Branch(identities, last, part_width)
        if auxiliary:
            self.branches["auxiliary_global"] = Branch(identities, middle)
            for part in range(auxiliary.parts):
                self.branches[f"auxiliary_part{part + 1}"] = Branch(identities, middle, part_width)
        self.pool = AveragePool()
        self.stripes = Parts(parts) if parts else None
        self.auxiliary_stripes = Parts(auxiliary.parts) if auxiliary and auxiliary.parts else None
        self.head = contrast.head(last) if contrast else None
        self.register_buffer("anchors_skipped", torch.zeros((), dtype=torch.int64))

    def stem_modules(self) -> list[Stem]:
        """The one stem of both modalities."""
        return [self.stem]

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4` after their MIIMs, `stage1_before` … before them."""
        found = {"stem": self.stem(images)}
        x = found["stem"]
        for number in (1, 2, 3, 4):
            found[f"stage{number}_before"] = x = self.stages.stage(number, x)
            if (key := f"stage{number}") in self.miims:
                miim = self.miims[key]
                x = miim(x, modality) if isinstance(miim, PerModality) else miim(x)
            found[key] = x
        return found

    def pooled(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×D features before the necks by branch: `global`, `part1` …, `auxiliary_global`, `auxiliary_part1` …"""
        maps = self.maps(images, modality)
        found = self._pooled(maps["stage4"], self.stripes, "")
        if self.auxiliary:
            source = maps["stage3" if self.auxiliary.source == "after_miim" else "stage3_before"]
            found |= self._pooled(source, self.auxiliary_stripes, "auxiliary_")
        return found

    def _pooled(self, x: torch.Tensor, stripes: Parts | None, prefix: str) -> dict[str, torch.Tensor]:
        rows = {f"{prefix}global": self.pool(x)}
        for number, part in enumerate(stripes(x).unbind(1) if stripes else (), start=1):
            name = f"{prefix}part{number}"
            rows[name] = self.branches[name].reduce(part)  # type: ignore[operator]
        return rows

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The terms of equation 9, each times its weight, so that their sum is what is minimised."""
        # No term depends on the order of the rows, and rows sorted by modality reach the separate MIIMs uncopied.
        order = batch.modality.argsort(stable=True)
        batch = replace(batch, **{name: getattr(batch, name)[order] for name in _COLUMNS})
        pooled = self.pooled(batch.images, batch.modality)
        entropy = {
            name: cross_entropy(self.branches[name](rows), batch.identity, label_smoothing=self.label_smoothing)
            for name, rows in pooled.items()
        }
        own = [value for name, value in entropy.items() if not name.startswith("auxiliary")]
        terms = {"identity": torch.stack(own).mean()}  # equation 7
        if self.contrast and self.head:
            z, identity, modality = whole_batch(self.head(pooled["global"]), batch.identity, batch.modality)
            loss = self.contrast.loss(z, identity, modality, generator=batch.generator())
            terms["contrast"] = self.contrast.weight * loss
            if self.training:
                self.anchors_skipped += anchors_without_positives(identity, modality)
        if self.auxiliary:
            theirs = [value for name, value in entropy.items() if name.startswith("auxiliary")]
            rows, identity = whole_batch(pooled["auxiliary_global"], batch.identity)
            triplet = batch_hard_triplet(rows, identity, margin=self.auxiliary.margin)  # supplement, equation 3
            terms["auxiliary_identity"] = self.auxiliary.weight * torch.stack(theirs).mean()  # supplement, equation 2
            terms["auxiliary_triplet"] = self.auxiliary.weight * triplet
        return terms

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D, all branches side by side in the order of `pooled`, the whole of length one."""
        pooled = self.pooled(images, modality)
        if self.compared == "bn":
            pooled = {name: self.branches[name].neck(rows) for name, rows in pooled.items()}  # type: ignore[operator]
        return self._joined(pooled)

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D, the branches before their necks, joined in the same way."""
        return self._joined(self.pooled(images, modality))

    def _joined(self, branches: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = [found.float() for found in branches.values()]
        if self.normalised == "per_part":
            rows = [functional.normalize(found) for found in rows]
        return functional.normalize(torch.cat(rows, 1))

    def new_parameters(self) -> list[nn.Parameter]:
        """Everything that no pretrained weights fill."""
        known = {id(p) for module in (self.stem, self.stages) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in known]


class Branch(nn.Module):
    """Neck and classifier of one pooled feature, after a reduction where one is wanted."""

    def __init__(self, identities: int, width: int, reduced: int = 0) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, reduced, bias=False) if reduced else nn.Identity()
        self.neck = BNNeck(reduced or width)
        self.classifier = Classifier(reduced or width, identities)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """N×D features, already reduced, to N×identities logits."""
        return self.classifier(self.neck(rows))


def build(config: Config, identities: int) -> WRIMNet:
    """The network of `config` for so many training identities."""
    shape, mining = trunk_named(config.trunk), vars(config.mining)

    def make_miim(stage: int, channels: int) -> nn.Module:
        own = {name: mining[name][stage - 1] for name in ("spatial_ratio", "channel_ratio")}
        return MIIM(channels, **{**mining, **own})

    def at(places: Sequence[tuple[int, int]], make: Callable[[int], nn.Module]) -> dict[tuple[int, int], nn.Module]:
        return {place: make(shape.channels[place[0] - 1]) for place in places}

    within, inserted = {}, {}
    if config.attention == "cbam":
        within = at(last_blocks(shape.blocks, shape.blocks), CBAM)
    elif config.attention == "non_local":  # AGW's places, in the width whose count table 6 prints
        inserted = at(
            last_blocks(shape.blocks, (0, 2, 3, 0)), lambda wide: NonLocal(wide, inner=wide // 4, form="gaussian")
        )
    return WRIMNet(
        identities,
        make_miim=make_miim,
        trunk=config.trunk,
        last_stride=config.last_stride,
        miim=config.miim,
        inserted=inserted,
        within=within,
        parts=config.parts,
        part_width=config.part_width,
        contrast=config.contrast,
        auxiliary=config.auxiliary,
        label_smoothing=config.label_smoothing,
        compared=config.compared,
        normalised=config.normalised,
    )


# --- rows -------------------------------------------------------------------------------------------------------------

_BASELINE = replace(PAPER, miim=(None, None, None, None), contrast=None, auxiliary=None)
_ONLY_MIIM = replace(PAPER, contrast=None, auxiliary=None)
_NARROW = replace(PAPER, size=Size(384, 128))
_SYSU = replace(PAPER, identities_per_batch=4, visible_per_identity=16, infrared_per_identity=16)
_REGDB = replace(PAPER, size=Size(256, 144), parts=6, auxiliary=Auxiliary(parts=2))

_COUNTED = "parameters and FLOPs were counted with one neck and at 224x224, which the paper does not say"
_K3 = "Rank-1 is not legible in the table; the running text gives 58.38"
_K1 = "Rank-1 is not legible in the table; the running text gives 57.77"
_SWEPT = "our choice of K: only K = 4 is legible; the mAP at the others is 63.84, 64.35, 64.36 and 64.00"
_DRAWN = "K is not legible; 4 as in the full model"
_FIGURE = "the figure's values are not legible; best at 0.5 (λ1) and 0.1 (λ2)"


def _placed(*stages: int) -> Config:
    """MIIMs after some stages only, of the kind that the paper has there."""
    return replace(PAPER, miim=tuple(kind if stage in stages else None for stage, kind in enumerate(PAPER.miim, 1)))


def _mined(base: Config = PAPER, **changes: Any) -> Config:
    return replace(base, mining=replace(PAPER.mining, **changes))


def _keys(**changes: Any) -> Config:
    return replace(PAPER, contrast=KeyInstance(**changes))


# Of the ablations: configuration, Rank-1, mAP, note, parameters, FLOPs. None is a cell that is not legible.
_ABLATIONS: dict[str, tuple[Any, ...]] = {
    "table3/baseline": (_BASELINE, 50.42, 57.05),
    "table3/miim": (_ONLY_MIIM, 55.31, 61.56),
    "table3/aicl": (_placed(), 54.83, 61.27),
    "table3/full": (PAPER, 58.38, 64.75),
    "table4/none": (_placed(), 54.83, 61.27),
    "table4/stages12": (_placed(1, 2), 57.82, 64.03),
    "table4/stages34": (_placed(3, 4), 56.16, 62.72),
    "table4/stages1234": (PAPER, 58.38, 64.75),
    "table5/triplet": (replace(PAPER, contrast=BatchHardTriplet()), 56.53, 63.19),
    "table5/contrastive": (_keys(top_k=1, selection="random"), 56.79, 63.39),
    "table5/cmkic": (PAPER, 58.38, 64.75),
    "table6/cbam": (replace(_BASELINE, attention="cbam"), 50.71, 57.83, _COUNTED, 26.03e6, 6.25e9),
    "table6/non-local": (replace(_BASELINE, attention="non_local"), 50.66, 57.25, _COUNTED, 27.20e6, 7.27e9),
    "table6/miim": (_ONLY_MIIM, 55.31, 61.56, _COUNTED, 28.99e6, 7.19e9),
    "table7/8-4-2-2": (_mined(_NARROW, spatial_ratio=(8, 4, 2, 2)), 57.87, 64.17),
    "table7/4-2-1-1": (_NARROW, 58.00, 64.32),
    "table7/2-1-1-1": (_mined(_NARROW, spatial_ratio=(2, 1, 1, 1)), 57.71, 64.04),
    "table8/4-4-8-8": (_mined(_NARROW, channel_ratio=(4, 4, 8, 8)), 57.51, 63.79),
    "table8/2-2-4-4": (_NARROW, 58.00, 64.32),
    "table8/1-1-2-2": (_mined(_NARROW, channel_ratio=(1, 1, 2, 2)), 57.45, 63.77),
    "table9/pool=1": (_mined(pool=1), None, 64.11, _K1),
    "table9/pool=2": (_mined(pool=2), None, 64.49),
    "table9/pool=3": (PAPER, None, 64.75, _K3),
    "table9/pool=4": (_mined(pool=4), None, 64.23),
    "table10/top_k=1": (_keys(top_k=1), None, None, _SWEPT),
    "table10/top_k=2": (_keys(top_k=2), None, None, _SWEPT),
    "table10/top_k=4": (PAPER, None, 64.75, _K3),
    "table10/random": (_keys(selection="random"), 56.46, 63.14, _DRAWN),
    "table10/top_k=6": (_keys(top_k=6), None, None, _SWEPT),
    "table10/top_k=8": (_keys(top_k=8), None, None, _SWEPT),
    "tableS1/none": (_placed(), 54.83, 61.27),
    "tableS1/stage1": (_placed(1), 56.68, 62.83),
    "tableS1/stage2": (_placed(2), 57.34, 63.53),
    "tableS1/stage3": (_placed(3), 55.26, 61.98),
    "tableS1/stage4": (_placed(4), 55.03, 61.76),
    "tableS1/stages12": (_placed(1, 2), 57.82, 64.03),
    "tableS1/stages34": (_placed(3, 4), 56.16, 62.72),
    "tableS1/stages1234": (PAPER, 58.38, 64.75),
    "tableS2/shared": (replace(PAPER, miim=("shared",) * 4), 57.63, 64.15),
    "tableS2/separate": (replace(PAPER, miim=("separate",) * 4), 57.12, 63.53),
    "tableS2/full": (PAPER, 58.38, 64.75),
    "tableS3/mul": (_mined(fusion="mul"), 56.08, 62.98),
    "tableS3/add": (_mined(fusion="add"), 56.74, 63.55),
    "tableS3/sigmoid-mul": (PAPER, 58.38, 64.75),
    "tableS4/no-auxiliary": (replace(PAPER, auxiliary=None), 57.32, 63.43),
    "tableS4/full": (PAPER, 58.38, 64.75),
}


def _row(name: str, config: Config, rank1: float | None, mean: float | None, note: str = "", *counted: float) -> Row:
    counts = dict(zip(("parameters_path", "macs_path"), counted, strict=False))
    return Row(config, {"rank1": rank1, "map": mean, **counts}, "llcm/i2v", _where(name), note)


def _where(name: str) -> str:
    table = name.partition("/")[0].replace("table", "table ").replace("figure", "figure ")
    return f"WRIM-Net {'supplement ' if ' S' in table else ''}{table}"


# Table 2's LLCM i2v is table3/full again, rounded.
_COMPARED: Mapping[str, tuple[Config, str, float, float]] = {
    "table1/all-single": (_SYSU, "sysu-mm01/all/single", 77.4, 75.4),
    "table1/all-multi": (_SYSU, "sysu-mm01/all/multi", 83.2, 71.1),
    "table1/indoor-single": (_SYSU, "sysu-mm01/indoor/single", 86.2, 88.1),
    "table1/indoor-multi": (_SYSU, "sysu-mm01/indoor/multi", 92.1, 84.6),
    "table1/regdb-v2i": (_REGDB, "regdb/v2i", 94.5, 90.5),
    "table1/regdb-i2v": (_REGDB, "regdb/i2v", 93.7, 89.7),
    "table2/v2i": (PAPER, "llcm/v2i", 67.0, 69.2),
}
_SWEEPS: Mapping[str, Config] = {
    **{f"figureS1/lambda1={weight}": _keys(weight=weight) for weight in (0.1, 0.3, 0.5, 0.7, 1.0)},
    **{
        f"figureS1/lambda2={weight}": replace(PAPER, auxiliary=Auxiliary(weight=weight))
        for weight in (0.05, 0.1, 0.3, 0.5, 1.0)
    },
}

ROWS: Mapping[str, Row] = {
    **{name: Row(c, {"rank1": r, "map": m}, on, _where(name)) for name, (c, on, r, m) in _COMPARED.items()},
    **{name: _row(name, *cells) for name, cells in _ABLATIONS.items()},
    **{name: Row(config, {}, "llcm/v2i", _where(name), _FIGURE) for name, config in _SWEEPS.items()},
}
