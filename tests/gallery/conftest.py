"""An index of a generated world, and a service of it, for the tests that want one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def built(worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index to copy: 24 visible and 12 infrared pictures of cameras 1 to 6."""
    from tests.gallery.station import station

    folder = tmp_path_factory.mktemp("built") / "index"
    station(folder, runs["sysu-mm01"], worlds["sysu-mm01"]).close()
    return folder


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """An index for one test."""
    return Path(shutil.copytree(built, tmp_path / "index"))


@pytest.fixture(scope="module")
def shared(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service for the tests of a file that leave it as it is, see `tests.gallery.served`."""
    from tests.gallery.served import served

    with served(Path(shutil.copytree(built, tmp_path_factory.mktemp("shared") / "index"))) as running:
        yield running


@pytest.fixture
def client(shared: Any) -> Iterator[Any]:
    """A client of it that checks what every response must have."""
    from tests.gallery.served import checked

    with checked(shared.client()) as one:
        yield one
