"""What one GPU does: the step of each recipe, the loader, embedding and evaluation.

    python benchmarks/gpu.py                    at the sizes of the papers, in less than eight minutes on one GPU
    python benchmarks/gpu.py --json gpu.json    also writes what was found
    python benchmarks/gpu.py --quick            tiny sizes, also without a GPU: shows that everything runs, and no speed

Pictures are those of a generated world with few people, written first; weights are random. A step is the one that
`vireid train` takes, in bf16 where the GPU has it. The peak of the GPU is measured too, with a large product of two
matrices, so that a step's share of it needs no data sheet. A part that fails or for which no time is left is named with
the reason, and the others are measured all the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vireid import recipes
from vireid.bench.areas import evaluation as scoring
from vireid.data.batch import Batch
from vireid.data.loading import inference_batches
from vireid.data.protocol import draw_trials
from vireid.data.size import Size
from vireid.data.stored import as_json, write_json
from vireid.evaluation.embedding import embed_pictures
from vireid.evaluation.inference import Work, fastest
from vireid.evaluation.scoring import score_trials
from vireid.experiments.train import Pictures, TrainOptions, plan
from vireid.model import embedder
from vireid.synthesis.world import World, write_world
from vireid.training.loop import Rehearsal, accelerator_for
from vireid.training.progress import Quiet
from vireid.training.run import Run, surroundings

SMALL = ("trunk=tiny", "size=64x32", "identities_per_batch=2", "visible_per_identity=4", "infrared_per_identity=4")
PROTOCOL = "sysu-mm01/all/single"


@dataclass(frozen=True)
class Found:
    """One thing that was measured.

    Attributes:
        part: name of the part.
        what: what is done, with the sizes.
        seconds: of each repetition; empty if it was not measured.
        count, unit: things that one repetition does.
        peak_share: share of the GPU's measured peak, 0 to 1.
        memory: most bytes that torch had in use on the GPU.
        note: what else is to be said, or why it was not measured.
    """

    part: str
    what: str
    seconds: tuple[float, ...] = ()
    count: float = 0
    unit: str = "pictures"
    peak_share: float | None = None
    memory: int | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it, and how many things a second."""
        rate = self.count / statistics.median(self.seconds) if self.seconds else None
        return {**asdict(self), "seconds": list(self.seconds), "a_second": rate}

    def cells(self) -> list[str]:
        """A line of the table."""
        if not self.seconds:
            return [self.part, self.what, "–", "–", "–", "–", f"not measured: {self.note}"]
        middle, low, high = (1000 * get(self.seconds) for get in (statistics.median, min, max))
        return [
            self.part,
            self.what,
            f"{1000 * self.count / middle:,.4g} {self.unit}",
            f"{middle:,.4g} ({low:,.4g}–{high:,.4g})",
            "–" if self.peak_share is None else f"{100 * self.peak_share:.0f} %",
            "–" if self.memory is None else f"{self.memory / 2**30:.1f} GiB",
            self.note,
        ]


@dataclass
class Ground:
    """Where and how everything is measured.

    Attributes:
        folder: an empty folder.
        quick: tiny sizes.
        ends: by `time.monotonic`, when nothing more is begun.
        world: the generated world, `LAYOUT:PATH`, once it is written.
        peak: operations a second of a large matrix product, once it is measured.
    """

    folder: Path
    quick: bool
    ends: float
    world: str = ""
    peak: float | None = None
    gpu: bool = field(default_factory=torch.cuda.is_available)

    @property
    def workers(self) -> int:
        """Loading processes: all cores but one, as many as a training would use at most."""
        return 0 if self.quick else min(16, max(1, (os.cpu_count() or 2) - 1))

    def size(self, full: Any, quick: Any) -> Any:
        """`full`, or `quick` with `--quick`."""
        return quick if self.quick else full

    def timed(self, work: Callable[[], Any], repetitions: int) -> tuple[float, ...]:
        """Seconds of each call, after one that is not counted. It waits for the GPU before and after each."""
        work()
        found = []
        for _ in range(repetitions):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - began)
        return tuple(found)

    def wait(self) -> None:
        """Wait until the GPU has done all that it was asked for."""
        if self.gpu:
            torch.cuda.synchronize()

    def fresh_memory(self) -> None:
        """Begin to watch the memory anew."""
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> int | None:
        """The most bytes in use since `fresh_memory`; None without a GPU."""
        return torch.cuda.max_memory_allocated() if self.gpu else None


def peak(ground: Ground) -> Iterator[Found]:
    """A large product of two matrices in bf16 (float32 where it is not there): what no step can exceed."""
    kind = torch.bfloat16 if precision() == "bf16" else torch.float32
    side = ground.size(8192, 128)
    a, b = (torch.randn(side, side, dtype=kind, device="cuda" if ground.gpu else "cpu") for _ in range(2))
    seconds = ground.timed(lambda: a @ b, 10)
    ground.peak = 2 * side**3 / statistics.median(seconds)
    what = f"product of two {side} × {side} matrices, {str(kind).removeprefix('torch.')}"
    yield Found("peak", what, seconds, 2 * side**3 / 1e12, "TFLOP")


def precision() -> str:
    """`bf16` where the GPU has arithmetic for it, otherwise `off`."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "off"


def steps(ground: Ground) -> Iterator[Found]:
    """Of each recipe as its paper has it: the step with a batch that lies on the GPU, and with the loader."""
    for name in recipes.recipes():
        yield from kept_apart(ground, f"step of {name}", lambda name=name: of_recipe(ground, name))


def of_recipe(ground: Ground, name: str) -> Iterator[Found]:
    """The step of a recipe, alone and with the loader."""
    ground.fresh_memory()
    rehearsal, pictures, batches = prepared(ground, name)
    for hook in ("before_training", "before_epoch"):  # a memory is filled from a few pictures
        rehearsal.prepare(hook, lambda: itertools.islice(pictures.once(), 2))
    held = next(batches).to("cuda" if ground.gpu else "cpu")
    training = pictures.planned.config.training
    what = f"{name}, {len(held)} pictures of {training.size}, {training.trunk}, {precision()}"
    rehearsed = rehearsal.steps(itertools.repeat(held))
    with FlopCounterMode(display=False) as counter:
        next(rehearsed)
    for _ in range(ground.size(5, 1)):
        next(rehearsed)
    seconds = tuple(itertools.islice(rehearsed, ground.size(20, 2)))
    share = counter.get_total_flops() / statistics.median(seconds) / ground.peak if ground.peak else None
    yield Found("step", what, seconds, len(held), peak_share=share, memory=ground.memory())
    loaded = rehearsal.steps(batches)
    for _ in range(ground.size(2 * ground.workers + 2, 1)):  # batches that were loaded ahead say nothing
        next(loaded)
    with_loader = tuple(itertools.islice(loaded, ground.size(20, 2)))
    kept = statistics.median(seconds) / statistics.mean(with_loader)
    note = f"{ground.workers} workers; {100 * min(1.0, kept):.0f} % of the step alone"
    yield Found("step and loader", what, (statistics.mean(with_loader),), len(held), note=note)


def prepared(ground: Ground, name: str) -> tuple[Rehearsal, Pictures, Iterator[Batch]]:
    """A training before its first step, its pictures, and its batches without end."""
    small = (*SMALL, "epoch_length=2") if ground.quick else ("epoch_length=100",)
    asked = TrainOptions(
        name,
        ground.world,
        ground.folder / f"run-{name}",
        set=("weights=none", f"precision={precision()}", *small),
        workers=ground.workers,
        cache=ground.folder / "cache",
    )
    planned = plan(asked)
    accelerator = accelerator_for(planned.config.training.precision)
    pictures = Pictures.of(planned, asked)
    loader = pictures.loader(accelerator, Quiet())
    run = Run(asked.run, planned.facts)
    rehearsal = Rehearsal(planned.network(), planned.config.training, run, steps=loader.steps, accelerator=accelerator)
    return rehearsal, pictures, itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())


def embedding(ground: Ground) -> Iterator[Found]:
    """Features of all pictures of the world, the way that `vireid test` computes them, with and without the loader."""
    ground.fresh_memory()
    _, pictures, _ = prepared(ground, "agw")
    device = "cuda" if ground.gpu else "cpu"
    planned = pictures.planned
    size, records = planned.config.training.size, planned.records
    network = planned.network().to(device).eval()
    every = list(inference_batches(records, size=size, workers=ground.workers, cache=pictures.cache))
    for asked in dict.fromkeys(("off", precision())):
        work = Work(size, len(records), asked, device)
        way = fastest(network, partial(embedder, embedding="neck"), work)
        seconds = ground.timed(lambda way=way: embed_pictures(way, every), ground.size(3, 1))
        what = f"agw, {len(records):,} pictures of {size}, {planned.config.training.trunk}"
        yield Found("embedding", what, seconds, len(records), memory=ground.memory(), note=way.way.words)


def evaluation(ground: Ground) -> Iterator[Found]:
    """Ten trials at the sizes of SYSU-MM01, from features to scores. vireid computes them on the processor."""
    identity, camera, modality = scoring.sysu_mm01(ground.size(1.0, 0.05))
    features = scoring.features_for(identity, modality, ground.size(scoring.WIDTH, 64))
    trials = draw_trials(PROTOCOL, identity, camera, modality)
    seconds = ground.timed(lambda: score_trials(features, identity, trials, cmc="picture"), ground.size(3, 1))
    yield Found(
        "evaluation", f"{PROTOCOL}, {len(trials)} trials of {len(identity):,} pictures", seconds, len(trials), "trials"
    )


def two_processes(ground: Ground) -> Iterator[Found]:
    """`vireid train` under torchrun on two GPUs, loader included: the second of two epochs."""
    what = "agw, two processes"
    if not ground.quick and torch.cuda.device_count() < 2:
        yield Found("two GPUs", what, note="this machine has one GPU")
        return
    run, length = ground.folder / "together", ground.size(40, 2)
    small = SMALL if ground.quick else ()
    fields = ["weights=none", f"precision={precision()}", "epochs=2", f"epoch_length={length}", *small]
    planned = plan(TrainOptions("agw", ground.world, run, set=tuple(fields)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    command = ["vireid.cli.main", "train", "agw", "--data", ground.world, "--run", str(run), "--set", *fields]
    limit = max(1.0, ground.ends - time.monotonic())
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    last = json.loads((run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    count = length * planned.config.training.pictures_per_step
    yield Found("two GPUs", what, (last["seconds"],), count, note="loader included")


PARTS: dict[str, Callable[[Ground], Iterator[Found]]] = {
    "peak": peak,
    "steps": steps,
    "embedding": embedding,
    "evaluation": evaluation,
    "two GPUs": two_processes,
}


def kept_apart(ground: Ground, name: str, part: Callable[[], Iterator[Found]]) -> Iterator[Found]:
    """What a part finds. If it fails, or no time is left for it, a line that says so."""
    if time.monotonic() >= ground.ends:
        yield Found(name, "", note="no time was left")
        return
    try:
        yield from part()
    except torch.OutOfMemoryError:
        yield Found(name, "", note="the memory of the GPU is too small")
    except Exception as error:  # the others are measured all the same
        yield Found(name, "", note=f"{type(error).__name__}: {error}".splitlines()[0])


def measured(ground: Ground) -> Iterator[Found]:
    """All parts, on a world that is written first."""
    people, pictures = ground.size((48, 4), (8, 2))
    write_world(
        ground.folder / "world",
        World(people),
        layout="sysu-mm01",
        pictures=pictures,
        size=ground.size(Size(288, 144), Size(64, 32)),
        workers=max(1, ground.workers),
    )
    ground.world = f"sysu-mm01:{ground.folder / 'world'}"
    for name, part in PARTS.items():
        yield from kept_apart(ground, name, lambda part=part: part(ground))


def main(arguments: list[str] | None = None) -> int:
    """Read the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--quick", action="store_true", help="tiny sizes, also without a GPU")
    asked.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    asked.add_argument("--minutes", type=float, default=8, help="begin nothing after these (8)")
    options = asked.parse_args(arguments)
    if not options.quick and not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py: there is no GPU that torch can use; --quick shows that everything runs", file=sys.stderr
        )
        return 2
    around = surroundings()
    found = []
    heads = ["part", "what", "a second", "ms (min–max)", "share of the peak", "memory", ""]
    print(f"{around.hardware.words}; torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    with tempfile.TemporaryDirectory(prefix="vireid-gpu-", ignore_cleanup_errors=True) as folder:
        ground = Ground(Path(folder), options.quick, time.monotonic() + 60 * options.minutes)
        for one in measured(ground):
            found.append(one)
            print("| " + " | ".join(one.cells()) + " |", flush=True)
    if options.json is not None:
        write_json(options.json, {"quick": options.quick, **as_json(around), "found": [one.to_json() for one in found]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
