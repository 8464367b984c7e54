"""Embedding pictures: ways to compute the same features, against PyTorch in float32.

A way counts only if its features are those of the baseline: the smallest cosine of a picture's two features is part of
the line. AGW with ResNet-50 stands for all recipes. Its weights are random, and its normalisations know the pictures.
The ranges of int8 come from pictures like those that are embedded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vireid import recipes
from vireid.augment.normalise import normalise
from vireid.bench.growth import grown
from vireid.bench.measure import Line, Timed, computes_bfloat16, counted
from vireid.bench.pictures import write_pictures
from vireid.bench.run import Bench
from vireid.data.errors import BadInput
from vireid.data.loading import inference_batches
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.experiments.embed import listed
from vireid.export import onnx
from vireid.export.runtime import FORMATS
from vireid.export.specialise import OneModality
from vireid.networks.folding import folded
from vireid.training.configuration import with_fields
from vireid.training.loop import seed_everything

BATCH = 16
CALIBRATION = 32
EAGER = "PyTorch, float32, channels first"
FLOAT, INT8 = 0.9999, 0.999
"""The smallest cosine with the baseline's feature, of ways that compute in floating point and in int8."""
GOALS = {FLOAT: (3.0, 3.2), INT8: (5.0, 6.3)}
"""Cosine → goal and limit of the fastest way that keeps it, on a processor with bfloat16 and int8 products."""
NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}

Way = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A network, and the pictures that it embeds.

    Attributes:
        network: in evaluation mode.
        images: N×3×H×W uint8, of visible cameras; the first `BATCH` are embedded, and all of them give ranges.
        size: height and width.
    """

    network: Any
    images: torch.Tensor
    size: Size

    @property
    def modality(self) -> torch.Tensor:
        """N int64."""
        return torch.full((len(self.images),), int(Modality.VISIBLE))


def measure(bench: Bench) -> Iterator[Line]:
    """Each way, and the fastest of those that keep the features."""
    subject = made(bench)
    ways = {EAGER: eager(subject), **in_pytorch(bench, subject), **exported(bench, subject)}
    wanted = ways[EAGER]()
    kept = {name: smallest_cosine(wanted, way()) for name, way in ways.items()}
    timed = bench.timed({}, others=ways, rounds=3)
    count = min(BATCH, len(subject.images))
    what = f"{count} pictures of {subject.size}"
    for name, cosine in kept.items():
        if name != EAGER:
            line = timed.line(what, baseline=EAGER, ours=name)
            yield with_cosine(line, cosine, INT8 if "int8" in name else FLOAT, count)
    for least in GOALS:
        near = {name: cosine for name, cosine in kept.items() if cosine >= least}
        yield counted(fastest(timed, near, f"{what}, cosines of {least} or more", GOALS[least]), count, "pictures")


def growth(bench: Bench) -> Iterator[Line]:
    """The time of PyTorch in float32 against the batch."""
    subject = made(bench, "growing")
    sizes = bench.size((2, 4, 8, 16), (2, 4))
    works = {n: eager(replace(subject, images=subject.images[:n])) for n in sizes}
    yield grown(bench, "embedding", works, unit="pictures in a batch")


def fastest(timed: Timed, kept: Mapping[str, float], what: str, goal: tuple[float, float]) -> Line:
    """The line of the fastest way among those whose features are near enough. What it is called never changes."""
    name = min(kept, key=timed.median)
    line = timed.line(what, baseline=EAGER, ours=name, goal=goal[0], limit=goal[1])
    return replace(
        line, ours="the fastest", figures={"cosine": kept[name], "way": name}, notes=(f"{what}: the fastest is {name}",)
    )


def with_cosine(line: Line, cosine: float, least: float, count: int) -> Line:
    """The line, with the smallest cosine, and a note if it is too small."""
    said = f"{line.ours}: the smallest cosine with the baseline's features is {cosine:.6f}"
    notes = () if cosine >= least else (f"{said}, below {least}",)
    return replace(counted(line, count, "pictures"), figures={"cosine": cosine}, notes=notes)


def made(bench: Bench, folder: str = "pictures") -> Subject:
    """AGW with normalisations that know the pictures, and pictures, which are written to a new folder."""
    small = {"trunk": "tiny", "size": Size(64, 32)} if bench.quick else {}
    agw = recipes.recipe("agw")
    config = with_fields(agw.PAPER, {"weights": "none", **small})
    size = config.training.size
    records, _ = listed(write_pictures(bench.folder / folder, max(BATCH, bench.size(CALIBRATION, BATCH))), "visible")
    ((_, images, _),) = inference_batches(records, size=size, batch=len(records))
    seed_everything(0)
    network = recipes.build("agw", config, 2, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # statistics of the one batch below
    subject = Subject(network.train(), images[:BATCH], size)
    with torch.no_grad():
        network.embed(normalise(subject.images), subject.modality)  # type: ignore[operator]
    network.eval()
    return replace(subject, images=images)


def eager(subject: Subject) -> Way:
    """What public code does: float32, in PyTorch's usual layout of memory."""
    return computing(subject, torch.contiguous_format)


def in_pytorch(bench: Bench, subject: Subject) -> dict[str, Way]:
    """Other ways of PyTorch, among them those of `vireid.evaluation.inference`. A new one has its place here."""
    last = torch.channels_last
    found: dict[str, Way] = {}
    if not (bf16 := computes_bfloat16()):
        bench.leave_out("inference, bfloat16", "this processor has no arithmetic for it")
    for told, network in (("channels last", subject.network), ("folded, channels last", folded(subject.network))):
        one = replace(subject, network=network)
        found[f"PyTorch, float32, {told}"] = computing(one, last)
        if bf16:
            found[f"PyTorch, bfloat16, {told}"] = computing(one, last, bf16=True)
    return found


def computing(subject: Subject, memory_format: torch.memory_format, *, bf16: bool = False) -> Way:
    """A call that embeds the pictures with a copy of the network in this layout of memory."""
    network = copy.deepcopy(subject.network).to(memory_format=memory_format)
    modality = subject.modality[:BATCH]

    def embed() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            images = normalise(subject.images[:BATCH]).contiguous(memory_format=memory_format)
            return network.embed(images, modality).float().numpy()

    return embed


def exported(bench: Bench, subject: Subject) -> dict[str, Way]:
    """Exported files in float32 and in int8, of the runtimes that are installed."""
    ways: dict[str, Way] = {}
    images = subject.images.numpy()
    source = bench.folder / "visible.onnx"
    try:
        onnx.write(OneModality(subject.network, Modality.VISIBLE), subject.size, source)
    except BadInput as why:
        bench.leave_out("inference, exported files", str(why))
        return ways
    for to, form in FORMATS.items():
        for precision in ("float32", "int8"):
            file = bench.folder / f"{to}-{precision}{form.endings[0]}"
            try:
                if precision == "int8":
                    form.write_int8(source, images, file)
                else:
                    form.convert(source, file)
                compute = form.opened(file)
            except BadInput as why:
                bench.leave_out(f"inference, {NAMES[to]}, {precision}", str(why))
                continue
            ways[f"{NAMES[to]}, {precision}"] = lambda compute=compute: compute(images[:BATCH])
    return ways


def smallest_cosine(wanted: np.ndarray, found: np.ndarray) -> float:
    """Of the features of each picture, N×D of length one, in float64."""
    return float((wanted.astype(np.float64) * found.astype(np.float64)).sum(1).min())
