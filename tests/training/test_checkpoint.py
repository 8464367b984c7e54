"""Checkpoints: whole or not at all, plain or not read."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from vireid.data.errors import BadInput
from vireid.training import checkpoint


def test_what_is_saved_is_read(tmp_path):
    state = {"model": {"w": torch.arange(5.0)}, "progress": {"epoch": 3, "sums": {"identity": 0.5}}}
    checkpoint.save(tmp_path / "last.pt", state)
    read = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(read["model"]["w"], state["model"]["w"]) and read["progress"] == state["progress"]
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.process
def test_a_full_disk_stops_with_a_sentence_and_keeps_the_last_checkpoint(tmp_path):
    """A real process whose files may not grow past 64 KiB: the write fails half-way, as on a full disk."""
    code = f"""
import resource, signal, sys, torch
from pathlib import Path
from vireid.training import checkpoint
path = Path({str(tmp_path / "last.pt")!r})
checkpoint.save(path, {{"value": torch.tensor(1)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    checkpoint.save(path, {{"value": torch.zeros(1_000_000)}})
except checkpoint.BadInput as sentence:
    print(sentence)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "cannot save checkpoint" in done.stdout and "is kept" in done.stdout
    assert checkpoint.load(tmp_path / "last.pt")["value"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


class Hostile:
    def __reduce__(self):
        return os.system, ("echo run > hostile-was-run",)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, write in {
        "torch.pt": lambda f: torch.save({"format": checkpoint.FORMAT, "model": Hostile()}, f),
        "plain.pt": lambda f: f.write(pickle.dumps({"format": checkpoint.FORMAT, "model": Hostile()})),
    }.items():
        with open(tmp_path / name, "wb") as file:
            write(file)
        with pytest.raises(BadInput, match="is not a vireid checkpoint"):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "hostile-was-run").exists()


@pytest.mark.parametrize("kept", [0, 10, 500, 0.5, 0.99])
def test_a_cut_file_is_one_sentence(tmp_path, kept):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": {"w": torch.randn(1000)}})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept >= 1 or kept == 0 else kept * len(data))])
    with pytest.raises(BadInput, match=r"last\.pt is not a vireid checkpoint") as refusal:
        checkpoint.load(path)
    assert "\n" not in str(refusal.value)


def test_somebody_elses_file_and_no_file(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "other.pt")
    with pytest.raises(BadInput, match="is not a vireid checkpoint"):
        checkpoint.load(tmp_path / "other.pt")
    with pytest.raises(BadInput, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint at all")
    with pytest.raises(BadInput, match="is not a vireid checkpoint"):
        checkpoint.load(tmp_path / "text.pt")


def test_random_states_come_back_through_a_file(tmp_path):
    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    checkpoint.save(tmp_path / "last.pt", {"random": [checkpoint.random_states()]})
    first = draws()
    assert draws() != first
    checkpoint.set_random_states(checkpoint.load(tmp_path / "last.pt")["random"][0])
    assert draws() == first
