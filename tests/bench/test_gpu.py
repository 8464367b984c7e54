"""`benchmarks/gpu.py`. Here it runs with tiny sizes on a processor; figures need a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from vireid import recipes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
WITHOUT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.process
def test_everything_runs_and_every_recipe_has_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    done = subprocess.run([*SCRIPT, "--quick", "--json", str(file)], capture_output=True, text=True, env=WITHOUT)
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["quick"] and written["hardware"] and written["versions"]["torch"]
    found = written["found"]
    assert [one["what"] for one in found if not one["seconds"]] == []
    assert {one["part"] for one in found} == {"peak", "step", "step and loader", "embedding", "evaluation", "two GPUs"}
    for part in ("step", "step and loader"):
        assert {one["what"].partition(",")[0] for one in found if one["part"] == part} == set(recipes.recipes())
    assert all(0 < one["peak_share"] < 1 for one in found if one["part"] == "step")
    assert all(one["a_second"] > 0 for one in found)
    assert done.stdout.count("\n| ") == len(found) + 1


@pytest.mark.process
def test_without_a_gpu_it_ends_with_2_and_one_sentence() -> None:
    done = subprocess.run(SCRIPT, capture_output=True, text=True, env=WITHOUT)
    assert done.returncode == 2 and done.stdout == ""
    assert "no GPU" in done.stderr and "--quick" in done.stderr and done.stderr.count("\n") == 1


def test_a_part_that_fails_or_comes_too_late_is_named_and_the_others_are_measured(
    tmp_path, monkeypatch, capsys
) -> None:
    def fails(_ground):
        yield gpu.Found("second", "half of it", (1.0,), 8)
        raise RuntimeError("no such kernel\nand more")

    def late(ground):
        ground.ends = 0.0
        yield gpu.Found("third", "one", (0.5, 0.25), 8)

    monkeypatch.setattr(gpu, "PARTS", {"second": fails, "third": late, "fourth": fails})
    assert gpu.main(["--quick", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["found"]
    assert [(one["part"], one["a_second"], one["note"]) for one in found] == [
        ("second", 8.0, ""),
        ("second", None, "RuntimeError: no such kernel"),
        ("third", 8 / 0.375, ""),
        ("fourth", None, "no time was left"),
    ]
    assert "| fourth |  | – | – | – | – | not measured: no time was left |" in capsys.readouterr().out
