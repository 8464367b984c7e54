"""What MIIM and AICL cost, beside the same trunk without them, measured in the same run.

There are two questions. How much longer does a whole training step (forward, backward, Adam) take with MIIM and AICL
than the paper's baseline, with the same batch? And which of the two attention paths is faster with the few keys of the
paper? The measurements take turns and are repeated. Processor time is printed beside wall time, because other work on
the machine hardly changes it.

    python benchmarks/wrim_net.py            # batch 16+16 at 384x144, about five minutes on two cores
    python benchmarks/wrim_net.py --small    # batch 4+4 at 192x72, seconds
    python benchmarks/wrim_net.py --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.networks.tokens import attend
from vireid.recipes import wrim_net
from vireid.training.configuration import with_fields
from vireid.training.memory import keep_freed_memory

# Queries, keys and width of the heads after each stage at 384x144.
SHAPES = {"stage 1": (216, 24, 16), "stages 2 and 3": (216, 24, 32), "stage 4": (216, 24, 64)}


def seconds(work: Callable[[], None], device: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def interleaved(
    works: dict[str, Callable[[], None]], repeats: int, device: str
) -> dict[str, list[tuple[float, float]]]:
    """The times of each work. The works take turns; the first turn warms up and is not kept."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work, device)
            if turn:
                found[name].append(spent)
    return found


def report(found: dict[str, list[tuple[float, float]]], baseline: str, unit: float = 1.0, word: str = "s") -> None:
    """Print median and smallest times, and the median and smallest ratio to the baseline of the same turn."""
    for name, spent in found.items():
        line = f"  {name:22}"
        for index, kind in enumerate(("wall", "processor")):
            times = [both[index] * unit for both in spent]
            ratios = [a[index] / b[index] for a, b in zip(spent, found[baseline], strict=True)]
            line += (
                f"  {kind} median {statistics.median(times):8.3f} {word}, min {min(times):8.3f}, "
                f"ratio median {statistics.median(ratios):.2f}, min {min(ratios):.2f}"
            )
        print(line)


def step_of(config: wrim_net.Config, batch: Batch, device: str) -> Callable[[], None]:
    """One training step of a new network, with the memory layout of the training loop."""
    torch.manual_seed(0)
    network = wrim_net.build(config, identities=395).train().to(device, memory_format=torch.channels_last)
    optimiser = config.training.optimiser.build(network, network.new_parameters())

    def step() -> None:
        torch.stack(list(network.objective(batch).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def steps(size: Size, per_modality: int, repeats: int, device: str) -> None:
    """Measure a whole step, with and without MIIM and AICL."""
    sample = torch.arange(2 * per_modality)
    # As the sampler gives them: four visible and four infrared samples of each identity.
    batch = Batch(torch.randn(len(sample), 3, *size), sample // 8, sample // 4 % 2, sample * 0).to(device)
    configs = {
        "without MIIM and AICL": wrim_net.ROWS["table3/baseline"].config,
        "with MIIM": wrim_net.ROWS["table3/miim"].config,
        "with AICL": wrim_net.ROWS["table3/aicl"].config,
        "with both (WRIM-Net)": wrim_net.PAPER,
    }
    works = {name: step_of(with_fields(config, {"size": size}), batch, device) for name, config in configs.items()}
    print(f"one step, batch {per_modality}+{per_modality} at {size}, {device}, {torch.get_num_threads()} threads:")
    report(interleaved(works, repeats, device), "without MIIM and AICL")


def attention(samples: int, repeats: int, device: str) -> None:
    """Measure the two attention paths, forward and backward."""
    for name, (queries, keys, width) in SHAPES.items():
        q, k, v = (torch.randn(samples, 8, count, width, device=device) for count in (queries, keys, keys))
        q, k, v = (tokens.requires_grad_() for tokens in (q, k, v))
        works = {
            path: lambda p=path, t=(q, k, v): attend(*t, path=p).square().sum().backward()  # type: ignore[misc]
            for path in ("fused", "plain")
        }
        print(f"attention of {name}, {samples} samples, 8 heads of {width}, {queries} queries, {keys} keys, {device}:")
        report(interleaved(works, repeats, device), "fused", unit=1e3, word="ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a batch of 4+4 at 192x72")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()  # as the training loop does on a CPU
    size, per_modality = (Size(192, 72), 4) if options.small else (Size(384, 144), 16)
    attention(2 * per_modality, 4 * options.repeats, options.device)
    steps(size, per_modality, options.repeats, options.device)


if __name__ == "__main__":
    main()
