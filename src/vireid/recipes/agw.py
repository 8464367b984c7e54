"""AGW: the baseline that all three papers start from.

Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021. What is new: non-local
attention in the middle stages, generalised-mean pooling, and a triplet loss whose weights come from the batch instead
of a margin. For two modalities each keeps its own stem, and everything after the stem is shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.triplet import weighted_regularised_triplet
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


@dataclass(frozen=True)
class Config:
    """AGW's settings. "code" means the authors' public code, which is what produced the printed numbers.

    Attributes:
        seed: not stated; the code uses 0.
        epochs: code, epochs 0 to 80.
        trunk: paper, ResNet-50 with the last stride 1.
        size: code, height×width in pixels.
        identities_per_batch: code, 8 identities.
        visible_per_identity: code, 4 visible pictures of each.
        infrared_per_identity: code, 4 infrared pictures of each.
        epoch_length: code, floor(larger modality / (8·4)) + 1 steps; or a number of steps.
        precision: code computes in float32; `bf16` or `fp16` is ours, for speed.
        weights: paper, ImageNet; `none` starts at random, a file is read with every key accounted for.
        optimiser: code, new layers at 0.1 and the rest at a tenth of it.
        schedule: code, ten warm-up epochs, then ÷10 at 20 and at 50.
        gradient_clip: not in the code; None is off, a number is the largest norm let through.
        non_local: paper, embedded width half the channels. `code`: the public code divides a number by itself and so
            has width 1 (its pull request 28 reports it). None: no attention.
        gem_power: code, 3, and not learnt, although the paper describes a learnt one.
        negative_sign: paper and code, far negatives weigh less.
        flip: code, probability 0.5.
        crop: code, ten pixels of zero padding.
        exchange: None in AGW; the settings of CAJ's channel exchange where a row has it.
        erasing: None in AGW; the settings of CAJ's channel-level erasing, on both modalities as in its code.
    """

    seed: int = 0
    epochs: int = 81
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
    non_local: Literal["half", "code"] | None = "half"
    gem_power: float = 3.0
    negative_sign: Literal["minus", "plus"] = "minus"
    flip: Flip = Flip()
    crop: PadCrop = PadCrop()
    exchange: ChannelExchange | None = None
    erasing: ChannelErasing | None = None

    def __post_init__(self) -> None:
        check_common_fields(self)

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        return Pipeline(
            geometry=(self.flip, self.crop),
            visible=tuple(step for step in (self.exchange, self.erasing) if step),
            infrared=tuple(step for step in (self.erasing,) if step),
        )


PAPER = Config()

# --- network ----------------------------------------------------------------------------------------------------------


class AGW(nn.Module):
    """Two stems, one trunk, GeM, BNNeck.

    Args:
        identities: width of the classifier.
        trunk: name of the ResNet.
        non_local: width of the attention, or None.
        gem_power: exponent of the pooling.
        negative_sign: sign in the negatives' weights of the triplet loss.
    """

    def __init__(
        self,
        identities: int,
        *,
        trunk: str = "resnet50",
        non_local: Literal["half", "code"] | None = "half",
        gem_power: float = 3.0,
        negative_sign: Literal["minus", "plus"] = "minus",
    ) -> None:
        super().__init__()
        self.stems = PerModality(lambda: Stem(trunk))
        self.stages = Stages(trunk, inserted=agw_non_local(trunk, non_local) if non_local else None)
        self.pool = GeM(gem_power)
        self.width = self.stages.channels[-1]
        self.neck = BNNeck(self.width)
        self.classifier = Classifier(self.width, identities)
        self.negative_sign: Literal["minus", "plus"] = negative_sign

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`, by name."""
        stem = self.stems(images, modality)
        return {"stem": stem} | self.stages(stem)

    def pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features before the neck."""
        return self.pool(self.maps(images, modality)["stage4"])

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Identity classification after the neck, triplet before it."""
        features = self.pooled(batch.images, batch.modality)
        logits = self.classifier(self.neck(features))
        everybody, whose = whole_batch(features, batch.identity)
        return {
            "identity": cross_entropy(logits, batch.identity),
            "triplet": weighted_regularised_triplet(everybody, whose, negative_sign=self.negative_sign),
        }

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features after the neck, each of length one."""
        return functional.normalize(self.neck(self.pooled(images, modality)).float())

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features before the neck, each of length one."""
        return functional.normalize(self.pooled(images, modality).float())

    def new_parameters(self) -> list[nn.Parameter]:
        """Neck and classifier: everything else learns at a tenth of the rate, as in the code."""
        return [*self.neck.parameters(), *self.classifier.parameters()]


def build(config: Config, identities: int) -> AGW:
    """The network of `config` for so many training identities."""
    return AGW(
        identities,
        trunk=config.trunk,
        non_local=config.non_local,
        gem_power=config.gem_power,
        negative_sign=config.negative_sign,
    )


# --- rows -------------------------------------------------------------------------------------------------------------

_ALL = {"rank1": 47.50, "rank10": 84.39, "rank20": 92.14, "map": 47.65, "minp": 35.30}
_INDOOR = {"rank1": 54.17, "rank10": 91.14, "rank20": 95.98, "map": 62.97, "minp": 59.20}
_V2I = {"rank1": 70.05, "rank10": 86.21, "rank20": 91.55, "map": 66.37, "minp": 50.19}
_I2V = {"rank1": 70.49, "rank10": 87.21, "rank20": 91.84, "map": 65.90, "minp": 51.24}
_LLCM_NOTE = "as the LLCM paper printed it for its own training of AGW; that repository later changed its numbers"
_CAJ = replace(PAPER, exchange=ChannelExchange(grey=True), erasing=ChannelErasing())

ROWS: Mapping[str, Row] = {
    "sysu-mm01/all": Row(PAPER, _ALL, "sysu-mm01/all/single", "PECA table 1, FFDML table 6"),
    "sysu-mm01/indoor": Row(PAPER, _INDOOR, "sysu-mm01/indoor/single", "PECA table 1, FFDML table 6"),
    "regdb/v2i": Row(PAPER, _V2I, "regdb/v2i", "PECA table 2, FFDML table 5", "FFDML prints Rank-20 as 94.55"),
    "regdb/i2v": Row(PAPER, _I2V, "regdb/i2v", "PECA table 2, FFDML table 5"),
    "llcm/i2v": Row(PAPER, {"rank1": 46.4, "map": 54.8}, "llcm/i2v", "WRIM-Net table 2", _LLCM_NOTE),
    "llcm/v2i": Row(PAPER, {"rank1": 56.0, "map": 59.1}, "llcm/v2i", "WRIM-Net table 2", _LLCM_NOTE),
    "channel-augmentation": Row(
        _CAJ,
        note="AGW with CAJ's channel exchange and erasing, one view per picture; no paper prints this combination",
    ),
}
