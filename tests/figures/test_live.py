"""Figures while a network is trained: the tracker has them, and the training does not know."""

from __future__ import annotations

import io
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vireid
from tests.processes import together
from tests.small import SECOND
from tests.training.test_journal import Listener
from vireid.cli.main import main
from vireid.experiments.train import TrainOptions, train
from vireid.figures.drawing import Figure, Look, canvas
from vireid.figures.live import DRAWINGS, Live, image
from vireid.figures.subject import Subject

LAYOUT = "sysu-mm01"


def embedded(subject: Subject) -> list[Figure]:
    """A figure of the features: the stand-in for a kind."""

    def draw(look: Look):
        made, axis = canvas(look, 1.5)
        axis.plot(subject.features[:, 0], "o")
        return made

    return [Figure("embedded", subject.says(), {"first": subject.features[:, 0]}, draw)]


def rude(subject: Subject) -> list[Figure]:
    """Changes whatever it can reach: the network, its gradients, hooks and modes, and the random numbers."""
    network = subject.model.network
    assert not network.training
    network.train()
    for one in network.parameters():
        one.data.zero_()
        one.grad = torch.ones_like(one)
        one.requires_grad_(False)
    for one in network.buffers():
        one.zero_()
    network.register_forward_hook(lambda *_: torch.zeros(1))
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 a figure may do this
    torch.manual_seed(5)
    return embedded(subject)


def broken(subject: Subject) -> list[Figure]:
    raise ZeroDivisionError("no people")


def asked(worlds: dict[str, Path], run: Path, **options) -> TrainOptions:
    every = {"validate_every": 1, "tracker": "tensorboard", "workers": 0, **options}
    two = [one for one in SECOND if "per_batch" not in one]  # identities that two processes can share
    return TrainOptions("agw", f"{LAYOUT}:{worlds[LAYOUT]}", run, set=(*two, "identities_per_batch=2"), **every)


def shown(run: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Tag → (step, image), as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard" / "vireid"), size_guidance={"images": 0})
    found.Reload()
    return {
        tag: [(one.step, np.asarray(Image.open(io.BytesIO(one.encoded_image_string)))) for one in found.Images(tag)]
        for tag in found.Tags()["images"]
    }


def test_the_tracker_has_the_figures_of_each_validation(worlds, tmp_path):
    kept: list[Subject] = []

    def keep(subject: Subject) -> list[Figure]:
        assert {"model", "features"} <= vars(subject).keys()  # nothing is loaded or embedded a second time
        kept.append(subject)
        return embedded(subject)

    train(asked(worlds, tmp_path / "run"), draw=Live(drawings={"kept": keep}))
    found = shown(tmp_path / "run")
    assert list(found) == ["figure/embedded"] and [step for step, _ in found["figure/embedded"]] == [0, 1]
    for subject, (_, drawn) in zip(kept, found["figure/embedded"], strict=True):
        assert np.array_equal(drawn, image(embedded(subject)[0]))
    assert not np.array_equal(*(drawn for _, drawn in found["figure/embedded"]))
    # What is drawn is what was measured: the validation's records, features and network.
    logged = [line["validation"]["map"] for line in kept[1].run.epochs()]
    assert [subject.evaluation.report.map for subject in kept] == pytest.approx(logged, abs=1e-6)
    assert set(kept[1].records.split) == {"val"}
    assert [subject.model.epochs for subject in kept] == [1, 2] and "2 epochs" in kept[1].says()
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(value, last[name]) for name, value in kept[1].model.network.state_dict().items())


def test_a_training_with_figures_ends_with_the_same_bits(worlds, tmp_path):
    """The checkpoint holds weights, optimiser, gradients' effects and the states of the random number generators."""
    train(asked(worlds, tmp_path / "without", tracker=None))
    told = Listener()
    train(asked(worlds, tmp_path / "with"), draw=Live(told, {"rude": rude}))
    assert len(shown(tmp_path / "with")["figure/embedded"]) == 2 and not told.said
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("without", "with"))
    same(one, other)


def same(one, other) -> None:
    """Nested dicts and lists of tensors, numbers and texts are equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        for first, second in zip(one, other, strict=True):
            same(first, second)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("door", [pytest.param("python", marks=pytest.mark.slow), "command line"])
def test_figures_come_through_both_doors_and_change_no_bit(door, worlds, tmp_path):
    plain = asked(worlds, tmp_path / "without", tracker=None)
    train(plain)
    run, source = tmp_path / "run", str(plain.data)
    if door == "python":
        how = {"tracker": "tensorboard", "validate_every": 1, "workers": 0}
        vireid.train("agw", data=source, run=run, set=dict(one.split("=") for one in plain.set), **how)
    else:
        tracked = ["--validate-every", "1", "--tracker", "tensorboard"]
        given = ["train", "agw", "--data", source, "--run", str(run), "--workers", "0", *tracked]
        assert main([*given, "--set", *plain.set]) == 0
    found = shown(run)
    assert {tag: [step for step, _ in own] for tag, own in found.items()} == {
        "figure/ranked-random": [0, 1],
        "figure/attention": [0, 1],
    }
    assert all(drawn.std() > 10 for own in found.values() for _, drawn in own)  # none is an empty canvas
    same(*(torch.load(path / "last.pt", weights_only=True) for path in (plain.run, run)))


def test_every_validation_shows_the_same_queries(worlds, tmp_path):
    queries: dict[str, list[list[str]]] = {"ranked": [], "attention": []}

    def keep(name: str):
        def draw(subject: Subject) -> list[Figure]:
            (figure,) = DRAWINGS[name](subject)
            found = figure.numbers
            queries[name].append(
                [one["query"] for one in found["lists"]] if name == "ranked" else found["pictures"][::2]
            )
            return [figure]

        return draw

    told = Listener()
    train(asked(worlds, tmp_path / "run"), draw=Live(told, {name: keep(name) for name in DRAWINGS}))
    assert not told.said
    for first, second in queries.values():
        assert first == second and len(set(first)) == len(first) > 1


def test_what_cannot_be_drawn_is_said_once_and_the_rest_goes_on(worlds, tmp_path):
    told = Listener()
    run = train(asked(worlds, tmp_path / "run"), draw=Live(told, {"broken": broken, "embedded": embedded}))
    assert told.said == ["the tracker gets no figure 'broken' from epoch 1 on: ZeroDivisionError: no people"]
    assert len(run.epochs()) == 2 and len(shown(run.path)["figure/embedded"]) == 2


def test_without_matplotlib_the_tracker_has_the_numbers_and_it_is_said_once(worlds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    told = Listener()
    run = train(asked(worlds, tmp_path / "run"), draw=Live(told, {"one": embedded, "other": embedded}))
    (said,) = told.said
    assert said.startswith("the tracker gets no figures: ") and said.endswith("pip install 'vireid[figures]'")
    assert len(run.epochs()) == 2 and shown(run.path) == {}


def test_a_tracker_that_takes_no_image_does_not_stop_the_training(worlds, tmp_path):
    def misshapen(seen):
        return {"flat": np.zeros(3, dtype=np.uint8)}

    told = Listener()
    run = train(asked(worlds, tmp_path / "run"), told, misshapen)
    complaints = [said for said in told.said if "the tracker failed" in said]
    assert [said.partition(":")[0] for said in complaints] == [
        f"the tracker failed at epoch {epoch}, and has no figures of it" for epoch in (1, 2)
    ]
    assert len(run.epochs()) == 2


@pytest.mark.parametrize("without", [{"tracker": None}, {"tracker_figures": False}], ids=str)
def test_nothing_is_drawn_without_a_tracker_or_where_it_is_not_wanted(without, worlds, tmp_path):
    told = Listener()
    run = train(asked(worlds, tmp_path / "run", **without), draw=Live(told, {"broken": broken}))
    assert len(run.epochs()) == 2 and not told.said
    assert not (run.path / "tensorboard").exists() or shown(run.path) == {}


def in_two_processes(worlds: dict[str, Path], folder: Path) -> None:
    rank = os.environ["RANK"]

    def mark(subject: Subject) -> list[Figure]:
        (folder / f"drawn-{rank}").touch()
        return embedded(subject)

    train(asked(worlds, folder / "run"), draw=Live(drawings={"mark": mark}))


@pytest.mark.process
def test_only_the_main_process_draws(worlds, tmp_path):
    together(2, tmp_path / "said", in_two_processes, worlds, tmp_path)
    assert sorted(file.name for file in tmp_path.glob("drawn-*")) == ["drawn-0"]
    assert len(shown(tmp_path / "run")["figure/embedded"]) == 2
