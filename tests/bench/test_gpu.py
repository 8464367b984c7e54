"""`benchmarks/gpu.py`. Here it runs with tiny sizes on a processor; figures need a GPU."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from vireid import recipes
from vireid.bench.measure import Missing
from vireid.experiments.train import Plan

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, str(ROOT / "benchmarks" / "gpu.py")]
WITHOUT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
PARTS = {"peak", "step", "step and loader", "loader", "embedding", "evaluation", "two GPUs"}
FIELDS = {"part", "what", "seconds", "count", "unit", "peak_share", "memory", "note", "a_second"}


def ground(folder: Path, *, seconds: float = 600.0) -> gpu.Ground:
    return gpu.Ground(folder, quick=True, ends=time.monotonic() + seconds, gpu=False)


def read(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))["found"]


@pytest.mark.slow
@pytest.mark.process
def test_everything_runs_and_every_recipe_has_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    done = subprocess.run([*SCRIPT, "--quick", "--json", str(file)], capture_output=True, text=True, env=WITHOUT)
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["quick"] and written["hardware"] and written["versions"]["torch"] and written["gpu"] == {}
    found = written["found"]
    assert [one["note"] for one in found if not one["seconds"]] == []
    assert {one["part"] for one in found} == PARTS and all(set(one) == FIELDS for one in found)
    for part in ("step", "step and loader"):
        assert [one["what"].partition(",")[0] for one in found if one["part"] == part] == [*recipes.recipes()]
    assert all(one["peak_share"] > 0 and one["note"] == "" for one in found if one["part"] == "step")
    assert all(one["a_second"] > 0 for one in found)
    assert done.stdout.count("\n| ") == len(found) + 1
    assert done.stdout.index("measured in this run") < done.stdout.index("\n| ")


@pytest.mark.process
def test_without_a_gpu_it_ends_with_2_and_one_sentence() -> None:
    done = subprocess.run(SCRIPT, capture_output=True, text=True, env=WITHOUT)
    assert done.returncode == 2 and done.stdout == ""
    assert "no GPU" in done.stderr and "--quick" in done.stderr and done.stderr.count("\n") == 1


def test_a_part_that_fails_or_comes_too_late_is_named_and_the_others_are_measured(
    tmp_path, monkeypatch, capsys
) -> None:
    def fails(_ground):
        yield gpu.Found("first", "half of it", (1.0,), 8)
        raise RuntimeError("no such kernel\nand more")

    def too_large(_ground):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    def lacking(_ground):
        raise Missing("one GPU")
        yield

    def late(ground):
        ground.ends = 0.0
        yield gpu.Found("fourth", "one", (0.5, 0.25), 8)

    made = {"first": fails, "second": too_large, "third": lacking, "fourth": late, "fifth": fails}
    monkeypatch.setattr(gpu, "parts", lambda: made)
    assert gpu.main(["--quick", "--json", str(tmp_path / "gpu.json")]) == 0
    assert [(one["part"], one["a_second"], one["note"]) for one in read(tmp_path / "gpu.json")] == [
        ("first", 8.0, ""),
        ("first", None, "not measured: RuntimeError: no such kernel"),
        ("second", None, "not measured: the memory of the GPU is too small"),
        ("third", None, "not measured: one GPU"),
        ("fourth", 8 / 0.375, ""),
        ("fifth", None, "left out: no time"),
    ]
    assert "| fifth |  | – | – | – | – | left out: no time |" in capsys.readouterr().out


def test_a_run_that_is_stopped_keeps_what_it_found(tmp_path, monkeypatch) -> None:
    def stopped(_ground):
        yield gpu.Found("first", "one", (1.0,), 8)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "parts", lambda: {"first": stopped})
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--quick", "--json", str(tmp_path / "gpu.json")])
    assert [one["part"] for one in read(tmp_path / "gpu.json")] == ["first"]


def test_without_the_world_each_part_that_needs_it_says_so_and_the_others_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "write_world", lambda *_, **__: (_ for _ in ()).throw(OSError("the disk is full")))
    monkeypatch.setattr(gpu, "two_processes", lambda _ground: iter(()))
    said = {one.part: one.note for one in gpu.measured(ground(tmp_path))}
    assert said["world"] == "not measured: OSError: the disk is full"
    assert {said[f"step of {name}"] for name in recipes.recipes()} == {"not measured: the world was not written"}
    assert said["embedding"] == "not measured: the world was not written"
    assert said["evaluation"] == "on the processor"


def test_the_time_that_is_left_is_shared_and_a_part_ends_with_its_share(tmp_path, monkeypatch) -> None:
    shares = []

    def part(ground):
        shares.append(ground.until - time.monotonic())
        return iter(())

    monkeypatch.setattr(gpu, "parts", lambda: dict.fromkeys("abcd", part))
    here = ground(tmp_path, seconds=12000.0)
    assert list(gpu.measured(here)) == []
    assert shares == pytest.approx([3000.0, 4000.0, 6000.0, 12000.0], abs=60.0)
    here.until = 0.0
    assert len(here.rounds(lambda: None, 5)) == 1


def test_each_round_begins_and_ends_with_a_wait_for_the_gpu(tmp_path, monkeypatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(gpu.Ground, "wait", lambda self: done.append("wait"))
    seconds = ground(tmp_path).rounds(lambda: done.append("work"), 2, calls=2, warm_up=1)
    assert len(seconds) == 2
    assert done == ["work", *["wait", "work", "work", "wait"] * 2]


@pytest.mark.slow
def test_the_memory_of_a_recipe_is_free_again_before_the_next_one(tmp_path, monkeypatch) -> None:
    """Otherwise the next recipe's memory would hold two networks. Here without the collector's own turns."""
    made: list[weakref.ref] = []
    network = Plan.network

    def watched(self, *arguments, **how):
        made.append(weakref.ref(built := network(self, *arguments, **how)))
        return built

    monkeypatch.setattr(Plan, "network", watched)
    here = ground(tmp_path)
    gc.disable()
    try:
        assert [*gpu.world(here)] == []
        assert [one.part for one in gpu.kept_apart(here, "agw", lambda g: gpu.of_recipe(g, "agw"))] == [
            "step",
            "step and loader",
        ]
        here.fresh_memory()
        assert [one() for one in made] == [None]
    finally:
        gc.enable()


def test_a_step_whose_operations_cannot_be_counted_is_still_measured() -> None:
    class Uncounted:
        def steps(self, batches):
            raise AssertionError("an unknown kernel")
            yield

    assert gpu.operations_of(Uncounted(), None) == (None, "operations not counted: AssertionError: an unknown kernel")  # type: ignore[arg-type]


@pytest.mark.process
def test_the_launcher_is_asked_to_end_and_not_killed(tmp_path: Path) -> None:
    """torchrun's processes have sessions of their own: they would go on without it."""
    file = tmp_path / "ended"
    program = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(file)!r}).touch(), sys.exit(1)))\n"
        "time.sleep(60)"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.carry_out([sys.executable, "-c", program], 2.0)
    assert file.exists()


@pytest.mark.process
def test_what_fails_under_the_launcher_is_said_by_its_first_error() -> None:
    program = "import sys; sys.exit('a note\\nvireid: error: the memory is full\\n====')"
    with pytest.raises(RuntimeError, match=r"^vireid: error: the memory is full$"):
        gpu.carry_out([sys.executable, "-c", program], 30.0)


def test_the_table_says_which_card_and_which_versions() -> None:
    gib = 2**30
    card = {"name": "Card", "memory": 80 * gib, "driver": "550.1", "cuda": "12.8", "cudnn": 91000, "count": 2}
    first = gpu.heading(card, "2 cores").splitlines()[0]
    assert first == f"2 × Card, 80 GiB; driver 550.1, torch {torch.__version__}, CUDA 12.8, cuDNN 91000"
    assert gpu.Found("step", "one", (0.5, 0.25), 8, peak_share=0.414, memory=3 * gib).cells() == [
        *("step", "one", "21.33 pictures", "375 (250–500)", "41 %", "3.0 GiB", "")
    ]
