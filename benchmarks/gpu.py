"""What one GPU does: the step of each recipe, the loader, embedding and evaluation.

    python benchmarks/gpu.py                    at the sizes of the papers; begins nothing after eight minutes
    python benchmarks/gpu.py --json gpu.json    also writes what was found
    python benchmarks/gpu.py --quick            tiny sizes, also without a GPU: shows that everything runs, and no speed

Pictures are those of a generated world with few people, written first; weights are random. A step is the one that
`vireid train` takes, in bf16 where the GPU has it. The peak of the GPU is measured too, with a large product of two
matrices, so that a step's share of it needs no data sheet. A part that fails or for which no time is left is named with
the reason, and the others are measured all the same. The file is written after each line, so a run that is killed keeps
what it found.
"""

from __future__ import annotations

import argparse
import gc
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
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from vireid import recipes
from vireid.bench.areas import evaluation as scoring
from vireid.bench.measure import Missing, now
from vireid.data.batch import Batch
from vireid.data.loading import inference_batches
from vireid.data.protocol import draw_trials, parse_protocol
from vireid.data.size import Size
from vireid.data.stored import as_json, write_json
from vireid.evaluation.embedding import embed_pictures
from vireid.evaluation.inference import ENOUGH_FOR_THE_CLOCK, Work, fastest
from vireid.evaluation.scoring import score_trials
from vireid.experiments.train import Pictures, TrainOptions, plan
from vireid.model import embedder
from vireid.synthesis.world import World, write_world
from vireid.training.loop import Rehearsal, accelerator_for
from vireid.training.progress import Quiet
from vireid.training.run import Run, surroundings

SMALL = ("trunk=tiny", "size=64x32", "identities_per_batch=2", "visible_per_identity=4", "infrared_per_identity=4")
PROTOCOL = "sysu-mm01/all/single"
HEADS = ("part", "what", "a second", "ms (min–max)", "share of the peak", "memory", "")
LEFT_OUT = "left out: no time"
MOST_WORKERS = 16

Value = TypeVar("Value")


@dataclass(frozen=True)
class Found:
    """One thing that was measured.

    Attributes:
        part: name of the part.
        what: what is done, with the sizes.
        seconds: of one repetition, for each round; empty if it was not measured.
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

    @property
    def rate(self) -> float | None:
        """Things a second, by the median of the rounds."""
        return self.count / statistics.median(self.seconds) if self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """All of it, and how many things a second."""
        return {**asdict(self), "seconds": list(self.seconds), "a_second": self.rate}

    def cells(self) -> list[str]:
        """A line of the table."""
        if self.rate is None:
            return [self.part, self.what, "–", "–", "–", "–", self.note]
        middle, low, high = (1000 * get(self.seconds) for get in (statistics.median, min, max))
        return [
            self.part,
            self.what,
            f"{self.rate:,.4g} {self.unit}",
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
        until: by `time.monotonic`, when the part that is measured now begins no further round.
        world: the generated world, `LAYOUT:PATH`, once it is written.
        peak: operations a second of a large matrix product, once it is measured.
        steps, with_loader: recipe → pictures a second of its step, alone and with the loader, once they are measured.
    """

    folder: Path
    quick: bool
    ends: float
    until: float = float("inf")
    world: str = ""
    peak: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    with_loader: dict[str, float] = field(default_factory=dict)
    gpu: bool = field(default_factory=torch.cuda.is_available)

    @property
    def device(self) -> str:
        """`cuda` if there is a GPU."""
        return "cuda" if self.gpu else "cpu"

    @property
    def workers(self) -> int:
        """Loading processes: all usable cores but one, which is that of the training itself."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
        return self.size(min(MOST_WORKERS, max(1, usable - 1)), 0)

    def size(self, full: Value, quick: Value) -> Value:
        """`full`, or `quick` with `--quick`."""
        return quick if self.quick else full

    def rounds(self, work: Callable[[], Any], rounds: int, *, calls: int = 1, warm_up: int = 1) -> tuple[float, ...]:
        """Seconds of one call in each round. If the part's time is over, there are fewer rounds, but at least one.

        `vireid.bench.measure.interleaved` is for contenders that take turns. It rests between them, and in that rest a
        loader would get ahead of the steps.

        Args:
            work: what is measured.
            rounds: how many times the clock is read. It waits for the GPU before and after each.
            calls: of `work` in a round. Between them nothing waits for the GPU but `work` itself.
            warm_up: calls before the first round, which are not counted.
        """
        for _ in range(warm_up):
            work()
        found: list[float] = []
        while len(found) < rounds and not (found and time.monotonic() >= self.until):
            self.wait()
            began = now().wall
            for _ in range(calls):
                work()
            self.wait()
            found.append((now().wall - began) / calls)
        return tuple(found)

    def wait(self) -> None:
        """Wait until the GPU has done all that it was asked for."""
        if self.gpu:
            torch.cuda.synchronize()

    def fresh_memory(self) -> None:
        """Begin to watch the memory anew."""
        gc.collect()  # accelerate's wrappers and the network refer to each other, so it would stay for a while
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> int | None:
        """The most bytes in use since `fresh_memory`; None without a GPU."""
        return torch.cuda.max_memory_allocated() if self.gpu else None


Part = Callable[[Ground], Iterator[Found]]


# --- what is measured -------------------------------------------------------------------------------------------------


def world(ground: Ground) -> Iterator[Found]:
    """Write the pictures for the other parts. There is a line only if this fails."""
    people, pictures = ground.size((48, 4), (8, 2))
    folder = ground.folder / "world"
    size = ground.size(Size(288, 144), Size(64, 32))
    write_world(folder, World(people), layout="sysu-mm01", pictures=pictures, size=size, workers=max(1, ground.workers))
    ground.world = f"sysu-mm01:{folder}"
    yield from ()


def precision() -> str:
    """`bf16` where the GPU has arithmetic for it, otherwise `off`."""
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "off"


def peak(ground: Ground) -> Iterator[Found]:
    """A large product of two matrices in bf16 (float32 where it is not there): what no step can exceed."""
    kind = torch.bfloat16 if precision() == "bf16" else torch.float32
    side = ground.size(8192, 128)
    a, b = (torch.randn(side, side, dtype=kind, device=ground.device) for _ in range(2))
    seconds = ground.rounds(lambda: a @ b, ground.size(10, 5), calls=10, warm_up=10)
    ground.peak = 2 * side**3 / min(seconds)
    what = f"product of two {side} × {side} matrices, {str(kind).removeprefix('torch.')}"
    yield Found("peak", what, seconds, 2 * side**3 / 1e12, "TFLOP", note="the fastest round is the peak")


def of_recipe(ground: Ground, name: str) -> Iterator[Found]:
    """The step of a recipe as its paper has it: with a batch that lies on the GPU, and with the loader."""
    pictures = pictures_of(ground, name, ground.workers)
    training = pictures.planned.config.training
    accelerator = accelerator_for(training.precision)
    steps, batches = endless(pictures, accelerator)
    run = Run(pictures.asked.run, pictures.planned.facts)
    rehearsal = Rehearsal(pictures.planned.network(), training, run, steps=steps, accelerator=accelerator)
    for hook in ("before_training", "before_epoch"):
        rehearsal.prepare(hook, pictures.once)
    held = next(batches).to(accelerator.device)
    operations, note = operations_of(rehearsal, held)
    ground.fresh_memory()  # of the steps that follow, not of what was needed to begin
    step = partial(next, rehearsal.steps(itertools.repeat(held)))
    seconds = ground.rounds(step, ground.size(5, 2), calls=ground.size(4, 1), warm_up=ground.size(5, 1))
    share = operations / statistics.median(seconds) / ground.peak if operations and ground.peak else None
    what = f"{name}, {len(held)} pictures of {training.size}, {training.trunk}, {arithmetic(training.precision)}"
    alone = Found("step", what, seconds, len(held), peak_share=share, memory=ground.memory(), note=note)
    ground.steps[name] = len(held) / statistics.median(seconds)
    yield alone
    seconds = loaded(ground, partial(next, rehearsal.steps(batches)), ground.workers)
    ground.with_loader[name] = len(held) / seconds[0]
    kept = min(1.0, ground.with_loader[name] / ground.steps[name])
    note = f"{ground.workers} workers; {100 * kept:.0f} % of the step alone"
    yield Found("step and loader", what, seconds, len(held), note=note)


def operations_of(rehearsal: Rehearsal, held: Batch) -> tuple[int | None, str]:
    """Floating point operations of a step, counted in a real one, and what is to be said if they cannot be counted."""
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            next(rehearsal.steps(itertools.repeat(held)))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the times of the step need no count; if the step itself fails, it fails again
        return None, f"operations not counted: {reason(error)}"
    return counter.get_total_flops(), ""


def loader(ground: Ground) -> Iterator[Found]:
    """The loader alone, with the recipe whose step takes most pictures a second: does the loader keep up with it?"""
    name = max(recipes.recipes(), key=lambda one: ground.steps.get(one, 0.0))
    needed = ground.steps.get(name)
    for workers in dict.fromkeys((ground.size(TrainOptions.workers, 1), ground.workers)):
        pictures = pictures_of(ground, name, workers)
        training = pictures.planned.config.training
        _, batches = endless(pictures, accelerator_for(training.precision))
        count = len(next(batches))
        seconds = loaded(ground, partial(next, batches), workers)
        what = f"{name}, {count} pictures of {training.size}, cached, {workers} workers"
        note = "no step was measured to compare with"
        if needed:
            note = f"{count / seconds[0] / needed:.2f} times what the fastest step takes, {needed:,.4g} a second"
        yield Found("loader", what, seconds, count, note=note)


def embedding(ground: Ground) -> Iterator[Found]:
    """Features of pictures in memory, the way that `vireid test` computes them: in float32, and in what is fastest."""
    pictures = pictures_of(ground, "agw", ground.workers)
    config, records = pictures.planned.config, pictures.planned.records
    size = config.training.size
    network = pictures.planned.network().to(ground.device).eval()
    every = list(inference_batches(records, size=size, workers=ground.workers, cache=pictures.cache))
    for asked in ("off", "auto"):
        ground.fresh_memory()
        # As many as the test sets of the field have, so that `auto` reads its clock.
        work = Work(size, max(len(records), ENOUGH_FOR_THE_CLOCK), asked, ground.device)
        way = fastest(network, partial(embedder, embedding="neck"), work)
        seconds = ground.rounds(lambda way=way: embed_pictures(way, every), ground.size(5, 1))
        what = f"agw, {len(records):,} pictures of {size}, {config.training.trunk}, --precision {asked}"
        yield Found("embedding", what, seconds, len(records), memory=ground.memory(), note=way.way.words)


def evaluation(ground: Ground) -> Iterator[Found]:
    """Ten trials at the sizes of SYSU-MM01, from features to scores. vireid computes them on the processor."""
    identity, camera, modality = scoring.sysu_mm01(ground.size(1.0, 0.05))
    features = scoring.features_for(identity, modality, ground.size(scoring.WIDTH, 64))
    trials = draw_trials(PROTOCOL, identity, camera, modality)
    cmc = parse_protocol(PROTOCOL).cmc
    seconds = ground.rounds(lambda: score_trials(features, identity, trials, cmc=cmc), ground.size(3, 1))
    what = f"{PROTOCOL}, {len(trials)} trials of {len(identity):,} pictures"
    yield Found("evaluation", what, seconds, len(trials), "trials", note="on the processor")


def two_processes(ground: Ground) -> Iterator[Found]:
    """`vireid train` under torchrun on two GPUs, loader included: the second of two epochs."""
    if not ground.quick and torch.cuda.device_count() < 2:
        raise Missing("one GPU")
    if ground.gpu and torch.cuda.device_count() < 2:
        raise Missing("one GPU, and two processes cannot share it")
    run, length = ground.folder / "together", ground.size(40, 2)
    small = SMALL if ground.quick else ()
    fields = ["weights=none", f"precision={precision()}", "epochs=2", f"epoch_length={length}", *small]
    planned = plan(TrainOptions("agw", ground.world, run, set=tuple(fields)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    command = ["vireid.cli.main", "train", "agw", "--data", ground.world, "--run", str(run)]
    loading = ["--workers", str(ground.workers // 2), "--cache", str(ground.folder / "cache")]
    ground.fresh_memory()  # the processes need what this one holds
    carry_out([*launcher, *command, *loading, "--set", *fields], max(1.0, ground.ends - time.monotonic()))
    last = json.loads((run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    count = planned.config.training.pictures_per_step
    seconds, note = last["seconds"] / length, "loader included"
    if alone := ground.with_loader.get("agw"):
        note += f"; {count / seconds / alone:.2f} times one process with the loader"
    yield Found("two GPUs", f"agw, {count} pictures over two processes", (seconds,), count, note=note)


# --- pieces -----------------------------------------------------------------------------------------------------------


def pictures_of(ground: Ground, name: str, workers: int) -> Pictures:
    """The pictures of a training of a recipe, all of them in the cache."""
    if not ground.world:
        raise Missing("the world was not written")
    fields = ("weights=none", f"precision={precision()}", f"epoch_length={ground.size(200, 2)}")
    asked = TrainOptions(
        name,
        ground.world,
        ground.folder / f"run-{name}",
        set=(*fields, *(SMALL if ground.quick else ())),
        workers=workers,
        cache=ground.folder / "cache",
    )
    pictures = Pictures.of(plan(asked), asked)
    for _ in pictures.once():
        pass
    return pictures


def endless(pictures: Pictures, accelerator: Accelerator) -> tuple[int, Iterator[Batch]]:
    """Steps of an epoch, and the batches of all epochs."""
    made = pictures.loader(accelerator, Quiet())
    return made.steps, itertools.chain.from_iterable(made.batches(epoch) for epoch in itertools.count())


def loaded(ground: Ground, work: Callable[[], Any], workers: int) -> tuple[float, ...]:
    """Seconds of a call that needs a batch of the loader. Batches come in bursts, so they are those of one long round.

    Batches that were loaded ahead, two by each worker, say nothing.
    """
    return ground.rounds(work, 1, calls=ground.size(max(20, 3 * workers), 2), warm_up=2 * workers + 2)


def arithmetic(precision: str) -> str:
    """What a table calls a precision."""
    return "float32" if precision == "off" else precision


def carry_out(command: list[str], seconds: float) -> None:
    """Run torchrun.

    Raises:
        RuntimeError: it failed; the first line that names an error.
        subprocess.TimeoutExpired: it took longer. Its processes have ended.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except BaseException:
            process.terminate()  # on this signal torchrun ends its processes; if it were killed, they would go on
            raise
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        named = [line for line in lines if "error" in line.lower()]
        raise RuntimeError(next(iter(named or lines), f"exit code {process.returncode}"))


# --- in one go --------------------------------------------------------------------------------------------------------


def parts() -> dict[str, Part]:
    """Name → part, in their order: the first ones are needed by others."""
    steps = {f"step of {name}": partial(of_recipe, name=name) for name in recipes.recipes()}
    last = {"loader": loader, "embedding": embedding, "evaluation": evaluation, "two GPUs": two_processes}
    return {"world": world, "peak": peak, **steps, **last}


def measured(ground: Ground) -> Iterator[Found]:
    """All parts. What is left of the time is shared equally among those that are left."""
    left = parts()
    while left:
        name = next(iter(left))
        ground.until = time.monotonic() + (ground.ends - time.monotonic()) / len(left)
        yield from kept_apart(ground, name, left.pop(name))


def kept_apart(ground: Ground, name: str, part: Part) -> Iterator[Found]:
    """What a part finds. If it fails, or no time is left for it, a line that says so."""
    if time.monotonic() >= ground.ends:
        yield Found(name, "", note=LEFT_OUT)
        return
    ground.fresh_memory()
    failed = ""
    try:
        yield from part(ground)
    except subprocess.TimeoutExpired:
        failed = LEFT_OUT
    except torch.OutOfMemoryError:
        failed = "not measured: the memory of the GPU is too small"
    except Missing as why:
        failed = f"not measured: {why}"
    except Exception as error:  # the others are measured all the same
        failed = f"not measured: {reason(error)}"
    if failed:
        yield Found(name, "", note=failed)


def reason(error: Exception) -> str:
    """The first line of an exception, so that it fits in a table."""
    return f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")


def card() -> dict[str, Any]:
    """What is to be known of the first GPU; empty without one. `memory` is in bytes."""
    if not torch.cuda.is_available():
        return {}
    first = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        said = []
    return {
        "name": first.name,
        "memory": first.total_memory,
        "driver": said[0] if said else "unknown",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "count": torch.cuda.device_count(),
    }


def heading(gpu: dict[str, Any], machine: str) -> str:
    """Card and versions, how to read the shares, and the head of the table."""
    if gpu:
        where = f"{gpu['count']} × {gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB; driver {gpu['driver']}, "
        where += f"torch {torch.__version__}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
    else:
        where = f"{machine}, no GPU; torch {torch.__version__}"
    said = "The peak is measured in this run, by a large product of two matrices. It is not from a data sheet."
    return f"{where}\n\n{said}\n\n| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|"


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
    gpu, around, found = card(), surroundings(), []
    facts = {"quick": options.quick, "gpu": gpu, **as_json(around)}
    print(heading(gpu, around.hardware.words), flush=True)
    with tempfile.TemporaryDirectory(prefix="vireid-gpu-", ignore_cleanup_errors=True) as folder:
        ground = Ground(Path(folder), options.quick, time.monotonic() + 60 * options.minutes)
        for one in measured(ground):
            found.append(one.to_json())
            print("| " + " | ".join(one.cells()) + " |", flush=True)
            if options.json is not None:
                write_json(options.json, {**facts, "found": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
