"""`vireid export`: a run's network as files for ONNX Runtime or OpenVINO, kept if they compute what PyTorch does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from vireid import datasets
from vireid.data.errors import BadInput
from vireid.data.loading import inference_batches
from vireid.data.modality import Modality
from vireid.data.records import Records
from vireid.data.settings import Whole, options
from vireid.data.stored import as_json, write_json, write_text
from vireid.evaluation.calibration import FILE
from vireid.evaluation.calibration import Calibration as CosineCalibration
from vireid.evaluation.embedding import fastest_device
from vireid.evaluation.scoring import Measured, evaluate
from vireid.experiments.embed import listed
from vireid.experiments.embedding import Inference, embed_records, used_samples
from vireid.experiments.test import Drawn, TestOptions, draw
from vireid.export import onnx, parity
from vireid.export.int8 import PICTURES
from vireid.export.onnx import package
from vireid.export.openvino import toolkit
from vireid.export.runtime import (
    FORMATS,
    MODALITIES,
    Exported,
    ExportFacts,
    Format,
    Int8Facts,
    LossFacts,
    file_names,
    first_file,
)
from vireid.export.specialise import OneModality
from vireid.model import Model, load
from vireid.networks.weights import sha256
from vireid.training.progress import Progress, Quiet
from vireid.training.run import EXPORTED

LOSS = 1.0  # points of mAP that int8 may cost


@options
class ExportOptions:
    """What `vireid export` is asked to do.

    Attributes:
        run: the run directory.
        out: the directory to make; it must not exist, or be empty.
        to: `onnx` or `openvino`.
        checkpoint: `last` or `best`.
        int8: compute in integers of 8 bits.
        calibrate: pictures for int8. `LAYOUT:PATH`, a labelled data set: 256 training pictures of each modality give
            the ranges, and mAP is measured before and after. Or a folder with the folders `visible` and `infrared`, or
            a table (CSV) with the columns `path` and `modality`: then there is no mAP.
        accept_loss: keep int8 files that lose more than one point of mAP, or whose loss is not known.
        workers: loading processes.
        cache: folder for resized pictures, for measuring mAP.
        command: the command that `export.json` records.
    """

    run: Path
    out: Path
    to: Literal["onnx", "openvino"] = "onnx"
    checkpoint: Literal["last", "best"] = "last"
    int8: bool = False
    calibrate: str | None = None
    accept_loss: bool = False
    workers: Whole = 2
    cache: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class Calibration:
    """The pictures for int8.

    Attributes:
        pictures: by modality, those that give the ranges.
        tested: the test pictures, if there are labels.
        drawn: the protocols with their trials from `tested`; empty without labels.
    """

    pictures: Mapping[Modality, Records]
    tested: Records | None = None
    drawn: tuple[Drawn, ...] = ()


def export(asked: ExportOptions, progress: Progress = Quiet()) -> Exported:  # noqa: B008 has no state
    """Export a run, and open what was exported.

    The directory appears when everything in it is written and was compared with PyTorch: on 64 pictures of each
    modality, in batches of 1, 3 and 17.

    Raises:
        BadInput: the run or an option cannot be used, a package is missing, a feature differs from PyTorch's by more
            than 1e-4 (one minus the cosine), or int8 loses more than one point of mAP, or an unknown amount, and
            `accept_loss` was not given. Nothing is kept then.
    """
    _check(asked)
    model = load(asked.run, checkpoint=asked.checkpoint)
    networks = {one: OneModality(model.network, one) for one in MODALITIES}
    calibration = _calibration(asked, model) if asked.int8 else None
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.out.parent, prefix=f".{asked.out.name}-") as scratch:
        making = _Making(asked, model, networks, Path(scratch), progress)
        made = making.float32()
        if calibration is None:
            making.copy_calibration(made)
        else:
            made = making.int8(made, calibration)
        os.replace(made, asked.out)
    return Exported(asked.out)


def _check(asked: ExportOptions) -> None:
    """What can be wrong before anything is read."""
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        raise BadInput(f"{asked.out} exists and is not an empty directory; choose another --out")
    if asked.int8 and asked.calibrate is None:
        raise BadInput("--int8 needs pictures for its ranges: --calibrate LAYOUT:PATH")
    for option, given in {"--calibrate": asked.calibrate, "--accept-loss": asked.accept_loss}.items():
        if given and not asked.int8:
            raise BadInput(f"{option} is for --int8")
    for name in _packages(asked):
        (toolkit if name in ("openvino", "nncf") else package)(name)


# --- calibration ------------------------------------------------------------------------------------------------------


def _calibration(asked: ExportOptions, model: Model) -> Calibration:
    """The pictures that `calibrate` names.

    Raises:
        BadInput: they cannot be read, a modality has none, or they have no labels and the loss is not accepted.
    """
    source = asked.calibrate or ""
    if source.partition(":")[0] in datasets.layouts():
        everything, drawn = draw(TestOptions(asked.run, source), model.run)
        training = datasets.training_records(everything)
        pictures = _by_modality(training)
        tested = everything.where(split="test").with_scaling(model.scaling)
        found = Calibration(pictures, tested, tuple(drawn))
    elif asked.accept_loss:
        found = Calibration(_unlabelled(Path(source)))
    else:
        raise BadInput(
            f"the pictures of {source} have no labels, so the loss of mAP cannot be measured: name a labelled data set "
            "as --calibrate LAYOUT:PATH, or add --accept-loss"
        )
    for modality, records in found.pictures.items():
        if not len(records):
            raise BadInput(f"{source} has no {modality.word} pictures for calibration; both modalities are needed")
    some = {one: _some(records).with_scaling(model.scaling) for one, records in found.pictures.items()}
    return replace(found, pictures=some)


def _unlabelled(source: Path) -> dict[Modality, Records]:
    """The pictures of a table, or of a folder with a folder for each modality."""
    if source.is_dir():
        return {one: listed(source / one.word, one.word)[0] for one in MODALITIES}
    return _by_modality(listed(source, None)[0])


def _by_modality(records: Records) -> dict[Modality, Records]:
    return {one: records.take(records.modality == one) for one in MODALITIES}


def _some(records: Records) -> Records:
    """256 records, or all if there are fewer; always the same ones."""
    chosen = np.random.default_rng(0).permutation(len(records))[:PICTURES]
    return records.take(np.sort(chosen))


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Making:
    """The files of one export, while they are made in a scratch folder."""

    asked: ExportOptions
    model: Model
    networks: Mapping[Modality, OneModality]
    scratch: Path
    progress: Progress
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def format(self) -> Format:
        return FORMATS[self.asked.to]

    def source(self, modality: Modality) -> Path:
        """The ONNX file that the files of one modality are made of."""
        return self.scratch / f"{modality.word}.onnx"

    def float32(self) -> Path:
        """Write the files, compare them, and return their folder."""
        folder, embedder = self.scratch / "float32", self.model.embedder()
        folder.mkdir()
        for modality, network in self.networks.items():
            self.progress.say(f"exporting the network of {modality.word} pictures")
            file = folder / first_file(self.asked.to, modality)
            onnx.write(network, self.model.size, self.source(modality))
            self.format.convert(self.source(modality), file)
            compute = self.format.opened(file)
            self.differences[modality.word] = parity.difference(embedder, modality, compute, self.model.size)
        parity.check(self.differences, self.asked.to)
        self._write_facts(folder, None)
        return folder

    def int8(self, float32: Path, calibration: Calibration) -> Path:
        """Write the int8 files, measure what they lose, and return their folder."""
        folder = self.scratch / "int8"
        folder.mkdir()
        cosines = {}
        for modality, records in calibration.pictures.items():
            self.progress.say(f"int8: ranges from {len(records)} {modality.word} pictures")
            images = _loaded(records, self.model, self.asked)
            name = first_file(self.asked.to, modality)
            self.format.write_int8(self.source(modality), images, folder / name)
            before, after = (self.format.opened(there / name)(images) for there in (float32, folder))
            cosines[modality.word] = float((before * after).sum(1).min())
        counts = {modality.word: len(records) for modality, records in calibration.pictures.items()}
        facts = Int8Facts(self.asked.calibrate or "", counts, cosines, ())
        self._write_facts(folder, facts)
        losses = _losses(calibration, self.model, Exported(folder), self.asked, self.progress)
        if not self.asked.accept_loss:
            check_losses(losses)
        self._write_facts(folder, replace(facts, losses=losses))
        return folder

    def copy_calibration(self, folder: Path) -> None:
        """Put the calibration of the run's verdicts beside its float32 export, which has the same features.

        An int8 export has others, and needs a calibration of its own; so has another checkpoint.
        """
        file = self.asked.run / FILE
        if not file.is_file():
            return
        found = CosineCalibration.read(file)
        if found.model == self.model.fingerprint:
            write_text(folder / FILE, found.as_text())
        else:
            self.progress.say(f"{file} is of another checkpoint, and was not copied")

    def _write_facts(self, folder: Path, int8: Int8Facts | None) -> None:
        asked, model = self.asked, self.model
        one = torch.zeros(1, 3, *model.size, dtype=torch.uint8)
        facts = ExportFacts(
            run=model.run.facts,
            to=asked.to,
            checkpoint=model.checkpoint,
            epochs=model.epochs,
            size=(model.size.height, model.size.width),
            width=self.networks[Modality.VISIBLE](one).shape[1],
            differences=self.differences,
            int8=int8,
            files={name: sha256(folder / name) for name in file_names(asked.to)},
            command=asked.command,
            versions={name: version(name) for name in ("vireid", "torch", *_packages(asked))},
            weights=sha256(model.file),
        )
        write_json(folder / EXPORTED, as_json(facts))


def _packages(asked: ExportOptions) -> tuple[str, ...]:
    """The packages that an export needs."""
    more = {"onnx": (), "openvino": ("openvino", *(["nncf"] if asked.int8 else []))}
    return ("onnx", "onnxscript", *(["onnxruntime"] if asked.to == "onnx" else []), *more[asked.to])


def _loaded(records: Records, model: Model, asked: ExportOptions) -> np.ndarray:
    """The pictures of records, N×3×H×W uint8."""
    batches = inference_batches(records, size=model.size, workers=asked.workers)
    return np.concatenate([images.numpy() for _, images, _ in batches])


# --- the loss of int8 -------------------------------------------------------------------------------------------------


def _losses(
    calibration: Calibration, model: Model, exported: Exported, asked: ExportOptions, progress: Progress
) -> tuple[LossFacts, ...]:
    """mAP before and after, by each protocol of the calibration's data."""
    if calibration.tested is None:
        return ()
    records, how = calibration.tested, Inference(model.size, workers=asked.workers, cache=asked.cache)
    samples = used_samples(trials for _, trials in calibration.drawn)
    float32 = model.embedder(device=fastest_device(), pictures=len(samples))
    features = [
        embed_records(embedder, records, samples, replace(how, title=title), progress)
        for title, embedder in (("float32", float32), ("int8", exported))
    ]
    found = []
    for rules, trials in calibration.drawn:
        before, after = (evaluate(one, records.identity, rules, trials, Measured()).report.map for one in features)
        found.append(LossFacts(rules.name, before, after))
    return tuple(found)


def check_losses(losses: Sequence[LossFacts]) -> None:
    """Refuse int8 files that lose too much.

    Raises:
        BadInput: by one protocol, more than `LOSS` points of mAP.
    """
    worst = max(losses, key=lambda one: one.loss)
    if worst.loss > LOSS:
        raise BadInput(
            f"int8 loses {worst.loss:.2f} points of mAP by {worst.protocol} ({worst.before:.2f} to {worst.after:.2f}), "
            f"and {LOSS:g} is the limit: nothing is kept; --accept-loss keeps it"
        )
