"""What every test shares. Small worlds and trained runs are made once a session."""

from __future__ import annotations

import os
from collections import Counter

# Before torch is imported: two test processes on two cores must not spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from tests.small import LAYOUTS, SECOND
from vireid.cli.main import main


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes, begin with the files that take long, so that none is left alone at the end.

    Long are those whose tests have a time limit of their own, and then those with many tests. It needs
    `--no-loadscope-reorder`, because pytest-xdist's own order goes by the number of tests only.
    """
    if not hasattr(config, "workerinput"):
        return
    limits: Counter[str] = Counter()
    for item in items:
        marked = item.get_closest_marker("timeout")
        file = item.nodeid.partition("::")[0]
        limits[file] = max(limits[file], marked.args[0] if marked else 0)
    tests = Counter(item.nodeid.partition("::")[0] for item in items)
    files = {file: place for place, file in enumerate(sorted(tests, key=lambda one: (-limits[one], -tests[one])))}
    items.sort(key=lambda item: files[item.nodeid.partition("::")[0]])


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
