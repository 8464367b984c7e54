"""The gallery's demo on a small world: its commands, what it leaves, and whom it shows."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.documents.pages import ROOT
from tests.processes import free_port
from tests.small import SECOND
from vireid.cli.main import main, parser
from vireid.gallery import demo as demo_pictures
from vireid.gallery.demo import CAMERAS, Cast, planned, truth, write_pictures
from vireid.gallery.store import open as open_gallery
from vireid.synthesis.person import FAMILY

SMALL = Cast(calibrate=20, gallery=6)


@pytest.fixture(scope="module")
def trained(worlds, tmp_path_factory) -> Path:
    """What `vireid demo` leaves, as far as it is needed: a world, and a run that began with trained weights."""
    out = tmp_path_factory.mktemp("demo")
    (out / "world").symlink_to(worlds["sysu-mm01"], target_is_directory=True)
    changes = [one for one in SECOND if not one.startswith("weights=")]
    words = ["train", "agw", "--data", f"sysu-mm01:{out / 'world'}", "--run", str(out / "pretrained"), "--workers", "0"]
    assert main([*words, "--set", "weights=world", *changes]) == 0
    return out


@pytest.fixture(scope="module")
def first(trained) -> tuple[Path, str]:
    """The demo's folder after one call with a small cast, and what was printed."""
    return trained, said_by(trained)


def said_by(out: Path) -> str:
    """What the demo prints, which is called with a small cast and ends after the searches."""
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as changed, contextlib.redirect_stdout(text):
        changed.setattr(demo_pictures, "Cast", partial(Cast, calibrate=SMALL.calibrate, gallery=SMALL.gallery))
        assert main(["gallery", "demo", "--out", str(out), "--no-serve"]) == 0
    return text.getvalue()


def printed_commands(text: str) -> list[list[str]]:
    return [shlex.split(line.removeprefix("$ vireid ")) for line in text.splitlines() if line.startswith("$ vireid ")]


def test_the_steps_are_commands_that_can_be_copied(first):
    out, text = first
    commands = printed_commands(text)
    assert [words[1] for words in commands] == ["calibrate", "build", "search", "search", "search", "serve"]
    for words in commands:
        assert parser().parse_args(words).verb == "gallery"
    steps = [line.partition(" ")[0] for line in text.splitlines() if line[1:3] == "/5"]
    assert steps == [f"{n}/5" for n in range(1, 6)]
    with open_gallery(out / "gallery" / "index") as store:
        facts = store.facts()
    assert (facts.visible, facts.infrared) == (SMALL.gallery * 4, SMALL.gallery * 2)
    results = sorted(file.name for file in (out / "gallery" / "results").iterdir())
    assert results == [f"{n}.{ending}" for n in (1, 2, 3) for ending in ("json", "png")]


def test_the_truth_that_is_printed_is_that_of_the_matches(first):
    out, text = first
    said = [line for line in text.splitlines() if line.startswith("→ in truth:")]
    people = truth(out / "gallery")
    assert len(said) == 3
    for number, line in enumerate(said, 1):
        wanted = people[f"questions/{number}.jpg"]
        matches = json.loads((out / "gallery" / "results" / f"{number}.json").read_text())["matches"]
        assert len(matches) == 5
        right = [one["rank"] for one in matches if people[f"cameras/{one['path']}"] == wanted]
        if number > SMALL.found:
            assert not right
            assert line == "→ in truth: this person is in no picture of the gallery"
            continue
        assert line.startswith("→ in truth: 6 pictures show this person")
        plural = len(right) > 1
        ranks = f"{'ranks' if plural else 'rank'} {', '.join(map(str, right))} {'are' if plural else 'is'} right"
        assert line.endswith(ranks if right else "none of these 5 is right")


def test_a_second_call_does_only_what_is_missing(first):
    out, _ = first
    calibration, pictures = out / "pretrained" / "calibration.json", sorted((out / "gallery").glob("c*/*/*/*.jpg"))
    assert len(pictures) == SMALL.gallery * 6
    before = {file: file.stat().st_mtime_ns for file in [calibration, *pictures]}
    again = said_by(out)
    assert [words[1] for words in printed_commands(again)] == ["build", "search", "search", "search", "serve"]
    assert " 0 embedded" in again
    assert {file: file.stat().st_mtime_ns for file in before} == before

    told = json.loads(calibration.read_text())  # as if the network had been trained again since
    calibration.write_text(json.dumps({**told, "model": "0" * 64}))
    assert "calibrate" in [words[1] for words in printed_commands(said_by(out))]
    assert json.loads(calibration.read_text())["model"] == told["model"]


def test_without_the_demo_it_says_what_to_run(tmp_path, capsys):
    assert main(["gallery", "demo", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert f"vireid demo --out {tmp_path}" in said.err
    assert not list(tmp_path.iterdir())


def test_nobody_was_trained_on_nobody_calibrates_and_is_searched_and_names_say_nothing(worlds):
    world, _ = demo_pictures._world(worlds["sysu-mm01"], SMALL)
    trained = json.loads((worlds["sysu-mm01"] / "GENERATED.json").read_text())
    assert world.seed == trained["seed"]
    shots = planned(world, SMALL)
    by_place = {place: [one for one in shots if one.path.startswith(place)] for place in ("people", "cameras", "quest")}
    calibrate, gallery, asked = ({one.identity for one in own} for own in by_place.values())
    assert min(calibrate | gallery | asked) >= trained["identities"]
    families = {one // FAMILY for one in range(trained["identities"])}
    assert not families & {one // FAMILY for one in calibrate | gallery | asked}
    assert (len(calibrate), len(gallery), len(asked)) == (SMALL.calibrate, SMALL.gallery, 3)
    assert not calibrate & gallery
    assert len(asked & gallery) == SMALL.found
    assert not asked & calibrate
    taken = Counter((one.identity, one.camera, one.moment) for one in shots)
    assert set(taken.values()) == {1}  # no picture is searched for that is in the gallery
    assert len({one.path for one in shots}) == len(shots)
    for camera in CAMERAS:
        own = [one for one in by_place["cameras"] if one.camera == camera]
        assert [one.time for one in own] == sorted(one.time for one in own if one.time is not None)
        assert [one.identity for one in own] != sorted(one.identity for one in own)


def test_the_tables_and_the_pictures_belong_together_and_no_label_is_beside_the_searched_ones(worlds, tmp_path):
    (tmp_path / "pictures.unfinished").mkdir()
    (tmp_path / "pictures.unfinished" / "rest").write_text("of an interrupted call")
    place, done = tmp_path / "pictures", []
    write_pictures(place, worlds["sysu-mm01"], Cast(calibrate=2, gallery=2), lambda *now: done.append(now))
    files = sorted(str(file.relative_to(place)) for file in place.rglob("*.jpg"))
    assert done[-1] == (len(files), len(files))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pictures"]
    assert not (place / "rest").exists()
    with open(place / "cameras" / "cameras.csv", newline="") as file:
        searched = list(csv.DictReader(file))
    assert set(searched[0]) == {"path", "camera", "modality", "time"}
    with open(place / "people" / "records.csv", newline="") as file:
        labelled = list(csv.DictReader(file))
    paths = [f"cameras/{line['path']}" for line in searched] + [f"people/{line['path']}" for line in labelled]
    assert sorted([*paths, *(f"questions/{n}.jpg" for n in (1, 2, 3))]) == files
    assert set(truth(place)) == {path for path in files if not path.startswith("people/")}


def test_the_five_commands_of_the_page_work_as_they_stand_there(first, tmp_path, monkeypatch, capsys):
    """With the demo's folder under the name that the page uses. Serving has a test of its own."""
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    block = page.partition("<!-- the five commands")[2].partition("```bash\n")[2].partition("```")[0]
    found = [shlex.split(line.removeprefix("vireid ")) for line in block.splitlines()]
    assert [words[1] for words in found] == ["calibrate", "build", "search", "info", "serve"]
    shutil.copytree(first[0], tmp_path / "demo", symlinks=True, ignore=shutil.ignore_patterns("calibration.json"))
    monkeypatch.chdir(tmp_path)
    for words in found[:-1]:
        assert main(words) == 0, shlex.join(words)
    assert parser().parse_args(found[-1]).index == "station"
    assert Path("found.png").stat().st_size > 1000
    assert "infrared" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.process
def test_it_serves_at_the_end_until_it_is_stopped(first):
    out, _ = first
    port = free_port()
    words = [sys.executable, "-m", "vireid.cli.main", "gallery", "demo", "--out", str(out), "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if line.startswith("http://"))
        with urllib.request.urlopen(address.partition("#")[0], timeout=20) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest
