"""Which run is which training, and which measurements of it count."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.small import SECOND
from vireid.data.protocol import default_protocols
from vireid.data.size import Size
from vireid.experiments.test import TestOptions, test
from vireid.experiments.train import TrainOptions, train
from vireid.experiments.trainings import Pictures, Training, distinct
from vireid.recipes import agw
from vireid.synthesis.world import World, write_world
from vireid.training.configuration import to_json, with_fields
from vireid.training.run import open_run

PROTOCOLS = tuple(default_protocols("sysu-mm01"))


def training(data: str, *given: str, protocols=PROTOCOLS) -> Training:
    config = to_json(with_fields(agw.PAPER, [*SECOND, *given]))
    return Training("agw", None, (*SECOND, *given), config, Pictures.of(data, 1), protocols)


@pytest.fixture
def asked(worlds) -> Training:
    return training(f"sysu-mm01:{worlds['sysu-mm01']}")


@pytest.fixture
def run(runs, worlds, tmp_path):
    """A copy of the trained run, measured by every protocol."""
    shutil.copytree(runs["sysu-mm01"], tmp_path / "runs" / "mine", ignore=shutil.ignore_patterns("reports"))
    test(TestOptions(tmp_path / "runs" / "mine", f"sysu-mm01:{worlds['sysu-mm01']}", workers=0))
    return open_run(tmp_path / "runs" / "mine")


def test_a_run_is_found_by_what_it_says_and_not_by_its_name(asked, run, worlds, tmp_path):
    assert asked.fits(run)
    found, measured = asked.done([run])
    assert found is run and asked.place([run], tmp_path / "runs") == run.path
    assert [one.report.protocol for one in measured] == list(PROTOCOLS)
    for other in (
        training(f"sysu-mm01:{worlds['sysu-mm01']}", "seed=1"),
        training(f"sysu-mm01:{worlds['sysu-mm01']}", "epochs=3"),
        training(f"llcm:{worlds['llcm']}"),
    ):
        assert not other.fits(run)
        assert other.done([run]) is None
        assert other.place([run], tmp_path / "runs") == other.directory(tmp_path / "runs") != run.path


def test_pictures_decide(asked, run, tmp_path):
    write_world(tmp_path / "world", World(12, seed=2), layout="sysu-mm01", size=Size(64, 32), pictures=3, workers=1)
    other = training(f"sysu-mm01:{tmp_path / 'world'}")
    assert other.config == asked.config and not other.fits(run)
    # Both are called the same. The second one to come gets a name of its own.
    usual = asked.directory(tmp_path / "new")
    assert other.directory(tmp_path / "new") == usual
    shutil.copytree(run.path, usual)
    assert asked.directory(tmp_path / "new") == usual
    assert other.directory(tmp_path / "new") == usual.with_name(f"{usual.name}-{other.pictures.trained}")


CHANGES = {
    "of fewer epochs": lambda stored: stored["measured"].update(epochs=1),
    "on other pictures": lambda stored: stored["measured"].update(fingerprint="other"),
    "of another embedding": lambda stored: stored["measured"].update(embedding="pooled"),
    "of a network that is not trained": lambda stored: stored["measured"].update(untrained=True),
    "that is cut short": None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_measurement_that_is_not_the_trainings_is_made_again(change, asked, run):
    assert asked.measured(run) is not None
    file = run.reports / "sysu-mm01-indoor-multi.json"
    text = file.read_text()
    if (made := CHANGES[change]) is None:
        file.write_text(text[: len(text) // 2])
    else:
        stored = json.loads(text)
        made(stored)
        file.write_text(json.dumps(stored))
    assert asked.measured(run) is None
    assert training(asked.pictures.data, protocols=PROTOCOLS[:1]).measured(run) is not None


def test_a_run_that_was_validated_is_used_when_finished_but_not_continued(worlds, tmp_path):
    data, directory = f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "mine"
    validated = TrainOptions("agw", data, directory, set=SECOND, workers=0, validate_every=1, validate_on="test")
    run = train(validated)
    asked = training(data, protocols=PROTOCOLS[:1])
    assert asked.fits(run)
    assert asked.done([run]) is None and asked.place([run], tmp_path) == asked.directory(tmp_path)
    test(TestOptions(directory, data, protocols=PROTOCOLS[:1], workers=0))
    found, measured = asked.done([open_run(directory)])
    assert found.path == directory and [one.report.protocol for one in measured] == list(PROTOCOLS[:1])


def test_equal_trainings_are_one_with_all_protocols(asked):
    first, second = (training(asked.pictures.data, protocols=(name,)) for name in PROTOCOLS[:2])
    other = training(asked.pictures.data, "seed=1", protocols=PROTOCOLS[:1])
    joined = distinct([first, other, second, first])
    assert [one.protocols for one in joined] == [PROTOCOLS[:2], PROTOCOLS[:1]]
    assert [one.config["seed"] for one in joined] == [0, 1]
