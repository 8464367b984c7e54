"""`vireid bench`: what is measured is what is said, contenders agree, and a killed writer loses nothing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.gallery.servers import LITE
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.gallery.bench import requests as bench_service
from vireid.gallery.bench import resume as bench_resume
from vireid.gallery.bench import vectors as bench_search
from vireid.gallery.bench.ratios import (
    CAMERAS,
    MODEL,
    QUICK,
    TOP,
    BenchOptions,
    Missing,
    Timed,
    bench,
    interleaved,
    need,
    part_of,
    queries_of,
    row_id,
    rows_of,
    vectors_of,
)
from vireid.gallery.bench.resume import StoreOptions, bench_store, check_answers, plain_answers
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.training.progress import Quiet


class Machine:
    """A clock that contenders move on by themselves: each takes the next of its own seconds."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.now, self.calls = 0.0, []
        self._left = {name: iter(own) for name, own in seconds.items()}

    def contender(self, name: str):
        def run() -> None:
            self.calls.append(name)
            self.now += next(self._left[name])

        return run

    def measured(self, rounds: int) -> Timed:
        contenders = {name: self.contender(name) for name in self._left}
        return interleaved(contenders, rounds, clock=lambda: self.now)


def test_contenders_take_turns_and_the_first_call_of_each_does_not_count():
    machine = Machine({"base": [100, 1, 2, 9], "ours": [200, 3, 4, 9]})
    timed = machine.measured(3)
    assert machine.calls == ["base", "ours", "base", "ours", "ours", "base", "base", "ours"]
    assert timed.seconds == {"base": (1, 2, 9), "ours": (3, 4, 9)}


def test_a_ratio_is_the_median_of_the_rounds_so_a_slow_round_does_not_count():
    timed = Timed({"base": (1.0, 100.0, 2.0), "ours": (3.0, 200.0, 5.0)})
    slower = timed.ratio("matrix", "", "ours", "base", 2.4)
    assert (slower.value, slower.baseline_seconds, slower.ours_seconds) == (2.5, 2.0, 5.0)
    assert slower.met is False
    assert timed.ratio("matrix", "", "ours", "base", 2.5).met is True
    assert timed.ratio("matrix", "", "ours", "base", None).met is None
    speed = timed.ratio("build", "", "ours", "base", 0.4, speed=True)
    assert speed.value == pytest.approx(0.4)  # of 1/3, 1/2 and 2/5
    assert (speed.met, timed.ratio("build", "", "ours", "base", 0.41, speed=True).met) == (True, False)


def test_an_area_that_does_not_fit_is_left_out_with_the_sizes(tmp_path):
    need(memory=1e9, disk=0, folder=tmp_path, free=1.2e9)
    with pytest.raises(Missing, match=r"needs 2\.3 GB of memory, and 2\.2 GB are free"):
        need(memory=2e9, disk=0, folder=tmp_path, free=2.2e9)
    with pytest.raises(Missing, match="GB are free"):
        need(memory=0, disk=1e18, folder=tmp_path)
    found = bench(BenchOptions(**{**QUICK, "rows": 10**9}, areas=("matrix",)))
    assert (found.ratios, list(found.missing)) == ((), ["matrix"])
    assert "GB" in found.missing["matrix"]


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


@pytest.mark.parametrize("area", ["matrix", "large"])
def test_contenders_that_find_other_pictures_are_not_compared(area, monkeypatch, tmp_path):
    if area == "large":
        pytest.importorskip("faiss")
    asked, measure = BenchOptions(**QUICK), getattr(bench_search, f"{area}_ratios")
    assert measure(asked, tmp_path, Quiet())
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(bench_search, "rows_of", lambda first, part: rows_of(first, np.roll(part, 1, axis=0)))
    with pytest.raises(RuntimeError, match="found other pictures"):
        measure(asked, tmp_path / "again", Quiet())


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
        best = store.search(queries_of(bench_resume.CHECKED, 2000, 16), TOP, bench_resume.ONE_CAMERA)[-1][-1]
        (row,) = store.get([best.id]).values()
        store.delete([best.id])
        with pytest.raises(RuntimeError, match="not that of the plain loop"):
            check_answers(store, 2000, 16)
        store.upsert([row])
        check_answers(store, 2000, 16)


@pytest.mark.process
def test_a_store_is_filled_in_spite_of_kills(tmp_path):
    place = tmp_path / "store"
    found = bench_store(StoreOptions(str(place), rows=20_000, width=16, kills=2, rounds=1, keep=True))
    assert found.killed
    for one in found.killed:
        assert one.acknowledged % 1000 == 0
        assert one.acknowledged <= one.stored <= one.acknowledged + 1000
    with open_gallery(place) as store:
        assert store.count() == 20_000
    assert found.disk == sum(file.stat().st_size for file in place.iterdir())
    with pytest.raises(BadInput, match="is there already"):
        bench_store(StoreOptions(str(place)))


@pytest.mark.process
@pytest.mark.parametrize(("lost", "said"), [("row", "rows were acknowledged"), ("vector", "is not there unchanged")])
def test_a_row_that_was_acknowledged_and_is_lost_is_noticed(lost, said, tmp_path, monkeypatch):
    place = tmp_path / "store"
    real = bench_resume._after_kill

    def losing(asked: StoreOptions, acknowledged: int) -> bench_resume.Killed:
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

    monkeypatch.setattr(bench_resume, "_after_kill", losing)
    with pytest.raises(RuntimeError, match=said):
        bench_store(StoreOptions(str(place), rows=20_000, width=16, rounds=1))


@pytest.mark.process
def test_the_adapter_is_compared_with_pymilvus_in_a_server_that_is_left_empty(tmp_path):
    pymilvus = pytest.importorskip("pymilvus")
    if not LITE.exists():
        pytest.skip("milvus-lite is not installed")
    with bench_search.lite_server(tmp_path / "lite") as port:
        url = f"milvus://127.0.0.1:{port}/bench"
        asked = BenchOptions(**QUICK, areas=("milvus",), store=url)
        found = bench(asked)
        assert [one.baseline for one in found.ratios] == ["pymilvus, with vectors", "pymilvus, ids only"]
        assert "the given server" in found.ratios[0].what
        client = pymilvus.MilvusClient(f"http://127.0.0.1:{port}")
        assert client.list_collections() == []
        client.close()
        open_gallery(url, model=MODEL, width=4).close()
        with pytest.raises(BadInput, match="is there already"):
            bench(asked)


@pytest.mark.slow
def test_a_build_is_compared_with_a_loop_that_embeds_the_same_pictures(runs, tmp_path, monkeypatch):
    asked = BenchOptions(**QUICK, model=runs["llcm"])
    seen = []
    real = bench_service.embed_only
    monkeypatch.setattr(bench_service, "embed_only", lambda *given: seen.append(real(*given)))
    (found,) = bench_service.build_ratios(asked, tmp_path, Quiet())
    assert found.speed
    assert found.target == 0.9
    with open_gallery(tmp_path / "index-0") as store:
        rows = sorted(store.iterate(vectors=True), key=lambda row: row.path)
    stored = np.stack([row.vector for row in rows if row.vector is not None])
    assert np.allclose(seen[0], stored, atol=1e-4)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed")
def test_searches_over_http_are_answered_and_timed(runs, tmp_path, monkeypatch):
    answers = []
    real = bench_service.send
    monkeypatch.setattr(bench_service, "send", lambda *given: answers.append(real(*given)))
    asked = BenchOptions(**QUICK, model=runs["llcm"])
    (found,) = bench_service.service_ratios(asked, tmp_path, Quiet())
    assert found.speed
    assert len(answers) == 2 * (1 + asked.rounds) * asked.requests
    first, again = answers[: asked.requests], answers[asked.requests : 2 * asked.requests]
    assert all(first)
    assert sorted(first) == sorted(again)  # at the same time, each search gets the answer that it gets alone


def test_the_verb_prints_a_table_and_writes_json(tmp_path, capsys):
    file = tmp_path / "ratios.json"
    assert main(["bench", "search", "--quick", "--area", "matrix", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "NumPy, product and argpartition" in printed
    assert "too small to say anything" in printed
    told = json.loads(file.read_text())
    assert [one["target"] for one in told["ratios"]] == [1.0, 0.5, 0.5, 0.5]
    assert told["hardware"]["processor"]
    assert main(["bench", "search", "--area", "memory"]) == 2
    assert "build, matrix, large, service, milvus" in capsys.readouterr().err
    assert main(["bench", "store", "--store", str(tmp_path), "--rows", "10"]) == 2
    assert "is there already" in capsys.readouterr().err
