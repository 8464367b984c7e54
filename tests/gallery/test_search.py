"""Searches compared with a plain loop over all rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gallery.people import INFRARED, VISIBLE, calibrated, people_index, people_rows, vector_of, vectors_of
from tests.gallery.rows import passes
from tests.gallery.station import station
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration
from vireid.gallery.index import Index
from vireid.gallery.row import Row, Where
from vireid.gallery.scores import strangers
from vireid.gallery.search import Answer, Query, as_values, query_from, query_of, query_of_vectors, search
from vireid.gallery.stores.product import scores

PEOPLE = [n // 2 for n in range(24)]
EVERYTHING = calibrated(people=40)
CALIBRATIONS = {
    "all": EVERYTHING,
    "across only": replace(EVERYTHING, pairs={"across": EVERYTHING.pairs["across"]}),
    "no infrared": replace(EVERYTHING, pairs={k: v for k, v in EVERYTHING.pairs.items() if k != "infrared"}),
    "none": None,
}


def gallery_rows() -> list[Row]:
    """24 pictures of 12 people in each modality, and four pictures twice, with equal vectors and contents."""
    rows = [*people_rows(PEOPLE, VISIBLE, seed=1), *people_rows(PEOPLE, INFRARED, seed=1)]
    return [*rows, *(replace(row, path=f"again/{row.path}", camera="9") for row in (*rows[3:5], *rows[30:32]))]


ROWS = gallery_rows()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    made = people_index(tmp_path_factory.mktemp("gallery") / "index", ROWS, EVERYTHING)
    with made:
        yield made


def kind(query: Modality, other: Modality) -> str:
    return "across" if query != other else other.word


def expected(
    calibration: Calibration | None, query: Query, where: Where, rows: Sequence[Row] = ROWS
) -> tuple[list[list[tuple[str, float, float | None, float | None]]], dict[Modality, int]]:
    """The lists of an answer, each with id, cosine, ratio and strangers, one row after another."""
    modalities = [VISIBLE, INFRARED] if where.modality is None else [where.modality]
    found = {one: [] for one in modalities}
    for row in rows:
        if row.modality in modalities and passes(row, where) and row.id not in query.without:
            cosine = float(scores(query.vector, vector_of(row)[None])[0]) * query.length
            found[row.modality].append((row.id, min(1.0, max(-1.0, cosine))))
    counts = {one: len(those) for one, those in found.items()}
    known = {} if calibration is None else calibration.pairs
    judged = [one for one in modalities if counts[one] and kind(query.modality, one) in known]
    merged, others = [], []
    for one in modalities:
        if one in judged:
            own = known[kind(query.modality, one)]
            for id, cosine in found[one]:
                number = len(judged) * counts[one] * max(own.false_match_rate(cosine).estimate, own.resolution)
                merged.append((id, cosine, own.slope * cosine + own.intercept, number))
        elif found[one]:
            order = sorted(found[one], key=lambda pair: (-pair[1], pair[0]))
            others.append((one == query.modality, [(id, cosine, None, None) for id, cosine in order]))
    merged.sort(key=lambda four: (-four[2], -four[1], four[0]))
    lists = [merged] if merged else []
    return [*lists, *(those for _, those in sorted(others, key=lambda pair: pair[0]))], counts


def as_expected(answer: Answer) -> list[tuple[str, float, float | None, float | None]]:
    return [
        (one.row.id, one.cosine, one.ratio, None if one.strangers is None else one.strangers.estimate)
        for one in answer.matches
    ]


NONE = st.none() | st.none() | st.none()
WHERES = st.builds(
    Where,
    modality=st.sampled_from((None, None, VISIBLE, INFRARED)),
    cameras=NONE | st.lists(st.sampled_from(("0", "1", "2", "9", "x")), max_size=3).map(tuple),
    sources=NONE | st.just(("gate",)),
    tracklets=NONE | st.just(("t1", "t2", "t3")),
    since=NONE | st.integers(0, 25).map(lambda n: 1_772_330_000_000 + n * 60_000),
    ids=NONE | st.lists(st.sampled_from([row.id for row in ROWS]), max_size=9).map(tuple),
)


@pytest.mark.parametrize("which", sorted(CALIBRATIONS))
def test_the_whole_list_is_that_of_a_loop_over_all_rows(index: Index, which: str) -> None:
    searched = replace(index, calibration=CALIBRATIONS[which])
    queries = [query_from(index, row.id) for row in ROWS[::5]]
    for query, answer in zip(queries, search(searched, queries, top=1000), strict=True):
        lists, counts = expected(CALIBRATIONS[which], query, Where())
        assert as_expected(answer) == [four for one in lists for four in one]
        assert sum(counts.values()) == len(answer.matches) == len(ROWS) - 1


@settings(max_examples=60, deadline=None)
@given(
    where=WHERES,
    which=st.sampled_from(sorted(CALIBRATIONS)),
    chosen=st.lists(st.integers(0, len(ROWS) - 1), min_size=1, max_size=4),
    top=st.integers(1, 30) | st.just(50),
    start=st.integers(0, 9) | st.integers(0, 40),
)
def test_an_answer_is_that_of_a_loop_over_all_rows(
    index: Index, where: Where, which: str, chosen: list[int], top: int, start: int
) -> None:
    calibration = CALIBRATIONS[which]
    searched = replace(index, calibration=calibration)
    queries = [query_from(index, ROWS[n].id) for n in chosen]
    for query, answer in zip(queries, search(searched, queries, where, top=top, start=start), strict=True):
        lists, counts = expected(calibration, query, where)
        shown = [four for one in lists for four in one[start : start + top]]
        assert as_expected(answer) == shown
        ranks = [rank for one in lists for rank in range(start + 1, min(start + top, len(one)) + 1)]
        assert [one.rank for one in answer.matches] == ranks
        assert answer.searched == counts and answer.query == query.modality
        assert (answer.verdict is None) == (calibration is None)
        assert answer.next == (start + top if any(len(one) > start + top for one in lists) else None)
        assert all(one.row.vector is None for one in answer.matches)
        if not any(counts.values()) and answer.verdict is not None:
            assert answer.verdict.state == "open"


@settings(max_examples=12, deadline=None)
@given(which=st.sampled_from(sorted(CALIBRATIONS)), chosen=st.integers(0, len(ROWS) - 1), top=st.integers(1, 20))
def test_pages_put_together_are_one_long_page(index: Index, which: str, chosen: int, top: int) -> None:
    searched = replace(index, calibration=CALIBRATIONS[which])
    query = query_from(index, ROWS[chosen].id)
    (whole,) = search(searched, [query], top=1000)
    assert whole.next is None and len(whole.matches) == len(ROWS) - 1
    pages: list[Answer] = []
    start: int | None = 0
    while start is not None:
        (page,) = search(searched, [query], top=top, start=start)
        assert page.verdict == whole.verdict and page.searched == whole.searched
        pages.append(page)
        start = page.next
    longest = max(one.rank for one in whole.matches)
    assert len(pages) == -(-longest // top)
    together = [one for page in pages for one in page.matches]
    key = lambda one: (one.ratio is None, one.row.modality if one.ratio is None else 0, one.rank)  # noqa: E731
    assert sorted(together, key=key) == sorted(whole.matches, key=key)


def test_equal_pictures_come_by_id_and_a_copy_of_the_query_is_a_match(index: Index) -> None:
    row = ROWS[3]
    copy = next(one for one in ROWS if one.content == row.content and one.id != row.id)
    (answer,) = search(index, [query_from(index, row.id)], top=5)
    assert answer.matches[0].row == copy and answer.matches[0].cosine == pytest.approx(1, abs=1e-6)
    assert row.id not in [one.row.id for one in answer.matches]
    (both,) = search(index, [replace(query_from(index, row.id), without=())], top=2)
    assert [one.row.id for one in both.matches] == sorted([row.id, copy.id])


def test_a_search_that_passes_over_the_query_still_counts_right(index: Index) -> None:
    row = ROWS[0]
    query = query_from(index, row.id)
    (with_it,) = search(index, [query], Where(cameras=(row.camera,)))
    (without_it,) = search(index, [query], Where(cameras=("9",)))
    same_camera = [one for one in ROWS if one.camera == row.camera and one.modality == VISIBLE]
    assert with_it.searched[VISIBLE] == len(same_camera) - 1
    assert without_it.searched == {VISIBLE: 2, INFRARED: 2}
    (alone,) = search(index, [query], Where(ids=(row.id,)))
    assert alone.searched == {VISIBLE: 0, INFRARED: 0} and not alone.matches and alone.next is None


def test_several_pictures_are_compared_by_their_mean_cosine(index: Index) -> None:
    vectors = vectors_of([3, 3, 3], INFRARED, seed=7)
    query = query_of_vectors(vectors, INFRARED)
    assert query.pictures == 3 and 0 < query.length < 1
    (answer,) = search(index, [query], top=1000)
    for match in answer.matches:
        own = next(row for row in ROWS if row.id == match.row.id)
        mean = np.mean([float(vector.astype(np.float64) @ vector_of(own).astype(np.float64)) for vector in vectors])
        assert match.cosine == pytest.approx(mean, abs=1e-6)
        pairs = EVERYTHING.pairs[kind(INFRARED, own.modality)]
        assert match.strangers == strangers(pairs, match.cosine, answer.searched[own.modality], 2)
    same = query_of_vectors(vectors[[0, 0]], INFRARED)
    assert same.length == pytest.approx(1, abs=1e-6) and np.allclose(same.vector, vectors[0], atol=1e-7)


def test_the_mean_of_several_pictures_of_a_stranger_exceeds_a_cosine_no_more_often_than_one_picture() -> None:
    """What the calibration of single pictures says of a mean is cautious, as `query_of` claims."""
    gallery = vectors_of(list(range(500, 900)), VISIBLE)
    each = np.stack([vectors_of(list(range(60)), INFRARED, seed=seed) for seed in range(4)])  # 4×60×D
    single = np.concatenate([(one @ gallery.T).ravel() for one in each])
    mean = (each.mean(axis=0) @ gallery.T).ravel()
    for rate in (0.1, 0.01, 0.001):
        assert (mean >= np.quantile(single, 1 - rate)).mean() <= rate


def test_a_search_reaches_to_the_thousandth_match_and_no_further(tmp_path: Path) -> None:
    rows = people_rows([n % 50 for n in range(1010)], VISIBLE, seed=3)
    with people_index(tmp_path / "index", rows, EVERYTHING) as index:
        query = query_from(index, rows[5].id)
        (first,) = search(index, [query], top=1000)
        assert first.searched == {VISIBLE: 1009, INFRARED: 0}
        lists, _ = expected(EVERYTHING, query, Where(), rows)
        assert as_expected(first) == lists[0][:999]  # the store gives 1,000, and one of them is the query
        assert first.next is None
        (last,) = search(index, [replace(query, without=())], top=300, start=900)
        assert [one.rank for one in last.matches] == list(range(901, 1001)) and last.next is None
        (page,) = search(index, [query], top=300, start=600)
        assert page.next == 900


def test_a_list_ends_where_the_store_could_not_say_what_comes_next(tmp_path: Path) -> None:
    """The store gives 1,000 visible pictures. One is the query, so whether the 1,000th is visible is not known."""
    rows = people_rows([n % 50 for n in range(1010)], VISIBLE, seed=3)
    infrared_last = {**EVERYTHING.pairs, "across": replace(EVERYTHING.pairs["across"], intercept=-1000.0)}
    rows += people_rows([1, 2, 3], INFRARED, seed=3)
    with people_index(tmp_path / "index", rows, replace(EVERYTHING, pairs=infrared_last)) as index:
        (found,) = search(index, [query_from(index, rows[5].id)], top=1000)
        assert {match.row.modality for match in found.matches} == {VISIBLE} and len(found.matches) == 999


@pytest.mark.parametrize(
    "given, says",
    [
        ({"top": 0}, "top takes 1 to 1,000"),
        ({"top": 1001}, "not 1001"),
        ({"start": -1}, "start takes 0 to 999"),
        ({"start": 1000}, "start takes 0 to 999"),
        ({"threshold": 0.0}, "strangers must be above 0"),
        ({"threshold": 1.5}, "strangers must be above 0 and up to 1"),
        ({"threshold": float("nan")}, "strangers must be"),
    ],
)
def test_numbers_that_are_out_of_range_are_refused(index: Index, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        search(index, [query_from(index, ROWS[0].id)], **given)


def test_no_query_has_no_answer(index: Index) -> None:
    assert search(index, []) == []


@pytest.mark.parametrize("id", ["", "xyz", "0" * 32, "../../etc/passwd", "A" * 32])
def test_an_id_that_is_not_in_the_gallery_is_refused(index: Index, id: str) -> None:
    with pytest.raises(BadInput, match="picture"):
        query_from(index, id)


class Deleting:
    """A store in which another process deletes rows between the search and the reading of the rows."""

    def __init__(self, store: Any, gone: Sequence[str]) -> None:
        self._store, self._gone = store, gone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, ids: Sequence[str]) -> dict[str, Row]:
        self._store.delete(self._gone)
        return self._store.get(ids)


def test_a_picture_that_is_deleted_during_the_search_is_left_out(tmp_path: Path) -> None:
    with people_index(tmp_path / "index", ROWS, EVERYTHING) as index:
        query = replace(query_from(index, ROWS[0].id), without=())
        (before,) = search(index, [query], top=5)
        gone = before.matches[1].row.id
        (after,) = search(replace(index, store=Deleting(index.store, [gone])), [query], top=5)
        assert [one.row.id for one in after.matches] == [one.row.id for one in before.matches if one.row.id != gone]


def test_the_values_of_an_answer(index: Index) -> None:
    row = ROWS[24]
    (answer,) = search(index, [query_from(index, row.id)], top=3)
    values = json.loads(json.dumps(as_values(answer), allow_nan=False))
    assert list(values) == ["query", "searched", "state", "words", "matches", "next"]
    assert values["query"] == {"modality": "infrared"} and values["searched"] == {"visible": 26, "infrared": 25}
    assert values["next"] == 3 and values["state"] == "possible"
    names = "picture rank camera modality time cosine ratio strangers strangers_upper"
    assert [list(one) for one in values["matches"]] == [names.split()] * 3
    first, match = values["matches"][0], answer.matches[0]
    assert first["picture"] == match.row.id and first["cosine"] == match.cosine
    assert match.strangers is not None and first["strangers_upper"] == match.strangers.upper
    whole = as_values(answer, paths=True)["matches"][0]
    assert (whole["source"], whole["path"], whole["person"]) == (match.row.source, match.row.path, match.row.person)


def test_the_values_of_an_answer_without_calibration_and_without_time(index: Index) -> None:
    plain = replace(index, calibration=None)
    (answer,) = search(plain, [query_from(index, ROWS[1].id)], Where(ids=(ROWS[0].id,)))
    values = as_values(answer)
    assert values["state"] is None and "not calibrated" in values["words"]
    assert values["searched"] == {"visible": 1, "infrared": 0}
    assert values["matches"][0]["time"] is None and values["matches"][0]["ratio"] is None
    (nothing,) = search(plain, [query_from(index, ROWS[1].id)], Where(cameras=()))
    assert as_values(nothing)["words"].startswith("No picture passes the filter")


@pytest.fixture(scope="module")
def real(worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    place = tmp_path_factory.mktemp("station") / "index"
    with station(place, runs["sysu-mm01"], worlds["sysu-mm01"]) as made:
        yield made


def test_the_query_of_a_picture_file_is_the_vector_of_its_row(real: Index, worlds: dict[str, Path]) -> None:
    row = next(iter(real.store.iterate(Where(modality=INFRARED), vectors=True)))
    query = query_of(real, [worlds["sysu-mm01"] / row.path], INFRARED)
    assert np.allclose(query.vector, vector_of(row), atol=1e-5) and (query.length, query.pictures) == (1.0, 1)
    (answer,) = search(real, [query], top=1)
    infrared = [one for one in answer.matches if one.row.modality == INFRARED]
    assert infrared[0].row.content == row.content


def test_a_query_needs_pictures_of_a_known_modality(real: Index) -> None:
    with pytest.raises(BadInput, match="needs a picture"):
        query_of(real, [], VISIBLE)
    with pytest.raises(BadInput, match="visible or infrared, not auxiliary"):
        query_of(real, [np.zeros((8, 8, 3), np.uint8)], Modality.AUXILIARY)


def test_vectors_that_make_no_query_are_refused() -> None:
    one = vectors_of([1], VISIBLE)[0]
    for wrong, says in [([one, -one], "nothing in common"), ([2 * one], "length"), (np.zeros((0, 24)), "nothing")]:
        with pytest.raises(BadInput, match=says):
            query_of_vectors(np.array(wrong, np.float32), VISIBLE)
