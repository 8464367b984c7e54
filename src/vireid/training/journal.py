"""What a run writes down while it goes: JSON lines, TensorBoard, a progress bar with time left."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vireid.training.run import Run, write_text


class Journal:
    """Keeps the log of one process's run; only the main process has one.

    Args:
        run: the run directory.
        epochs: how many epochs the run has in all.
        steps: steps per epoch.
        images: images per step, over all processes.
        first: (epoch, step) that comes next; later epochs in an older log are dropped, they are done again.
    """

    def __init__(self, run: Run, *, epochs: int, steps: int, images: int, first: tuple[int, int]) -> None:
        self.run, self.epochs, self.steps, self.images = run, epochs, steps, images
        self._keep_epochs_before(first[0])
        self._board = _tensorboard(run)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · left"),
            TimeRemainingColumn(),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=epochs * steps, completed=first[0] * steps + first[1])
        self._began, self._done_here = time.monotonic(), 0
        self._total_left = epochs * steps - first[0] * steps - first[1]

    def __enter__(self) -> Journal:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self, epoch: int) -> None:
        """One more step is done."""
        self._done_here += 1
        self._bar.update(self._task, advance=1, description=f"epoch {epoch + 1}/{self.epochs}")

    def epoch(
        self, epoch: int, terms: dict[str, float], rates: dict[str, float], seconds: float, extra: dict[str, Any]
    ) -> None:
        """Write one line for a finished epoch.

        Args:
            epoch: counted from 0.
            terms: mean of each term over the epoch's steps.
            rates: learning rate by parameter group, at the last step.
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
        if self._board is not None:
            for name, value in terms.items():
                self._board.add_scalar(f"term/{name}", value, epoch)
            for name, value in rates.items():
                self._board.add_scalar(f"lr/{name}", value, epoch)
        shown = " · ".join(f"{name} {value:.4f}" for name, value in terms.items())
        self._bar.console.print(
            f"epoch {epoch + 1:>3}/{self.epochs} · {shown} · lr {max(rates.values()):.2g} · "
            f"{speed:,.0f} images/s · {_clock(self._seconds_left())} left",
            highlight=False,
            soft_wrap=True,
        )

    def _seconds_left(self) -> float:
        taken = time.monotonic() - self._began
        return taken / max(self._done_here, 1) * (self._total_left - self._done_here)

    def _keep_epochs_before(self, epoch: int) -> None:
        kept = [json.dumps(line) + "\n" for line in self.run.epochs() if line["epoch"] < epoch]
        write_text(self.run.log, "".join(kept))


def _tensorboard(run: Run) -> Any:
    """A TensorBoard writer, or None where the package (extra `tensorboard`) is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.path / "tensorboard"))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
