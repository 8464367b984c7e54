"""`vireid test` and `vireid report` with both modalities in one gallery: a trained run, and more people than usual."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.size import Size
from vireid.evaluation.report import Report
from vireid.evaluation.scoring import score
from vireid.experiments.measurement import Measurement, queries_of
from vireid.figures.page import write_page
from vireid.synthesis.world import World, write_world
from vireid.training.run import create, open_run

LAYOUT = "sysu-mm01"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with 20 test people."""
    root = tmp_path_factory.mktemp("mixed") / "world"
    easy = World(24, seed=3, difficulty=0.0)
    write_world(root, easy, layout=LAYOUT, size=Size(64, 32), pictures=2, tested=20, workers=1)
    return root


@pytest.fixture(scope="module")
def tested(people, tmp_path_factory) -> Path:
    """A run tested by all protocols of a gallery of both modalities and by a usual one.

    It is not trained further than its pretrained weights, which tell people apart well enough to be calibrated.
    """
    run = tmp_path_factory.mktemp("mixed") / "run"
    given = ("weights=", "epochs=", "epoch_length=")
    small = [one for one in SECOND if not one.startswith(given)]
    small += ["weights=world", "epochs=1", "epoch_length=1", "schedule.warm_up_epochs=0", "optimiser.lr=0.00001"]
    start = ["train", "agw", "--data", f"{LAYOUT}:{people}", "--run", str(run), "--workers", "0"]
    assert main([*start, "--set", *small]) == 0
    files = ["--json", str(run / "out.json"), "--features", str(run / "f.npz"), "--breakdown", str(run / "b.json")]
    command = ["test", str(run), "--data", f"{LAYOUT}:{people}", "--workers", "0", *files, "--out", str(run / "t.md")]
    assert main([*command, "--protocol", f"{LAYOUT}/all/single", f"{LAYOUT}/mixed"]) == 0
    return run


def test_reports_are_those_of_the_features(tested):
    written = json.loads((tested / "out.json").read_text())
    names = [
        f"{LAYOUT}/mixed/{kind}{end}" for kind in ("i2v", "v2i", "i2both", "v2both") for end in ("", "@calibrated")
    ]
    assert [one["protocol"] for one in written] == [f"{LAYOUT}/all/single", *names]
    with np.load(tested / "f.npz") as stored:
        columns = {name: stored[name] for name in ("features", "identity", "camera", "modality")}
    for one in (written[2], written[7]):
        again = score(**columns, protocol=one["protocol"])
        assert again.map == pytest.approx(one["map"]) and again.own_modality == pytest.approx(one["own_modality"])
        wanted = None if again.alarms is None else [alarm.share for alarm in again.alarms]
        assert (one.get("alarms") and [alarm["share"] for alarm in one["alarms"]]) == wanted
    assert "own_modality" not in written[0] and "alarms" not in written[1] and len(written[2]["alarms"]) == 3
    assert "own modality in the first 10" in (tested / "t.md").read_text(encoding="utf-8")
    assert len(json.loads((tested / "b.json").read_text())) == 9


def test_measurements_are_kept_and_old_ones_have_no_new_fields(tested):
    run = open_run(tested)
    found = {one.report.protocol: one for one in map(Measurement.read, sorted(run.reports.glob("*.json")))}
    assert len(found) == 9
    one = found[f"{LAYOUT}/mixed/v2i@calibrated"]
    assert one.report.alarms is not None and one.report.own_modality is not None and one.examples
    assert queries_of(run, one) is not None
    stored = json.loads((run.reports / found[f"{LAYOUT}/all/single"].file_name).read_text())
    assert {"own_modality", "alarms"}.isdisjoint(stored["report"])
    assert Report.from_json(stored["report"]) == found[f"{LAYOUT}/all/single"].report


def test_the_page_shows_what_the_first_ranks_hold_and_the_alarms(tested, tmp_path):
    write_page(tmp_path / "page.html", [open_run(tested)])
    page = re.sub(r"\s+", " ", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (
        page.count("own modality in the first 10") == 8
        and page.count("alarms ≤ 0.1<small>(predicted ≤ 9.5)</small>") == 4
    )
    assert page.count("after all pictures of their person were taken out of the gallery") == 4
    assert "log-likelihood ratio of the cosine" in page
    assert main(["report", str(tested), "--format", "markdown"]) == 0


def test_rows_do_not_show_them(tested, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(tested)
    assert main(["rows", "agw", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json")]) == 0
    assert "/mixed/" not in (tmp_path / "rows.json").read_text()


def test_what_cannot_be_tested_is_refused_before_anything_is_embedded(tested, people, tmp_path, capsys):
    start = ["test", str(tested), "--workers", "0", "--protocol", f"{LAYOUT}/mixed/i2v@calibrated"]
    assert main([*start, "--data", f"{LAYOUT}:{people}", "--rerank", "k-reciprocal"]) == 2
    told = capsys.readouterr().err
    assert "cannot be re-ranked" in told and "embedding" not in told
    write_world(tmp_path / "few", World(6), layout=LAYOUT, size=Size(16, 8), pictures=1, tested=4, workers=1)
    assert main([*start, "--data", f"{LAYOUT}:{tmp_path / 'few'}"]) == 2
    told = capsys.readouterr().err
    assert "at least 20 people, and there are 4" in told and "embedding" not in told


def test_a_report_without_the_new_fields_opens(tested, tmp_path):
    """A file as older versions wrote it."""
    run = open_run(tested)
    (file,) = run.reports.glob("sysu-mm01-all-single*.json")
    other = create(tmp_path / "old", run.facts)
    other.reports.mkdir()
    (other.reports / file.name).write_bytes(file.read_bytes())
    one = Measurement.read(other.reports / file.name)
    assert one.report.own_modality is None and one.report.alarms is None
