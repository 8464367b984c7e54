"""The loop: it resumes to the last bit, stops at a term that is not finite, and logs every epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.facts import some_facts
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.training import checkpoint, loop
from vireid.training.loop import accelerator_for, seed_everything, train
from vireid.training.optim import SGD, WarmUpSteps
from vireid.training.run import Run, create, open_run
from vireid.training.settings import Training

STEPS = 4
TRAINING = Training(
    epochs=3,
    size=Size(8, 8),
    identities_per_batch=2,
    visible_per_identity=2,
    infrared_per_identity=2,
    epoch_length=STEPS,
    optimiser=SGD(lr=0.05),
    schedule=WarmUpSteps(warm_up_epochs=2, milestones=(2,)),
)


class Network(nn.Module):
    """Batch statistics (normalisation) and a global random stream (dropout): both must come back on resume."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten())
        self.head = nn.LazyLinear(2)
        self.head(self.body(torch.zeros(2, 3, 8, 8)))
        self.poison: int | None = None
        self.done = 0

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.done += 1
        logits = self.head(self.body(batch.images))
        identity = nn.functional.cross_entropy(logits, batch.identity)
        noise = torch.rand((), generator=batch.generator())
        return {
            "identity": identity,
            "size": 0.01 * logits.square().mean() * (noise if self.done != self.poison else torch.nan),
        }

    def new_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())


class Remembering(Network):
    """A recipe with a memory, which it fills before training and at the start of each later epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(2))
        self.calls: list[str] = []

    def objective(self, batch: Batch) -> dict[str, torch.Tensor]:
        assert self.training
        terms = super().objective(batch)
        self.memory += terms["identity"].detach()
        return terms | {"memory": self.memory.sum() * terms["size"]}

    def before_training(self, pictures) -> None:
        self.fill("training", pictures)

    def before_epoch(self, pictures) -> None:
        self.fill("epoch", pictures)

    def fill(self, when: str, pictures) -> None:
        assert not self.training and not torch.is_grad_enabled()
        self.calls.append(f"{when} {self.done}")
        self.memory.copy_(torch.stack([self.head(self.body(batch.images)).mean(0) for batch in pictures]).mean(0))


def all_pictures():
    yield from batches(99, 0)


def batches(epoch: int, first: int):
    for step in range(first, STEPS):
        generator = torch.Generator().manual_seed(1000 * epoch + step)
        identity = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        images = torch.randn(8, 3, 8, 8, generator=generator) + identity.view(-1, 1, 1, 1)
        yield Batch(images, identity, torch.tensor([0, 0, 1, 1] * 2), identity, seed=1000 * epoch + step)


class Killed(Exception):
    """Stands for the process ending: nothing of the loop runs after it."""


def run_loop(path: Path, *, killed_at: tuple[int, int] | None = None, resume: bool = False, **options) -> Run:
    seed_everything(0)
    network = options.pop("network", None) or Network()
    training = options.pop("training", TRAINING)
    run = open_run(path) if resume and (path / "run.json").exists() else create(path, some_facts())

    def maybe_killed(epoch: int, first: int):
        for step, batch in enumerate(batches(epoch, first), start=first):
            if (epoch, step) == killed_at:
                raise Killed
            yield batch

    network.poison = options.pop("poison", None)
    accelerator = accelerator_for("off")
    train(network, training, run, maybe_killed, steps=STEPS, accelerator=accelerator, resume=resume, **options)
    return run


def states(run: Run):
    state = checkpoint.load(run.checkpoint)
    optimiser = [value["momentum_buffer"] for value in state["optimiser"]["state"].values()]
    return [*state["model"].values(), *optimiser], state["progress"], [line["terms"] for line in run.epochs()]


@pytest.mark.parametrize("killed_at", [(0, 2), (1, 0), (1, 3), (2, 3)])
@pytest.mark.parametrize("checkpoint_steps", [None, 1, 3])
def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path, killed_at, checkpoint_steps):
    straight = run_loop(tmp_path / "straight")
    with pytest.raises(Killed):
        run_loop(tmp_path / "resumed", killed_at=killed_at, checkpoint_steps=checkpoint_steps)
    resumed = run_loop(tmp_path / "resumed", resume=True, checkpoint_steps=checkpoint_steps)
    (ours, progress, lines), (theirs, their_progress, their_lines) = states(resumed), states(straight)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert progress == their_progress and lines == their_lines


def test_the_hooks_are_called_once_before_training_and_at_the_start_of_each_later_epoch(tmp_path):
    seed_everything(0)
    network = Remembering()
    run_loop(tmp_path / "run", network=network, pictures=all_pictures)
    assert network.calls == ["training 0", f"epoch {STEPS}", f"epoch {2 * STEPS}"]


@pytest.mark.parametrize("killed_at", [(0, 2), (1, 0), (1, 3), (2, 1)])
@pytest.mark.parametrize("checkpoint_steps", [None, 1])
def test_a_memory_that_is_filled_each_epoch_resumes_to_the_last_bit(tmp_path, killed_at, checkpoint_steps):
    def memory(path: Path, **options) -> tuple[Run, Remembering]:
        seed_everything(0)
        network = Remembering()
        return run_loop(path, network=network, pictures=all_pictures, **options), network

    straight, _ = memory(tmp_path / "straight")
    with pytest.raises(Killed):
        memory(tmp_path / "resumed", killed_at=killed_at, checkpoint_steps=checkpoint_steps)
    resumed, network = memory(tmp_path / "resumed", resume=True, checkpoint_steps=checkpoint_steps)
    (ours, *_), (theirs, *_) = states(resumed), states(straight)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    # Within an epoch the memory comes from the checkpoint; at the start of a later one it is filled again.
    within = checkpoint_steps is not None and killed_at[1] > 0
    first = killed_at[0] + 1 if within else max(1, killed_at[0])
    calls = [call.partition(" ")[0] for call in network.calls]
    begun_again = killed_at[0] == 0 and not within
    assert calls == ["training"] * begun_again + ["epoch"] * (TRAINING.epochs - first)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run = run_loop(tmp_path / "run")
    before = run.checkpoint.read_bytes()
    run_loop(tmp_path / "run", resume=True)
    assert run.checkpoint.read_bytes() == before


@pytest.mark.parametrize("behind", [0, 1])
@pytest.mark.parametrize(("poison", "where"), [(3, "epoch 1, step 2"), (4, "epoch 1, step 3")])
def test_a_term_that_is_not_finite_stops_the_run_by_name_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch, behind, poison, where
):
    """Also if terms are read one step later, as on a GPU, and even in the last step of an epoch."""
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", behind)
    with pytest.raises(BadInput, match=rf"term 'size' became nan at {where}; .*last good state"):
        run_loop(tmp_path / "run", poison=STEPS + poison, checkpoint_steps=poison)
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert state["progress"] == {"epoch": 1, "step": 0, "sums": {}}
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_terms_that_are_read_later_are_the_same(tmp_path, monkeypatch):
    """And a checkpoint within the epoch has the terms of all its steps."""
    straight = run_loop(tmp_path / "straight")
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", 1)
    with pytest.raises(Killed):
        run_loop(tmp_path / "later", killed_at=(1, 3), checkpoint_steps=1)
    assert states(run_loop(tmp_path / "later", resume=True))[1:] == states(straight)[1:]


def test_one_json_line_per_epoch_with_terms_rates_and_extras(tmp_path):
    run = run_loop(tmp_path / "run", after_epoch=lambda epoch: {"validation": epoch * 10})
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert [line["validation"] for line in lines] == [0, 10, 20]
    assert [line["lr"]["new"] for line in lines] == pytest.approx([0.025, 0.05, 0.005])
    assert all(set(line["terms"]) == {"identity", "size"} for line in lines)
    assert all(line["total"] == pytest.approx(sum(line["terms"].values()), abs=1e-5) for line in lines)
    assert all(line["images_per_second"] > 0 for line in lines)


def test_the_limit_of_warm_up_is_a_share_of_this_training(tmp_path):
    schedule = WarmUpSteps(warm_up_epochs=2, warm_up_at_most=0.34, milestones=(2,))
    run = run_loop(tmp_path / "run", training=replace(TRAINING, schedule=schedule))
    assert [line["lr"]["new"] for line in run.epochs()] == pytest.approx([0.05, 0.05, 0.005])


def test_terms_go_down_on_a_problem_that_can_be_learnt(tmp_path):
    later = WarmUpSteps(warm_up_epochs=0, milestones=(6,))
    run = run_loop(tmp_path / "run", training=replace(TRAINING, epochs=8, schedule=later))
    totals = [line["terms"]["identity"] for line in run.epochs()]
    assert totals[-1] < 0.5 * totals[0]


def test_clipping_bounds_the_step(tmp_path):
    """With a tiny largest norm and no momentum or decay, no weight can move further than lr × norm in a step."""
    plain = SGD(lr=0.05, trunk_factor=1.0, momentum=0.0, nesterov=False, weight_decay=0.0)
    training = replace(TRAINING, epochs=1, gradient_clip=1e-6, optimiser=plain)
    seed_everything(0)
    before = {key: value.clone() for key, value in Network().state_dict().items()}
    after = checkpoint.load(run_loop(tmp_path / "run", training=training).checkpoint)["model"]
    moved = max(float((after[k] - before[k]).abs().max()) for k in before if k.endswith(("weight", "bias")))
    assert 0 < moved <= STEPS * 0.05 * 1e-6 * 1.01


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run = run_loop(tmp_path / "run")
    state = checkpoint.load(run.checkpoint)
    state["model"]["head.weight"] = torch.zeros(3, 3)
    checkpoint.save(run.checkpoint, {key: value for key, value in state.items() if key != "format"})
    with pytest.raises(BadInput, match="does not fit this run's recipe"):
        run_loop(tmp_path / "run", resume=True)
