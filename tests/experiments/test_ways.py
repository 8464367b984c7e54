"""Everything that embeds many pictures uses the fastest way, and says so; features and numbers stay the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import vireid
from vireid.cli.main import main
from vireid.data.modality import Modality
from vireid.evaluation import inference
from vireid.evaluation.embedding import AS_IT_IS
from vireid.evaluation.inference import ENOUGH, FOLDED
from vireid.evaluation.scoring import read_features
from vireid.experiments.embed import EmbedOptions, embed
from vireid.experiments.measurement import Measurement
from vireid.experiments.test import TestOptions
from vireid.experiments.test import test as measure
from vireid.figures.subject import Where, subjects
from vireid.gallery.build import BuildOptions, build
from vireid.gallery.index import open_index
from vireid.gallery.service.engine import Searching
from vireid.training.run import open_run

PROTOCOL = "sysu-mm01/all/single"


class Given(NamedTuple):
    """A run, the data that it was trained on, and a scratch folder."""

    run: Path
    world: Path
    folder: Path

    @property
    def data(self) -> str:
        return f"sysu-mm01:{self.world}"


@pytest.fixture
def given(runs, worlds, tmp_path) -> Given:
    run = shutil.copytree(runs["sysu-mm01"], tmp_path / "run", ignore=shutil.ignore_patterns("reports", "queries"))
    return Given(run, worlds["sysu-mm01"], tmp_path)


def of_test(given: Given) -> np.ndarray:
    file = given.folder / "features.npz"
    measure(TestOptions(given.run, given.data, protocols=(PROTOCOL,), features=file, workers=0))
    return read_features(file)["features"]


def of_embed(given: Given) -> np.ndarray:
    return embed(EmbedOptions(given.run, given.world / "cam1", "visible", workers=0)).features


def of_figures(given: Given) -> np.ndarray:
    (one,) = subjects([given.run], Where(given.data, PROTOCOL, workers=0))
    return one.features


def of_a_build(given: Given) -> np.ndarray:
    url = given.folder / f"index{len(list(given.folder.iterdir()))}"
    build(BuildOptions(url, given.run, (str(given.world / "cam1"),), modality="visible", workers=0))
    with open_index(url) as index:
        rows = sorted(index.store.iterate(vectors=True), key=lambda row: row.path)
        return np.stack([row.vector for row in rows if row.vector is not None])


def of_a_service(given: Given) -> np.ndarray:
    url = given.folder / f"index{len(list(given.folder.iterdir()))}"
    build(BuildOptions(url, given.run, (str(given.world / "cam1"),), modality="visible", workers=0))
    with open_index(url) as index:
        pictures = [np.full((*index.facts.size, 3), value, np.uint8) for value in (0, 90, 255)]
        return Searching(index).embed(pictures, Modality.INFRARED)


CONSUMERS = {"test": of_test, "embed": of_embed, "figures": of_figures, "build": of_a_build, "serve": of_a_service}


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """One entry for each folded copy."""
    made: list[str] = []
    fold = inference.folded

    def counting(network: torch.nn.Module) -> torch.nn.Module:
        made.append(type(network).__name__)
        return fold(network)

    monkeypatch.setattr(inference, "folded", counting)
    return made


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_many_pictures_are_embedded_by_a_folded_copy_with_the_same_features(consumer, given, counted, monkeypatch):
    features: Callable[[Given], np.ndarray] = CONSUMERS[consumer]
    few = features(given)
    assert len(counted) == (consumer == "serve")  # a service is there for many pictures from the start
    counted.clear()
    monkeypatch.setattr(inference, "ENOUGH", 2)
    many = features(given)
    assert counted == ["AGW"] * (2 if consumer == "serve" else 1)  # the build before it, and the service
    np.testing.assert_allclose(many, few, atol=1e-6, rtol=0)
    assert np.array_equal(many, features(given))  # to the last bit


def test_a_report_says_the_way_and_the_numbers_come_again(given, monkeypatch, capsys):
    asked = ["test", str(given.run), "--data", given.data, "--protocol", PROTOCOL, "--workers", "0"]
    file = open_run(given.run).reports / "sysu-mm01-all-single.json"

    def measured() -> Measurement:
        assert main(asked) == 0
        return Measurement.read(file)

    plain = measured()
    assert plain.measured.way.startswith(AS_IT_IS) and plain.measured.difference is None
    monkeypatch.setattr(inference, "ENOUGH", 2)
    capsys.readouterr()
    first, second = measured(), measured()
    assert first.report == second.report and first.measured.way == second.measured.way
    assert first.measured.way.startswith(FOLDED) and "from the network as it is" in first.measured.way
    assert first.measured.difference is not None and 0 <= first.measured.difference < 1e-9
    assert f"features by {first.measured.way}" in capsys.readouterr().err
    assert first.measured.precision == "off" and first.plain == plain.plain
    assert (first.report.rank1, first.report.map) == pytest.approx((plain.report.rank1, plain.report.map), abs=1e-3)
    assert main(["report", str(given.run), "--out", str(given.folder / "page.html")]) == 0
    assert first.measured.way in (given.folder / "page.html").read_text()


def test_an_embedding_says_the_way(given, monkeypatch):
    monkeypatch.setattr(inference, "ENOUGH", 2)
    found = embed(EmbedOptions(given.run, given.world / "cam1", "visible", workers=0, precision="auto"))
    assert found.header["precision"] == "off" and found.header["way"].startswith(FOLDED)


def test_a_model_prepares_once_and_again_when_its_network_changes(given, counted):
    model = vireid.load(given.run)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, *model.size), dtype=np.uint8)
    before = model.embed(picture, 0)
    assert not counted
    for _ in range(3):
        np.testing.assert_allclose(model.embed(picture, 0, expected=ENOUGH), before, atol=1e-6)
    assert len(counted) == 1
    with torch.no_grad():
        next(model.network.encoder.stages.parameters()).mul_(-1)
    after = model.embed(picture, 0)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(model.embed(picture, 0, expected=ENOUGH), after, atol=1e-6)
    model.network.load_state_dict(vireid.load(given.run).network.state_dict())
    np.testing.assert_allclose(model.embed(picture, 0, expected=ENOUGH), before, atol=1e-6)
    seen = []
    model.network.encoder.pool.register_forward_hook(lambda *_: seen.append(1))
    assert np.array_equal(model.embed(picture, 0, expected=ENOUGH), before) and seen == [1]
