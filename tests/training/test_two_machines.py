"""Two machines train, one is killed, both resume. Each machine is a network namespace; one cable connects them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import program, start, wait
from tests.training.test_killed import arguments, same

FIRST = "10.97.31.1"
PORT = 29531


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two namespaces that see only each other. The names of their network cards are the names of the namespaces."""
    if shutil.which("ip") is None:
        pytest.skip("two machines need `ip` (iproute2), which is not installed")
    names = [f"vireid{os.getpid() % 100000}{end}" for end in "ab"]
    made = ip("netns", "add", names[0])
    if made.returncode:
        pytest.skip(f"two machines need the right to make network namespaces (root): {made.stderr.strip()}")
    try:
        ip("netns", "add", names[1])
        cable = ("type", "veth", "peer", "name", names[1], "netns", names[1])
        if (laid := ip("link", "add", names[0], "netns", names[0], *cable)).returncode:
            pytest.skip(f"no virtual network cards here: {laid.stderr.strip()}")
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.97.31.{number}/24", "dev", name)
            for card in (name, "lo"):
                ip("-n", name, "link", "set", card, "up")
        yield names
    finally:
        for name in names:
            kill(name)
            ip("netns", "del", name)


def kill(machine: str) -> None:
    """Kill all processes of a machine, the launcher included, as a power cut does."""
    for process in ip("netns", "pids", machine).stdout.split():
        os.kill(int(process), signal.SIGKILL)


def launch(machines: list[str], commands: list[list[str]]) -> list[subprocess.Popen]:
    launched = []
    for rank, (machine, command) in enumerate(zip(machines, commands, strict=True)):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        there = ["--node-rank", str(rank), "--master-addr", FIRST, "--master-port", str(PORT)]
        whole = ["ip", "netns", "exec", machine, *torchrun, *there, "-m", "--", "vireid.cli.main", *command]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": machine, "OMP_NUM_THREADS": "1"}
        launched.append(
            subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        )
    return launched


@pytest.mark.slow
@pytest.mark.process
def test_two_machines_train_and_resume_and_the_second_needs_no_run_directory(machines, worlds, tmp_path):
    world, run, unseen = worlds["sysu-mm01"], tmp_path / "run", tmp_path / "unseen"
    commands = [arguments("peca", world, directory, workers=0) for directory in (run, unseen)]
    first, second = launch(machines, commands)
    wait_for(run / "last.pt", first)
    time.sleep(0.2)
    kill(machines[1])
    assert second.wait(timeout=60) != 0
    assert first.wait(timeout=120) != 0, "the first machine went on without the second"

    resumed = launch(machines, commands)
    errors = [process.communicate(timeout=240)[1] for process in resumed]
    assert [process.returncode for process in resumed] == [0, 0], "\n".join(errors)
    assert not unseen.exists()

    straight = arguments("peca", world, tmp_path / "straight", workers=0)
    assert wait(start(2, tmp_path / "said", program, straight)) == [0, 0]
    same(run, tmp_path / "straight")


def wait_for(file: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)
