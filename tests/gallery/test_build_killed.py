"""A builder is killed at any moment; the next one goes on, and the index is that of an undisturbed build."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.gallery.cameras import built, everything, save, station, write
from vireid.gallery.store import open as open_store
from vireid.gallery.stores.embedded import DATABASE

pytestmark = pytest.mark.process


def started(index: Path, run: Path, cameras: Path, folder: Path) -> processes.Processes:
    options = ["--model", str(run), str(cameras), "--batch", "2", "--workers", "1"]
    return processes.start(1, folder, processes.program, ["gallery", "build", str(index), *options])


def wait_until(reached: Callable[[], bool], process: Any) -> None:
    """Until something is so, or the process has ended."""
    deadline = time.monotonic() + 120
    while process.is_alive() and time.monotonic() < deadline and not reached():
        time.sleep(0.02)


def kill(process: Any) -> None:
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.rare)])
def test_a_killed_builder_loses_nothing(kills: int, runs: dict[str, Path], tmp_path: Path) -> None:
    run, cameras = runs["sysu-mm01"], station(tmp_path / "station", visible=120, infrared=80)
    write(cameras / "visible/gate/bad.jpg", b"bad")
    straight, index = tmp_path / "straight", tmp_path / "index"
    built(straight, run, cameras, batch=2)
    drawn, seen = random.Random(kills), 0
    for number in range(kills):
        (process,) = started(index, run, cameras, tmp_path / f"log{number}")
        wait_until((index / DATABASE).exists, process)
        with open_store(index) as store:
            assert store.count() >= seen, "acknowledged rows were lost"
            # At a random number of rows of those that are left for this attempt, and a random moment after it.
            goal = seen + drawn.uniform(0, 1.5 * (200 - seen) / (kills - number))
            wait_until(lambda store=store, goal=goal: store.count() >= goal, process)
            time.sleep(drawn.uniform(0, 0.1))
            kill(process)
            seen = store.count()
    found = built(index, run, cameras, batch=2)
    assert found.listed == 201 and found.visible + found.infrared == 200
    assert everything(index) == everything(straight)


@pytest.mark.slow
def test_a_killed_builder_of_changed_pictures_leaves_old_or_new_rows(runs: dict[str, Path], tmp_path: Path) -> None:
    run, cameras, index = runs["sysu-mm01"], station(tmp_path / "station", visible=60, infrared=0), tmp_path / "index"
    built(index, run, cameras, batch=2)
    before = everything(index)
    for number in range(60):
        save(cameras / "visible" / ("gate" if number % 2 else "yard") / f"{number:03d}.jpg", 500 + number, time=1.71e9)
    (process,) = started(index, run, cameras, tmp_path / "killed")
    with open_store(index) as store:
        wait_until(lambda: store.facts().dead >= 20, process)
        kill(process)
    middle = everything(index)
    assert 0 < sum(middle[id] != before[id] for id in before) < 60
    found = built(index, run, cameras, batch=2)
    after = everything(index)
    assert before.keys() == middle.keys() == after.keys() and 0 < found.embedded < 60
    assert all(middle[id] in (before[id], after[id]) and before[id] != after[id] for id in middle)
