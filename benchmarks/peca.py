"""What a training step of PECA costs beside a step of AGW with the same trunk and the same real samples.

A step is forward, backward and SGD. PECA's step includes its auxiliary samples (half as many as real ones), the pass
over the three parts, and the memory. One backward pass counts as two forward ones, so PECA does
(3 · 1.5 + 1) / 3 = 1.83 times AGW's work. The naive form gives the parts a backward pass, which the stopped gradient
of equation 1 makes useless, and takes the parts one after another. Steps are interleaved and repeated. Beside wall
time stand processor time, which a busy machine disturbs less, and the counted work of convolutions and matrix
products, which it does not disturb at all.

    python benchmarks/peca.py            # ResNet-50, 8+8 samples at 288x144, a few minutes on two cores
    python benchmarks/peca.py --small    # ResNet-18, 8+8 samples at 144x72, seconds
    python benchmarks/peca.py --parts    # rows M3 to M5 and the naive form beside them
    python benchmarks/peca.py --device cuda --identities 8 --per-modality 4
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import ModuleType

import torch
from torch.utils.flop_counter import FlopCounterMode

from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.recipes import agw, peca
from vireid.training.configuration import with_fields
from vireid.training.memory import keep_freed_memory

IDENTITIES = 395  # SYSU-MM01's, for classifier and memory


def a_batch(identities: int, per_modality: int, size: Size, device: str) -> Batch:
    """Noise, identity by identity, visible before infrared, in the order of the sampler."""
    identity = torch.arange(identities).repeat_interleave(2 * per_modality)
    modality = torch.tensor([0] * per_modality + [1] * per_modality).repeat(identities)
    images = torch.randn(len(identity), 3, *size)
    return Batch(images, identity, modality, modality, seed=1).to(device)


def naive_local_features(network: peca.PECA, images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
    """The three parts one after another, each with a graph that is not needed."""
    with torch.enable_grad(), peca.normalising_by(network, "batch_stats_no_update"):
        parts = peca.three_parts(images).chunk(3)
        return torch.cat([network.features(part, modality)["bn"] for part in parts], 1)


def naive_similarity(global_features: torch.Tensor, local_features: torch.Tensor) -> torch.Tensor:
    """Equation 1 without the stopped gradient, so that the backward pass goes through the parts."""
    f, g = (torch.nn.functional.normalize(x) for x in (global_features, local_features))
    return -(f * g).sum(1).mean()


def stepper(recipe: ModuleType, config, batch: Batch, device: str, *, naive: bool = False) -> Callable[[], None]:
    """One training step of a recipe, ready to be called again and again."""
    torch.manual_seed(0)
    network = recipe.build(config, IDENTITIES).to(device, memory_format=torch.channels_last).train()
    if naive:
        network.local_features = lambda images, modality: naive_local_features(network, images, modality)
    optimiser = config.training.optimiser.build(network, network.new_parameters())

    def step() -> None:
        stopped = peca.similarity_loss
        peca.similarity_loss = naive_similarity if naive else stopped
        try:
            terms = network.objective(batch)
        finally:
            peca.similarity_loss = stopped
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def work(steps: dict[str, Callable[[], None]]) -> dict[str, int]:
    """Floating-point operations of convolutions and matrix products in one step of each; warms up as well."""
    counted = {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        counted[name] = counter.get_total_flops()
    return counted


def interleaved(steps: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, list[tuple]]:
    """Wall and processor seconds of each step, taking turns."""
    found: dict[str, list[tuple]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            wall, processor = time.perf_counter(), time.process_time()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="ResNet-18 at 144x72")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--identities", type=int, default=2)
    parser.add_argument("--per-modality", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="rows M3 to M5 and the naive form as well")
    options = parser.parse_args()
    keep_freed_memory()  # as the training loop does on a CPU
    common = {"trunk": "resnet18" if options.small else "resnet50", "weights": "none"}
    common["size"] = Size(144, 72) if options.small else Size(288, 144)
    batch = a_batch(options.identities, options.per_modality, common["size"], options.device)

    def one(row: str, **how) -> Callable[[], None]:
        return stepper(peca, with_fields(peca.ROWS[row].config, common), batch, options.device, **how)

    # The same width of attention in both, so that the ratio is that of what PECA adds.
    baseline = with_fields(agw.PAPER, common | {"non_local": peca.PAPER.non_local})
    steps = {"agw": stepper(agw, baseline, batch, options.device), "peca": one("table3/peca")}
    if options.parts:
        steps |= {"m3": one("table3/m3"), "m4 = m3 + GSL": one("table3/m4"), "m5 = m3 + ICAL": one("table3/m5")}
        steps["peca, naive parts"] = one("table3/peca", naive=True)
    counted = work(steps)
    found = interleaved(steps, options.repeats, options.device)
    print(
        f"{common['trunk']}, {len(batch)} real samples at {common['size']}, {options.repeats} repeats, {options.device}"
    )
    for name, spent in found.items():
        line = f"  {name:20} work {counted[name] / 1e12:6.3f} TFLOP ×{counted[name] / counted['agw']:.3f}"
        for index, kind in enumerate(("wall", "processor")):
            times = [both[index] for both in spent]
            ratios = [mine[index] / agws[index] for mine, agws in zip(spent, found["agw"], strict=True)]
            least = min(times) / min(both[index] for both in found["agw"])
            line += f"  {kind} {statistics.median(times):7.3f} s ×{statistics.median(ratios):.2f}, least ×{least:.2f}"
        print(line)


if __name__ == "__main__":
    main()
