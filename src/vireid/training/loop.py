"""The training loop, from the first step to the last checkpoint, top to bottom.

It knows no data set, no paper and no protocol. A recipe gives named terms; the loop sums them, steps, and writes down.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.training import checkpoint
from vireid.training.journal import Journal
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
    return Accelerator(mixed_precision=PRECISION[precision])


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

    Args:
        model: what a recipe built; see `Trainable`.
        config: the recipe's configuration; see `Settings`.
        run: the run directory, held by this process.
        batches: (epoch, first step) → this process's batches of that epoch from that step on.
        steps: steps per epoch.
        accelerator: from `accelerator_for`.
        pictures: every training picture once, as at test time, for a recipe with a `before_training(pictures)` method
            (a memory that starts from the features of all pictures); called once, before the first step.
        resume: continue from the run's last checkpoint, if it has one.
        checkpoint_steps: also save after every so many steps within an epoch.
        after_epoch: called with the epoch's number; what it returns is added to the epoch's log line.

    Raises:
        BadInput: a term is not finite (names it and the step; the last checkpoint is kept), the disk is full, or the
            checkpoint to resume from cannot be read.
    """
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = config.optimiser.build(model, model.new_parameters())  # type: ignore[operator]
    objective, optimiser = accelerator.prepare(_Objective(model), optimiser)

    epoch, step, sums = 0, 0, {}
    if resume and run.checkpoint.exists():
        epoch, step, sums = _restore(run, model, optimiser, accelerator)

    elif hasattr(model, "before_training"):
        model.eval()
        with torch.no_grad():
            model.before_training(batch.to(accelerator.device) for batch in (pictures or tuple)())  # type: ignore[operator]

    def save(next_epoch: int, next_step: int, sums: dict[str, float]) -> None:
        states = gather_object([checkpoint.random_states()])  # one per process; a list of one when alone
        if accelerator.is_main_process:
            scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
            progress = {"epoch": next_epoch, "step": next_step, "sums": sums}
            parts = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "scaler": scaler}
            checkpoint.save(run.checkpoint, parts | {"progress": progress, "random": states})

    images = config.identities_per_batch * (config.visible_per_identity + config.infrared_per_identity)
    first = (epoch, step)
    journal = Journal(run, epochs=config.epochs, steps=steps, images=images, first=first)
    with journal:
        while epoch < config.epochs:
            objective.train()
            began = time.monotonic()
            rates: dict[str, float] = {}
            for batch in batches(epoch, step):
                rates = set_learning_rate(optimiser, config.schedule.factor(epoch, step, steps))
                terms = objective(batch.to(accelerator.device))
                _stop_if_not_finite(terms, epoch, step, run)
                accelerator.backward(torch.stack(list(terms.values())).sum())
                if config.gradient_clip is not None:
                    accelerator.clip_grad_norm_(objective.parameters(), config.gradient_clip)
                optimiser.step()
                optimiser.zero_grad()

                step += 1
                sums = {name: sums.get(name, 0.0) + float(term.detach()) for name, term in terms.items()}
                journal.step(epoch)
                if checkpoint_steps and step % checkpoint_steps == 0 and step < steps:
                    save(epoch, step, sums)
            means = {name: total / steps for name, total in sums.items()}
            extra = after_epoch(epoch) if after_epoch else {}
            journal.epoch(epoch, means, rates, time.monotonic() - began, extra)
            epoch, step, sums = epoch + 1, 0, {}
            save(epoch, step, sums)


def _restore(run: Run, model: nn.Module, optimiser: Any, accelerator: Accelerator) -> tuple[int, int, dict[str, float]]:
    """Put everything back where the last checkpoint left it; returns the next epoch, the next step, the term sums."""
    state = checkpoint.load(run.checkpoint, accelerator.device)
    try:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{run.checkpoint} does not fit this run's recipe and configuration ({reason})") from error
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    states = state["random"]
    if len(states) != accelerator.num_processes:
        raise BadInput(
            f"{run.checkpoint} was written by {len(states)} process(es), this run has {accelerator.num_processes}; "
            "resume with the same number"
        )
    checkpoint.set_random_states(states[accelerator.process_index])
    progress = state["progress"]
    return progress["epoch"], progress["step"], dict(progress["sums"])


def _stop_if_not_finite(terms: dict[str, torch.Tensor], epoch: int, step: int, run: Run) -> None:
    values = torch.stack([term.detach() for term in terms.values()])
    if not torch.isfinite(values).all():
        name, value = next((n, float(v)) for n, v in zip(terms, values, strict=True) if not torch.isfinite(v))
        kept = f"{run.checkpoint} holds the last good state" if run.checkpoint.exists() else "nothing was saved yet"
        raise BadInput(f"term '{name}' became {value} at epoch {epoch}, step {step}; {kept}")
