"""`vireid train --dry-run`: what a training would be and how long it would take. Nothing is written."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.experiments.train import Pictures, Plan, TrainOptions, begun, check_directory, plan
from vireid.training import distributed
from vireid.training.configuration import differences
from vireid.training.progress import Progress, Quiet
from vireid.training.run import DataFacts, Run, RunFacts, ValidationFacts

if TYPE_CHECKING:
    from vireid.data.batch import Batch
    from vireid.training.loop import Rehearsal

TIMED, TIMED_SECONDS = 10, 20.0
"""As many steps are timed, or those of so many seconds; two at least."""

WARM_UP_SECONDS = 10.0
PIECES = 2
"""Batches of pictures that a memory is filled from for the measurement."""


@dataclass(frozen=True)
class Estimate:
    """What a training would be, and how long it would take.

    Attributes:
        name: `RECIPE` or `RECIPE:ROW`.
        run: the run directory.
        changed: path → (value in the row, value here), of the fields that differ.
        config: the whole configuration in JSON values.
        data: the training pictures.
        validation: how the best epoch would be chosen, or None.
        epochs, done: epochs in all, and those that a resumed run has done.
        steps_per_epoch: steps in one epoch.
        pictures_per_step: pictures in one step.
        parameters, trained: number of the network's parameters, and of those that are trained.
        hardware: the GPUs, or else the processor.
        timed, warm_up: steps that were timed, and steps before them that were not.
        seconds_per_step: mean of the timed steps, loading included.
        seconds_per_fill: time to go through all pictures once, for recipes with a memory; None for others.
        fills: how often this would be done.
        gpu_memory: most bytes that torch had in use on the GPU; None without one.
        notes: what the measurement does not see.
    """

    name: str
    run: str
    changed: dict[str, tuple[Any, Any]]
    config: dict[str, Any]
    data: DataFacts
    validation: ValidationFacts | None
    epochs: int
    done: int
    steps_per_epoch: int
    pictures_per_step: int
    parameters: int
    trained: int
    hardware: str
    timed: int
    warm_up: int
    seconds_per_step: float
    seconds_per_fill: float | None
    fills: int
    gpu_memory: int | None
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimate for the epochs that are left: their steps, and a memory's passes through the pictures."""
        steps = (self.epochs - self.done) * self.steps_per_epoch * self.seconds_per_step
        return steps + (self.seconds_per_fill or 0.0) * self.fills

    def lines(self) -> list[str]:
        """For a person to read."""
        data, each = self.data, self.steps_per_epoch
        fold = f", fold {data.fold}" if data.fold is not None else ""
        left = f", {self.done} of them done" if self.done else ""
        fill = f"; {self.fills} × {_words(self.seconds_per_fill)} for the memory" if self.seconds_per_fill else ""
        memory = [f"GPU memory: {self.gpu_memory / 2**30:.1f} GiB at most"] if self.gpu_memory is not None else []
        chosen = self.validation
        return [
            f"dry run of {self.name} in {self.run}: nothing is written",
            f"fields that differ from {self.name}: {len(self.changed) or 'none'}",
            *(f"  {path}: {_value(before)} → {_value(after)}" for path, (before, after) in self.changed.items()),
            f"data: {data.layout} at {data.root}{fold}: {data.identities:,} people, {data.visible:,} visible and "
            f"{data.infrared:,} infrared pictures to train on",
            *([f"validation: every {chosen.every} epochs on {chosen.pictures:,} pictures"] if chosen else []),
            f"steps: {each:,} an epoch with {self.pictures_per_step} pictures each, {each * self.epochs:,} in "
            f"{self.epochs:,} epochs{left}",
            f"parameters: {self.parameters:,}, {self.trained:,} of them trained",
            *memory,
            f"time: {self.seconds_per_step:.3g} s a step on {self.hardware} (mean of {self.timed} steps after "
            f"{self.warm_up} that were not counted){fill}",
            f"in all: about {_words(self.seconds)}",
            *(f"note: {note}" for note in self.notes),
        ]


def dry_run(asked: TrainOptions, progress: Progress = Quiet()) -> Estimate:  # noqa: B008 has no state
    """Plan a training, take a few steps with the real loader, and estimate how long the whole takes.

    Nothing is written: no run directory, no cache, and ImageNet weights are not downloaded. The run directory is
    checked as `train` checks it.

    Raises:
        BadInput: what `train` would refuse before the first step or in it, or there are several processes.
    """
    from vireid.training.journal import check_tracker
    from vireid.training.loop import Rehearsal, accelerator_for

    if distributed.begin().num_processes > 1:
        raise BadInput("--dry-run is for one process; leave the launcher out")
    planned = plan(asked, begun(asked))
    if asked.tracker is not None:
        check_tracker(asked.tracker)
    run, goes_on = Run(asked.run, planned.facts), check_directory(asked, planned.facts)
    training = planned.config.training
    # With random weights instead of ImageNet's, which would have to be downloaded.
    network = planned.network(pretrained=training.weights != "imagenet", economical=asked.recompute)
    accelerator = accelerator_for(training.precision)
    pictures = Pictures(planned, asked, None)
    loader = pictures.loader(accelerator, progress)
    counted = [(one.numel(), one.requires_grad) for one in network.parameters()]
    rehearsal = Rehearsal(network, training, run, steps=loader.steps, accelerator=accelerator)
    begin, each = (_fill(rehearsal, hook, pictures) for hook in ("before_training", "before_epoch"))
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
    warm_up, seconds = _time(rehearsal.steps(batches), 2 * asked.workers)
    done = min(len(run.epochs()), training.epochs) if goes_on else 0
    return Estimate(
        name=planned.facts.name,
        run=str(asked.run),
        changed=differences(_row(planned.facts), planned.config),
        config=planned.facts.config,
        data=planned.facts.data,
        validation=planned.facts.validation,
        epochs=training.epochs,
        done=done,
        steps_per_epoch=loader.steps,
        pictures_per_step=training.pictures_per_step,
        parameters=sum(number for number, _ in counted),
        trained=sum(number for number, trained in counted if trained),
        hardware=planned.facts.hardware.words,
        timed=len(seconds),
        warm_up=warm_up,
        seconds_per_step=sum(seconds) / len(seconds),
        seconds_per_fill=begin if begin is not None else each,
        fills=(begin is not None and not done) + (training.epochs - max(done, 1)) * (each is not None),
        gpu_memory=_gpu_memory(),
        notes=tuple(_notes(asked, planned)),
    )


def _row(facts: RunFacts) -> Any:
    return recipes.find_row(facts.name)[2].config


def _fill(rehearsal: Rehearsal, hook: str, pictures: Pictures) -> float | None:
    """Seconds that the recipe needs to go through all training pictures; None if it does not."""
    seen = 0

    def some() -> Iterator[Batch]:
        nonlocal seen
        for batch in itertools.islice(pictures.once(), PIECES):
            seen += len(batch)
            yield batch

    began = time.monotonic()
    rehearsal.prepare(hook, some)
    return (time.monotonic() - began) * len(pictures.planned.records) / seen if seen else None


def _time(steps: Iterator[float], ahead: int) -> tuple[int, list[float]]:
    """How many steps were not counted, and the seconds of those that were.

    The first step is not counted. Nor are those with batches that workers had loaded ahead, unless steps are so slow
    that loading is not what they wait for.
    """
    warm_up, waited = 1, next(steps)
    while warm_up <= ahead and waited < WARM_UP_SECONDS:
        waited += next(steps)
        warm_up += 1
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < TIMED and sum(seconds) < TIMED_SECONDS):
        seconds.append(next(steps))
    return warm_up, seconds


def _gpu_memory() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _notes(asked: TrainOptions, planned: Plan) -> Iterator[str]:
    yield "time for checkpoints" + (" and validation is" if planned.validation else " is") + " not in it"
    if asked.cache is not None:
        yield "pictures were read from their files; with --cache later epochs are faster"
    if planned.config.training.weights == "imagenet":
        yield "ImageNet weights were not read or downloaded; the steps were taken from a random start"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("type", value))
    return value if isinstance(value, str) else json.dumps(value)


def _words(seconds: float | None) -> str:
    """A duration in its two largest units, rounded to the smaller one.

    >>> _words(3.2), _words(330), _words(40000), _words(500000)
    ('3 s', '5 min 30 s', '11 h 7 min', '5 d 19 h')
    """
    left = round(seconds or 0)
    for (large, length), (small, part) in pairwise((("d", 86400), ("h", 3600), ("min", 60), ("s", 1))):
        if left >= length - part / 2:
            whole, rest = divmod(round(left / part), length // part)
            return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
    return f"{left} s" if left else "less than 1 s"
