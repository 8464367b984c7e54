"""Many trainings, one after another or several at once.

Those that are carried out at once are processes of their own, which share the processor cores and the GPUs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.experiments.measurement import Measurement
from vireid.experiments.trainings import Training, read_run, runs_below
from vireid.training.progress import Progress, Quiet
from vireid.training.run import Run

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A training to carry out.

    Attributes:
        training: what is trained and tested.
        directory: the run directory.
        title: what it is called in messages.
        how: `workers`, `cache` and `command`.
        breakdown: also measure single identities and cameras.
    """

    training: Training
    directory: Path
    title: str
    how: Mapping[str, Any]
    breakdown: bool = False

    def carry_out(self, progress: Progress) -> str | None:
        """Train and test.

        Returns:
            None, or why it stopped. The traceback of a fault of ours is shown, and does not stop the other trainings.
        """
        try:
            self.training.carry_out(self.directory, self.how, progress, breakdown=self.breakdown)
        except BadInput as error:
            return str(error)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            return f"{type(error).__name__}: {error}"
        return None


@dataclass
class Outcome:
    """What became of each training, by its key: the run and its measurements, or why it stopped."""

    done: dict[str, tuple[Run, list[Measurement]]]
    failed: dict[str, str]


def carry_out(
    recipe: str,
    trainings: Sequence[Training],
    titles: Mapping[str, str],
    below: Path,
    how: Mapping[str, Any],
    progress: Progress,
    *,
    at_once: int = 1,
    breakdown: bool = False,
) -> Outcome:
    """Carry out the trainings that are not there yet, and say what is planned, done and left.

    If one fails, the others are still carried out.

    Args:
        recipe: its name, for the message.
        trainings: what is carried out, in order.
        titles: key of a training → what it is called in messages.
        below: folder of the run directories. Runs that are there are used, whatever their directories are called.
        how: `workers`, `cache` and `command`.
        progress: where lines are shown, and bars if `at_once` is 1.
        at_once: how many at the same time, each in a process of its own.
        breakdown: also measure single identities and cameras.
    """
    runs = list(runs_below(below, progress.say))
    outcome = Outcome({one.key: found for one in trainings if (found := one.done(runs))}, {})
    jobs = [
        Job(one, one.place(runs, below), titles[one.key], how, breakdown)
        for one in trainings
        if one.key not in outcome.done
    ]
    progress.say(f"{recipe}: {counted(len(trainings), 'training')}, {len(outcome.done)} there already")
    finish(jobs, outcome, progress, at_once=at_once)
    return outcome


def finish(jobs: Sequence[Job], outcome: Outcome, progress: Progress, *, at_once: int) -> None:
    """Carry out jobs, and add what became of them to the outcome."""
    began = time.monotonic()
    ended = in_processes(jobs, at_once, progress) if at_once > 1 else _in_turn(jobs, progress)
    for place, (job, reason) in enumerate(ended, start=1):
        run = read_run(job.directory)
        found = job.training.done([run]) if run is not None and reason is None else None
        if found is not None:
            outcome.done[job.training.key] = found
        else:
            outcome.failed[job.training.key] = reason or f"{job.directory} lacks a measurement"
            progress.say(f"failed: {job.title}: {outcome.failed[job.training.key]}")
        if place < len(jobs):
            progress.say(time_left(time.monotonic() - began, place, len(jobs) - place))


def counted(count: int, word: str) -> str:
    """A number with its word.

    >>> counted(1, "row"), counted(3, "row")
    ('1 row', '3 rows')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def time_left(seconds: float, done: int, left: int) -> str:
    """How long the rest will take if it takes as long as what is done.

    >>> time_left(90.0, 1, 3)
    '1 done in 1.5 min; 3 left, about 4.5 min'
    """

    def words(value: float) -> str:
        return f"{value:.0f} s" if value < 60 else f"{value / 60:.1f} min" if value < 5400 else f"{value / 3600:.1f} h"

    return f"{done} done in {words(seconds)}; {left} left, about {words(seconds / done * left)}"


def _in_turn(jobs: Sequence[Job], progress: Progress) -> Iterator[tuple[Job, str | None]]:
    """One after another in this process, with bars."""
    for place, job in enumerate(jobs, start=1):
        progress.say(f"training {place} of {len(jobs)}: {job.title} → {job.directory}")
        yield job, job.carry_out(progress)


def in_processes(jobs: Sequence[Job], at_once: int, progress: Progress) -> Iterator[tuple[Job, str | None]]:
    """Carry out jobs, several at once. Each is yielded when it ends, with None or the reason why it stopped.

    A process that dies, for example because memory runs out, stops its own training only. If this process dies, the
    others end too, and their runs can be continued.

    Args:
        jobs: what to carry out, in order.
        at_once: how many at the same time.
        progress: where a line for each beginning is shown.
    """
    waiting, free = list(enumerate(jobs, start=1)), list(range(at_once))
    going: dict[int, _Going] = {}
    cores = [str(max(1, cores_to_use() // at_once))] * len(THREADS)
    try:
        while waiting or going:
            while waiting and free:
                place, job = waiting.pop(0)
                progress.say(f"training {place} of {len(jobs)}: {job.title} → {job.directory}")
                slot = free.pop(0)
                begun = _begin(job, slot, {**dict(zip(THREADS, cores, strict=True)), **gpu_of(slot)})
                going[begun.process.sentinel] = begun
            for sentinel in wait(list(going)):
                ended = going.pop(sentinel)  # type: ignore[call-overload]
                free.append(ended.slot)
                yield ended.job, ended.reason()
    finally:
        for one in going.values():
            one.process.terminate()
        for one in going.values():
            one.process.join()


def cores_to_use() -> int:
    """How many threads the trainings share: `OMP_NUM_THREADS` if it is set, otherwise the cores of this process."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    if text.isdecimal() and int(text):
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_of(slot: int) -> dict[str, str]:
    """The variable that shows one GPU to a process, so that the processes take the GPUs in turn. Empty for one GPU."""
    import torch

    count = torch.cuda.device_count()
    told = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = told or [str(number) for number in range(count)]
    return {"CUDA_VISIBLE_DEVICES": names[slot % len(names)]} if count > 1 else {}


@dataclass(frozen=True)
class _Going:
    """A process that carries out a job."""

    job: Job
    slot: int
    process: BaseProcess
    answer: Connection

    def reason(self) -> str | None:
        """Why the job stopped; None if it is done. Call it when the process has ended."""
        self.process.join()
        with self.answer:
            if self.answer.poll():
                with contextlib.suppress(EOFError):
                    return self.answer.recv()
        code = self.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {how}"


def _begin(job: Job, slot: int, variables: Mapping[str, str]) -> _Going:
    """Start a process that sees these environment variables."""
    from vireid import plugins

    # A forked process could not use a GPU, and would share the locks of this one.
    context = multiprocessing.get_context("spawn")
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_in_process, args=(job, plugins.files(), told), name=job.title)
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    told.close()
    return _Going(job, slot, process, answer)


def _in_process(job: Job, files: Sequence[Path], answer: Connection) -> None:
    """What the new process does."""
    from vireid import plugins

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for file in files:
            plugins.plugin(file)
        answer.send(job.carry_out(Quiet()))
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    """End this process when the one that started it ends, however that happens."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
