"""Large blocks are kept, so a process meets far fewer page faults; a full GPU is told in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.experiments.test import TestOptions
from vireid.experiments.test import test as measure
from vireid.experiments.train import TrainOptions, train
from vireid.recipes.agw import AGW
from vireid.synthesis.world import World, write_world

CODE = """
import resource, sys, torch
from vireid.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for step in range(30):
    if step == 20:  # by then the heap has grown to what is asked of it
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)  # 48 MB, more than what glibc keeps by itself at most
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.process
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_block_taken_again_is_not_mapped_in_again():
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 0.1 * faults("as it is")


def test_a_gpu_without_memory_left_is_told_in_one_sentence_with_what_to_change(tmp_path, monkeypatch):
    """torch's error, raised where it would be: in the objective of a training and in the embedding of a test."""

    def full(*_args, **_more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    world = tmp_path / "world"
    write_world(world, World(6, seed=3), layout="regdb", size=Size(32, 16), pictures=2, workers=1)
    small = {"trunk": "tiny", "weights": "none", "size": "32x16", "epochs": 1, "epoch_length": 1}
    small |= {"identities_per_batch": 2, "visible_per_identity": 2, "infrared_per_identity": 2}
    asked = TrainOptions("agw", f"regdb:{world}", tmp_path / "run", set=small, workers=0)
    with monkeypatch.context() as patched:
        patched.setattr(AGW, "objective", full)
        with pytest.raises(BadInput, match=r"GPU is full; .*--recompute.*precision=bf16.*identities_per_batch"):
            train(asked)
    train(asked)  # the directory is free, because nothing was saved
    monkeypatch.setattr(AGW, "embed", full)
    with pytest.raises(BadInput, match=r"GPU is full; .*--batch"):
        measure(TestOptions(tmp_path / "run", f"regdb:{world}", workers=0))
