"""Ways to compute features, in turns, on one core: as the peers do it, the ways of vireid, and exported models.

The baseline is the network in float32 with NCHW maps, as in the public code of AGW. Each round computes one batch by
each way. The figures are CPU seconds, the best of all rounds, and the largest difference from the baseline (one minus
the cosine). Pictures are computed patterns, and the weights are random with statistics of the pictures.

    python benchmarks/inference.py                               # AGW with ResNet-50 at 288x144, batches of 16
    python benchmarks/inference.py --trunk tiny --size 128x64
    python benchmarks/inference.py --bf16 --export               # also bf16, ONNX Runtime and OpenVINO
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vireid import recipes
from vireid.augment.normalise import normalise
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.evaluation.embedding import NetworkEmbedder, Way
from vireid.evaluation.parity import difference, patterns
from vireid.networks.folding import folded
from vireid.training.configuration import with_fields

Compute = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def both(count: int) -> torch.Tensor:
    """Modalities of some pictures: the visible ones first, as in a data set."""
    return (torch.arange(count) >= (count + 1) // 2).long()


def network(recipe: str, trunk: str, size: Size) -> nn.Module:
    """A network with random weights, whose normalisations have the statistics of some pictures."""
    torch.manual_seed(0)
    config = with_fields(recipes.recipe(recipe).PAPER, {"trunk": trunk, "size": size, "weights": "none"})
    made = recipes.build(recipe, config, 100, pretrained=False).train()
    for module in made.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
            if module.affine and module.weight.any():  # zero in a non-local block, which is the identity then
                nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        made.embed(normalise(torch.from_numpy(patterns(16, size))), both(16))  # type: ignore[operator]
    return made.eval()


def ways(made: nn.Module, bf16: bool) -> dict[str, Compute]:
    """What is compared, the baseline first."""

    def baseline(images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return made.embed(normalise(images), modality)  # type: ignore[operator]

    last = copy.deepcopy(made).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fast = folded(last)
    found: dict[str, Compute] = {"float32, NCHW": baseline}
    for name, one in {"channels-last": last, "folded": fast}.items():
        for precision in ("off", "bf16") if bf16 else ("off",):
            found[f"{name}, {precision}"] = NetworkEmbedder(one.embed, way=Way(name, precision))  # type: ignore[arg-type]
    return found


def exports(made: nn.Module, size: Size, folder: Path) -> dict[str, Compute]:
    """ONNX Runtime and OpenVINO."""
    from vireid.export.runtime import FORMATS, MODALITIES, onnx
    from vireid.export.specialise import OneModality

    found: dict[str, Compute] = {}
    sources = {one: folder / f"{one.word}.onnx" for one in MODALITIES}
    for one, file in sources.items():
        onnx.write(OneModality(made, one), size, file)
    for name, kind in FORMATS.items():
        opened = {}
        for one, file in sources.items():
            there = folder / name / f"{one.word}{kind.endings[0]}"
            there.parent.mkdir(exist_ok=True)
            kind.convert(file, there)
            opened[one] = kind.opened(there)
        found[name] = _both(opened)
    return found


def _both(opened: dict[Modality, Callable[[np.ndarray], np.ndarray]]) -> Compute:
    def compute(images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        chosen = {one: images[modality == int(one)].contiguous().numpy() for one in opened}
        parts = [opened[one](these) for one, these in chosen.items() if len(these)]
        return torch.from_numpy(np.concatenate(parts))

    return compute


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="agw")
    parser.add_argument("--trunk", default="resnet50")
    parser.add_argument("--size", type=Size.parse, default=Size(288, 144))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--export", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.from_numpy(patterns(asked.batch, asked.size))
    modality = both(asked.batch)
    made = network(asked.recipe, asked.trunk, asked.size)
    with tempfile.TemporaryDirectory() as folder:
        found = ways(made, asked.bf16) | (exports(made, asked.size, Path(folder)) if asked.export else {})
        first = [compute(images, modality).numpy() for compute in found.values()]
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(asked.rounds):
            for name, compute in found.items():
                began = time.process_time()
                compute(images, modality)
                times[name].append(time.process_time() - began)
    base = min(next(iter(times.values())))
    print(f"{asked.recipe}, {asked.trunk}, {asked.size}, batch {asked.batch}, one thread, best of {asked.rounds}")
    for (name, seconds), features in zip(times.items(), first, strict=True):
        best = min(seconds)
        per_picture = f"{best / asked.batch * 1e3:8.2f} ms a picture"
        print(f"{name:20} {per_picture} {base / best:6.2f} x {difference(features, first[0]):9.1e}")


if __name__ == "__main__":
    main()
