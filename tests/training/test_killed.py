"""Killed three times at random moments, also during the writing of a checkpoint, a run ends as if never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.processes import free_port, program, said, start, wait
from tests.small import SECOND
from tests.training.facts import some_facts
from vireid.recipes import recipes
from vireid.training import checkpoint
from vireid.training.run import Run, create, open_run

KILLS = 3
# 12 steps with a checkpoint after each. PECA's memory and random draws must be restored as well.
SETS = (*SECOND, "identities_per_batch=4", "epochs=3", "epoch_length=4")
OWN = {"wrim_net": ("contrast.top_k=2",)}  # a step has two positives in the other modality


def arguments(recipe: str, world: Path, run: Path, *, workers: int) -> list[str]:
    given = ["train", recipe, "--data", f"sysu-mm01:{world}", "--run", str(run), "--workers", str(workers)]
    return [*given, "--resume", "--checkpoint-steps", "1", "--set", *SETS, *OWN.get(recipe, ())]


def left(run: Path) -> dict[str, torch.Tensor]:
    """All that a run leaves, in one flat dictionary: weights, optimiser, random states, progress, logged terms."""
    found: dict[str, torch.Tensor] = {}

    def flatten(name: str, value) -> None:
        if isinstance(value, dict):
            for key in value:
                flatten(f"{name}/{key}", value[key])
        elif isinstance(value, (list, tuple)):
            for place, item in enumerate(value):
                flatten(f"{name}/{place}", item)
        else:
            found[name] = value

    flatten("", checkpoint.load(run / "last.pt"))
    for line in open_run(run).epochs():
        flatten(f"epoch{line['epoch']}", {"terms": line["terms"], "lr": line["lr"]})
    return found


def same(one: Path, other: Path) -> None:
    ours, theirs = left(one), left(other)
    assert ours.keys() == theirs.keys()
    different = [
        name
        for name, value in ours.items()
        if not (torch.equal(value, theirs[name]) if torch.is_tensor(value) else value == theirs[name])
    ]
    assert not different and any(name.startswith("/optimiser/state") for name in ours)


def wait_for_moment(run: Path, draw: random.Random, alive: Callable[[], bool]) -> None:
    """Wait for one to four more checkpoints, and then either a moment, or until the next one is being written."""
    last, unfinished = run / "last.pt", run / "last.pt.unfinished"
    wanted, writing, delay = draw.randint(1, 4), draw.random() < 0.5, draw.uniform(0, 0.1)
    seen, deadline = _version(last), time.monotonic() + 120
    while wanted and alive() and time.monotonic() < deadline:
        if _version(last) != seen:
            seen, wanted = _version(last), wanted - 1
        time.sleep(0.0005)
    if not writing:
        time.sleep(delay)
        return
    while alive() and not unfinished.exists() and time.monotonic() < deadline:
        pass


def _version(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None


@pytest.mark.slow
@pytest.mark.process
def test_the_program_killed_three_times_ends_with_the_same_bits(worlds, tmp_path):
    """Started and resumed from a shell, with a loading worker that lives a moment longer than the program."""
    draw = random.Random(0)
    vireid = [sys.executable, "-m", "vireid.cli.main"]
    killed = [*vireid, *arguments("agw", worlds["sysu-mm01"], tmp_path / "killed", workers=1)]
    for _ in range(KILLS):
        process = subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_for_moment(tmp_path / "killed", draw, lambda p=process: p.poll() is None)
        assert process.poll() is None, f"it ended before it was killed: {process.communicate()[1]}"
        process.kill()
        process.wait()
    done = subprocess.run(killed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    straight = arguments("agw", worlds["sysu-mm01"], tmp_path / "straight", workers=0)
    assert wait(start(1, tmp_path / "said", program, straight)) == [0]
    same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.process
@pytest.mark.parametrize(
    ("recipe", "world"),
    [
        ("peca", 1),
        *(pytest.param(name, 2, marks=pytest.mark.slow) for name in recipes()),
    ],
)
def test_processes_killed_three_times_end_with_the_same_bits(worlds, tmp_path, recipe, world):
    """One of two processes is killed, either of them. The other must end by itself, without the help of a launcher."""
    draw = random.Random(f"{recipe}{world}")
    given = arguments(recipe, worlds["sysu-mm01"], tmp_path / "killed", workers=0)
    for _ in range(KILLS):
        processes = start(world, tmp_path / "said", program, given)
        victim = processes[draw.randrange(world)]
        wait_for_moment(tmp_path / "killed", draw, victim.is_alive)
        assert victim.is_alive(), said(tmp_path / "said", 0)
        victim.kill()
        codes = wait(processes)
        assert None not in codes, "a process went on waiting for the one that was killed"
    assert wait(start(world, tmp_path / "said", program, given)) == [0] * world, said(tmp_path / "said", 0)
    straight = arguments(recipe, worlds["sysu-mm01"], tmp_path / "straight", workers=0)
    assert wait(start(world, tmp_path / "said", program, straight)) == [0] * world
    same(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.process
def test_torchrun_starts_a_run_again_whose_process_was_killed(worlds, tmp_path):
    """`--max-restarts` with `--resume`: one process is killed, and the launcher starts both again by itself.

    Without the variable, torch's processes of the second attempt read addresses of the first one, and wait for ever
    (pytorch issue 135712).
    """
    given = arguments("agw", worlds["sysu-mm01"], tmp_path / "killed", workers=0)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    there = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{free_port()}", "-m", "--", "vireid.cli.main"]
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    log = tmp_path / "said.txt"
    with log.open("w") as stream:
        run = subprocess.Popen([*launcher, *there, *given], stdout=stream, stderr=stream, env=environment)
        try:
            deadline = time.monotonic() + 120
            while not (workers := children(run.pid)) or not (tmp_path / "killed" / "last.pt").exists():
                assert run.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            os.kill(workers[-1], signal.SIGKILL)
            assert run.wait(timeout=120) == 0, log.read_text()
        finally:
            for worker in children(run.pid):
                os.kill(worker, signal.SIGKILL)
            run.kill()
            run.wait()
    assert "failed (exitcode: " in log.read_text()  # of the process that was killed, or of the one that lost it
    straight = arguments("agw", worlds["sysu-mm01"], tmp_path / "straight", workers=0)
    assert wait(start(2, tmp_path / "said", program, straight)) == [0, 0]
    same(tmp_path / "killed", tmp_path / "straight")


def children(process: int) -> list[int]:
    """The processes of vireid that a launcher has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"vireid.cli.main" in folder.joinpath("cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return sorted(found)


def test_a_run_that_was_killed_while_it_began_begins_again(tmp_path):
    facts = some_facts()
    (tmp_path / "run").mkdir()
    for name in (".lock", "run.json.unfinished"):
        (tmp_path / "run" / name).write_text("{")
    assert open_run(create(tmp_path / "run", facts).path) == Run(tmp_path / "run", facts)
