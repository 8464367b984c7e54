"""Servers that the benchmark starts in other processes, on the loopback address."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vireid.bench.measure import Missing


@contextlib.contextmanager
def lite_server(folder: Path, *, seconds: float = 60) -> Iterator[int]:
    """milvus-lite's server on the loopback address, with its data in a folder: the port.

    Raises:
        Missing: it is not installed, or does not start.
    """
    beside = Path(sys.executable).with_name("milvus-lite")
    program = str(beside) if beside.exists() else shutil.which("milvus-lite")
    if program is None:
        raise Missing("there is no server: give one with --store milvus://host:port/name, or pip install milvus-lite")
    port = free_port()
    command = [program, "server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    log = folder.with_suffix(".log")
    with open(log, "ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        wait_for_port(port, process, seconds=seconds, name="milvus-lite's server", log=log)
        yield port
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """Ask a process to end; after 20 seconds, kill it."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen, *, seconds: float, name: str, log: Path) -> None:
    """Wait until a process that was started accepts connections.

    Raises:
        Missing: it ends before, or takes longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise Missing(f"{name} did not start: {last_words(log)}")
        time.sleep(0.1)


def last_words(log: Path) -> str:
    """The last line that a process wrote."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "it said nothing")


def free_port() -> int:
    """A port of the loopback address that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
