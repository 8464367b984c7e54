"""Measure a training step of feature fusion with deep mutual learning, and one of AGW with the same trunk and batch.

The baseline is the plainest network with the same trunk: AGW without non-local attention (two stems, ResNet-50, GeM,
BNNeck, classifier, cross-entropy and weighted regularised triplet). Steps of both are taken in turn, so other work of
the machine slows both down. A step is the objective, the backward pass and SGD with momentum. If the machine does other
work at the same time, processor time is a better measure than wall time.

    python benchmarks/fusion_dml.py            # ResNet-50 at 288×144, minutes on two cores
    python benchmarks/fusion_dml.py --small    # resnet18 at 144×72, seconds
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from vireid.data.batch import Batch
from vireid.data.modality import Modality
from vireid.data.size import Size
from vireid.networks.cost import measure
from vireid.recipes import agw, fusion_dml
from vireid.training.configuration import with_fields
from vireid.training.memory import keep_freed_memory

IDENTITIES = 395


def main() -> None:
    """Print multiply-accumulates and step times, each as a difference from or ratio to the baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a smaller trunk and smaller pictures")
    parser.add_argument("--pictures", type=int, default=16, help="pictures in a batch (default 16)")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each that are timed (default 5)")
    parser.add_argument("--autocast", action="store_true", help="bf16 where it is safe")
    options = parser.parse_args()
    keep_freed_memory()  # as the training loop does on a CPU
    size = Size(144, 72) if options.small else fusion_dml.PAPER.training.size
    common = {"trunk": "resnet18" if options.small else "resnet50", "size": size, "weights": "none"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    configs = {
        "AGW without non-local": with_fields(agw.PAPER, {"non_local": None, **common}),
        "fusion_dml, paper": with_fields(fusion_dml.PAPER, common),
        "fusion_dml, no mutual learning": with_fields(fusion_dml.PAPER, {"mutual": None, **common}),
    }
    recipes = [agw, fusion_dml, fusion_dml]
    batch = made_up_batch(options.pictures, size).to(device)
    networks = []
    for recipe, config in zip(recipes, configs.values(), strict=True):
        torch.manual_seed(0)
        networks.append(recipe.build(config, IDENTITIES).to(device, memory_format=torch.channels_last))
    visible = torch.tensor([int(Modality.VISIBLE)], device=device)
    picture = torch.zeros(1, 3, *size, device=device)
    macs = [measure(n, lambda x, n=n: n.embed(x, visible), picture).macs_path for n in networks]
    steps = [step_of(n, c, batch, options.autocast) for n, c in zip(networks, configs.values(), strict=True)]
    times = interleaved(steps, options.repeats, device)

    print(
        f"{size}, batch of {options.pictures}, {device}, {torch.get_num_threads()} threads, {options.repeats} repeats"
    )
    for name, count, took in zip(configs, macs, times, strict=True):
        print(f"{name:32} {count / 1e9:6.3f} GMAC ({(count - macs[0]) / 1e9:+.3f})")
        for clock in ("wall", "processor") if device == "cpu" else ("wall",):
            own, base = ([t[clock] for t in times_of] for times_of in (took, times[0]))
            middle, least = statistics.median(own), min(own)
            print(
                f"    {clock:9} seconds a step: median {middle:7.3f}, min {least:7.3f}; ratio to AGW's: of medians "
                f"{middle / statistics.median(base):.3f}, of minima {least / min(base):.3f}"
            )


def made_up_batch(pictures: int, size: Size) -> Batch:
    """Half of the samples are visible and half infrared, four of each identity in each modality."""
    half = pictures // 2
    return Batch(
        torch.randn(2 * half, 3, *size, generator=torch.Generator().manual_seed(0)),
        (torch.arange(half) // 4).repeat(2),
        torch.arange(2).repeat_interleave(half),
        torch.zeros(2 * half, dtype=torch.int64),
    )


def step_of(network: torch.nn.Module, config, batch: Batch, autocast: bool) -> Callable[[], None]:
    """One training step as a call without arguments."""
    network.train()
    optimiser = config.training.optimiser.build(network, network.new_parameters())  # type: ignore[operator]

    def step() -> None:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=autocast):
            terms = network.objective(batch)  # type: ignore[operator]
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def interleaved(steps: list[Callable[[], None]], repeats: int, device: str) -> list[list[dict[str, float]]]:
    """Seconds of every repeat of every step by two clocks. Steps are taken in turn; the first round is not counted."""
    times: list[list[dict[str, float]]] = [[] for _ in steps]
    for repeat in range(repeats + 1):
        for one, took in zip(steps, times, strict=True):
            began = time.perf_counter(), time.process_time()
            one()
            if device == "cuda":
                torch.cuda.synchronize()
            ended = time.perf_counter(), time.process_time()
            if repeat:
                took.append({"wall": ended[0] - began[0], "processor": ended[1] - began[1]})
    return times


if __name__ == "__main__":
    main()
