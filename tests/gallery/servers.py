"""Real servers for the tests: milvus-lite on the loopback address, and Milvus in a network namespace of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.processes import free_port

PROGRAMS = Path(sys.executable).parent
LITE = PROGRAMS / "milvus-lite"
MILVUS = PROGRAMS / "milvus-server"


@contextlib.contextmanager
def lite(folder: Path, port: int | None = None) -> Iterator[tuple[int, subprocess.Popen]]:
    """A milvus-lite server whose data lie in a folder: its port, and the process."""
    port = port or free_port()
    command = [LITE, "server", "--data-dir", folder, "--host", "127.0.0.1", "--port", str(port)]
    with _server(command, folder.with_suffix(".log"), port, seconds=60) as process:
        yield port, process


@contextlib.contextmanager
def milvus(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """A Milvus server. It listens on every address, so this refuses to start it where there is a network."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("Milvus is only started in a network namespace without a network")
    command = [MILVUS, "--data", folder, "--proxy-port", str(port)]
    with _server(command, folder.with_suffix(".log"), port, seconds=180) as process:
        yield process


def in_a_namespace(command: list[str | Path], *, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace that has the loopback address and nothing else.

    Its processes are in a namespace as well: none of them outlives the command.
    """
    inner = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    return subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", *inner],
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def has_namespaces() -> bool:
    """Whether this process may make network namespaces."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return in_a_namespace(["true"], seconds=20).returncode == 0


@contextlib.contextmanager
def _server(command: list, log: Path, port: int, *, seconds: float) -> Iterator[subprocess.Popen]:
    with open(log, "ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        _stop(process)


def kill(process: subprocess.Popen) -> None:
    """Kill a server, and what it has started: Milvus's program is a child of the process that was started here."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stop(process: subprocess.Popen) -> None:
    """Ask a server and what it has started to end; after 20 seconds, kill them."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            process.poll()  # else it stays as a zombie, and the group exists
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
