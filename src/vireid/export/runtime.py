"""An exported model: a directory with a network's files, one for each modality, and the runtime that computes them.

EXPORT/
├─ export.json       `ExportFacts`: the run, what was compared, and the hash of each file
├─ visible.onnx      (OpenVINO: visible.xml and visible.bin)
├─ infrared.onnx
└─ reports/          what `vireid test` measured, as in a run directory

Nothing in it is a pickle or other code. Each file is compared with its hash before it is used. That finds damage and
mistakes; it does not protect from someone who can also write `export.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.data.stored import from_values, read_json
from vireid.evaluation.embedding import Way
from vireid.export import int8, onnx, openvino
from vireid.networks.weights import sha256
from vireid.training.run import EXPORTED, RunFacts

FORMAT = 1
MODALITIES = (Modality.VISIBLE, Modality.INFRARED)

Compute = Callable[[np.ndarray], np.ndarray]
"""N×3×H×W uint8 to N×D float32 features of one modality."""


@dataclass(frozen=True)
class Format:
    """A kind of exported model.

    Attributes:
        endings: of the files of one modality; the first one is that of the file that is opened.
        convert: writes such a file from an ONNX file.
        write_int8: the same in int8, with ranges from N×3×H×W uint8 pictures.
        opened: the function that a file holds.
    """

    endings: tuple[str, ...]
    convert: Callable[[Path, Path], Any]
    write_int8: Callable[[Path, np.ndarray, Path], None]
    opened: Callable[[Path], Compute]


FORMATS = {
    "onnx": Format((".onnx",), shutil.copyfile, int8.write_onnx, onnx.opened),
    "openvino": Format((".xml", ".bin"), openvino.convert, int8.write_openvino, openvino.opened),
}


@dataclass(frozen=True)
class LossFacts:
    """What int8 costs by one protocol.

    Attributes:
        protocol: name of the protocol.
        before, after: mAP in percent, with PyTorch and with the int8 files.
    """

    protocol: str
    before: float
    after: float

    @property
    def loss(self) -> float:
        """How many points of mAP int8 costs; negative if it gains."""
        return self.before - self.after


@dataclass(frozen=True)
class Int8Facts:
    """How the ranges of the int8 numbers were found, and what int8 costs.

    Attributes:
        data: the pictures, as they were named.
        pictures: number of pictures by modality.
        cosines: by modality, the smallest cosine of a picture's int8 feature with its float32 feature.
        losses: mAP by each protocol of the data; empty if the pictures have no labels.
    """

    data: str
    pictures: dict[str, int]
    cosines: dict[str, float]
    losses: tuple[LossFacts, ...]


@dataclass(frozen=True)
class ExportFacts:
    """What `export.json` says.

    Attributes:
        run: the facts of the run, as in its `run.json`.
        to: `onnx` or `openvino`.
        checkpoint, epochs: which checkpoint was exported, and how many epochs it was trained.
        size: height and width of the pictures.
        width: length D of the features.
        differences: by modality, the largest difference of a feature from PyTorch's, see `vireid.export.parity`. With
            int8, it is that of the float32 file which int8 was made of.
        int8: None for float32.
        files: SHA-256 by file name.
        command, versions: how the files were made.
        format: version of the file.
        weights: SHA-256 of the checkpoint that was exported; empty in older files.
    """

    run: RunFacts
    to: str
    checkpoint: str
    epochs: int
    size: tuple[int, int]
    width: int
    differences: dict[str, float]
    int8: Int8Facts | None
    files: dict[str, str]
    command: str
    versions: dict[str, str | None]
    format: int = FORMAT
    weights: str = ""


class Exported:
    """An exported model as a `vireid.evaluation.embedding.Embedder`. It computes on the CPU.

    Args:
        directory: what `vireid export --out` filled.

    Raises:
        BadInput: `export.json` cannot be read, a file is missing or was changed, or a package is not installed.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / EXPORTED
        self.facts = read_facts(self.file)
        self.size = Size(*self.facts.size)
        for name, digest in self.facts.files.items():
            _check(directory / name, digest)
        opened = FORMATS[self.facts.to].opened
        self._computes = {one: opened(directory / first_file(self.facts.to, one)) for one in MODALITIES}

    @property
    def name(self) -> str:
        """What computes: `onnx`, `onnx-int8`, `openvino` or `openvino-int8`."""
        return f"{self.facts.to}-int8" if self.facts.int8 else self.facts.to

    @property
    def way(self) -> Way:
        """The runtime, and how far its float32 features were from those of the network when it was exported."""
        return Way(self.name, difference=None if self.facts.int8 else max(self.facts.differences.values()))

    def __call__(self, images: torch.Tensor, modality: torch.Tensor, /) -> torch.Tensor:
        """N×3×H×W uint8 and N int64 to N×D float32, each of length one."""
        features = torch.empty(len(images), self.facts.width)
        for value, compute in self._computes.items():
            chosen = modality == value
            if chosen.any():
                features[chosen] = torch.from_numpy(compute(images[chosen].contiguous().numpy()))
        return features


def read_facts(file: Path) -> ExportFacts:
    """Read and check an `export.json`.

    Raises:
        BadInput: it cannot be read, another version wrote it, or its files are not those of an exported model.
    """
    values: Any = read_json(file)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise BadInput(f"{file} has format {found}, this version of vireid reads {FORMAT}; run vireid export again")
    facts = from_values(ExportFacts, values, str(file))
    if facts.to not in FORMATS:
        raise unknown(f"format in {file}", facts.to, FORMATS)
    if set(facts.files) != set(file_names(facts.to)):
        listed = ", ".join(facts.files) or "no file"
        raise BadInput(f"{file} has hashes of {listed} and not of {', '.join(file_names(facts.to))}")
    return facts


def file_names(to: str) -> list[str]:
    """The files of the networks of an exported model.

    >>> file_names("onnx")
    ['visible.onnx', 'infrared.onnx']
    """
    return [f"{one.word}{ending}" for one in MODALITIES for ending in FORMATS[to].endings]


def first_file(to: str, modality: Modality) -> str:
    """The file that is opened for one modality."""
    return f"{modality.word}{FORMATS[to].endings[0]}"


def _check(file: Path, digest: str) -> None:
    if not file.is_file():
        raise BadInput(f"{file} is missing; run vireid export again")
    if sha256(file) != digest:
        raise BadInput(f"{file} is not the file that was exported (its SHA-256 differs); run vireid export again")
