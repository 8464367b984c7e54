"""What a run writes during training: a JSON line for each epoch, an experiment tracker, and progress for a person."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from vireid.data.errors import BadInput, unknown
from vireid.data.stored import as_json, write_text
from vireid.training.progress import Progress
from vireid.training.run import Run

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}
"""The trackers that can be asked for, and the package that each needs."""


def check_tracker(name: str) -> None:
    """Check that a tracker can be used here.

    Raises:
        BadInput: it is unknown or not installed.
    """
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    installed = {str(one) for one in get_available_trackers()}
    if name not in installed:
        here = ", ".join(one for one in TRACKERS if one in installed) or "(none)"
        raise BadInput(f"tracker '{name}' is not installed: pip install {TRACKERS[name]}; choices here: {here}")


class Journal:
    """Writes the log of a run. Only the main process has one; it is used as a context manager.

    Args:
        run: the run directory.
        accelerator: from `vireid.training.loop.accelerator_for`; it knows the tracker, if there is one.
        progress: where lines and the bar are shown.
        epochs: number of epochs of the whole run.
        steps: steps in one epoch.
        images: images in one step, over all processes.
        first: (epoch, step) of the next step. Later epochs in an older log are removed: they are trained again.

    Raises (on entering):
        BadInput: the tracker cannot begin, for example because nobody is logged in.
    """

    def __init__(
        self,
        run: Run,
        accelerator: Accelerator,
        progress: Progress,
        *,
        epochs: int,
        steps: int,
        images: int,
        first: tuple[int, int],
    ) -> None:
        self.run, self.accelerator, self.progress = run, accelerator, progress
        self.epochs, self.steps, self.images, self.first_epoch = epochs, steps, images, first[0]
        self._done, self._total = first[0] * steps + first[1], epochs * steps
        self._done_before = self._done
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Journal:
        kept = [json.dumps(line) + "\n" for line in self.run.epochs() if line["epoch"] < self.first_epoch]
        write_text(self.run.log, "".join(kept))
        self._began = time.monotonic()
        with contextlib.ExitStack() as opened:
            self._begin_tracker()
            # Not `accelerator.end_training()`: it also closes the connections to the other processes.
            opened.callback(lambda: [tracker.finish() for tracker in self.accelerator.trackers])
            self._advance = opened.enter_context(self.progress.bar("training"))
            self._open = opened.pop_all()
        self._advance(self._done, self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def step(self) -> None:
        """Count one more step."""
        self._done += 1
        self._advance(self._done, self._total)

    def epoch(
        self, epoch: int, terms: dict[str, float], rates: dict[str, float], seconds: float, extra: dict[str, Any]
    ) -> None:
        """Write one line for a finished epoch.

        Args:
            epoch: counted from 0.
            terms: mean of each term over the steps of the epoch.
            rates: learning rate of each parameter group at the last step.
            seconds: wall time of the epoch, loading included.
            extra: what `after_epoch` returned.
        """
        speed = self.images * self.steps / max(seconds, 1e-9)
        line = {
            "epoch": epoch,
            "terms": {name: round(value, 6) for name, value in terms.items()},
            "total": round(sum(terms.values()), 6),
            "lr": {name: float(f"{rate:.9g}") for name, rate in rates.items()},
            "seconds": round(seconds, 3),
            "images_per_second": round(speed, 1),
            **extra,
        }
        with open(self.run.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
            log.flush()
            os.fsync(log.fileno())
        self._track(epoch, {"term": terms, "lr": rates, **extra})
        shown = " · ".join(f"{name} {value:.4f}" for name, value in terms.items())
        self.progress.say(
            f"epoch {epoch + 1:>3}/{self.epochs} · {shown} · lr {rates.get('new', max(rates.values())):.2g} · "
            f"{speed:,.0f} images/s · {_clock(self._seconds_left())} left"
        )

    def _seconds_left(self) -> float:
        taken = time.monotonic() - self._began
        return taken / max(self._done - self._done_before, 1) * (self._total - self._done)

    def _begin_tracker(self) -> None:
        """Start the tracker, if one was asked for.

        A resumed run continues its TensorBoard events and its W&B run. In MLflow it begins a new run.
        """
        facts = as_json(self.run.facts)
        identifier = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        name = self.run.path.resolve().name
        options = {
            # Events of epochs that are trained again are hidden; without it, TensorBoard would show them twice.
            "tensorboard": {"purge_step": self.first_epoch or None},
            "wandb": {"name": name, "dir": str(self.run.path), "id": identifier, "resume": "allow"},
            "mlflow": {"run_name": name},
        }
        try:
            self.accelerator.init_trackers("vireid", config=hyper_parameters(facts), init_kwargs=options)
        except Exception as error:  # each tracker has exceptions of its own
            raise BadInput(f"the tracker cannot begin: {_first_line(error)}") from error

    def _track(self, epoch: int, values: Mapping[str, Any]) -> None:
        """Send the numbers of an epoch to the tracker. A tracker that fails does not stop the training."""
        numbers = {name: value for name, value in flat(values, "/").items() if _is_number(value)}
        try:
            self.accelerator.log(numbers, step=epoch)
        except Exception as error:  # each tracker has exceptions of its own
            self.progress.say(f"the tracker failed at epoch {epoch + 1}, {self.run.log} has it: {_first_line(error)}")


def track_images(accelerator: Accelerator, images: Mapping[str, np.ndarray], epoch: int, progress: Progress) -> None:
    """Send images to the tracker, where they stand at their epoch. A tracker that fails does not stop the training.

    Args:
        accelerator: its tracker has begun.
        images: name → H×W×3 uint8.
        epoch: counted from 0.
        progress: where it is said that the tracker failed.
    """
    named = {f"figure/{name}": image for name, image in images.items()}
    for tracker in accelerator.trackers:
        try:
            _SEND[tracker.name](tracker, named, epoch)
        except Exception as error:  # each tracker has exceptions of its own
            progress.say(f"the tracker failed at epoch {epoch + 1}, and has no figures of it: {_first_line(error)}")


def _to_tensorboard(tracker: Any, images: Mapping[str, np.ndarray], epoch: int) -> None:
    tracker.log_images({name: image[None] for name, image in images.items()}, epoch, dataformats="NHWC")


def _to_wandb(tracker: Any, images: Mapping[str, np.ndarray], epoch: int) -> None:
    tracker.log_images({name: [image] for name, image in images.items()}, epoch)


def _to_mlflow(tracker: Any, images: Mapping[str, np.ndarray], epoch: int) -> None:
    import mlflow  # type: ignore[import-not-found]

    for name, image in images.items():
        mlflow.log_image(image, key=name, step=epoch)


_SEND = {"tensorboard": _to_tensorboard, "wandb": _to_wandb, "mlflow": _to_mlflow}


def hyper_parameters(facts: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The recipe, the data and the configuration as a flat mapping; trackers take no lists and no None.

    >>> hyper_parameters({"recipe": "agw", "row": None, "config": {"type": "Config", "optimiser": {"lr": 0.1}}})
    {'recipe': 'agw', 'row': 'null', 'type': 'Config', 'optimiser.lr': 0.1}
    """
    chosen = {name: facts[name] for name in ("recipe", "row", "data") if name in facts}
    values = flat({**chosen, **facts["config"]}, ".")
    return {
        name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for name, value in values.items()
    }


def flat(values: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Nested mappings as one mapping.

    >>> flat({"term": {"identity": 0.5}, "seconds": 3}, "/")
    {'term/identity': 0.5, 'seconds': 3}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value, separator) if isinstance(value, Mapping) else {"": value}
        found |= {f"{name}{separator}{key}" if key else name: one for key, one in inner.items()}
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
