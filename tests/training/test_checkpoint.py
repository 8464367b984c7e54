"""Checkpoints: written whole or not at all, read only if they hold nothing but data, in both formats."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.facts import DATA, some_facts
from tests.training.test_distributed import IDENTITIES, all_pictures, batch_of
from vireid.data.errors import BadInput
from vireid.model import load
from vireid.recipes import build, recipe
from vireid.training import checkpoint
from vireid.training.configuration import to_json, with_fields
from vireid.training.loop import accelerator_for, seed_everything, train
from vireid.training.run import Run, create, open_run


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


# --- format 1 ---------------------------------------------------------------------------------------------------------


def trained(path: Path, name: str, epochs: int, *, resume: bool = False) -> Run:
    """A small network of a recipe after some epochs of one step."""
    small = ("trunk=tiny", "weights=none", "size=64x32", "epochs=2")
    config = with_fields(recipe(name).PAPER, small)
    facts = some_facts(recipe=name, config=to_json(config), data=replace(DATA, identities=IDENTITIES))
    seed_everything(0)
    network = build(name, config, IDENTITIES, pretrained=True)
    run = open_run(path) if resume else create(path, facts)
    train(
        network,
        replace(config.training, epochs=epochs),
        run,
        lambda epoch, first: [batch_of(epoch, torch.float32)],
        steps=1,
        accelerator=accelerator_for("off"),
        pictures=lambda: all_pictures(torch.float32),
        resume=resume,
    )
    return run


def in_format_1(file: Path, name: str) -> dict[str, Any]:
    """Rewrite a checkpoint as the first version wrote it. Returns the weights under their new names."""
    state = torch.load(file, weights_only=True)
    new = state["model"]
    state["format"] = "vireid-checkpoint-1"
    state["model"] = {key.removeprefix("encoder."): value for key, value in new.items()}
    if name == "wrim_net":
        state["model"]["anchors_skipped"] = torch.tensor(0)
    for group in state["optimiser"]["param_groups"]:
        group["name"] = {"trunk": "backbone"}.get(group["name"], group["name"])
    torch.save(state, file)
    return new


@pytest.mark.parametrize("name", ["agw", "fusion_dml", "peca", "wrim_net"])  # the recipes that there were then
def test_a_checkpoint_of_format_1_loads_and_resumes_to_the_last_bit(tmp_path, name):
    straight = trained(tmp_path / "straight", name, 2)
    run = trained(tmp_path / "resumed", name, 1)
    weights = in_format_1(run.checkpoint, name)
    old = torch.load(run.checkpoint, weights_only=True)["model"]
    assert name not in ("agw", "peca") or {"stems.copies.visible.conv1.weight", "neck.bn.weight"} <= set(old)
    model = load(run.path)
    assert model.epochs == 1 and model.network.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.network.state_dict().items())
    trained(run.path, name, 2, resume=True)
    one, other = (torch.load(each.checkpoint, weights_only=True) for each in (run, straight))
    assert one["format"] == other["format"] == checkpoint.FORMAT == "vireid-checkpoint-2"
    assert one["model"].keys() == other["model"].keys() and one["progress"] == other["progress"]
    assert all(torch.equal(value, other["model"][key]) for key, value in one["model"].items())
    assert [group["name"] for group in one["optimiser"]["param_groups"]] == ["trunk", "new"]
    momenta = [list(state["optimiser"]["state"].values()) for state in (one, other)]
    assert momenta[0] and len(momenta[0]) == len(momenta[1])
    for ours, theirs in zip(*momenta, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs if theirs[key] is not None)


def test_a_best_checkpoint_of_format_1_needs_no_optimiser(tmp_path):
    run = trained(tmp_path / "run", "agw", 1)
    weights = in_format_1(run.checkpoint, "agw")
    state = torch.load(run.checkpoint, weights_only=True)
    torch.save({key: state[key] for key in ("format", "model", "progress")}, run.best)
    found = load(run.path, checkpoint="best").network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_a_checkpoint_of_format_2_is_not_renamed(tmp_path):
    """In format 2 a name without its prefix is a mistake."""
    run = trained(tmp_path / "run", "agw", 1)
    state = torch.load(run.checkpoint, weights_only=True)
    state["model"] = {key.removeprefix("encoder."): value for key, value in state["model"].items()}
    torch.save(state, run.checkpoint)
    with pytest.raises(BadInput, match="does not fit recipe 'agw'"):
        load(run.path)
