"""The training loop, from the first step to the last checkpoint.

The loop does not know data sets, papers or protocols. A recipe gives named terms. The loop adds them up, takes a step,
logs each term, and saves checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from torch import nn

from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.sampling import seed_of
from vireid.training import checkpoint, distributed
from vireid.training.compiling import compile_trunk
from vireid.training.journal import Journal, check_tracker
from vireid.training.memory import keep_freed_memory
from vireid.training.optim import set_learning_rate
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run
from vireid.training.settings import Training

PRECISION = {"off": "no", "bf16": "bf16", "fp16": "fp16"}

# On a GPU the host asks for a step while the GPU still computes the one before it. So it reads the terms of a step only
# when it has asked for the next one; if it read them at once, the GPU would wait for work at every step.
STEPS_BEHIND = {"cuda": 1}

Batches = Callable[[int, int], Iterable[Batch]]
Pictures = Callable[[], Iterable[Batch]]
AfterEpoch = Callable[[int], dict[str, Any]]


class Trainable(Protocol):
    """The methods that a module needs to be trained. Every recipe builds such a module."""

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Named scalar terms; their sum is minimised."""
        ...

    def new_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn at the full rate: new layers, such as necks and classifiers."""
        ...

    def pretrained_parts(self) -> tuple[list[nn.Module], nn.Module]:
        """The stems and the stages, which pretrained weights are loaded into."""
        ...


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch. Call it before the network is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 third-party code may use the legacy global generator
    torch.manual_seed(seed)


def accelerator_for(precision: str, *, tracker: str | None = None, folder: Path | None = None) -> Accelerator:
    """The accelerator of this process.

    Args:
        precision: `off`, `bf16` or `fp16`.
        tracker: a name in `vireid.training.journal.TRACKERS`, or None.
        folder: the run directory, for trackers that write files. Nothing is written here yet.

    Raises:
        BadInput: half precision (fp16) without a GPU, or a tracker that is unknown or not installed.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise BadInput("precision 'fp16' needs a GPU; choices here: off, bf16")
    if tracker is not None:
        check_tracker(tracker)
    where = Path() if folder is None else folder
    return Accelerator(
        cpu=distributed.on_cpu(),
        mixed_precision=PRECISION[precision],
        log_with=tracker,
        project_config=ProjectConfiguration(project_dir=str(where), logging_dir=str(where / "tensorboard")),
    )


def train(
    model: nn.Module,
    training: Training,
    run: Run,
    batches: Batches,
    *,
    steps: int,
    accelerator: Accelerator,
    pictures: Pictures | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    after_epoch: AfterEpoch | None = None,
    progress: Progress = Quiet(),  # noqa: B008 has no state
) -> None:
    """Train `model`, and save a checkpoint in `run` after every epoch.

    Several processes call this together. They take the same steps as one process with all their samples. Only the main
    process reads and writes the run directory; the other machines do not need to see it.

    Args:
        model: what a recipe built, with equal weights on every process; see `Trainable`. With several processes its
            batch normalisations are replaced by synchronised ones.
        training: the shared settings of the recipe's configuration.
        run: the run directory. The main process has locked it.
        batches: (epoch, first step) → this process's batches of that epoch, from that step on.
        steps: steps in one epoch.
        accelerator: from `accelerator_for`.
        pictures: every training picture once, as at test time. A recipe with a method `before_training(pictures)` gets
            it before the first step, one with `before_epoch(pictures)` at the start of each later epoch. Both run in
            the main process, in evaluation mode, and may change buffers only (PECA's memory).
        resume: continue from the last checkpoint, if there is one.
        checkpoint_steps: also save after every so many steps within an epoch.
        after_epoch: called with the number of the epoch, in the main process only. The result is added to the log line.
        progress: where the main process shows lines and the bar.

    Raises:
        BadInput: a term is not finite (the sentence names it and the step; on a GPU it comes one step later; the last
            checkpoint is kept, and none is written after that step), the disk is full, the tracker cannot begin, or
            the checkpoint cannot be read.
    """
    loop = _prepared(model, training, run, steps, accelerator, pictures)
    loop.begin(resume=resume)
    with contextlib.ExitStack() as stack:
        with distributed.raise_together():
            journal = stack.enter_context(loop.journal(progress)) if accelerator.is_main_process else None
        while loop.at.epoch < training.epochs:
            loop.epoch(batches, journal, checkpoint_steps, after_epoch)


@dataclass
class _Position:
    """The next step, and the sum of each term over the steps of its epoch that are done."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)


class _Terms:
    """The terms of one step, on their way from the device.

    Args:
        names: of the terms.
        values: their values, the mean over processes, on the device.
        epoch, step: of the step.
    """

    def __init__(self, names: Iterable[str], values: torch.Tensor, epoch: int, step: int) -> None:
        self.names, self.epoch, self.step = tuple(names), epoch, step
        self._arrived = torch.cuda.Event() if values.is_cuda else None
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """The values by name. It waits for the device if they are not there yet."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self.names, self._values.tolist(), strict=True))


@dataclass
class _Loop:
    """One process's part of a training run.

    Attributes:
        model: what the recipe built.
        objective: the model inside the wrappers of accelerate.
        optimiser: accelerate's optimiser.
        training, run, steps, accelerator, pictures: as in `train`.
        at: the next step.
        asked: the terms of the last steps that were not read yet.
    """

    model: nn.Module
    objective: nn.Module
    optimiser: Any
    training: Training
    run: Run
    steps: int
    accelerator: Accelerator
    pictures: Pictures | None = None
    at: _Position = field(default_factory=_Position)
    asked: deque[_Terms] = field(default_factory=deque)

    def begin(self, *, resume: bool) -> None:
        """Restore the last checkpoint, or fill the recipe's memory before the first step."""
        state = None
        with distributed.raise_together():
            if self.accelerator.is_main_process and resume and self.run.checkpoint.exists():
                state = checkpoint.load(self.run.checkpoint)
        state = distributed.broadcast_object(state)
        if state is None:
            self.prepare("before_training")
            return
        with distributed.raise_together():
            self.restore(state)

    def prepare(self, hook: str) -> None:
        """Call a method of the recipe with all training pictures, if it has this method."""
        if not hasattr(self.model, hook):
            return
        with distributed.raise_together():
            if self.accelerator.is_main_process:
                device = self.accelerator.device
                self.model.eval()
                with torch.no_grad():
                    getattr(self.model, hook)(batch.to(device) for batch in (self.pictures or tuple)())
        distributed.broadcast_buffers(self.model)

    def restore(self, state: dict[str, Any]) -> None:
        """Set weights, optimiser, random number generators and position to those of a checkpoint."""
        file, states = self.run.checkpoint, state["random"]
        if len(states) != self.accelerator.num_processes:
            raise BadInput(
                f"{file} was written by {len(states)} process(es), this run has {self.accelerator.num_processes}; "
                "resume with the same number"
            )
        try:
            state = checkpoint.fitted(state, self.model)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"{file} does not fit this run's recipe and configuration ({reason})") from error
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        checkpoint.set_random_states(states[self.accelerator.process_index])
        self.at = _Position(**state["progress"])

    def journal(self, progress: Progress) -> Journal:
        """The journal of the rest of the run."""
        return Journal(
            self.run,
            self.accelerator,
            progress,
            epochs=self.training.epochs,
            steps=self.steps,
            images=self.training.pictures_per_step,
            first=(self.at.epoch, self.at.step),
        )

    def epoch(
        self, batches: Batches, journal: Journal | None, checkpoint_steps: int | None, after_epoch: AfterEpoch | None
    ) -> None:
        """Train to the end of the epoch, log it, and save."""
        at, began = self.at, time.monotonic()
        rates: dict[str, float] = {}
        if at.epoch > 0 and at.step == 0:  # a run that was resumed within an epoch did this before
            self.prepare("before_epoch")
        self.objective.train()
        for batch in distributed.synchronised(batches(at.epoch, at.step)):
            share = self.training.schedule.factor(at.epoch, at.step, self.steps, self.training.epochs)
            rates = set_learning_rate(self.optimiser, share)
            self.step(batch)
            self.read(STEPS_BEHIND.get(self.accelerator.device.type, 0))
            if journal:
                journal.step()
            if checkpoint_steps and at.step % checkpoint_steps == 0 and at.step < self.steps:
                self.read()
                self.save()
        self.read()
        means = {name: total / self.steps for name, total in at.sums.items()}
        with distributed.raise_together():
            if journal:
                extra = after_epoch(at.epoch) if after_epoch else {}
                journal.epoch(at.epoch, means, rates, time.monotonic() - began, extra)
        self.at = _Position(at.epoch + 1)
        self.save()

    def step(self, batch: Batch) -> None:
        """Take one step, and leave its terms for `read`. Nothing here may wait for the device."""
        terms = self.objective(batch.to(self.accelerator.device))
        values = distributed.mean_over_processes(torch.stack([term.detach() for term in terms.values()]))
        self.asked.append(_Terms(terms, values, self.at.epoch, self.at.step))
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        if self.training.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.training.gradient_clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.at.step += 1

    def read(self, behind: int = 0) -> None:
        """Add the terms of the steps that were taken, all but the last `behind`, to the sums of the epoch."""
        while len(self.asked) > behind:
            step = self.asked.popleft()
            terms = step.read()
            _stop_if_not_finite(terms, step.epoch, step.step, self.run)
            self.at.sums = {name: self.at.sums.get(name, 0.0) + value for name, value in terms.items()}

    def save(self) -> None:
        """Write the checkpoint, in the main process. It holds the random states of all processes."""
        states = distributed.gather_objects(checkpoint.random_states())
        with distributed.raise_together():
            if self.accelerator.is_main_process:
                state = {
                    "model": self.model.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
                    "progress": {"epoch": self.at.epoch, "step": self.at.step, "sums": self.at.sums},
                    "random": states,
                }
                checkpoint.save(self.run.checkpoint, state)


class Rehearsal:
    """Steps of a training that nothing is kept of: to learn how long they take, and whether they work.

    Args:
        model, training, run, steps, accelerator: as in `train`. The run directory need not be there.
    """

    def __init__(self, model: nn.Module, training: Training, run: Run, *, steps: int, accelerator: Accelerator) -> None:
        self._loop = _prepared(model, training, run, steps, accelerator, None)

    def prepare(self, hook: str, pictures: Pictures) -> None:
        """Call the recipe's `before_training` or `before_epoch` with some pictures, if it has this method."""
        self._loop.pictures = pictures
        self._loop.prepare(hook)

    def steps(self, batches: Iterable[Batch]) -> Iterator[float]:
        """Take a step with each batch. Yields its seconds, loading included.

        Raises:
            BadInput: a term is not finite, or a picture cannot be read.
        """
        loop = self._loop
        loop.objective.train()
        began = time.monotonic()
        for batch in batches:
            share = loop.training.schedule.factor(0, 0, loop.steps, loop.training.epochs)
            set_learning_rate(loop.optimiser, share)
            loop.step(batch)
            loop.read()
            if loop.accelerator.device.type == "cuda":  # it has the terms long before the gradients
                torch.cuda.synchronize()
            yield time.monotonic() - began
            began = time.monotonic()


class _Objective(nn.Module):
    """A module whose forward pass is the objective. The wrappers for distribution and mixed precision need one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.model.objective(batch)  # type: ignore[operator]


def _prepared(
    model: nn.Module, training: Training, run: Run, steps: int, accelerator: Accelerator, pictures: Pictures | None
) -> _Loop:
    """The loop before its first step: normalisation, seeds, optimiser and wrappers are set up."""
    device_type, rank = accelerator.device.type, accelerator.process_index
    if device_type == "cpu":
        keep_freed_memory()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compile_trunk(model, training.compile, accelerator.device)
    if accelerator.num_processes > 1:
        distributed.synchronise_normalisation(model, device_type)
    if rank > 0:  # with equal seeds every process would drop the same units
        seed_everything(seed_of(training.seed, rank))
    fused = True if device_type == "cuda" else None
    optimiser = training.optimiser.build(model, model.new_parameters(), fused=fused)  # type: ignore[operator]
    objective, optimiser = accelerator.prepare(_Objective(model), optimiser)
    if isinstance(objective, nn.parallel.DistributedDataParallel):
        # Buffers are equal on every process anyway: normalisation is synchronised, and memories see the whole batch.
        objective.broadcast_buffers = False
    return _Loop(model, objective, optimiser, training, run, steps, accelerator, pictures)


def _stop_if_not_finite(terms: dict[str, float], epoch: int, step: int, run: Run) -> None:
    for name, value in terms.items():
        if not math.isfinite(value):
            kept = f"{run.checkpoint} holds the last good state" if run.checkpoint.exists() else "nothing was saved yet"
            raise distributed.SharedMistake(f"term '{name}' became {value} at epoch {epoch}, step {step}; {kept}")
