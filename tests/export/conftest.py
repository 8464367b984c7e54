"""A run of each recipe, trained for a second, and what it was exported to. Each is made once, when it is first asked
for, because an export takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.small import SECOND
from vireid.cli.main import main
from vireid.experiments.export import ExportOptions, export

# What a recipe needs beside `SECOND` to be trained in a second.
MORE = {"wrim_net": ("contrast.top_k=2",)}


class Pair(NamedTuple):
    """A run, and the directory that it was exported to."""

    run: Path
    export: Path


@pytest.fixture(scope="session")
def exported(worlds, runs, tmp_path_factory) -> Callable[[str], Pair]:
    """The run and the ONNX export of a recipe, by its name."""

    @cache
    def made(recipe: str) -> Pair:
        folder = tmp_path_factory.mktemp(recipe)
        run = runs["sysu-mm01"] if recipe == "agw" else folder / "run"
        if recipe != "agw":
            given = ["train", recipe, "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--run", str(run), "--workers", "0"]
            assert main([*given, "--set", *SECOND, *MORE.get(recipe, ())]) == 0
        export(ExportOptions(run=run, out=folder / "onnx"))
        return Pair(run, folder / "onnx")

    return made


@pytest.fixture
def agw(exported) -> Pair:
    """The run and the ONNX export of AGW."""
    return exported("agw")


@pytest.fixture
def quick(agw, monkeypatch) -> Pair:
    """As `agw`. While a test uses it, further exports of this run take the ONNX files that are there already."""
    from vireid.data.modality import Modality
    from vireid.export import onnx

    def write(network, size, file) -> None:
        file.write_bytes((agw.export / f"{Modality(network.modality).word}.onnx").read_bytes())

    monkeypatch.setattr(onnx, "write", write)
    return agw
