"""Several real processes that connect to each other as under a launcher, but start faster.

They are forked from a server that has imported everything once. Each is a process of its own and can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vireid.cli.main import main
from vireid.recipes import recipes
from vireid.training import distributed

_SERVER = multiprocessing.get_context("forkserver")
# The optimiser's first use imports torch._dynamo, which takes two seconds.
_HEAVY = ("torch._dynamo", "pydantic", "yaml", "fsspec")
_OURS = (
    *("tests.processes", "vireid.training.loop", "vireid.datasets", "vireid.experiments.train"),
    *(f"vireid.recipes.{one}" for one in recipes()),
)
_SERVER.set_forkserver_preload([*_HEAVY, *_OURS])

Processes = list[Any]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(world: int, folder: Path, target: Callable[..., Any], *arguments: Any) -> Processes:
    """Call `target(*arguments)` in `world` processes. What each prints and returns is written to files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    processes = []
    for rank in range(world):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if world > 1 else {}
        environment = {name: str(value) for name, value in {**places, **address}.items()} if world > 1 else {}
        processes.append(_SERVER.Process(target=_run, args=(environment, folder / f"rank{rank}", target, arguments)))
        processes[-1].start()
    return processes


def wait(processes: Processes, *, seconds: float = 120) -> list[int | None]:
    """The exit codes. None stands for a process that did not end in time and was killed."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def together(world: int, folder: Path, target: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `target(*arguments)` returns in each process. All processes must end with exit code 0."""
    codes = wait(start(world, folder, target, *arguments))
    assert codes == [0] * world, "\n".join(said(folder, rank) for rank in range(world))
    return [torch.load(folder / f"rank{rank}" / "result.pt", weights_only=False) for rank in range(world)]


def program(arguments: Sequence[str]) -> None:
    """Run the program `vireid` and exit with its code."""
    sys.exit(main(arguments))


def said(folder: Path, rank: int) -> str:
    """What a process wrote to its standard error."""
    return (folder / f"rank{rank}" / "stderr").read_text()


def _run(environment: dict[str, str], folder: Path, target: Callable[..., Any], arguments: tuple) -> None:
    os.environ.update(environment)
    folder.mkdir(exist_ok=True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(descriptor), "w", buffering=1) for descriptor in (1, 2))
    try:
        torch.save(target(*arguments), folder / "result.pt")
    except SystemExit:
        distributed.end()
        raise
    distributed.end()  # a forked process does not run the exit handlers of the interpreter
