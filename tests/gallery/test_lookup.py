"""`vireid gallery search`, through the program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.gallery.people import calibrated
from tests.gallery.station import HOUR, START, station
from vireid.cli.main import main
from vireid.data.modality import Modality
from vireid.gallery.index import CALIBRATION
from vireid.gallery.row import Row, Where
from vireid.gallery.times import time_text


@pytest.fixture(scope="module")
def places(
    worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A calibrated index and one without, and the picture files of a person, whom the rows know."""
    folder, world = tmp_path_factory.mktemp("lookup"), worlds["sysu-mm01"]
    with station(folder / "plain", runs["sysu-mm01"], world) as index:
        rows = list(index.store.iterate())
    with station(folder / "calibrated", runs["sysu-mm01"], world) as index:
        index.store.keep(CALIBRATION, calibrated(people=60).as_text())
    infrared = [row for row in rows if row.modality == Modality.INFRARED]
    own = [row for row in infrared if row.person == infrared[0].person][:2]
    yield {
        "index": str(folder / "calibrated"),
        "plain": str(folder / "plain"),
        "rows": rows,
        "files": [str(world / row.path) for row in own],
        "own": own,
        "visible": str(world / next(row.path for row in rows if row.modality == Modality.VISIBLE)),
        "run": runs["sysu-mm01"],
    }


def asked(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON of a search."""
    assert main(["gallery", "search", *arguments, "--json", str(tmp_path / "answer.json")]) == 0
    return json.loads((tmp_path / "answer.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["gallery", "search", *arguments]) == 2
    return capsys.readouterr().err


def test_a_search_prints_the_verdict_first_and_then_the_matches(
    places: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = asked(tmp_path, places["index"], places["files"][0], "--top", "5")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{values['state']}: {values['words']}"
    assert lines[1].startswith("query: infrared (guessed from the colours; --modality sets it); searched: ")
    assert lines[3].split() == ["rank", "modality", "camera", "time", "cosine", "ratio", "strangers", "path", "id"]
    assert len(values["matches"]) == 5 and values["next"] == 5 and lines[-1] == "more: --start 5"
    for line, match in zip(lines[5:10], values["matches"], strict=True):
        assert line.split()[:3] == [str(match["rank"]), match["modality"], match["camera"]]
        assert line.split()[-2:] == [match["path"], match["picture"]] and f"{match['cosine']:.3f}" in line
    assert values["query"] == {
        "modality": "infrared",
        "guessed": True,
        "pictures": places["files"][:1],
        "from_match": None,
    }
    assert values["index"] == places["index"] and values["command"].startswith("vireid gallery search")


def test_a_match_leads_to_the_next_search_which_does_not_find_itself(places: dict[str, Any], tmp_path: Path) -> None:
    first = asked(tmp_path, places["index"], places["files"][0], "--search-in", "visible", "--top", "1")
    match = first["matches"][0]
    assert first["searched"]["infrared"] == 0 and match["modality"] == "visible"
    second = asked(tmp_path, places["index"], "--from-match", match["picture"], "--top", "1000")
    assert second["query"]["modality"] == "visible" and second["query"]["from_match"] == match["picture"]
    assert match["picture"] not in [one["picture"] for one in second["matches"]]
    assert len(second["matches"]) == len(places["rows"]) - 1 and second["next"] is None


def test_filters_are_those_of_the_rows(places: dict[str, Any], tmp_path: Path) -> None:
    rows: list[Row] = places["rows"]
    since, until = START + 3 * HOUR, START + 20 * HOUR
    words = ("--since", str(time_text(since)), "--until", str(time_text(until)).removesuffix("Z"))
    given = ("--camera", "1", "2", "--camera", "6", "--source", "sysu-mm01", "--top", "1000")
    found = asked(tmp_path, places["index"], places["files"][0], *words, *given)
    passing = [one.id for one in rows if one.time and since <= one.time < until and one.camera in ("1", "2", "6")]
    assert sorted(one["picture"] for one in found["matches"]) == sorted(passing) and passing
    none = asked(tmp_path, places["index"], places["files"][0], "--tracklet", "t1")
    assert none["searched"] == {"visible": 0, "infrared": 0} and none["state"] == "open" and not none["matches"]


def test_several_pictures_of_one_person_are_one_query(places: dict[str, Any], tmp_path: Path) -> None:
    both = asked(tmp_path, places["index"], *places["files"], "--modality", "ir", "--top", "1000")
    each = [asked(tmp_path, places["index"], file, "--top", "1000") for file in places["files"]]
    cosines = [{one["picture"]: one["cosine"] for one in answer["matches"]} for answer in each]
    assert both["query"]["pictures"] == places["files"] and not both["query"]["guessed"]
    for match in both["matches"]:
        assert match["cosine"] == pytest.approx(np.mean([found[match["picture"]] for found in cosines]), abs=1e-5)


def test_without_calibration_there_are_two_lists_and_no_verdict(
    places: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = asked(tmp_path, places["plain"], places["files"][0], "--top", "3", "--sheet", str(tmp_path / "s.html"))
    out = capsys.readouterr().out
    assert values["state"] is None and "was not calibrated" in out.splitlines()[0]
    assert [one["modality"] for one in values["matches"]] == ["visible"] * 3 + ["infrared"] * 3
    assert out.index("visible pictures, by cosine:") < out.index("infrared pictures, by cosine:")
    assert (tmp_path / "s.html").read_text().startswith("<!doctype html>")
    assert "false match rate is known" in refused(capsys, places["plain"], places["files"][0], "--fmr", "0.1")


def test_a_false_match_rate_marks_the_matches_that_reach_its_cosine(
    places: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = asked(tmp_path, places["index"], places["files"][0], "--fmr", "0.2", "--top", "1000")
    lines = capsys.readouterr().out.splitlines()
    assert values["fmr"]["rate"] == 0.2
    cosines = {word: found["cosine"] for word, found in values["fmr"]["cosine"].items()}
    assert f"visible pictures, false match rate 0.2: cosine {cosines['visible']:.3f} (" in lines[2]
    marked = [line.split()[-1] for line in lines if "*" in line and line.split()[0].isdigit()]
    reached = [one["picture"] for one in values["matches"] if one["cosine"] >= cosines[one["modality"]]]
    assert marked == reached and 0 < len(reached) < len(values["matches"])
    asked(tmp_path, places["index"], places["files"][0], "--fmr", "1e-9")
    assert "too few pairs" in capsys.readouterr().out


def test_a_sheet_shows_the_picture_that_was_searched_from(places: dict[str, Any], tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    asked(tmp_path, places["index"], "--from-match", places["own"][0].id, "--sheet", str(sheet), "--top", "3")
    with Image.open(sheet) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)[45:230, 45:130]
    assert shown.std() > 5 and (np.ptp(shown, axis=2) <= 3).all()  # an infrared picture, in grey


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "takes pictures, or the id of a match"),
        (["FILE", "--from-match", "0" * 32], "takes pictures, or the id of a match"),
        (["--from-match", "0" * 32], "there is no picture 0000"),
        (["--from-match", "0" * 32, "--modality", "visible"], "leave out the modality"),
        (["no-such.jpg"], "does not exist"),
        (["FILE", "VISIBLE"], "by its colours"),
        (["FILE", "--modality", "x-ray"], "unknown modality 'x-ray'"),
        (["FILE", "--search-in", "x-ray"], "unknown modality 'x-ray'"),
        (["FILE", "--since", "soon"], "since takes a date"),
        (["FILE", "--since", "2026-03-02", "--until", "2026-03-01"], "no time is from"),
        (["FILE", "--top", "0"], "top cannot be 0"),
        (["FILE", "--top", "1001"], "top takes 1 to 1,000"),
        (["FILE", "--start", "1000"], "start takes 0 to 999"),
        (["FILE", "--strangers", "0"], "strangers cannot be 0"),
        (["FILE", "--strangers", "nan"], "strangers cannot be"),
        (["FILE", "--fmr", "0"], "false match rate 0"),
        (["FILE", "--fmr", "2"], "fmr cannot be 2"),
        (["FILE", "--fmr", "low"], "'low' is not a number"),
        (["FILE", "--camera", "a\nb"], "camera must be text"),
        (["FILE", "--sheet", "x.gif"], "ending of a contact sheet"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(
    places: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"FILE": places["files"][0], "VISIBLE": places["visible"]}
    said = refused(capsys, places["index"], *(names.get(one, one) for one in arguments))
    assert says in said and said.count("\n") == 1


def test_an_index_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "nothing") in refused(capsys, str(tmp_path / "nothing"), "a.jpg")


def test_names_from_the_index_cannot_steer_the_terminal(
    places: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vireid.gallery.index import open_index

    with open_index(places["index"]) as index:
        known = next(iter(index.store.iterate(Where(modality=Modality.VISIBLE), vectors=True)))
        hostile = Row("gate", "a\x1b[2J\r\nb.jpg", known.content, "9", Modality.VISIBLE, vector=known.vector)
        index.store.upsert([hostile])
    try:
        asked(tmp_path, places["index"], places["files"][0], "--camera", "9")
        out = capsys.readouterr().out
        assert "a?[2J??b.jpg" in out and "\x1b" not in out and "\r" not in out
    finally:
        with open_index(places["index"]) as index:
            index.store.delete([hostile.id])
