"""Several trainings at once, each in a process of its own, which share the processor cores and the GPUs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput
from vireid.experiments.trainings import Training
from vireid.training.progress import Progress, Quiet

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A training to carry out.

    Attributes:
        training: what is trained and tested.
        directory: the run directory.
        title: what it is called in messages.
        how: `workers`, `cache` and `command`.
    """

    training: Training
    directory: Path
    title: str
    how: Mapping[str, Any]

    def carry_out(self, progress: Progress) -> str | None:
        """Train and test, and measure single identities too.

        Returns:
            None, or why it stopped. The traceback of a fault of ours is shown, and does not stop the other trainings.
        """
        try:
            self.training.carry_out(self.directory, self.how, progress, breakdown=True)
        except BadInput as error:
            return str(error)
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            return f"{type(error).__name__}: {error}"
        return None


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
