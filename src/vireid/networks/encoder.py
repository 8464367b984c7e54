"""The encoder of AGW and of what is built on it: one stem for each modality, a shared trunk, pooling, a neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from vireid.data.modality import Modality
from vireid.data.unit import unit
from vireid.networks.attention import agw_non_local
from vireid.networks.heads import BNNeck, Classifier, NeckStart
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem


class Encoder(nn.Module):
    """Images to pooled features: the stem of each modality, shared stages with non-local attention, GeM.

    Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook" (TPAMI 2022), section 4, with one stem
    for each modality as in its public code for visible-infrared data.

    Args:
        trunk: a name in `vireid.networks.resnet.TRUNKS`.
        non_local: width of the non-local blocks, see `agw_non_local`. None builds no such blocks.
        gem_power: exponent of the pooling, above 0.
        modalities: modalities that have a stem.
        neck_start: how the weight of the neck starts, see `BNNeck`.

    Attributes:
        width: length D of the features.
        neck: the batch normalisation for N×D pooled features. `maps` and `pooled` do not apply it.

    Raises:
        BadInput: `trunk` or `non_local` is unknown.
        ValueError: `gem_power` is not above 0.
    """

    def __init__(
        self,
        trunk: str,
        *,
        non_local: Literal["half", "code"] | None,
        gem_power: float,
        modalities: Sequence[Modality] = (Modality.VISIBLE, Modality.INFRARED),
        neck_start: NeckStart = "ones",
    ) -> None:
        super().__init__()
        self.stems = PerModality(lambda: Stem(trunk), modalities)
        self.stages = Stages(trunk, inserted=agw_non_local(trunk, non_local) if non_local else None)
        self.pool = GeM(gem_power)
        self.width = self.stages.channels[-1]
        self.neck = BNNeck(self.width, start=neck_start)

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images and N modalities to five maps by name: `stem`, `stage1`, …, `stage4`."""
        stem = self.stems(images, modality)
        return {"stem": stem} | self.stages(stem)

    def pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×3×H×W images and N modalities to N×D features before the neck."""
        return self.pool(self.maps(images, modality)["stage4"])

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The modules that ImageNet weights are loaded into: the stems of all modalities, and the stages."""
        return list(self.stems.copies.values()), self.stages


class OneBranch(nn.Module):
    """An encoder and a classifier behind its neck: everything of AGW's network but its objective.

    Args:
        encoder: the encoder.
        identities: number of training identities, the width of the classifier.
    """

    def __init__(self, encoder: Encoder, identities: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = Classifier(encoder.width, identities)

    def maps(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, torch.Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`, by name."""
        return self.encoder.maps(images, modality)

    def embed(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features after the neck, each of length one."""
        return unit(self.encoder.neck(self.encoder.pooled(images, modality)))

    def embed_pooled(self, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        """N×D features before the neck, each of length one."""
        return unit(self.encoder.pooled(images, modality))

    def by_branch(self, images: torch.Tensor, modality: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """N×D features after the neck and N×identities logits of the branch `global`, the only one."""
        necked = self.encoder.neck(self.encoder.pooled(images, modality))
        return {"global": (necked, self.classifier(necked))}

    def new_parameters(self) -> list[nn.Parameter]:
        """Neck and classifier: everything else learns at a tenth of the rate, as in the code of AGW."""
        return [*self.encoder.neck.parameters(), *self.classifier.parameters()]

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The stems and the stages, which ImageNet weights are loaded into."""
        return self.encoder.pretrained_parts()
