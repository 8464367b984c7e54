"""The areas `search` and `store`: contenders find the same pictures, and a killed writer loses nothing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.servers import LITE
from vireid.bench.areas import store as store_area
from vireid.bench.gallery import resume, service, stores
from vireid.bench.gallery.options import QUICK, SearchOptions
from vireid.bench.gallery.resume import StoreOptions, check_answers, plain_answers
from vireid.bench.gallery.server import lite_server
from vireid.bench.gallery.vectors import (
    CAMERAS,
    MODEL,
    TOP,
    part_of,
    queries_of,
    row_id,
    rows_of,
    vectors_of,
)
from vireid.bench.run import Bench, BenchOptions, bench
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.training.progress import Quiet


def searching(folder: Path, **given) -> Bench:
    """What the parts of the area `search` get with `--quick`."""
    return Bench(folder, quick=True, options=SearchOptions(**{**QUICK, **given}))


def storing(place: Path, **given) -> Bench:
    """What the area `store` gets."""
    return Bench(place.parent, rounds=1, options=StoreOptions(str(place), **given))


def test_a_part_that_does_not_fit_is_left_out_with_the_sizes():
    given = {"parts": ("matrix",), "rows": 10**9}
    found = bench(BenchOptions(areas=("search",), quick=True, options={"search": given}))
    assert (found.lines, list(found.left_out)) == ((), ["search, matrix"])
    assert "GB" in found.left_out["search, matrix"]


def test_what_takes_minutes_is_left_out_unless_search_is_named(monkeypatch):
    measured = []
    from vireid.bench.areas import search

    parts = {part: lambda given, part=part: measured.append(part) or [] for part in search.PARTS}
    monkeypatch.setattr(search, "MEASURED", parts)
    left_out = {}
    given = Bench(Path("."), options=SearchOptions(), leave_out=left_out.__setitem__)
    list(search.measure(given))
    assert measured == list(search.PARTS)
    measured.clear()
    unnamed = Bench(Path("."), named=False, options=SearchOptions(), leave_out=left_out.__setitem__)
    list(search.measure(unnamed))
    assert measured == [part for part in search.PARTS if part != "large"]
    assert list(left_out) == ["search, large"]


def test_the_vectors_are_made_again_part_by_part_and_lie_around_people():
    parts = dict(vectors_of(2300, 64))
    assert [len(part) for part in parts.values()] == [1000, 1000, 300]
    assert np.array_equal(parts[2000], part_of(2000, 2300, 64))
    assert np.abs(np.sum(parts[0] * parts[1000], axis=1)).max() < 0.7  # no vector comes again in the next part
    everything = np.concatenate(list(parts.values()))
    assert np.allclose(np.linalg.norm(everything, axis=1), 1, atol=1e-6)
    cosines = everything[:10] @ everything.T
    near, far = cosines[:, :10][~np.eye(10, dtype=bool)], cosines[:, 10:]
    assert 0.4 < near.mean() < 0.6
    assert abs(far.mean()) < 0.02
    (query,) = queries_of(1, 2300, 64)
    assert 0.6 < query @ everything[0] < 0.8
    assert int(np.argmax(everything @ query)) == 0


def test_half_of_the_best_are_of_other_people_so_that_the_choice_at_the_end_is_close():
    everything = np.concatenate([part for _, part in vectors_of(2000, 64)])
    best = np.argsort(-everything @ queries_of(1, 2000, 64)[0])[:TOP]
    assert 5 <= np.sum(best < 10) <= 10


@pytest.mark.parametrize("part", ["matrix", "large"])
def test_contenders_that_find_other_pictures_are_not_compared(part, monkeypatch, tmp_path):
    if part == "large":
        pytest.importorskip("faiss")
    measure = getattr(stores, f"{part}_lines")
    assert measure(searching(tmp_path))
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(stores, "rows_of", lambda first, part: rows_of(first, np.roll(part, 1, axis=0)))
    with pytest.raises(RuntimeError, match="found other pictures"):
        measure(searching(tmp_path / "again"))


def filled(place: Path, rows: int, width: int) -> Store:
    store = open_gallery(place, model=MODEL, width=width)
    for first, part in vectors_of(rows, width):
        store.upsert(rows_of(first, part))
    return store


def test_the_plain_answers_are_those_of_a_sort():
    queries = queries_of(3, 2500, 16)
    everything = np.concatenate([part for _, part in vectors_of(2500, 16)]).astype(np.float64)
    for camera, answers in zip((None, 3), plain_answers(queries, 2500, 16, (None, 3), Quiet()), strict=True):
        for query, found in zip(queries, answers, strict=True):
            cosines = everything @ query.astype(np.float64)
            passing = [n for n in range(2500) if camera is None or n % CAMERAS == camera]
            wanted = sorted(passing, key=lambda n: (-cosines[n], row_id(n)))[:TOP]
            assert [hit.id for hit in found] == [row_id(n) for n in wanted]
            assert np.allclose([hit.score for hit in found], cosines[wanted], atol=1e-12)


def test_a_wrong_answer_of_a_store_is_noticed(tmp_path):
    with filled(tmp_path / "store", 2000, 16) as store:
        check_answers(store, 2000, 16)
        best = store.search(queries_of(resume.CHECKED, 2000, 16), TOP, resume.ONE_CAMERA)[-1][-1]
        (row,) = store.get([best.id]).values()
        store.delete([best.id])
        with pytest.raises(RuntimeError, match="not that of the plain loop"):
            check_answers(store, 2000, 16)
        store.upsert([row])
        check_answers(store, 2000, 16)


@pytest.mark.process
def test_a_store_is_filled_in_spite_of_kills(tmp_path):
    place = tmp_path / "store"
    first, _ = store_area.measure(storing(place, rows=20_000, width=16, kills=2, keep=True))
    killed = [resume.Killed(**one) for one in first.figures["killed"]]
    assert killed
    for one in killed:
        assert one.acknowledged % 1000 == 0
        assert one.acknowledged <= one.stored <= one.acknowledged + 1000
    with open_gallery(place) as store:
        assert store.count() == 20_000
    assert first.figures["disk"] == sum(file.stat().st_size for file in place.iterdir())
    with pytest.raises(BadInput, match="is there already"):
        resume.fill(storing(place))


@pytest.mark.process
@pytest.mark.parametrize(("lost", "said"), [("row", "rows were acknowledged"), ("vector", "is not there unchanged")])
def test_a_row_that_was_acknowledged_and_is_lost_is_noticed(lost, said, tmp_path, monkeypatch):
    place = tmp_path / "store"
    real = resume._after_kill

    def losing(asked: StoreOptions, acknowledged: int) -> resume.Killed:
        with open_gallery(place) as store:
            last = row_id(acknowledged - 1)
            if lost == "row":
                store.delete([last])
                store.delete(row_id(n) for n in range(acknowledged, acknowledged + 1000))
            else:
                (row,) = store.get([last]).values()
                other = rows_of(acknowledged - 1, part_of(0, asked.rows, asked.width)[:1])[0]
                assert other.id == row.id
                store.upsert([other])
        return real(asked, acknowledged)

    monkeypatch.setattr(resume, "_after_kill", losing)
    with pytest.raises(RuntimeError, match=said):
        resume.fill(storing(place, rows=20_000, width=16))


@pytest.mark.process
def test_the_adapter_is_compared_with_pymilvus_in_a_server_that_is_left_empty(tmp_path):
    pymilvus = pytest.importorskip("pymilvus")
    if not LITE.exists():
        pytest.skip("milvus-lite is not installed")
    with lite_server(tmp_path / "lite") as port:
        url = f"milvus://127.0.0.1:{port}/bench"
        asked = BenchOptions(areas=("search",), quick=True, options={"search": {"parts": ("milvus",), "store": url}})
        found = bench(asked)
        assert [one.baseline for one in found.lines] == ["pymilvus, with vectors", "pymilvus, ids only"]
        assert "the given server" in found.lines[0].name
        client = pymilvus.MilvusClient(f"http://127.0.0.1:{port}")
        assert client.list_collections() == []
        client.close()
        open_gallery(url, model=MODEL, width=4).close()
        with pytest.raises(BadInput, match="is there already"):
            bench(asked)


@pytest.mark.slow
def test_a_build_is_compared_with_a_loop_that_embeds_the_same_pictures(runs, tmp_path, monkeypatch):
    seen = []
    real = service.embed_only
    monkeypatch.setattr(service, "embed_only", lambda *given: seen.append(real(*given)))
    (found,) = service.build_lines(searching(tmp_path, model=runs["llcm"]))
    assert (found.larger, found.goal) == (True, 0.9)
    with open_gallery(tmp_path / "index-0") as store:
        rows = sorted(store.iterate(vectors=True), key=lambda row: row.path)
    stored = np.stack([row.vector for row in rows if row.vector is not None])
    assert np.allclose(seen[0], stored, atol=1e-4)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed")
def test_searches_over_http_are_answered_and_timed(runs, tmp_path, monkeypatch):
    answers = []
    real = service.send
    monkeypatch.setattr(service, "send", lambda *given: answers.append(real(*given)) or answers[-1])
    asked = searching(tmp_path, model=runs["llcm"])
    (found,) = service.service_lines(asked)
    assert found.larger
    assert len(answers) == 2 * (1 + 2) * asked.options.requests
    assert all(answers)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed")
def test_a_search_that_is_answered_otherwise_at_the_same_time_stops_the_run(runs, tmp_path, monkeypatch):
    real, count = service.send, iter(range(10**6))
    lost = QUICK["requests"] + 1  # one of those that are sent together
    monkeypatch.setattr(service, "send", lambda *given: real(*given)[: 0 if next(count) == lost else None])
    with pytest.raises(RuntimeError, match="computes something else"):
        service.service_lines(searching(tmp_path, model=runs["llcm"]))


def test_the_options_of_the_areas_are_those_of_the_verb(tmp_path, capsys):
    file = tmp_path / "ratios.json"
    words = ["bench", "search", "--quick", "--area", "matrix", "--rows", "1500", "--json", str(file)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "NumPy, product and argpartition" in printed
    told = json.loads(file.read_text())
    assert [one["goal"] for one in told] == [1.0, 0.5, 0.5, 0.5]
    assert told[0]["name"] == "matrix: 1,500 × 64, one query"
    assert main(["bench", "store", "--store", str(tmp_path), "--rows", "10"]) == 2
    assert "is there already" in capsys.readouterr().err
