"""A trained model: a network with its configuration, ready to embed pictures."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, Sized
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from vireid import plugins, recipes
from vireid.data import pictures as decoding
from vireid.data.errors import BadInput, unknown
from vireid.data.modality import MODALITIES, Modality, modality_of
from vireid.data.resampling import resize
from vireid.data.size import Size
from vireid.evaluation import distance as distances
from vireid.evaluation.embedding import Embedder, embed_pictures
from vireid.evaluation.inference import Work, fastest
from vireid.export.runtime import Exported
from vireid.networks.weights import sha256
from vireid.training import checkpoint as checkpoints
from vireid.training.configuration import from_json
from vireid.training.run import Run, open_run

EMBEDDINGS = {
    "neck": "after the neck, length one",
    "pooled": "before the neck, length one",
    "both": "after and before the neck side by side, each of length one",
}
"""What `--embedding` may be, and what a report calls it."""

BATCH = 64

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor
Pictures = Picture | Iterable[Picture]
OneModality = Modality | int | str
Modalities = OneModality | Iterable[OneModality] | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Model:
    """A trained network with its configuration, or the files that it was exported to.

    Attributes:
        source: a network of PyTorch in evaluation mode, or an exported model.
        recipe: the recipe's name.
        config: the recipe's configuration. None for an exported model: it runs without the recipe's code.
        run: the run directory it came from; the directory of an exported model.
        epochs: how many epochs it was trained.
        checkpoint: `last` or `best`.
    """

    source: nn.Module | Exported
    recipe: str
    config: Any
    run: Run
    epochs: int
    checkpoint: str = "last"
    _embedders: dict[tuple[Any, ...], tuple[Any, Embedder]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def network(self) -> nn.Module:
        """The network: `embed(images, modality)` takes normalised images, and `maps` has maps by name.

        Raises:
            BadInput: this is an exported model, which has features and nothing else.
        """
        if isinstance(self.source, Exported):
            raise BadInput(
                f"{self.run.path} is an exported model, which computes features only; this needs the run that it was "
                "exported from"
            )
        return self.source

    @property
    def size(self) -> Size:
        """Height and width of the images that the network takes."""
        return self.source.size if isinstance(self.source, Exported) else self.config.training.size

    @property
    def planned(self) -> int:
        """How many epochs its configuration asks for."""
        return self.run.facts.config["epochs"]

    @property
    def runtime(self) -> str:
        """What computes the features of an exported model, such as `onnx` or `openvino-int8`; empty for PyTorch."""
        return self.source.name if isinstance(self.source, Exported) else ""

    @property
    def file(self) -> Path:
        """The file whose content identifies this model: the checkpoint, or the list of an exported model's files."""
        if isinstance(self.source, Exported):
            return self.source.file
        return self.run.best if self.checkpoint == "best" else self.run.checkpoint

    @property
    def fingerprint(self) -> str:
        """What identifies the features of this model: a SHA-256 of weights, recipe, size, embedding and arithmetic.

        A float32 export has the fingerprint of its run: what they compute differs by no more than an export may, see
        `vireid.export.parity`. An int8 export has one of its own, and so has an export of an older version, which does
        not know its checkpoint.
        """
        weights, arithmetic = sha256(self.file), self.runtime
        if isinstance(self.source, Exported) and self.source.facts.weights and not self.source.facts.int8:
            weights, arithmetic = self.source.facts.weights, ""
        parts = [weights, self.recipe, str(self.size), "neck", arithmetic]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def scaling(self) -> str:
        """How grey pictures with 16 bits become 8 bits, as in training; see `vireid.data.pictures.Scaling`."""
        return self.run.facts.data.scaling

    def embed(self, pictures: Pictures, modality: Modalities, *, expected: int = 0) -> np.ndarray:
        """Features of pictures.

        Args:
            pictures: one picture or N of them, of any sizes: paths, PIL images, and H×W×3 or grey H×W uint8 arrays or
                tensors. Each is resized to the model's size as in training. N pictures are a list, an array of paths,
                an N×H×W×3 array, or any iterable, such as a generator, which is read batch by batch. Or one N×3×H×W
                uint8 array or tensor that already has the model's size.
            modality: one for all pictures, or N of them: a `Modality`, 0 (visible), 1 (infrared), or a word of
                `vireid.data.modality.MODALITIES`.
            expected: how many pictures this model is to embed in several calls, about. From
                `vireid.evaluation.inference.ENOUGH` on, here or in `pictures`, a faster way is prepared once.

        Returns:
            N×D float32, each feature of length one; 1×D for one picture. Without pictures 0×0.

        Raises:
            BadInput: another shape, type or modality, or a picture that cannot be read. The sentence names it.
        """
        given = as_pictures(pictures, self.size)
        if not isinstance(given, Sized) and not is_one(modality):
            given = list(given)
        modalities = as_modalities(modality, len(given) if isinstance(given, Sized) else 1)
        many = max(expected, len(given) if isinstance(given, Sized) else 0)
        return embed_pictures(self.embedder(pictures=many), self._batches(given, modalities))

    def embedder(
        self,
        embedding: str = "neck",
        *,
        device: torch.device | str | None = None,
        precision: str = "off",
        pictures: int = 0,
        batch: int = BATCH,
    ) -> Embedder:
        """The function from pictures to the features that are compared.

        Args:
            embedding: one of `EMBEDDINGS`.
            device: where the network is moved to and computes; None leaves it where it is. An exported model computes
                on the CPU.
            precision: `off` for float32, `bf16`, `fp16`, or `auto` for bf16 where that is clearly faster.
            pictures: how many pictures are to be embedded, about. It decides which way is the fastest, see
                `vireid.evaluation.inference`. By default the network itself computes.
            batch: how many of them at once.

        Raises:
            BadInput: an unknown embedding, or one that the network does not have; another embedding than `neck` or
                another precision than `off` of an exported model.
        """
        if isinstance(self.source, Exported):
            given = [*([embedding] if embedding != "neck" else []), *([precision] if precision != "off" else [])]
            if given:
                raise BadInput(
                    f"{self.run.path} is an exported model: it has the embedding neck in its own arithmetic, so leave "
                    f"out {' and '.join(given)}"
                )
            return self.source
        if device is None:
            device = next(self.source.parameters()).device
        self.source.to(device)
        work = Work(self.size, pictures, precision, device, batch)
        kind = (embedding, torch.device(device), precision, work.worth)
        state = _state(self.source)
        kept, made = self._embedders.get(kind, (None, None))
        if made is None or kept != state:
            made = fastest(self.source, partial(embedder, embedding=embedding), work)
            self._embedders[kind] = (state, made)
        return made

    def rank(
        self,
        queries: Pictures,
        gallery: Pictures,
        *,
        query_modality: Modalities | None = None,
        gallery_modality: Modalities | None = None,
        top: int = 10,
    ) -> Ranked:
        """The most similar gallery pictures of each query.

        Args:
            queries: pictures, as `embed` takes them, with `query_modality`; or Q×D real features, without it.
            gallery: pictures with `gallery_modality`, or G×D real features. Features must be of this network, and after
                the neck where the other side is pictures.
            query_modality, gallery_modality: as `modality` of `embed`.
            top: how many gallery pictures to return for each query; all of them if the gallery has fewer.

        Returns:
            `Ranked`: Q×top positions in the gallery and Q×top cosines, the most similar first. Of equally similar
            pictures, the one that stands earlier in the gallery comes first.

        Raises:
            BadInput: as `embed`; or features of another form, a modality missing or without pictures, an empty gallery,
                or `top` below 1. The sentence names the side.
        """
        if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
            raise BadInput(f"top is {top!r}; it takes a whole number of 1 or more")
        asked = self._features(queries, query_modality, "queries", "query_modality")
        searched = self._features(gallery, gallery_modality, "gallery", "gallery_modality")
        if not len(searched):
            raise BadInput("the gallery is empty: there is nothing to rank")
        if len(asked) and asked.shape[1] != searched.shape[1]:
            raise BadInput(
                f"queries have {asked.shape[1]} numbers in a feature, the gallery has {searched.shape[1]}; features of "
                "one model and one embedding can be compared"
            )
        return nearest(asked, searched, int(top))

    def _features(self, given: Pictures, modality: Modalities | None, side: str, option: str) -> np.ndarray:
        """One side of `rank` as N×D real features."""
        if not is_features(given):
            if modality is None:
                raise BadInput(
                    f"{side}: pictures need {option} (visible or infrared), features are an N×D array of floats"
                )
            return self.embed(given, modality)
        if modality is not None:
            raise BadInput(f"{side} are features already: leave out {option}")
        found = given.detach().cpu().float().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
        if wrong := np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
            raise BadInput(f"{side}: feature {wrong[0]} holds NaN or an infinite number")
        return found

    def _batches(
        self, pictures: Iterable[Picture] | torch.Tensor, modality: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Batches of (samples, images, modality), with up to `BATCH` pictures each.

        `modality` has one entry for each picture. If `pictures` is an iterator, one entry counts for all of them.
        """
        remaining = iter(pictures)
        for first in itertools.count(0, BATCH):
            chosen = list(itertools.islice(remaining, BATCH))
            if not chosen:
                return
            samples = torch.arange(first, first + len(chosen))
            if isinstance(pictures, torch.Tensor):
                images = torch.stack(chosen)  # type: ignore[arg-type]
            else:
                arrays = [
                    as_picture(one, self.size, f"picture {first + i}", self.scaling) for i, one in enumerate(chosen)
                ]
                images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
            one_for_all = not isinstance(pictures, Sized)
            yield samples, images, modality.expand(len(chosen)) if one_for_all else modality[samples]


def _state(network: nn.Module) -> tuple[Any, ...]:
    """What changes when a network is trained, loaded, moved or hooked: then a copy of it is out of date.

    Tensors that were made in inference mode have no version; a change of their values is not noticed.
    """
    tensors = [*network.parameters(), *network.buffers()]
    versions = tuple((one.data_ptr(), -1 if one.is_inference() else one._version) for one in tensors)
    hooks = tuple(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in network.modules())
    return (network.training, hooks, versions)


class Ranked(NamedTuple):
    """The most similar gallery pictures of each query.

    Attributes:
        index: Q×K int64, positions in the gallery, the most similar first.
        score: Q×K float32, their cosines with the query, in −1..1.
    """

    index: np.ndarray
    score: np.ndarray


def nearest(queries: np.ndarray, gallery: np.ndarray, top: int, *, block_bytes: int = distances.BLOCK_BYTES) -> Ranked:
    """The gallery features with the largest cosine, for each query.

    The cosines are computed for one block of queries after another, so they never need more than `block_bytes`.

    Args:
        queries: Q×D finite real numbers.
        gallery: G×D finite real numbers, G at least 1.
        top: how many, 1 or more.
        block_bytes: approximate size of one block.

    Returns:
        Q×min(top, G). Equal cosines are ordered by the position in the gallery.
    """
    kept = min(top, len(gallery))
    found = Ranked(np.empty((len(queries), kept), np.int64), np.empty((len(queries), kept), np.float32))
    if not len(queries):
        return found
    together = np.concatenate([queries, gallery])
    asked, searched = np.arange(len(queries)), np.arange(len(queries), len(together))
    for start, stop, values in distances.blocks(together, asked, searched, block_bytes=block_bytes):
        for query in range(start, stop):
            value = values[query - start]
            near = np.flatnonzero(value <= np.partition(value, kept - 1)[kept - 1])  # ties of the last one included
            near = near[np.argsort(value[near], kind="stable")][:kept]
            found.index[query], found.score[query] = near, np.clip(-value[near], -1, 1)
    return found


def is_features(given: Any) -> bool:
    """Whether this is an array or tensor of N×D floats."""
    if isinstance(given, torch.Tensor):
        return given.ndim == 2 and given.is_floating_point()
    return isinstance(given, np.ndarray) and given.ndim == 2 and given.dtype.kind == "f"


def as_pictures(given: Pictures, size: Size) -> Iterable[Picture] | torch.Tensor:
    """What `Model.embed` was given as an iterable of pictures, or as a tensor that already has the model's size.

    Returns:
        A sequence, unless the pictures come from an iterator.

    Raises:
        BadInput: a type or a shape that holds no pictures.
    """
    if isinstance(given, (str, os.PathLike, Image.Image)):
        return [given]
    if isinstance(given, np.ndarray) and given.dtype.kind in "UO":
        return list(given.reshape(-1)) if given.ndim < 2 else [given]
    if isinstance(given, (np.ndarray, torch.Tensor)):
        return _as_images(given, size)
    if isinstance(given, (bytes, Mapping, Set)) or not isinstance(given, Iterable):
        raise BadInput(
            f"pictures cannot be {given!r:.80}; it takes a list of paths, PIL images or H×W×3 uint8 arrays, or one "
            "N×3×H×W uint8 array"
        )
    return given if isinstance(given, Sequence) else iter(given)


def _as_images(given: np.ndarray | torch.Tensor, size: Size) -> Sequence[Picture] | torch.Tensor:
    """An array or tensor of numbers as images of the model's size, as several pictures, or as one."""
    shape = tuple(given.shape)
    if len(shape) == 4 and shape[1:] == (3, *size) and _is_uint8(given):
        return torch.as_tensor(given)
    if len(shape) == 4 and shape[3] == 3:
        return list(given)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return [given]
    raise BadInput(
        f"images are {_described(given)}, this model takes N×3×{size.height}×{size.width} uint8, N×H×W×3 uint8 of any "
        "size, or a list of pictures"
    )


def _is_uint8(values: np.ndarray | torch.Tensor) -> bool:
    return str(values.dtype) in ("uint8", "torch.uint8")


def _described(values: np.ndarray | torch.Tensor) -> str:
    """Shape and type in words, and the range of values of another type than uint8."""
    text = f"{tuple(values.shape)} {values.dtype}"
    if _is_uint8(values) or not all(values.shape):
        return text
    return f"{text} with values from {float(values.min()):g} to {float(values.max()):g} instead of 0 to 255"


def as_picture(picture: Picture, size: Size, name: str = "the picture", scaling: str = "full") -> np.ndarray:
    """A picture at the model's size, with the same pixels as `vireid.data.pictures.read_picture` would return.

    Args:
        picture: a path, a PIL image, or an H×W×3, H×W×1 or H×W uint8 array or tensor.
        size: height and width to resize to.
        name: what the sentence calls a picture without a path.
        scaling: the rule for grey pictures with 16 bits, see `vireid.data.pictures.Scaling`.

    Returns:
        size.height×size.width×3 uint8.

    Raises:
        BadInput: a file that cannot be read, or an array of another shape or type.
    """
    if isinstance(picture, (str, os.PathLike)):
        return decoding.read_picture(os.fspath(picture), size, scaling=scaling)
    if isinstance(picture, Image.Image):
        try:
            upright = decoding.eight_bits(ImageOps.exif_transpose(picture), scaling)
        except Exception as error:  # Pillow decodes here, and raises many kinds of exceptions on damaged files
            why = str(error) if isinstance(error, decoding.FloatingPoint) else "it is damaged or cut short"
            raise BadInput(f"{name} ({getattr(picture, 'filename', '') or 'PIL'}) cannot be read: {why}") from None
        pixels = np.asarray(upright)
    else:
        pixels = picture.detach().cpu().numpy() if isinstance(picture, torch.Tensor) else np.asarray(picture)
        _check_pixels(pixels, picture, name)
    pixels = resize(np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1)), size, "lanczos")
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _check_pixels(pixels: np.ndarray, picture: Any, name: str) -> None:
    """Raise a BadInput unless this is an H×W×3, H×W×1 or H×W uint8 array."""
    takes = "pictures are paths, PIL images, or H×W×3 or grey H×W uint8 arrays"
    if pixels.dtype.kind not in "biuf":
        raise BadInput(f"{name} is {type(picture).__name__}; {takes}")
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] not in (1, 3):
        takes += "; bring the colours to the end, as picture.transpose(1, 2, 0) does"
    grey_or_colour = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if not grey_or_colour or not pixels.size or not _is_uint8(pixels):
        raise BadInput(f"{name} is {_described(pixels)}; {takes}")


def is_one(modality: Any) -> bool:
    """Whether this is one modality, and not one for each picture.

    >>> is_one("rgb"), is_one(np.array(1)), is_one(["rgb", "ir"])
    (True, True, False)
    """
    if isinstance(modality, (np.ndarray, torch.Tensor)):
        return modality.ndim == 0
    return isinstance(modality, str) or not isinstance(modality, Iterable)


def as_modalities(modality: Modalities, count: int) -> torch.Tensor:
    """The modalities of `count` pictures as int64.

    >>> as_modalities("rgb", 2), as_modalities(["thermal", 0], 2)
    (tensor([0, 0]), tensor([1, 0]))

    Raises:
        BadInput: an unknown word or number, or another number of modalities than pictures.
    """
    one = is_one(modality)
    if isinstance(modality, (np.ndarray, torch.Tensor)):
        modality = modality.tolist()
    if one:
        return torch.tensor([_as_modality(modality)]).repeat(count)
    each = list(modality)  # type: ignore[arg-type]
    if len(each) != count:
        raise BadInput(f"there are {len(each)} modalities for {count} pictures; give one for all, or one for each")
    return torch.tensor([_as_modality(one) for one in each], dtype=torch.int64)


def _as_modality(given: Any) -> int:
    if isinstance(given, str):
        return int(modality_of(given))
    if isinstance(given, (np.ndarray, torch.Tensor)) and given.ndim == 0:
        given = given.item()
    if not isinstance(given, (int, float, np.number)) or given not in (Modality.VISIBLE, Modality.INFRARED):
        raise BadInput(f"modality takes 0 (visible), 1 (infrared) or a word ({', '.join(MODALITIES)}), not {given!r}")
    return int(given)


def load(run: str | Path | Run, *, untrained: bool = False, checkpoint: str = "last") -> Model:
    """The model of a run directory, or of the directory that it was exported to.

    Args:
        run: the directory that `vireid train --run` or `vireid export --out` filled.
        untrained: the network as it was before its first step, for comparison.
        checkpoint: `last`, or `best` if the run was trained with `--validate-every`. An exported model has the one that
            it was exported from.

    Raises:
        BadInput: this is not a run, nothing was saved yet, the checkpoint cannot be read or does not fit, or a file of
            an exported model is missing or was changed.
    """
    if not isinstance(run, (str, Path, Run)):
        raise BadInput(f"run cannot be {run!r}; it takes a run directory, or what vireid.train returned")
    if not isinstance(run, Run):
        run = open_run(Path(run))
    if checkpoint not in ("last", "best"):
        raise unknown("checkpoint", str(checkpoint), ("last", "best"))
    if run.exported:
        return _exported(run, untrained=untrained, checkpoint=checkpoint)
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


def _exported(run: Run, *, untrained: bool, checkpoint: str) -> Model:
    source = Exported(run.path)
    if untrained:
        raise BadInput(f"{run.path} is an exported model; the network before its first step needs the run itself")
    if checkpoint not in ("last", source.facts.checkpoint):
        raise BadInput(f"{run.path} was exported from the checkpoint {source.facts.checkpoint}, not {checkpoint}")
    return Model(source, run.facts.recipe, None, run, source.facts.epochs, source.facts.checkpoint)


def configuration(run: Run) -> tuple[str, Any]:
    """The recipe's name and configuration that a run was made with."""
    name = run.facts.recipe
    return name, from_json(type(plugins.recipe_of(run).PAPER), run.facts.config)


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
