"""What the fourth recipe is chosen from: every part of the three papers as a field that can be off.

This is a recipe outside the package (`--plugin studies/candidate.py`), so it may import from all three. The study adds
one part after another, keeps those that help validation people, and `vireid.recipes.vireid` then holds only these. With
everything off it is a plain baseline: two stems, one trunk, GeM, a neck, cross-entropy and AGW's triplet loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from vireid.augment.aggregation import with_auxiliary_samples
from vireid.augment.colour import ChannelExchange
from vireid.augment.erasing import ChannelErasing
from vireid.augment.geometry import Flip, PadCrop
from vireid.augment.pipeline import Pipeline
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.host import first, repeat
from vireid.data.modality import Modality
from vireid.data.settings import all_but, settings
from vireid.data.size import Size
from vireid.losses.classification import cross_entropy
from vireid.losses.mixing import ICAL
from vireid.losses.pairs import unit
from vireid.losses.triplet import weighted_regularised_triplet
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.normalisation import normalising_by
from vireid.networks.per_modality import PerModality
from vireid.networks.pooling import GeM
from vireid.networks.resnet import Stages, Stem, scaled
from vireid.recipes import Row
from vireid.recipes.fusion_dml import AdaptiveFusion, ChannelCombination, Fusion, Mutual, mutual_loss
from vireid.recipes.peca import (
    GSL,
    CentroidMemory,
    InstanceContrast,
    LocalProjections,
    ModalityContrast,
    similarity_loss,
    three_parts,
)
from vireid.recipes.wrim_net import Auxiliary, KeyInstance, Mining, Place
from vireid.training.distributed import all_gather
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.settings import Training


class Candidate(nn.Module):
    """Stems, trunk with or without MIIMs, the branches `global`, `fusion` and `joint`, and the terms that are on.

    Args:
        config: the settings.
        identities: number of training identities.
    """

    def __init__(self, config: Config, identities: int) -> None:
        super().__init__()
        if config.mutual and not config.fusion:
            raise BadInput("field 'mutual' needs the branches of 'fusion'")
        self.config, trunk = config, config.training.trunk
        self.draws_samples = config.ical is not None
        kinds = list(Modality) if config.ical else [Modality.VISIBLE, Modality.INFRARED]
        self.stems = PerModality(lambda: Stem(trunk), kinds)
        self.stages = Stages(trunk)
        self.miims = nn.ModuleDict()
        for stage, (place, channels) in enumerate(zip(config.miim, self.stages.channels, strict=True), start=1):
            make = partial(config.mining.after, stage, channels)
            if place is not None:
                self.miims[f"stage{stage}"] = PerModality(make, kinds) if place == "separate" else make()
        widths = {"global": self.stages.channels[-1]}
        self.fusion = None
        if config.fusion:
            stages = {f"stage{stage}": self.stages.channels[stage - 1] for stage in config.fusion.stages}
            how = all_but(config.fusion, "stages", "width", "full_rate")
            self.fusion = AdaptiveFusion(stages, width=scaled(config.fusion.width, trunk), **how)
            widths |= {"fusion": self.fusion.channels, "joint": widths["global"] + self.fusion.channels}
        self.last = list(widths)[-1]
        if config.auxiliary:
            widths["auxiliary"] = self.stages.channels[2]
        self.pools = nn.ModuleDict({name: GeM(3.0) for name in widths if name != "joint"})
        self.necks = nn.ModuleDict({name: BNNeck(width) for name, width in widths.items()})
        self.classifiers = nn.ModuleDict({name: Classifier(width, identities) for name, width in widths.items()})
        self.head = config.key_instance.head(widths[self.last], trunk) if config.key_instance else None
        self.projections = None
        if config.gsl:
            hidden = scaled(config.gsl.hidden, trunk)
            self.projections = LocalProjections(widths[self.last], hidden=hidden, between=config.gsl.between)
        self.memory = None
        if config.memory:
            how = all_but(config.memory, "temperature", "weight", "start", "refill")
            self.memory = CentroidMemory(identities, 2, widths[self.last], **how)

    def maps(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×3×H×W images to the maps `stem`, `stage1` … `stage4`, after their MIIMs."""
        found = {"stem": self.stems(images, modality)}
        x = found["stem"]
        for number in (1, 2, 3, 4):
            x = self.stages.stage(number, x)
            if (key := f"stage{number}") in self.miims:
                miim = self.miims[key]
                x = miim(x, modality) if isinstance(miim, PerModality) else miim(x)
            found[key] = x
        return found

    def branches(self, images: Tensor, modality: Tensor) -> dict[str, Tensor]:
        """N×D pooled features by branch."""
        maps = self.maps(images, modality)
        found = {"global": self.pools["global"](maps["stage4"])}
        if self.fusion is not None:
            found["fusion"] = self.fusion.pooled(maps, self.pools["fusion"])  # type: ignore[arg-type]
            found["joint"] = torch.cat((found["global"], found["fusion"]), 1)
        if self.config.auxiliary:
            found["auxiliary"] = self.pools["auxiliary"](maps["stage3"])
        return found

    @torch.no_grad()
    def local_features(self, images: Tensor, modality: Tensor) -> Tensor:
        """What GSL predicts: the features of the upper, middle and lower third side by side, after the neck."""
        parts = three_parts(images)
        with normalising_by(self, "batch_stats_no_update"):
            features = self.necks[self.last](self.branches(parts, repeat(modality, 3))[self.last])
        return torch.cat(features.chunk(3), 1)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The terms that are on; their sum is minimised."""
        config, ical, real, parents = self.config, self.config.ical, len(batch), ()
        generator = batch.generator()
        if ical:
            batch, *parents = with_auxiliary_samples(batch, generator=generator)
        ce, ins = ical.counts(real) if ical else (None, None)
        local = self.local_features(batch.images[:real], first(batch.modality, real)) if config.gsl else None
        branches = self.branches(batch.images, batch.modality)
        necked = {name: self.necks[name](feature) for name, feature in branches.items()}
        logits = {name: self.classifiers[name](feature[:ce]) for name, feature in necked.items()}
        terms = {f"identity_{name}": cross_entropy(found, first(batch.identity, ce)) for name, found in logits.items()}
        if config.auxiliary:
            terms["identity_auxiliary"] = terms["identity_auxiliary"] * config.auxiliary.weight
            stage3 = all_gather(branches["auxiliary"][:ins], first(batch.identity, ins))
            terms["triplet_auxiliary"] = config.auxiliary.weight * config.auxiliary.triplet(*stage3)
        if local is not None and self.projections is not None:
            terms["similarity"] = similarity_loss(self.projections(necked[self.last][:real]), local)
        if config.mutual:
            how = all_but(config.mutual, "pairs", "theta1", "theta2", "theta3")
            for (teacher, student), theta in config.mutual.weights().items():
                terms[f"mutual_{teacher}_{student}"] = theta * mutual_loss(logits[teacher], logits[student], **how)
        pooled, compared = branches[self.last], unit(necked[self.last])
        known = first(batch.identity, real), first(batch.modality, real)
        everywhere = all_gather(pooled[:ins], compared[:ins], first(batch.identity, ins), first(batch.modality, ins))
        if config.metric == "triplet":
            terms["triplet"] = weighted_regularised_triplet(everywhere[0], everywhere[2])
        else:
            terms["instance"] = InstanceContrast().loss(*everywhere)
        if ical:
            terms["mixing"] = ical.loss(compared[real:], *(compared[parent] for parent in parents))
        if config.key_instance and self.head is not None:
            head = all_gather(self.head(pooled[:real]), *known)
            terms["contrast"] = config.key_instance.weight * config.key_instance.loss(*head, generator=generator)
        if config.memory and self.memory is not None:
            seen = all_gather(compared[:real], *known)
            terms["modality"] = config.memory.weight * self.memory.loss(*seen, temperature=config.memory.temperature)
            if self.training:
                self.memory.update(*seen)
        return terms

    def embed(self, images: Tensor, modality: Tensor) -> Tensor:
        """N×D features of the last branch after its neck, beside those of stage 3 if these are on, of length one."""
        branches = self.branches(images, modality)
        compared = [self.last, *(["auxiliary"] if self.config.auxiliary else [])]
        return unit(torch.cat([self.necks[name](branches[name]) for name in compared], 1))

    def by_branch(self, images: Tensor, modality: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """N×D features after the neck and N×identities logits of each branch."""
        necked = {name: self.necks[name](feature) for name, feature in self.branches(images, modality).items()}
        return {name: (feature, self.classifiers[name](feature)) for name, feature in necked.items()}

    def before_training(self, batches: Iterable[Batch]) -> None:
        """Fill the memory, as PECA does, from all pictures; the neck first gets their statistics."""
        if self.memory is not None:
            self.memory.fill(batches, lambda *given: self.branches(*given)[self.last], self.necks[self.last])

    def new_parameters(self) -> list[nn.Parameter]:
        """Everything that pretrained weights do not fill."""
        known = {id(p) for module in (self.stems, self.stages) for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in known]

    def pretrained_parts(self) -> tuple[list[nn.Module], Stages]:
        """The stems and the stages."""
        return list(self.stems.copies.values()), self.stages


@settings
class Config:
    """Settings: everything is off."""

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
    epochs, size, epoch_length, optimiser, schedule: ours: as AGW; the regime of the study changes them.
    identities_per_batch, visible_per_identity, infrared_per_identity: ours: as AGW.
    """
    colour: Literal["none", "exchange", "rcc"] = "none"
    """ours: CAJ's channel exchange, or RCC of Lin and Wang, both with channel-level erasing; or neither."""
    ical: ICAL | None = None
    """ours: PECA's auxiliary samples."""
    miim: tuple[Place, Place, Place, Place] = (None, None, None, None)
    """ours: WRIM-Net's MIIMs after stages 1 to 4."""
    mining: Mining = Mining()
    """ours: what MIIMs are built with."""
    fusion: Fusion | None = None
    """ours: Lin and Wang's fusion of stages."""
    mutual: Mutual | None = None
    """ours: Lin and Wang's mutual learning; it needs the branches of the fusion."""
    metric: Literal["triplet", "instance"] = "triplet"
    """ours: AGW's triplet loss, or PECA's instance loss in its place."""
    key_instance: KeyInstance | None = None
    """ours: WRIM-Net's CMKIC."""
    memory: ModalityContrast | None = None
    """ours: PECA's loss against a memory of centroids."""
    gsl: GSL | None = None
    """ours: PECA's prediction of local features from the feature of the whole picture."""
    auxiliary: Auxiliary | None = None
    """ours: WRIM-Net's losses and features of stage 3."""

    def augmentation(self) -> Pipeline:
        """Training pictures of both modalities to normalised images."""
        erasing = () if self.colour == "none" else (ChannelErasing(),)
        exchange = (ChannelExchange(),) if self.colour == "exchange" else ()
        before = (ChannelCombination(),) if self.colour == "rcc" else ()
        return Pipeline((Flip(), PadCrop()), visible_before=before, visible=(*erasing, *exchange), infrared=erasing)


PAPER = Config()
ROWS: Mapping[str, Row] = {}
build = Candidate
