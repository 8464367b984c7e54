"""The training loop, from the first step to the last checkpoint, top to bottom.

It knows no data set, no paper and no protocol. A recipe gives named terms; the loop sums them, steps, and writes down.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.sampling import seed_of
from vireid.training import checkpoint, distributed
from vireid.training.journal import Journal
from vireid.training.memory import keep_freed_memory
from vireid.training.optim import set_learning_rate
from vireid.training.run import Run

PRECISION = {"off": "no", "bf16": "bf16", "fp16": "fp16"}


class Trainable(Protocol):
    """What the loop asks of the module that a recipe builds."""

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Named scalar terms; their sum is minimised."""
        ...

    def new_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the full rate (new layers: necks, classifiers)."""
        ...


class Settings(Protocol):
    """The fields of a recipe's configuration that the loop reads."""

    seed: int
    epochs: int
    identities_per_batch: int
    visible_per_identity: int
    infrared_per_identity: int
    precision: str
    gradient_clip: float | None
    optimiser: Any
    schedule: Any


class _Objective(nn.Module):
    """A module whose forward pass is the objective, so that wrappers for many processes and mixed precision see it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.model.objective(batch)  # type: ignore[operator]


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global streams; call it before building the network."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 third-party code may draw from the legacy global stream
    torch.manual_seed(seed)


def accelerator_for(precision: str) -> Accelerator:
    """The accelerator of this process.

    Raises:
        BadInput: half precision (fp16) asked for where there is no GPU.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise BadInput("precision 'fp16' needs a GPU; choices here: off, bf16")
    return Accelerator(cpu=distributed.on_cpu(), mixed_precision=PRECISION[precision])


def train(
    model: nn.Module,
    config: Settings,
    run: Run,
    batches: Callable[[int, int], Iterable[Batch]],
    *,
    steps: int,
    accelerator: Accelerator,
    pictures: Callable[[], Iterable[Batch]] | None = None,
    resume: bool = False,
    checkpoint_steps: int | None = None,
    after_epoch: Callable[[int], dict[str, Any]] | None = None,
) -> None:
    """Train `model` and leave a checkpoint in `run` after every epoch.

    Several processes call this together. They then take the steps that one process with all their rows would take:
    batch normalisation and gradients are the whole batch's. Only the main process reads and writes the run directory;
    the others may not even see it.

    Args:
        model: what a recipe built, with the same weights on every process; see `Trainable`. Where there are several
            processes its batch normalisations are exchanged for synchronised ones.
        config: the recipe's configuration; see `Settings`.
        run: the run directory, held by the main process.
        batches: (epoch, first step) → this process's batches of that epoch from that step on.
        steps: steps per epoch.
        accelerator: from `accelerator_for`.
        pictures: every training picture once, as at test time, for a recipe with a `before_training(pictures)` method
            (a memory that starts from the features of all pictures); called once, before the first step, by the main
            process.
        resume: continue from the run's last checkpoint, if it has one.
        checkpoint_steps: also save after every so many steps within an epoch.
        after_epoch: called with the epoch's number by the main process; what it returns is added to the epoch's log
            line.

    Raises:
        BadInput: a term is not finite (names it and the step; the last checkpoint is kept), the disk is full, or the
            checkpoint to resume from cannot be read.
    """
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if accelerator.num_processes > 1:
        distributed.synchronise_normalisation(model)
    if accelerator.process_index > 0:  # or every process would drop the same units
        seed_everything(seed_of(config.seed, accelerator.process_index))
    optimiser = config.optimiser.build(model, model.new_parameters())  # type: ignore[operator]
    objective, optimiser = accelerator.prepare(_Objective(model), optimiser)
    if isinstance(objective, nn.parallel.DistributedDataParallel):
        # Equal on every process without it: normalisation is synchronised and memories see the whole batch.
        objective.broadcast_buffers = False

    main = accelerator.is_main_process
    epoch, step, sums = _begin(model, optimiser, run, accelerator, pictures=pictures, resume=resume)

    def save(next_epoch: int, next_step: int, sums: dict[str, float]) -> None:
        states = distributed.gathered(checkpoint.random_states())  # one per process
        with distributed.agreed():
            if main:
                scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
                progress = {"epoch": next_epoch, "step": next_step, "sums": sums}
                parts = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "scaler": scaler}
                checkpoint.save(run.checkpoint, parts | {"progress": progress, "random": states})

    images = config.identities_per_batch * (config.visible_per_identity + config.infrared_per_identity)
    first = (epoch, step)
    journal = Journal(run, epochs=config.epochs, steps=steps, images=images, first=first) if main else None
    with journal or contextlib.nullcontext():
        while epoch < config.epochs:
            objective.train()
            began = time.monotonic()
            rates: dict[str, float] = {}
            for batch in distributed.in_step(batches(epoch, step)):
                rates = set_learning_rate(optimiser, config.schedule.factor(epoch, step, steps))
                terms = objective(batch.to(accelerator.device))
                values = distributed.mean_over_processes(torch.stack([term.detach() for term in terms.values()]))
                logged = dict(zip(terms, values.tolist(), strict=True))
                _stop_if_not_finite(logged, epoch, step, run)
                accelerator.backward(torch.stack(list(terms.values())).sum())
                if config.gradient_clip is not None:
                    accelerator.clip_grad_norm_(objective.parameters(), config.gradient_clip)
                optimiser.step()
                optimiser.zero_grad()

                step += 1
                sums = {name: sums.get(name, 0.0) + value for name, value in logged.items()}
                if journal:
                    journal.step(epoch)
                if checkpoint_steps and step % checkpoint_steps == 0 and step < steps:
                    save(epoch, step, sums)
            means = {name: total / steps for name, total in sums.items()}
            with distributed.agreed():
                if journal:
                    extra = after_epoch(epoch) if after_epoch else {}
                    journal.epoch(epoch, means, rates, time.monotonic() - began, extra)
            epoch, step, sums = epoch + 1, 0, {}
            save(epoch, step, sums)


Progress = tuple[int, int, dict[str, float]]


def _begin(
    model: nn.Module,
    optimiser: Any,
    run: Run,
    accelerator: Accelerator,
    *,
    pictures: Callable[[], Iterable[Batch]] | None,
    resume: bool,
) -> Progress:
    """Restore the last checkpoint where there is one, or fill the memories; the next epoch, next step and term sums."""
    state = None
    with distributed.agreed():
        if accelerator.is_main_process and resume and run.checkpoint.exists():
            state = checkpoint.load(run.checkpoint)
    state = distributed.from_main(state)
    with distributed.agreed():
        if state is not None:
            return _restore(state, run, model, optimiser, accelerator)
        if accelerator.is_main_process and hasattr(model, "before_training"):
            model.eval()
            with torch.no_grad():
                model.before_training(batch.to(accelerator.device) for batch in (pictures or tuple)())  # type: ignore[operator]
    distributed.buffers_from_main(model)
    return 0, 0, {}


def _restore(state: dict[str, Any], run: Run, model: nn.Module, optimiser: Any, accelerator: Accelerator) -> Progress:
    """Put everything back where a checkpoint left it."""
    states = state["random"]
    if len(states) != accelerator.num_processes:
        raise BadInput(
            f"{run.checkpoint} was written by {len(states)} process(es), this run has {accelerator.num_processes}; "
            "resume with the same number"
        )
    try:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{run.checkpoint} does not fit this run's recipe and configuration ({reason})") from error
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    checkpoint.set_random_states(states[accelerator.process_index])
    progress = state["progress"]
    return progress["epoch"], progress["step"], dict(progress["sums"])


def _stop_if_not_finite(terms: dict[str, float], epoch: int, step: int, run: Run) -> None:
    for name, value in terms.items():
        if not math.isfinite(value):
            kept = f"{run.checkpoint} holds the last good state" if run.checkpoint.exists() else "nothing was saved yet"
            raise distributed.Agreed(f"term '{name}' became {value} at epoch {epoch}, step {step}; {kept}")
