"""WRIM-Net: wide-ranging information mining network.

Wu et al., "WRIM-Net: Wide-Ranging Information Mining Network for Visible-Infrared Person Re-Identification", 2024. What
is new: a gate for a map (MIIM) lets every position attend to coarse regions of the whole map; each modality has its own
copy after stages 1 and 2, and both share one after stages 3 and 4. A contrastive loss (CMKIC) compares a sample with
those of its identity in the other modality that are least similar to it. Losses on the map of stage 3, and features of
it at test time, add auxiliary information. A stage is a "block" in the paper; P4 and P5 are the maps of stages 3 and 4.

Shapes: B samples, features of length D; identity and modality are B int64. Losses are scalars, at least float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from vireid.augment.aggregation import with_auxiliary_samples
from vireid.augment.colour import Grey
from vireid.augment.erasing import RandomErasing
from vireid.augment.geometry import Flip, MultiScaleCrop, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.host import on_host, pick, to_device, where
from vireid.data.modality import Modality
from vireid.data.settings import Count, Few, NonNegative, Share, Temperature, Width, all_but, settings
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.mixing import ICAL
from vireid.losses.pairs import mean_over, same_identity, similarity, unit
from vireid.losses.triplet import batch_hard_triplet
from vireid.networks.attention import other_attention
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.parts import Parts
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import AveragePool
from vireid.networks.resnet import Stages, Stem, scaled
from vireid.networks.tokens import attend, place, window_centres
from vireid.recipes import Row, read_rows
from vireid.training.distributed import all_gather
from vireid.training.optim import Adam, WarmUpSteps
from vireid.training.settings import Training

# --- multi-dimension interactive information mining (section 3.1) -----------------------------------------------------


class MIIM(nn.Module):
    """Multi-dimension interactive information mining: a gate for a map, from attention to coarse regions of all of it.

    With F1 = BN(x):

        F2 = conv(F1)                        kernel = stride = spatial_ratio, channels / channel_ratio wide
        F3 = mean of F2 over pool×pool
        F4 = attention(query F2, key F3, value F3), heads of equal width, with positions        (equation 1)
        M1 = σ(F5), F5 = W F4 + b, as wide as x again; M2 = M1 enlarged to the size of x        (equation 2)
        F6 = BN(ReLU(F1 ⊗ M2))                                                                  (equation 3)

    It can be used on any map. The result is signed, because the last step is a normalisation.

    Args:
        channels: of the map.
        spatial_ratio: positions per side that one query stands for; positions left over at the edge have no query.
        channel_ratio: how many times narrower the tokens are than the map.
        pool: queries per side that one key and value stands for; 1 gives as many keys as queries.
        heads: of the attention; must divide the width of the tokens.
        choices: the other fields of `Mining`, by name, with the same defaults.

    Raises:
        BadInput: a value is not allowed, or the ratio and the heads do not divide the channels.
    """

    def __init__(
        self, channels: int, *, spatial_ratio: int, channel_ratio: int, pool: int = 3, heads: int = 8, **choices: Any
    ) -> None:
        super().__init__()
        ratios = {"spatial_ratio": (spatial_ratio,) * 4, "channel_ratio": (channel_ratio,) * 4}
        self.mining = Mining(**ratios, pool=pool, heads=heads, **choices)
        self.spatial_ratio = spatial_ratio
        if channels % (channel_ratio * heads):
            raise BadInput(f"MIIM: {channels} channels cannot be {channel_ratio} times narrower in {heads} equal heads")
        width, affine, bias = channels // channel_ratio, self.mining.affine, self.mining.projection_bias
        self.bn_in = nn.BatchNorm2d(channels, affine=affine)
        self.compress = nn.Conv2d(channels, width, spatial_ratio, stride=spatial_ratio)
        self.token_norm = nn.LayerNorm(width) if self.mining.token_norm else nn.Identity()
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width)
        self.restore = nn.Linear(width, channels)
        self.bn_out = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """B×channels×H×W to the same shape: equations 2 and 3, with equation 1 in `interact`.

        Raises:
            BadInput: the map has no room for one query, or (without `ceil`) for one key.
        """
        mining, size = self.mining, x.shape[2:]
        smallest = min(size) // self.spatial_ratio
        if not smallest or (not mining.ceil and smallest < mining.pool):
            raise BadInput(
                f"MIIM: a map of {size[0]}×{size[1]} positions is too small for spatial ratio {self.spatial_ratio} "
                f"and pool {mining.pool}; take larger pictures"
            )
        f1 = self.bn_in(x)
        f2 = self.compress(f1)
        f3 = avg_pool2d(f2, mining.pool, ceil_mode=mining.ceil)
        f5 = self.restore(self.interact(f2, f3)).transpose(1, 2).unflatten(2, f2.shape[2:])
        gate = f5.sigmoid() if mining.fusion == "sigmoid_mul" else f5
        if gate.shape != x.shape:
            # `align_corners` is False by default, and must not be named for `nearest`.
            gate = interpolate(gate, size=size, mode=mining.upsampling)
        gated = f1 if mining.gate_input == "bn" else x
        mixed = gated + gate if mining.fusion == "add" else gated * gate
        return self.bn_out(mixed.relu_())

    def interact(self, f2: Tensor, f3: Tensor) -> Tensor:
        """Global region interaction, equation 1: F2, B×C×H×W, and F3, B×C×h×w, to F4, B×(H·W)×C."""
        queries, keys = (self.token_norm(grid.flatten(2).transpose(1, 2)) for grid in (f2, f3))
        values = keys
        if self.mining.positions != "none":
            of_queries, of_keys = self.places(f2.shape[2:], f3.shape[2:], f2.device)
            queries, keys = queries + of_queries.to(queries.dtype), keys + of_keys.to(keys.dtype)
            values = keys if self.mining.positions_on == "qkv" else values
        projected = (self.query(queries), self.key(keys), self.value(values))
        q, k, v = (tokens.unflatten(2, (self.mining.heads, -1)).transpose(1, 2) for tokens in projected)
        return self.output(attend(q, k, v, path=self.mining.attention).transpose(1, 2).flatten(2))

    def places(self, grid: Sequence[int], regions: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Position tables of the queries, (H·W)×C, and of the keys, (h·w)×C; `grid` is H, W and `regions` is h, w."""
        encoded = partial(place, width=self.query.in_features, form=self.mining.positions)
        of_queries = encoded(*(torch.arange(side, device=device) for side in grid), across=grid[1])
        if self.mining.key_positions == "own_index":
            return of_queries, encoded(*(torch.arange(side, device=device) for side in regions), across=regions[1])
        sides = zip(grid, regions, strict=True)
        centres = [window_centres(length, count, self.mining.pool, device) for length, count in sides]
        return of_queries, encoded(*centres, across=grid[1])


@settings
class Mining:
    """What every MIIM is built with; `Config.miim` says after which stages there are MIIMs."""

    spatial_ratio: tuple[Few, Few, Few, Few] = (4, 2, 1, 1)
    """paper, table 7: after stages 1 to 4, positions per side that one query stands for."""
    channel_ratio: tuple[Count, Count, Count, Count] = (2, 2, 4, 4)
    """paper, table 8: after stages 1 to 4, how many times narrower the tokens are than the map."""
    pool: Few = 3
    """paper, table 9: k_s; one key and value is the mean of 3×3 queries."""
    heads: Count = 8
    """paper, section 3.1: heads of the attention."""
    ceil: bool = True
    """not stated: true keeps regions that reach over the edge, such as 16×9 positions in regions of 3×3, so every
    position is in some key; false drops them. At 384×144 there is no difference."""
    positions: Literal["sincos1d", "sincos2d", "none"] = "sincos1d"
    """paper, section 3.1: sin-cos encoding of the Transformer, read literally, over the flattened sequence. `sincos2d`
    encodes the vertical coordinate in half of the channels and the horizontal one in the other half."""
    key_positions: Literal["own_index", "pooled_centre"] = "own_index"
    """not stated: `own_index` counts each sequence for itself, as in a Transformer, so a query and the key of the same
    place have different encodings; `pooled_centre` puts a key at the centre of the positions that it is the mean of."""
    positions_on: Literal["qkv", "qk"] = "qkv"
    """not stated: added to the tokens before the projections, so values get them too, as in a Transformer; `qk` leaves
    them out of the values."""
    upsampling: Literal["bilinear", "nearest"] = "bilinear"
    """not stated: how the gate is enlarged; `bilinear` is closer to the FLOPs of table 6, which is weak evidence."""
    gate_input: Literal["bn", "raw"] = "bn"
    """not stated: which F1 equation 3 multiplies. `bn`: the text says that F1 enters the convolution, and this map is
    normalised. The map before that (`raw`) is never negative, so the ReLU of equation 3 would do nothing. Against `bn`:
    normalisation and ReLU discard about two thirds of the output of a stage."""
    fusion: Literal["sigmoid_mul", "mul", "add"] = "sigmoid_mul"
    """paper, equation 3 and table S3: `mul` leaves the sigmoid out; `add` adds the gate instead, before ReLU and
    normalisation, and has no sigmoid, as the label "W/O(ADD)" of the table suggests."""
    affine: bool = True
    """paper, section 3.1: "standard batch normalization layer". False: both normalisations without weight and bias, as
    a public reading note describes them; this also fits the parameters of table 6."""
    token_norm: bool = False
    """not stated: true adds one layer normalisation on both token sequences, as in that note."""
    projection_bias: bool = True
    """not stated: nn.MultiheadAttention has biases; false leaves them out of query, key and value, as in that note."""
    attention: Literal["auto", "fused", "plain"] = "auto"
    """ours: which of two equal computations to use, see `vireid.networks.tokens.attend`."""

    def after(self, stage: int, channels: int) -> MIIM:
        """The MIIM for the map of one stage, 1..4. Every field is passed on."""
        ratios = {name: getattr(self, name)[stage - 1] for name in ("spatial_ratio", "channel_ratio")}
        return MIIM(channels, **all_but(self, *ratios), **ratios)


# --- auxiliary-information-based contrastive learning, AICL (section 3.2) ---------------------------------------------


def projection_head(channels: int, *, hidden: int, width: int) -> nn.Module:
    """The MLP head, equation 4: `z5 = W2 ReLU(BN(W1 R_g))`. W1 has no bias: the normalisation would remove it."""
    first = nn.Linear(channels, hidden, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, width))


@settings
class KeyInstance:
    """The CMKIC term: the MLP head and the loss on its output."""

    weight: NonNegative = 0.5
    """supplement B: λ1."""
    top_k: Count = 4
    """paper, table 10: K, positives of an anchor."""
    temperature: Temperature = 0.07
    """supplement B: τ."""
    reduction: Literal["mean", "sum"] = "mean"
    """ours, not equation 5 as printed: over the anchors. Equation 5 prints a sum, as does the paper on supervised
    contrastive learning, but the code of that paper takes the mean. At the start, with 8×8 samples, the sum is 262, and
    half of it is 20 times the cross-entropy. The mean is 4.09, which fits "balance the contribution" (section 3.3)."""
    selection: Literal["hardest", "random"] = "hardest"
    """paper, section 3.2: the positives are those least similar to the anchor. `random` is the other selection of table
    10, and with top_k=1 the "common contrastive loss (randomly selecting one positive sample)" of table 5."""
    hidden: Width = 2048
    """not stated: width between the two layers of the MLP head, for ResNet-50; in proportion on another trunk. As in
    MoCo v2, which the paper cites: as wide as the feature."""
    width: Width = 128
    """not stated: width of the output of the MLP head; as in MoCo v2."""

    def head(self, channels: int, trunk: str) -> nn.Module:
        """The MLP head for features of a trunk with so many channels."""
        return projection_head(channels, hidden=scaled(self.hidden, trunk), width=self.width)

    def loss(self, z: Tensor, identity: Tensor, modality: Tensor, *, generator: Generator) -> Tensor:
        """CMKIC of the output of the head. Every field that is not about weight or head is passed on."""
        how = all_but(self, "weight", "hidden", "width")
        return key_instance_contrast(z, identity, modality, **how, generator=generator)


def key_instance_contrast(
    features: Tensor, identity: Tensor, modality: Tensor, *, top_k: int = KeyInstance.top_k,
    temperature: float = KeyInstance.temperature, reduction: Literal["mean", "sum"] = KeyInstance.reduction,
    selection: Literal["hardest", "random"] = KeyInstance.selection, generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Cross-modality key-instance contrast (CMKIC): equations 5 and 6, and equation 1 of the supplement.

    z are the features at length one. P(i) are the `top_k` samples of the anchor's identity and the other modality that
    are least similar to it, or all of them if there are fewer. A(i) are P(i) and all samples of other identities of the
    other modality.

        l_i = -1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ∈ A(i)} exp(z_i·z_a/τ) )
        ½ (mean of l_i over visible anchors + mean of l_i over infrared anchors)

    The choice of P(i) has no gradient. Other samples of the anchor's identity take no part, nor do samples that are
    neither visible nor infrared. Anchors without a positive are left out; a direction without anchors is 0.

    Args:
        features: B×D, of any length.
        identity, modality: B int64 each; modalities are values of `Modality`.
        top_k, temperature, reduction, selection: see `KeyInstance`. A value that it does not allow raises BadInput.
        generator: for random selection; by default torch's global one.
    """
    KeyInstance(top_k=top_k, temperature=temperature, reduction=reduction, selection=selection)  # checks the values
    z = unit(features)
    scores = similarity(z, z) / temperature
    visible, infrared = modality == Modality.VISIBLE, modality == Modality.INFRARED
    across = (visible[:, None] & infrared[None, :]) | (infrared[:, None] & visible[None, :])
    positive, negative = (across & pairs for pairs in same_identity(identity))
    if selection == "hardest":
        order = scores.detach()
    else:
        device = generator.device if generator is not None else scores.device
        order = torch.rand(scores.shape, generator=generator, device=device).to(scores.device)
    chosen = order.masked_fill(~positive, float("inf")).topk(min(top_k, len(z)), dim=1, largest=False).indices
    is_positive, keys = positive.gather(1, chosen), scores.gather(1, chosen)
    # The lowest finite number instead of -inf: an anchor without pairs would become NaN, and so would its gradient.
    lowest = torch.finfo(scores.dtype).min
    among = torch.cat((scores.masked_fill(~negative, lowest), keys.masked_fill(~is_positive, lowest)), 1)
    losses = among.logsumexp(1) - (keys * is_positive).sum(1) / is_positive.sum(1).clamp(min=1)
    directions = [anchors & positive.any(1) for anchors in (visible, infrared)]
    if reduction == "sum":
        return torch.stack([losses.masked_fill(~anchors, 0.0).sum() for anchors in directions]).mean()
    return torch.stack([mean_over(anchors, losses) for anchors in directions]).mean()


@settings
class BatchHardTriplet:
    """The triplet loss that table 5 has in the place of CMKIC; on the global feature itself, which is not stated."""

    weight: NonNegative = 0.5
    """not stated: as for CMKIC."""
    margin: NonNegative = 0.3
    """not stated: as for the other triplet loss, where supplement B gives it."""

    def head(self, channels: int, trunk: str) -> nn.Module:
        """No head."""
        return nn.Identity()

    def loss(self, z: Tensor, identity: Tensor, modality: Tensor, *, generator: Generator) -> Tensor:
        """Batch-hard triplet loss of both modalities together."""
        return batch_hard_triplet(z, identity, margin=self.margin)


@settings
class Auxiliary:
    """Losses on features of stage 3 (P4), which are also part of the embedding."""

    weight: NonNegative = 0.1
    """supplement B: λ2."""
    margin: NonNegative = 0.3
    """supplement B: α of the triplet loss on the global feature. Mining is not stated; batch-hard is fast-reid's."""
    parts: Few | Literal[0] = 0
    """paper, section 4.2: M, horizontal parts; 2 on RegDB."""
    source: Literal["after_miim", "before_miim"] = "after_miim"
    """not stated: P4 is taken behind the MIIM, as figure 2 draws it, or before it."""

    def triplet(self, features: Tensor, identity: Tensor) -> Tensor:
        """Batch-hard triplet loss of the global features, equation 3 of the supplement."""
        return batch_hard_triplet(features, identity, margin=self.margin)


# --- network ----------------------------------------------------------------------------------------------------------


class Branch(nn.Module):
    """Neck and classifier of one pooled feature, with a linear reduction before them where `reduced` is not 0."""

    def __init__(self, width: int, identities: int, *, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, reduced, bias=False) if reduced else nn.Identity()
        self.neck = BNNeck(reduced or width)
        self.classifier = Classifier(reduced or width, identities)


def branch_names(prefix: str, parts: int) -> list[str]:
    """The branches of one map: `global`, `part1` …, each after the prefix."""
    return [f"{prefix}global", *(f"{prefix}part{part}" for part in range(1, parts + 1))]


class WRIMNet(nn.Module):
    """One stem and one trunk for both modalities, MIIMs after the stages, parts, necks and classifiers.

    Args:
        config: the recipe's settings.
        identities: number of training identities, the width of the classifiers.
    """

    def __init__(self, config: Config, identities: int) -> None:
        super().__init__()
        check_positives(config)
        self.config = config
        # Whether the objective draws samples at random, so that the order of the samples matters.
        random_positives = isinstance(config.contrast, KeyInstance) and config.contrast.selection == "random"
        self.draws_samples = random_positives or config.ical is not None
        trunk, auxiliary = config.training.trunk, config.auxiliary
        attention = other_attention(config.attention, trunk)
        self.stem = Stem(trunk)
        self.stages = Stages(trunk, last_stride=config.last_stride, **attention)
        self.miims = nn.ModuleDict()
        for stage, (kind, channels) in enumerate(zip(config.miim, self.stages.channels, strict=True), start=1):
            make = partial(config.mining.after, stage, channels)
            if kind is not None:
                self.miims[f"stage{stage}"] = PerModality(make) if kind == "separate" else make()
        *_, middle, last = self.stages.channels
        widths = dict.fromkeys(branch_names("", config.parts), last)
        if auxiliary:
            widths |= dict.fromkeys(branch_names("auxiliary_", auxiliary.parts), middle)
        self.branches = nn.ModuleDict()
        for name, width in widths.items():
            self.branches[name] = Branch(width, identities, reduced=config.part_width if "part" in name else 0)
        self.pool = AveragePool()
        self.parts = Parts(config.parts) if config.parts else None
        self.auxiliary_parts = Parts(auxiliary.parts) if auxiliary and auxiliary.parts else None
        self.head = config.contrast.head(last, trunk) if config.contrast else None

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The stem and the stages, which ImageNet weights are loaded into."""
        return [self.stem], self.stages

    def new_parameters(self) -> list[nn.Parameter]:
        """Everything that ImageNet weights do not fill."""
        known = {id(p) for module in (self.stem, self.stages) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in known]

    def maps(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4` after their MIIMs, `stage1_before` … before them."""
        found = {"stem": (x := self.stem(images))}
        for number in (1, 2, 3, 4):
            found[f"stage{number}_before"] = x = self.stages.stage(number, x)
            if (key := f"stage{number}") in self.miims:
                miim = self.miims[key]
                x = miim(x, modality) if isinstance(miim, PerModality) else miim(x)
            found[key] = x
        return found

    def pooled(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×D features before the necks by branch: `global`, `part1` …, `auxiliary_global`, `auxiliary_part1` …"""
        maps = self.maps(images, modality)
        found = self._pooled(maps["stage4"], self.parts, "")
        if self.config.auxiliary:
            source = "stage3" if self.config.auxiliary.source == "after_miim" else "stage3_before"
            found |= self._pooled(maps[source], self.auxiliary_parts, "auxiliary_")
        return found

    def _pooled(self, x: Tensor, parts: nn.Module | None, prefix: str) -> dict[str, Tensor]:
        features = [self.pool(x), *(parts(x).unbind(1) if parts is not None else ())]
        names = branch_names(prefix, len(features) - 1)
        return {n: self.branches[n].reduce(f) for n, f in zip(names, features, strict=True)}  # type: ignore[operator]

    def necked(self, pooled: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of `pooled` after the neck of each branch."""
        return {name: self.branches[name].neck(feature) for name, feature in pooled.items()}  # type: ignore[operator]

    def classification(self, necked: Mapping[str, Tensor], identity: Tensor, *, auxiliary: bool) -> Tensor:
        """Mean of the branches' cross-entropies: equation 7 for stage 4, equation 2 of the supplement for stage 3."""
        chosen = {name: f for name, f in necked.items() if name.startswith("auxiliary") == auxiliary}
        logits = [self.branches[name].classifier(feature) for name, feature in chosen.items()]  # type: ignore[operator]
        smoothing = self.config.label_smoothing
        return torch.stack([cross_entropy(scores, identity, label_smoothing=smoothing) for scores in logits]).mean()

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of equation 9 times λ1 and λ2; their sum is L_total. Equation 8: `auxiliary_…`. ICAL: `mixing`."""
        contrast, auxiliary, ical = self.config.contrast, self.config.auxiliary, self.config.ical
        generator, real, parents = batch.generator(), len(batch), ()
        if ical:
            batch, *parents = with_auxiliary_samples(batch, modality=Modality.VISIBLE, generator=generator)
        # No term depends on the order of the samples. If they are sorted by modality, separate MIIMs copy no maps.
        order = to_device(on_host(batch.modality).argsort(stable=True), batch.images.device)
        identity, modality = batch.identity[order], pick(batch.modality, order)
        necked = self.necked(pooled := self.pooled(batch.images[order], modality))
        # Which samples are classified, and which are compared by CMKIC and the triplet loss: all, or the real ones.
        limits = ical.counts(real) if ical else (None, None)
        ce, ins = (slice(None) if end is None else where(on_host(order) < end, order.device) for end in limits)
        entropy = partial(self.classification, {name: f[ce] for name, f in necked.items()}, identity[ce])
        terms = {"identity": entropy(auxiliary=False)}
        if contrast and self.head is not None:
            everywhere = all_gather(self.head(pooled["global"][ins]), identity[ins], modality[ins])
            terms["contrast"] = contrast.weight * contrast.loss(*everywhere, generator=generator)
        if auxiliary:
            everywhere = all_gather(pooled["auxiliary_global"][ins], identity[ins])
            terms["auxiliary_identity"] = auxiliary.weight * entropy(auxiliary=True)
            terms["auxiliary_triplet"] = auxiliary.weight * auxiliary.triplet(*everywhere)
        if ical:
            compared = self._joined(necked)[order.argsort()]  # in the order of the batch again
            terms["mixing"] = ical.loss(compared[real:], *(compared[parent] for parent in parents))
        return terms

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """N×D, all branches after their necks side by side, in the order of `pooled`, of length one (section 3.3)."""
        return self._joined(self.necked(self.pooled(images, modality)))

    def embed_pooled(self, images: Tensor, modality: Tensor) -> Tensor:
        """N×D, the branches before their necks, joined in the same way."""
        return self._joined(self.pooled(images, modality))

    def by_branch(self, images: Tensor, modality: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """N×D features after the neck and N×identities logits of each branch, in the order of `pooled`."""
        necked = self.necked(self.pooled(images, modality))
        return {n: (f, self.get_submodule(f"branches.{n}.classifier")(f)) for n, f in necked.items()}

    def _joined(self, features: Mapping[str, Tensor]) -> Tensor:
        """The branches side by side, of length one as a whole."""
        each = features.values()
        return unit(torch.cat([unit(f) for f in each] if self.config.normalised == "per_part" else list(each), 1))


def check_positives(config: Config) -> None:
    """Refuse a K above the positives of an anchor, which are its identity's samples of the other modality."""
    training, contrast = config.training, config.contrast
    there = min(training.visible_per_identity, training.infrared_per_identity)
    if isinstance(contrast, KeyInstance) and contrast.top_k > there:
        raise BadInput(
            f"field 'contrast.top_k' is {contrast.top_k}, but a step has {there} positives for some anchors; set it to "
            f"{there} or less, or raise visible_per_identity and infrared_per_identity"
        )


# --- settings ---------------------------------------------------------------------------------------------------------

Place = Literal["separate", "shared"] | None


@settings
class Config:
    """WRIM-Net's settings on LLCM, the data set of its ablations. "fast-reid" is its framework."""

    training: Training = Training(
        epochs=140, size=Size(384, 144), identities_per_batch=8, visible_per_identity=8, infrared_per_identity=8,
        epoch_length="fastreid", optimiser=Adam(lr=3.5e-4, trunk_factor=1.0, weight_decay=5e-4),
        schedule=WarmUpSteps(warm_up_epochs=0, warm_up_steps=2000, warm_up_at_most=0.1, milestones=(80, 120)),
    )  # fmt: skip
    """
    epochs: supplement B: as printed.
    size: supplement B: height×width in pixels; 256x144 on RegDB.
    identities_per_batch: supplement B: 8; 4 on SYSU-MM01. The same people in both modalities: CMKIC needs positives.
    visible_per_identity, infrared_per_identity: supplement B: 8 pictures of each modality; 16 on SYSU-MM01.
    epoch_length: not stated: all pictures of both modalities once, as fast-reid counts; `agw` is the other reading.
    optimiser: supplement B: Adam at 3.5e-4, weight decay 5e-4. One group, coupled decay: not stated, fast-reid's.
    schedule: supplement B: ÷10 at epochs 80 and 120.
    schedule.warm_up_steps, schedule.warm_up_epochs: not stated: 2000 steps and no epochs, fast-reid's default.
    schedule.warm_up_at_most: ours: a tenth of all steps. On RegDB, with 32 steps in an epoch, 2000 steps would last
        until epoch 62 of 140; so warm-up ends at step 448 of 4480. It does not change SYSU-MM01 and LLCM.
    seed: not stated: 0.
    trunk, weights: paper, section 4.2: ResNet-50, pretrained.
    precision: not stated: float32; mixed precision is for speed.
    gradient_clip: not stated: no limit.
    """
    last_stride: Literal[1, 2] = 1
    """not stated: stride of stage 4; only 1 gives the FLOPs of table 6."""
    miim: tuple[Place, Place, Place, Place] = ("separate", "separate", "shared", "shared")
    """paper, figure 2 and tables 4, S1, S2: after stages 1 to 4, `separate` (a copy for each modality), `shared` (one
    for both) or null (none)."""
    mining: Mining = Mining()
    """paper, section 3.1: what every MIIM is built with."""
    attention: Literal["cbam", "non_local"] | None = None
    """paper, table 6: instead of MIIM, `cbam` in every residual block, or `non_local` at AGW's five places with a
    quarter of the channels, which is the width with the printed number of parameters."""
    parts: Few | Literal[0] = 2
    """paper, section 4.2: N, horizontal parts of P5; 6 on RegDB. How 16 positions become 6 parts is not stated: parts
    are equal and may overlap by one position, because blocks without overlap would leave one position for the feet."""
    part_width: Width | Literal[0] = 0
    """not stated: width that a linear layer reduces a part's feature to; 0 is none, because the paper mentions none."""
    contrast: KeyInstance | BatchHardTriplet | None = KeyInstance()
    """paper, section 3.2: the loss across modalities: CMKIC, the triplet loss of table 5 in its place, or null."""
    auxiliary: Auxiliary | None = Auxiliary()
    """paper, section 3.2: losses and features of stage 3, or null."""
    ical: ICAL | None = None
    """ours: PECA's auxiliary samples and mixing loss, which are not in WRIM-Net; null is without. There is one stem for
    all samples, and auxiliary samples go through the MIIMs for visible samples and count as visible in CMKIC."""
    label_smoothing: Share = 0.0
    """not stated: ε of every cross-entropy; 0, although fast-reid's base configuration has 0.1."""
    normalised: Literal["whole", "per_part"] = "whole"
    """not stated: the concatenation gets length one as a whole, as in fast-reid; `per_part`: each branch before it."""
    crop: MultiScaleCrop | PadCrop = MultiScaleCrop()
    """supplement B: multi-scale cropping; strengths are not stated, ours fit upright people. `PadCrop` is the shift by
    ten pixels of other methods."""
    flip: Flip = Flip()
    """supplement B: random horizontal flip; probability 0.5, not stated."""
    grey: Grey | None = Grey()
    """supplement B: random greyscale; 0.5 as in the code of LLCM, not stated. It does not change infrared pictures."""
    erasing: RandomErasing | None = RandomErasing()
    """supplement B: random erasing; of both modalities, with the strengths of the method's paper and ImageNet's mean as
    colour, which is not stated."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = (self.erasing,) if self.erasing else ()
        grey = (self.grey,) if self.grey else ()
        return Pipeline(geometry=(self.crop, self.flip), visible_before=grey, visible=erasing, infrared=erasing)


PAPER = Config()
ROWS: Mapping[str, Row] = read_rows(PAPER, __file__)
build = WRIMNet
