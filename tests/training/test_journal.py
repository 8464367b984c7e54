"""The journal: the log, lines and a bar for a person, and experiment trackers."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
from accelerate.tracking import get_available_trackers

from tests.processes import together
from tests.training.facts import some_facts
from tests.training.test_loop import STEPS, TRAINING, Network, batches
from vireid.data.errors import BadInput
from vireid.training.journal import TRACKERS
from vireid.training.loop import accelerator_for, seed_everything, train
from vireid.training.progress import Quiet
from vireid.training.run import Run, create, open_run


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.bars: dict[str, list[tuple[int, int]]] = {}

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def bar(self, title: str):
        steps = self.bars.setdefault(title, [])
        yield lambda done, total: steps.append((done, total))


class Stopped(Exception):
    pass


def run_loop(path: Path, *, tracker=None, progress=Quiet(), stop_at=None, main=True, **options) -> Run:  # noqa: B008
    """Three epochs of four steps; `stop_at` (epoch, step) is where the process ends."""

    def until_stopped(epoch: int, first: int):
        for step, batch in enumerate(batches(epoch, first), start=first):
            if (epoch, step) == stop_at:
                raise Stopped
            yield batch

    seed_everything(0)
    accelerator = accelerator_for("off", tracker=tracker, folder=path)
    run = Run(path, some_facts())
    if main:
        run = open_run(path) if (path / "run.json").exists() else create(path, some_facts())
    with contextlib.suppress(Stopped):
        train(
            Network(),
            TRAINING,
            run,
            until_stopped,
            steps=STEPS,
            accelerator=accelerator,
            progress=progress,
            resume=True,
            **options,
        )
    return run


# --- for a person -----------------------------------------------------------------------------------------------------


def test_one_line_for_each_epoch_and_one_bar(tmp_path):
    told = Listener()
    run_loop(tmp_path / "run", progress=told)
    line = r"epoch   (\d)/3 · identity \d+\.\d{4} · size \d+\.\d{4} · lr [\d.]+ · [\d,]+ images/s · \d+:\d\d left"
    assert [re.fullmatch(line, said)[1] for said in told.said] == ["1", "2", "3"]
    assert told.said[-1].endswith("0:00 left")
    assert told.bars == {"training": [(done, 12) for done in range(13)]}


def test_a_resumed_run_goes_on_in_the_bar(tmp_path):
    run_loop(tmp_path / "run", stop_at=(1, 2))
    told = Listener()
    run_loop(tmp_path / "run", progress=told)
    assert told.bars == {"training": [(done, 12) for done in range(4, 13)]} and len(told.said) == 2


def test_nothing_is_printed_unless_asked(tmp_path, capfd):
    run_loop(tmp_path / "run")
    assert capfd.readouterr() == ("", "")


# --- trackers ---------------------------------------------------------------------------------------------------------


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalar → (step, value), as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard" / "vireid"))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def logged(run: Run) -> dict[str, list[tuple[int, float]]]:
    """The same from the run's own log."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in run.epochs():
        numbers = {f"term/{name}": value for name, value in line["terms"].items()}
        numbers |= {f"lr/{name}": value for name, value in line["lr"].items()}
        numbers |= {f"validation/{name}": v for name, v in line["validation"].items() if name != "on"}
        for name, value in numbers.items():
            found.setdefault(name, []).append((line["epoch"], pytest.approx(value, abs=1e-6)))
    return found


def validation(epoch: int) -> dict:
    return {"validation": {"on": "val", "map": 10.5 * epoch, "best_epoch": epoch + 1}}


def test_tensorboard_gets_every_number_of_the_log(tmp_path):
    run = run_loop(tmp_path / "run", tracker="tensorboard", after_epoch=validation)
    found = events(run.path)
    assert set(found) == {
        *("term/identity", "term/size", "lr/trunk", "lr/new"),
        *("validation/map", "validation/best_epoch"),
    }
    assert found == logged(run) and len(found["term/identity"]) == 3
    (settings,) = run.path.glob("tensorboard/vireid/*/hparams.yml")
    assert "optimiser.lr: 0.1" in settings.read_text() and "recipe: agw" in settings.read_text()


def test_a_resumed_run_keeps_its_earlier_events_and_shows_each_epoch_once(tmp_path):
    """It is resumed from the checkpoint after its first epoch, so the other two are logged twice."""
    saved = tmp_path / "saved.pt"

    def keep(epoch: int) -> dict:
        if epoch == 1:
            shutil.copy(tmp_path / "run" / "last.pt", saved)
        return validation(epoch)

    run = run_loop(tmp_path / "run", tracker="tensorboard", after_epoch=keep)
    first = events(run.path)
    shutil.copy(saved, run.checkpoint)
    later = lambda epoch: {"validation": {"on": "val", "map": 99.0, "best_epoch": 1}}  # noqa: E731
    run_loop(tmp_path / "run", tracker="tensorboard", after_epoch=later)
    assert len(list(run.path.glob("tensorboard/vireid/events*"))) == 2
    assert events(run.path) == logged(run)
    assert events(run.path)["validation/map"] == [(0, 0.0), (1, 99.0), (2, 99.0)]
    assert events(run.path)["term/identity"] == first["term/identity"]


def test_without_a_tracker_nothing_but_the_log_is_written(tmp_path):
    run = run_loop(tmp_path / "run")
    assert sorted(file.name for file in run.path.iterdir()) == ["last.pt", "log.jsonl", "run.json"]
    assert [json.loads(line)["epoch"] for line in run.log.read_text().splitlines()] == [0, 1, 2]


def test_an_unknown_tracker_is_one_sentence_with_the_choices():
    with pytest.raises(BadInput, match=r"unknown tracker 'tensorbord'; did you mean 'tensorboard'\? Choices: .*mlflow"):
        accelerator_for("off", tracker="tensorbord")


def test_a_tracker_that_is_not_installed_is_one_sentence_with_the_command():
    installed = [name for name in TRACKERS if name in {str(one) for one in get_available_trackers()}]
    assert "tensorboard" in installed
    for name in set(TRACKERS) - set(installed):
        with pytest.raises(BadInput) as refusal:
            accelerator_for("off", tracker=name)
        choices = ", ".join(installed)
        expected = f"tracker '{name}' is not installed: pip install {TRACKERS[name]}; choices here: {choices}"
        assert str(refusal.value) == expected


def test_a_tracker_that_cannot_begin_is_one_sentence(tmp_path):
    create(tmp_path / "run", some_facts())
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    with pytest.raises(BadInput, match="the tracker cannot begin: "):
        run_loop(tmp_path / "run", tracker="tensorboard")


def in_two_processes(folder: Path) -> None:
    import os

    rank = os.environ["RANK"]
    run_loop(folder / rank, tracker="tensorboard", after_epoch=validation, main=rank == "0")


@pytest.mark.process
def test_only_the_main_process_writes(tmp_path):
    together(2, tmp_path / "said", in_two_processes, tmp_path)
    assert events(tmp_path / "0") == logged(open_run(tmp_path / "0")) and not (tmp_path / "1").exists()
    assert [(tmp_path / "said" / f"rank{rank}" / "stderr").read_text() for rank in (0, 1)] == ["", ""]
