"""What every test shares. Small worlds and trained runs are made once a session."""

from __future__ import annotations

import os

# Before torch is imported: two test processes on two cores must not spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from tests.small import LAYOUTS, SECOND
from vireid.cli.main import main


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small generated world in each published layout, by layout."""
    from vireid.data.size import Size
    from vireid.synthesis.world import World, write_world

    found = {}
    for layout in LAYOUTS:
        found[layout] = tmp_path_factory.mktemp("world") / layout
        write_world(found[layout], World(12, seed=1), layout=layout, size=Size(64, 32), pictures=3, workers=1)
    return found


@pytest.fixture(scope="session")
def runs(worlds: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """AGW, trained for a second on each of the worlds through the command line, by layout."""
    found = {}
    for layout, world in worlds.items():
        found[layout] = tmp_path_factory.mktemp("run") / layout
        arguments = ["train", "agw", "--data", f"{layout}:{world}", "--run", str(found[layout]), "--workers", "0"]
        assert main([*arguments, "--set", *SECOND]) == 0
    return found
