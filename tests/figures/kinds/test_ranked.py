"""Ranked lists against the protocols' own rules, and what is drawn of them."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.oracles import evaluation as oracle
from vireid.data.errors import BadInput
from vireid.figures.drawing import RIGHT, WRONG, Figure, Look
from vireid.figures.kinds import DoesNotApply, ranked
from vireid.figures.subject import Subject, Where, subjects

PROTOCOLS = {"sysu-mm01": "sysu-mm01/all/single", "regdb": "regdb/v2i", "llcm": "llcm/i2v"}
SEES = {
    "sysu-mm01": lambda query, gallery: not (query[0] == "cam3" and gallery[0] == "cam2"),  # one room
    "regdb": lambda query, gallery: True,
    "llcm": lambda query, gallery: True,
}
"""Layout → whether a query sees a gallery picture of another or the same person, by the parts of their paths."""


@pytest.fixture(scope="module")
def about(runs, worlds) -> dict[str, Subject]:
    """A run on its world, by layout. Its features are made once."""
    return {
        layout: subjects([runs[layout]], Where(f"{layout}:{worlds[layout]}", protocol, workers=0))[0]
        for layout, protocol in PROTOCOLS.items()
    }


def twin(one: Subject, name: str, seed: int) -> Subject:
    """The subject with features of another network."""
    found = Subject(one.run, name, one.where)
    features = np.random.default_rng(seed).normal(size=one.features.shape).astype(np.float32)
    vars(found).update(_drawn=vars(one)["_drawn"], model=one.model, features=features)
    return found


def gallery_of(layout: str, one: Subject) -> list[int]:
    """The gallery of the first trial, by the rules of the layout."""
    records = one.records
    places = {path: number for number, path in enumerate(records.path)}
    if layout == "sysu-mm01":
        folders: dict[tuple[str, str], list[str]] = {}
        for path in records.path:
            camera, identity, name = path.split("/")
            folders.setdefault((camera, identity), []).append(name)
        cameras = ["cam1", "cam2", "cam4", "cam5"]
        drawn = oracle.draw_from_folders(folders, cameras, {identity for _, identity in folders}, 0)
        return [places[path] for path in drawn]
    infrared = layout == "regdb"
    found = np.flatnonzero(records.modality == infrared)
    if infrared:
        return found.tolist()
    random.seed(0)
    cells = sorted({(records.identity[s], records.camera[s]) for s in found})
    members = {cell: [s for s in found if (records.identity[s], records.camera[s]) == cell] for cell in cells}
    return [random.choice(members[cell]) for cell in cells]


@pytest.mark.parametrize("layout", PROTOCOLS)
def test_a_list_is_what_sorting_by_the_protocols_rules_gives(about, layout):
    one = about[layout]
    records, unit = one.records, one.features.astype(np.float64)
    gallery = gallery_of(layout, one)
    made = ranked.figures([one], ranked.Choices(queries=3, top=20, mistakes=0))
    assert [figure.name for figure in made] == ["ranked-best", "ranked-worst", "ranked-random"]
    hidden, short = 0, 0
    for found in (found for figure in made for found in figure.numbers["lists"]):
        (query,) = np.flatnonzero(records.path == found["query"])
        parts = found["query"].split("/")
        seen = [g for g in gallery if SEES[layout](parts, records.path[g].split("/"))]
        hidden += len(seen) < len(gallery)
        missing = max(0, 20 - len(seen))
        short += missing > 0
        order = sorted(seen, key=lambda g: (-float(unit[query] @ unit[g]), g))
        assert found["gallery"] == [*(records.path[g] for g in order[:20]), *[None] * missing]
        same = [records.identity[g] == records.identity[query] for g in order]
        assert found["correct"].tolist() == [*same[:20], *[False] * missing]
        near = [*(unit[query] @ unit[g] for g in order[:20]), *[np.nan] * missing]
        np.testing.assert_allclose(found["similarity"], near, atol=1e-5)
        ranks = [rank for rank, true in enumerate(same, start=1) if true]
        precision = np.mean([i / rank for i, rank in enumerate(ranks, start=1)])
        assert found["title"] == f"AP {100 * precision:.1f} %, first true match at rank {ranks[0]}"
    assert (hidden > 0) == (layout == "sysu-mm01")
    assert short


def test_the_best_is_better_than_the_worst_and_people_differ(about):
    made = ranked.figures([about["sysu-mm01"]], ranked.Choices(queries=4, which=("best", "worst"), mistakes=0))
    precision = [[float(re.search(r"AP ([\d.]+)", one["title"])[1]) for one in f.numbers["lists"]] for f in made]
    best, worst = precision
    assert best == sorted(best, reverse=True) and worst == sorted(worst) and best[-1] >= worst[-1]
    for figure in made:
        people = {one["query"].split("/")[1] for one in figure.numbers["lists"]}
        assert len(people) == len(figure.numbers["lists"])


def test_all_runs_show_the_queries_of_the_first_one(about):
    first = about["sysu-mm01"]
    second = twin(first, "other", 1)
    (figure,) = ranked.figures([first, second], ranked.Choices(queries=2, top=5, which=("worst",), mistakes=0))
    (alone,) = ranked.figures([first], ranked.Choices(queries=2, top=5, which=("worst",), mistakes=0))
    lists = figure.numbers["lists"]
    assert [one["run"] for one in lists] == [first.name, "other"] * 2
    assert [one["query"] for one in lists[::2]] == [one["query"] for one in lists[1::2]]
    assert [one["gallery"] for one in lists[::2]] == [one["gallery"] for one in alone.numbers["lists"]]
    assert lists[0]["gallery"] != lists[1]["gallery"]
    assert lists[1]["title"].startswith("other: AP ")
    assert len(figure.draw(Look()).axes[0].images) == 2 + 4 * 5  # each query once
    assert f"worst average precision of {first.name}" in figure.caption and second.says() in figure.caption


def test_failures_are_mistakes_at_rank_one(about):
    first = about["sysu-mm01"]
    second = twin(first, "other", 2)
    *_, figure = ranked.figures([first, second], ranked.Choices(which=(), mistakes=3, surest="margin"))
    assert figure.name == "ranked-failures" and "in the first of 10 trials" in figure.caption
    assert "margin" in figure.caption and "own place are excluded" in figure.caption
    for one in (first, second):
        (lists,) = ranked.figures([one], ranked.Choices(which=("random",), queries=99, mistakes=0))
        nearest = {found["query"]: found for found in lists.numbers["lists"]}
        shown = figure.numbers[one.name]
        assert shown
        for mistake in shown:
            person = {place: mistake[place].split("/")[1] for place in ("query", "wrong", "right")}
            assert person["query"] == person["right"] != person["wrong"]
            if (found := nearest.get(mistake["query"])) is not None:
                assert found["gallery"][0] == mistake["wrong"] and not found["correct"][0]
                assert found["title"].endswith(f"rank {mistake['rank']}")
        margins = [mistake["similarity"] - mistake["true_similarity"] for mistake in shown]
        assert margins == sorted(margins, reverse=True)


def test_tracklets_have_no_pictures(about):
    one = about["regdb"]
    records, rules, trials = vars(one)["_drawn"]
    other = Subject(one.run, one.name, one.where)
    vars(other)["_drawn"] = (records, replace(rules, tracklets="average"), trials)
    with pytest.raises(DoesNotApply, match="regdb/v2i ranks tracklets"):
        ranked.figures([other], ranked.Choices())


def test_runs_on_other_pictures_have_no_queries_in_common(about):
    one = about["regdb"]
    records, rules, trials = vars(one)["_drawn"]
    other = Subject(one.run, "fold 2", one.where)
    vars(other)["_drawn"] = (records.take(np.arange(len(records))[::-1]), rules, trials)
    with pytest.raises(DoesNotApply, match="fold 2 are tested on other pictures"):
        ranked.figures([one, other], ranked.Choices())


GREY = np.full((20, 10, 3), 128, np.uint8)


def pixels(figure: Figure, look: Look | None = None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.image(look or Look()))).convert("RGB")).astype(int)


def framed(image: np.ndarray, colour: str) -> np.ndarray:
    """Where the image has a colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (np.abs(image - wanted) < 6).all(axis=2)


def test_a_true_match_has_a_solid_green_frame_and_another_person_a_dashed_orange_one():
    figure = ranked.ranked([GREY], [[GREY, GREY, None]], [[True, False, True]], [[0.9, 0.5, np.nan]])
    image = pixels(figure)
    solid, dashed = framed(image, RIGHT), framed(image, WRONG)
    longest = {}
    for name, mask in (("solid", solid), ("dashed", dashed)):
        columns = np.flatnonzero(mask.any(axis=0))
        edge = mask[:, columns[2]]  # the left side of the only frame of this colour
        longest[name] = max(len(run) for run in "".join("x" if on else " " for on in edge).split())
        assert np.ptp(columns) < image.shape[1] / 4  # of one picture only
    assert np.flatnonzero(solid.any(axis=0)).max() < np.flatnonzero(dashed.any(axis=0)).min()
    assert longest["solid"] > 10 * longest["dashed"] > 0
    assert (image[:, -image.shape[1] // 5 :] > 250).all(axis=2).mean() > 0.98  # no picture, no frame, no number


def test_texts_are_in_the_figure_and_a_long_title_stays_inside():
    title = "a rather long name of a run that somebody chose: AP 12.5 %, first true match at rank 1234"
    figure = ranked.ranked([GREY, None], [[GREY, GREY]] * 2, [[1, 0]] * 2, [[0.91, -0.5]] * 2, titles=[title] * 2)
    drawn = figure.image(Look(), "svg").decode()
    assert drawn.count(f">{title}<") == 2 and ">query<" in drawn and ">0.91<" in drawn and ">-0.50<" in drawn
    assert len(figure.draw(Look()).axes[0].images) == 5  # one query for two lists
    assert (pixels(figure)[:, -8:] > 250).all()


def test_failures_of_a_run_without_any():
    made = ranked.failures({"one": [[GREY] * 3], "two": []}, {"one": [(7, 0.81, 0.62)], "two": []})
    drawn = made.image(Look("dark", "page"), "svg").decode()
    for text in ("one", "two", "rank 1", "0.810", "rank 7", "0.620", "No query has another person at rank 1."):
        assert f">{text}<" in drawn
    assert made.numbers["one"] == [(7, 0.81, 0.62)]


@pytest.mark.parametrize(
    "arguments",
    [([], [], [], []), ([GREY], [[GREY], [GREY]], [[1]], [[0.5]]), ([GREY], [[GREY]], [[1]], [[0.5, 0.4]])],
)
def test_lists_that_do_not_fit(arguments):
    with pytest.raises(BadInput, match="need as many lists of one length"):
        ranked.ranked(*arguments)


def test_files_are_written_by_the_verb(runs, worlds, tmp_path: Path, capsys):
    from vireid.cli.main import main

    given = ["figures", str(runs["llcm"]), "--data", f"llcm:{worlds['llcm']}", "--figure", "ranked", "--workers", "0"]
    assert main([*given, "--out", str(tmp_path), "--format", "png", "--set", "ranked.which=[best]"]) == 0
    found = {file.name for file in tmp_path.iterdir()}
    assert found == {"ranked-best.png", "ranked-failures.png", "figures.json"}
