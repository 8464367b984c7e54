"""A trained model: a network with its configuration, ready to embed pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from vireid import recipes
from vireid.data import pictures as decoding
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.resampling import resize
from vireid.data.size import Size
from vireid.evaluation.embedding import embed_pictures
from vireid.training import checkpoint as checkpoints
from vireid.training.configuration import from_json
from vireid.training.run import Run, open_run

EMBEDDINGS = {
    "neck": "after the neck, length one",
    "pooled": "before the neck, length one",
    "both": "after and before the neck side by side, each of length one",
}
"""What `--embedding` may be, and what a report calls it."""

MODALITIES = {
    "visible": Modality.VISIBLE,
    "vis": Modality.VISIBLE,
    "rgb": Modality.VISIBLE,
    "infrared": Modality.INFRARED,
    "ir": Modality.INFRARED,
    "nir": Modality.INFRARED,
    "thermal": Modality.INFRARED,
}
"""The words that `Model.embed` understands."""

BATCH = 64

Picture = str | Path | Image.Image | np.ndarray
OneModality = Modality | int | str


@dataclass(frozen=True)
class Model:
    """A network with its configuration.

    Attributes:
        network: in evaluation mode; has `embed(images, modality)` for normalised images, and named maps.
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

    @property
    def size(self) -> Size:
        """Height and width of the images that the network takes."""
        return self.config.training.size

    def embed(
        self,
        pictures: Sequence[Picture] | np.ndarray | torch.Tensor,
        modality: OneModality | Sequence[OneModality] | np.ndarray | torch.Tensor,
    ) -> np.ndarray:
        """Features of pictures.

        Args:
            pictures: a list of N paths, PIL images or H×W×3 uint8 arrays, of any sizes; each is resized to the model's
                size as in training. Or one N×3×H×W uint8 array or tensor that already has the model's size.
            modality: one for all pictures, or N of them: a `Modality`, 0 (visible), 1 (infrared), or a word of
                `MODALITIES`.

        Returns:
            N×D float32, each feature of length one. Without pictures 0×0.

        Raises:
            BadInput: another shape, type or modality, or a picture that cannot be read. The sentence names it.
        """
        if isinstance(pictures, (np.ndarray, torch.Tensor)):
            pictures = self._checked(torch.as_tensor(pictures))
        elif isinstance(pictures, (str, Path, Image.Image)):
            raise BadInput("pictures is a list; for one picture, give a list of one")
        elif not isinstance(pictures, Sequence):
            raise BadInput(
                f"pictures cannot be {pictures!r}; it takes a list of paths, PIL images or H×W×3 uint8 arrays, or one "
                "N×3×H×W uint8 array"
            )
        modalities = as_modalities(modality, len(pictures))
        device = next(self.network.parameters()).device
        return embed_pictures(self.network.embed, self._batches(pictures, modalities), device=device)  # type: ignore[arg-type]

    def _checked(self, images: torch.Tensor) -> torch.Tensor:
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, *self.size) or images.dtype != torch.uint8:
            raise BadInput(
                f"images are {tuple(images.shape)} {images.dtype}, this model takes N×3×{self.size.height}×"
                f"{self.size.width} uint8, or a list of pictures"
            )
        return images

    def _batches(
        self, pictures: Sequence[Picture] | torch.Tensor, modality: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Batches of (samples, images, modality), with `BATCH` pictures each."""
        for samples in torch.arange(len(pictures)).split(BATCH) if len(pictures) else ():
            if isinstance(pictures, torch.Tensor):
                images = pictures[samples]
            else:
                arrays = [as_picture(pictures[i], self.size, f"picture {i}") for i in samples.tolist()]
                images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
            yield samples, images, modality[samples]


def as_picture(picture: Picture, size: Size, name: str = "the picture") -> np.ndarray:
    """A picture at the model's size, with the same pixels as `vireid.data.pictures.read_picture` would return.

    Args:
        picture: a path, a PIL image, or an H×W×3 uint8 array or tensor.
        size: height and width to resize to.
        name: what the sentence calls a picture without a path.

    Returns:
        size.height×size.width×3 uint8.

    Raises:
        BadInput: a file that cannot be read, or an array of another shape or type.
    """
    if isinstance(picture, (str, Path)):
        return decoding.read_picture(picture, size)
    if isinstance(picture, Image.Image):
        try:
            upright = decoding.eight_bits(ImageOps.exif_transpose(picture))
        except Exception as error:  # Pillow decodes here, and raises many kinds of exceptions on damaged files
            raise BadInput(f"{name} ({getattr(picture, 'filename', '') or 'PIL'}) cannot be read: {error}") from None
        pixels = np.asarray(upright).reshape(upright.height, upright.width, -1)
    else:
        pixels = np.asarray(picture)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            shape = f"{tuple(pixels.shape)} {pixels.dtype}" if pixels.dtype != object else type(picture).__name__
            raise BadInput(f"{name} is {shape}; pictures are paths, PIL images or H×W×3 uint8 arrays")
    pixels = resize(np.ascontiguousarray(pixels), size, "lanczos")
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def as_modalities(
    modality: OneModality | Sequence[OneModality] | np.ndarray | torch.Tensor, count: int
) -> torch.Tensor:
    """The modalities of `count` pictures as int64.

    >>> as_modalities("rgb", 2), as_modalities(["thermal", 0], 2)
    (tensor([0, 0]), tensor([1, 0]))

    Raises:
        BadInput: an unknown word or number, or another number of modalities than pictures.
    """
    if isinstance(modality, (np.ndarray, torch.Tensor)):
        modality = modality.tolist()
    if isinstance(modality, (str, int)) or not isinstance(modality, Sequence):
        return torch.tensor([_as_modality(modality)]).repeat(count)
    if len(modality) != count:
        raise BadInput(f"there are {len(modality)} modalities for {count} pictures; give one for all, or one for each")
    return torch.tensor([_as_modality(one) for one in modality], dtype=torch.int64)


def _as_modality(given: Any) -> int:
    if isinstance(given, str):
        if given.lower() not in MODALITIES:
            raise unknown("modality", given, MODALITIES)
        return int(MODALITIES[given.lower()])
    if given not in (Modality.VISIBLE, Modality.INFRARED):
        raise BadInput(f"modality takes 0 (visible), 1 (infrared) or a word ({', '.join(MODALITIES)}), not {given!r}")
    return int(given)


def load(run: str | Path | Run, *, untrained: bool = False, checkpoint: str = "last") -> Model:
    """The model of a run directory.

    Args:
        run: the directory that `vireid train --run` filled.
        untrained: the network as it was before its first step, for comparison.
        checkpoint: `last`, or `best` if the run was trained with `--validate-every`.

    Raises:
        BadInput: this is not a run, nothing was saved yet, or the checkpoint cannot be read or does not fit.
    """
    if not isinstance(run, (str, Path, Run)):
        raise BadInput(f"run cannot be {run!r}; it takes a run directory, or what vireid.train returned")
    if not isinstance(run, Run):
        run = open_run(Path(run))
    if checkpoint not in ("last", "best"):
        raise unknown("checkpoint", str(checkpoint), ("last", "best"))
    file = run.best if checkpoint == "best" else run.checkpoint
    if checkpoint == "best" and not file.exists():
        raise BadInput(f"{run.path} has no best.pt; vireid train --validate-every N keeps one, choices here: last")
    name, config = configuration(run)
    if untrained:
        from vireid.training.loop import seed_everything

        seed_everything(config.training.seed)
    network = recipes.build(name, config, run.facts.data.identities, pretrained=untrained)
    epochs = 0
    if not untrained:
        state = checkpoints.load(file)
        try:
            network.load_state_dict(checkpoints.fitted(state, network)["model"])
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{file} does not fit recipe '{name}' as {run.path} configures it ({reason})") from error
        epochs = state["progress"]["epoch"]
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(network, name, config, run, epochs, checkpoint)


def configuration(run: Run) -> tuple[str, Any]:
    """The recipe's name and configuration that a run was made with."""
    name = run.facts.recipe
    return name, from_json(type(recipes.recipe(name).PAPER), run.facts.config)


def embedder(network: nn.Module, embedding: str = "neck") -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The function from images and modalities to the features that are compared.

    Args:
        network: what a recipe built.
        embedding: one of `EMBEDDINGS`. With `both`, the cosine is the mean of the two cosines.

    Raises:
        BadInput: an unknown embedding, or one that this network does not have.
    """
    if embedding not in EMBEDDINGS:
        raise unknown("embedding", embedding, EMBEDDINGS)
    neck: Any = network.embed
    if embedding == "neck":
        return neck
    pooled: Any = getattr(network, "embed_pooled", None)
    if pooled is None:
        raise BadInput(
            f"this recipe has no embedding '{embedding}', nothing is compared before its neck; choices: neck"
        )
    if embedding == "pooled":
        return pooled
    return lambda images, modality: torch.nn.functional.normalize(
        torch.cat([neck(images, modality), pooled(images, modality)], dim=1)
    )
