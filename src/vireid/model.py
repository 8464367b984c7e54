"""A trained model: what a run learnt, ready to embed pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vireid import recipes
from vireid.augment.normalise import normalise
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.training import checkpoint
from vireid.training.configuration import from_json
from vireid.training.run import Run, open_run

EMBEDDINGS = {
    "neck": "after the neck, length one",
    "pooled": "before the neck, length one",
    "both": "after and before the neck side by side, each of length one",
}
"""What `--embedding` may be, and what a report calls it."""


@dataclass(frozen=True)
class Model:
    """A network with its configuration.

    Attributes:
        network: in evaluation mode; has `embed(images, modality)` on normalised images and named maps.
        recipe: the recipe's name.
        config: the recipe's configuration.
        run: the run directory it came from.
        epochs: how many epochs it was trained.
        checkpoint: `last` or `best`.
    """

    network: nn.Module
    recipe: str
    config: Any
    run: Run
    epochs: int
    checkpoint: str = "last"

    def embed(
        self, images: np.ndarray | torch.Tensor, modality: Modality | int | np.ndarray | torch.Tensor
    ) -> np.ndarray:
        """Features of pictures that are already at the model's size.

        Args:
            images: N×3×H×W uint8, where H×W is `config.size` (`vireid.data.pictures.read_picture` reads a file so).
            modality: one modality for all, or N of them (0 visible, 1 infrared).

        Returns:
            N×D float32, each row of length one.

        Raises:
            BadInput: another shape, type or modality.
        """
        images = torch.as_tensor(images)
        wanted = (3, *self.config.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted or images.dtype != torch.uint8:
            raise BadInput(
                f"images are {tuple(images.shape)} {images.dtype}, this model takes N×3×{self.config.size.height}×"
                f"{self.config.size.width} uint8"
            )
        modality = torch.as_tensor(modality, dtype=torch.int64).expand(len(images))
        if len(images) and not torch.isin(modality, torch.tensor([0, 1])).all():
            raise BadInput("modality takes 0 (visible) or 1 (infrared)")
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            return self.network.embed(normalise(images).to(device), modality.to(device)).float().cpu().numpy()  # type: ignore[operator]


def load(run: str | Path | Run, *, untrained: bool = False, which: str = "last") -> Model:
    """The model of a run directory.

    Args:
        run: the directory that `vireid train --run` filled.
        untrained: the network as it was before its first step, for comparison.
        which: the `last` checkpoint, or the `best` of those that `vireid train --validate-every` compared.

    Raises:
        BadInput: not a run, nothing saved yet, or a checkpoint that is not one or does not fit.
    """
    if not isinstance(run, Run):
        run = open_run(Path(run))
    if which not in ("last", "best"):
        raise unknown("checkpoint", which, ("last", "best"))
    file = run.best if which == "best" else run.checkpoint
    if which == "best" and not file.exists():
        raise BadInput(f"{run.path} has no best.pt; vireid train --validate-every N keeps one, choices here: last")
    name, config = configuration(run)
    if untrained:
        from vireid.training.loop import seed_everything

        seed_everything(config.seed)
    network = recipes.build(name, config, run.facts["data"]["identities"], pretrained=untrained)
    epochs = 0
    if not untrained:
        state = checkpoint.load(file)
        try:
            network.load_state_dict(state["model"])
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{file} does not fit recipe '{name}' as {run.path} configures it ({reason})") from error
        epochs = state["progress"]["epoch"]
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(network, name, config, run, epochs, which)


def embedder(network: nn.Module, which: str = "neck") -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The function from images and modalities to the features that are compared.

    Args:
        network: what a recipe built.
        which: one of `EMBEDDINGS`. Where both stand side by side, the cosine is the mean of the two cosines.

    Raises:
        BadInput: another embedding, or one that this network does not have.
    """
    if which not in EMBEDDINGS:
        raise unknown("embedding", which, EMBEDDINGS)
    neck: Any = network.embed
    if which == "neck":
        return neck
    pooled: Any = getattr(network, "embed_pooled", None)
    if pooled is None:
        raise BadInput(f"this recipe has no embedding '{which}', nothing is compared before its neck; choices: neck")
    if which == "pooled":
        return pooled
    return lambda images, modality: torch.nn.functional.normalize(
        torch.cat([neck(images, modality), pooled(images, modality)], dim=1)
    )


def configuration(run: Run) -> tuple[str, Any]:
    """The recipe's name and configuration that a run was made with."""
    name = run.facts["recipe"]
    return name, from_json(type(recipes.recipe(name).PAPER), run.facts["config"])
