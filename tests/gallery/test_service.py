"""The service over real HTTP: what it answers, and what it writes down."""

from __future__ import annotations

import contextlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("fastapi")

from tests.gallery.rows import row
from tests.gallery.served import checked, eventually, found, picture, served, upload, word
from tests.gallery.station import START
from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, calibrate_pairs
from vireid.evaluation.inference import ENOUGH
from vireid.gallery import facets
from vireid.gallery import search as searching
from vireid.gallery.index import CALIBRATION, open_index
from vireid.gallery.row import Where
from vireid.gallery.service import answers
from vireid.gallery.service import engine as engines
from vireid.gallery.untrusted import decode

SMALL = picture(grey=True)


@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_an_uploaded_picture_finds_what_the_library_finds(shared, client, modality):
    data = picture(3, grey=modality == "infrared")
    got = found(upload(client, data, top=7, search_in="visible"))
    index = shared.service.engine.index
    pictures, kind = [decode(data).pixels], Modality[modality.upper()]
    vectors = index.model.embed(pictures, kind, expected=ENOUGH)  # as a service does, which is there for many pictures
    assert vectors == pytest.approx(index.embed(pictures, kind), abs=1e-5)
    query = searching.query_of_vectors(vectors, kind)
    (wanted,) = searching.search(index, [query], Where(modality=Modality.VISIBLE), top=7)
    assert got["query"] == {"modality": modality, "guessed": True, "pictures": 1, "picture": None}
    assert {**got, "search": None, "query": None} == {**searching.as_values(wanted), "search": None, "query": None}
    assert len(got["matches"]) == 7


def test_a_picture_of_the_gallery_finds_others_but_not_itself(shared, client):
    row = next(iter(shared.service.engine.store.iterate(Where(modality=Modality.INFRARED))))
    got = found(client.post("/v1/searches", json={"picture": row.id, "top": 100}))
    index = shared.service.engine.index
    (wanted,) = searching.search(index, [searching.query_from(index, row.id)], top=100)
    assert got["matches"] == searching.as_values(wanted)["matches"]
    assert got["query"] == {"modality": "infrared", "guessed": False, "pictures": 1, "picture": row.id}
    assert row.id not in {match["picture"] for match in got["matches"]}
    assert len(got["matches"]) == 35


def test_several_pictures_of_one_person_are_one_query(shared, client):
    data = [picture(seed) for seed in range(3)]
    got = found(upload(client, *data, modality="visible"))
    index = shared.service.engine.index
    query = searching.query_of(index, [decode(one).pixels for one in data], Modality.VISIBLE)
    (wanted,) = searching.search(index, [query])
    assert got["query"] == {"modality": "visible", "guessed": False, "pictures": 3, "picture": None}
    assert [(one["picture"], one["rank"]) for one in got["matches"]] == [
        (one.row.id, one.rank) for one in wanted.matches
    ]


def test_pages_fit_together_and_filters_change_without_another_upload(client):
    first = found(upload(client, SMALL, top=5, search_in="visible"))
    pages, start = list(first["matches"]), first["next"]
    while start is not None:
        page = found(
            client.get(f"/v1/searches/{first['search']}", params={"top": 5, "start": start, "search_in": "visible"})
        )
        assert page["search"] == first["search"]
        pages += page["matches"]
        start = page["next"]
    whole = found(client.get(f"/v1/searches/{first['search']}", params={"top": 100, "search_in": "visible"}))
    assert pages == whole["matches"]
    assert [one["rank"] for one in pages] == list(range(1, 25))
    two = found(client.get(f"/v1/searches/{first['search']}", params={"cameras": ["1", "3"], "top": 100}))
    assert {one["camera"] for one in two["matches"]} == {"1", "3"}
    assert two["searched"] == {"visible": 6, "infrared": 6}
    assert two["query"] == first["query"]


def test_each_filter_is_the_store_s_filter(shared, client):
    cases = [
        ({"since": "2026-03-01T05:53:20Z"}, Where(since=START + 4 * 3_600_000)),
        ({"until": "2026-03-01T06:53:20+01:00"}, Where(until=START + 4 * 3_600_000)),
        ({"since": "2026-03-02"}, Where(since=1_772_409_600_000)),
        ({"sources": ["sysu-mm01"], "cameras": ["2"]}, Where(sources=("sysu-mm01",), cameras=("2",))),
        ({"sources": ["nowhere"]}, Where(sources=("nowhere",))),
        ({"search_in": "infrared"}, Where(modality=Modality.INFRARED)),
        ({"search_in": "infrared", "cameras": ["1"]}, Where(modality=Modality.INFRARED, cameras=("1",))),
    ]
    store = shared.service.engine.store
    search = found(upload(client, SMALL))["search"]
    some = next(iter(store.iterate())).id
    for given, where in cases:
        count = store.count(where)
        responses = (
            upload(client, SMALL, **given),
            client.get(f"/v1/searches/{search}", params=given),
            client.post("/v1/searches", json={"picture": some, **given}),
        )
        for number, response in enumerate(responses):
            own = number == 2 and some in {row.id for row in store.iterate(where)}
            assert sum(found(response)["searched"].values()) == count - own, (given, number)
    none = found(client.post("/v1/searches", json={"picture": some, "cameras": []}))
    assert (none["matches"], none["searched"], none["next"]) == ([], {"visible": 0, "infrared": 0}, None)
    assert sum(found(upload(client, SMALL, since="", until="", search_in=""))["searched"].values()) == 36


def test_the_modality_is_guessed_unless_it_is_named(client):
    assert found(upload(client, SMALL))["query"]["modality"] == "infrared"
    assert found(upload(client, picture()))["query"]["modality"] == "visible"
    named = found(upload(client, SMALL, modality="visible"))["query"]
    assert (named["modality"], named["guessed"]) == ("visible", False)
    mixed = upload(client, SMALL, picture())
    assert (mixed.status_code, word(mixed)) == (422, "invalid")
    assert mixed.json()["choices"] == ["visible", "infrared"]
    assert found(upload(client, SMALL, picture(), modality="infrared"))["query"]["pictures"] == 2


def test_the_facets_are_counts_of_the_rows(shared, client):
    got = client.get("/v1/facets").json()
    answers.Facets.model_validate(got)
    rows = list(shared.service.engine.store.iterate())
    assert got["pictures"] == {"visible": 24, "infrared": 12}
    for one in got["cameras"]:
        for modality in (Modality.VISIBLE, Modality.INFRARED):
            wanted = sum(row.camera == one["name"] and row.modality == modality for row in rows)
            assert one[modality.word] == wanted
    assert [one["name"] for one in got["cameras"]] == sorted({row.camera for row in rows})
    assert got["sources"] == [{"name": "sysu-mm01", "visible": 24, "infrared": 12}]
    times = [row.time for row in rows]
    assert (min(times), max(times)) == (START, START + 35 * 3_600_000)
    assert got["times"] == {"first": "2026-03-01T01:53:20Z", "last": "2026-03-02T12:53:20Z", "without": 0}
    assert (got["calibrated"], got["people"], got["warnings"], got["require_reason"]) == (False, None, [], False)
    assert got["limits"] == {"bytes": 10 * 2**20, "pictures": 8, "top": 100}


def test_a_thumbnail_is_what_was_stored(shared, client):
    store = shared.service.engine.store
    id = next(iter(store.iterate())).id
    response = client.get(f"/v1/pictures/{id}/thumbnail")
    assert response.content == store.thumbnail(id)
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "private, max-age=300"


def test_feedback_is_kept_with_the_contents_of_both_pictures(shared, client):
    data = [picture(seed) for seed in (1, 2)]
    got = found(upload(client, *data))
    match, other = got["matches"][0]["picture"], got["matches"][1]["picture"]
    said = {"search": got["search"], "picture": match, "verdict": "same"}
    assert client.put("/v1/feedback", json=said).status_code == 204
    assert client.put("/v1/feedback", json={**said, "picture": other, "verdict": "different"}).status_code == 204
    assert client.put("/v1/feedback", json={**said, "picture": other, "verdict": "none"}).status_code == 204
    content = shared.service.engine.row(match).content
    kept = {(one.query, one.picture, one.verdict, one.who) for one in shared.service.engine.feedback.all()}
    assert kept == {(decode(one).content, content, "same", "local") for one in data}
    far = found(client.get(f"/v1/searches/{got['search']}", params={"start": 20, "top": 1}))["matches"][0]["picture"]
    assert client.put("/v1/feedback", json={**said, "picture": far}).status_code == 204
    engine = shared.service.engine
    unseen = {row.id for row in engine.store.iterate()} - engine.searches.find(got["search"], "local").shown
    refused = client.put("/v1/feedback", json={**said, "picture": unseen.pop()})
    assert (refused.status_code, word(refused)) == (404, "not-found")


def test_every_answer_has_its_entry_in_the_audit_log_before_it_is_sent(own):
    with served(own) as running, checked(running.client()) as client:
        got = found(upload(client, SMALL, cameras=["1", "2"], top=3, reason="  lost child, gate 3 "))
        again = found(client.get(f"/v1/searches/{got['search']}", params={"start": 3}))
        id = got["matches"][0]["picture"]
        other = found(client.post("/v1/searches", json={"picture": id}))
        upload(client, b"no picture")
        audit = running.service.engine.audit
        entries = list(audit.entries())
        assert [list(one.shown) for one in entries] == [
            [match["picture"] for match in one["matches"]] for one in (got, again, other)
        ]
        assert entries[0].filters == {"cameras": ["1", "2"], "top": 3, "start": 0}
        assert [one.reason for one in entries] == ["lost child, gate 3", "lost child, gate 3", None]
        assert {one.who for one in entries} == {"local"}
        assert [one.number for one in audit.searches_for(decode(SMALL).content)] == [1, 2]
        audit.close()
        refused = upload(client, SMALL)
        assert (refused.status_code, word(refused)) == (503, "unavailable")
        assert "audit" not in refused.text


def test_a_reason_can_be_required(own):
    with served(own, require_reason=True) as running, checked(running.client()) as client:
        assert client.get("/v1/facets").json()["require_reason"] is True
        id = next(iter(running.service.engine.store.iterate())).id
        for response in (
            upload(client, SMALL),
            upload(client, SMALL, reason="   "),
            client.post("/v1/searches", json={"picture": id}),
            client.post("/v1/searches", json={"picture": id, "reason": ""}),
        ):
            assert (response.status_code, word(response)) == (422, "reason-required")
        search = found(upload(client, SMALL, reason="theft 12/3"))["search"]
        found(client.get(f"/v1/searches/{search}"))
        found(client.post("/v1/searches", json={"picture": id, "reason": "theft 12/3"}))
        assert {one.reason for one in running.service.engine.audit.entries()} == {"theft 12/3"}


def test_a_calibration_that_is_stored_meanwhile_is_used_and_judges_the_matches(own, monkeypatch):
    monkeypatch.setattr(engines, "LOOK", 0.0)
    with served(own) as running, checked(running.client()) as client:
        assert found(upload(client, SMALL))["state"] is None
        index = running.service.engine.index
        with contextlib.closing(open_index(own)) as writer:
            writer.store.keep(CALIBRATION, calibration_of(writer).as_text())
        got = found(upload(client, SMALL, top=100))
        assert got["state"] in ("likely", "possible", "absent", "open", "unresolved")
        ratios = [one["ratio"] for one in got["matches"]]
        assert ratios == sorted(ratios, reverse=True)
        assert [one["rank"] for one in got["matches"]] == list(range(1, 37))
        assert all(0 <= one["strangers"] <= one["strangers_upper"] for one in got["matches"])
        facts = client.get("/v1/facets").json()
        assert (facts["calibrated"], facts["people"]) == (True, 12)
        assert running.service.engine.index.model is index.model
        with contextlib.closing(open_index(own)) as writer:
            writer.store.keep(CALIBRATION, "{")
        assert found(upload(client, SMALL))["state"] == got["state"]


def calibration_of(index: Any) -> Any:
    """A calibration of features made for it, so that each kind of pairs has a slope above zero."""
    chance = np.random.default_rng(0)
    identity = np.repeat(np.arange(12), 8)
    features = chance.normal(size=(12, 16))[identity] + 0.7 * chance.normal(size=(96, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    pairs = calibrate_pairs(features, identity, np.tile([0, 1], 48), resamplings=0)
    return Calibration(pairs, index.facts.fingerprint, "synthetic", "0" * 64, 12, 0)


def test_64_at_once_get_the_answers_that_they_get_one_at_a_time(shared):
    pictures = [picture(seed, grey=bool(seed % 3)) for seed in range(64)]
    with checked(shared.client()) as client:
        alone = [found(upload(client, one, top=5)) for one in pictures]
        before = batches(client)
        with ThreadPoolExecutor(64) as pool:
            together = list(pool.map(lambda one: upload(client, one, top=5), pictures))
        after = batches(client)
    shown = [(one["picture"], one["rank"]) for answer in alone for one in answer["matches"]]
    for one, response in zip(alone, together, strict=True):
        got = found(response)
        assert got["query"] == one["query"]
        assert [match["rank"] for match in got["matches"]] == [match["rank"] for match in one["matches"]]
        cosines = [[match["cosine"] for match in answer["matches"]] for answer in (got, one)]
        np.testing.assert_allclose(*cosines, atol=1e-5)
    same = [(one["picture"], one["rank"]) for answer in map(found, together) for one in answer["matches"]]
    assert np.mean([one == other for one, other in zip(shown, same, strict=True)]) > 0.99
    assert after[0] - before[0] == 64
    assert after[1] - before[1] < 40, "they were computed one at a time"


def batches(client: httpx.Client) -> tuple[int, int]:
    """Pictures and batches so far."""
    text = client.get("/metrics").text
    return number(text, "vireid_gallery_embedded_pictures_total"), number(text, "vireid_gallery_batch_searches_count")


def number(text: str, name: str) -> int:
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return int(float(line.split()[1]))


def test_metrics_count_requests_by_template_and_show_the_gallery(own):
    with served(own) as running, checked(running.client()) as client:
        search = found(upload(client, SMALL, picture(grey=True, seed=4)))["search"]
        found(client.get(f"/v1/searches/{search}"))
        client.get("/v1/searches/" + "0" * 32)
        client.get("/secret/place")
        text = client.get("/metrics").text
    for line in (
        'vireid_gallery_requests_total{route="/v1/searches",status="200"} 1.0',
        'vireid_gallery_requests_total{route="/v1/searches/{search}",status="200"} 1.0',
        'vireid_gallery_requests_total{route="/v1/searches/{search}",status="404"} 1.0',
        'vireid_gallery_requests_total{route="other",status="404"} 1.0',
        "vireid_gallery_embedded_pictures_total 2.0",
        "vireid_gallery_waiting_searches 0.0",
        'vireid_gallery_rows{modality="visible"} 24.0',
        'vireid_gallery_rows{modality="infrared"} 12.0',
        'vireid_gallery_request_seconds_count{route="/v1/searches"} 1.0',
    ):
        assert line in text.splitlines()
    assert search not in text
    assert "secret" not in text


def test_no_byte_of_a_query_picture_is_written_to_disk(shared, client, monkeypatch):
    """A form's parser would write files above 1 MB to the folder for temporary files. Here there is none."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    data = picture(size=(1200, 900), kind="BMP")
    assert len(data) > 3_000_000
    found(upload(client, data, data))


def test_new_rows_of_another_store_are_found_without_a_restart(own, monkeypatch):
    monkeypatch.setattr(facets, "FRESH", 0.1)
    with served(own) as running, checked(running.client()) as client:
        assert client.get("/v1/facets").json()["pictures"]["visible"] == 24
        vector = next(iter(running.service.engine.store.iterate(vectors=True))).vector
        with open_index(own) as writer:
            writer.store.upsert([row(0, vector, camera="roof")])
        got = found(upload(client, SMALL, cameras="roof"))
        assert [one["camera"] for one in got["matches"]] == ["roof"]
        eventually(lambda: client.get("/v1/facets").json()["pictures"]["visible"] == 25)
        assert {"name": "roof", "visible": 1, "infrared": 0} in client.get("/v1/facets").json()["cameras"]
        id = got["matches"][0]["picture"]
        with open_index(own) as writer:
            writer.store.delete([id])
            writer.store.compact()
        assert found(upload(client, SMALL, cameras="roof"))["matches"] == []
        assert client.get(f"/v1/pictures/{id}/thumbnail").status_code == 404


def test_the_description_names_every_call_and_every_status(shared, client):
    made = client.get("/openapi.json").json()
    routes = {getattr(route, "path", "") for route in shared.service.app.routes}
    described = set(made["paths"])
    files = {
        "/",
        "/openapi.json",
        *(f"/{one.name}" for one in (Path(searching.__file__).parent / "service" / "page").iterdir()),
    }
    assert routes - files == described
    assert set(made["paths"]["/v1/searches"]["post"]["responses"]) >= {
        *("200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503")
    }
    body = made["paths"]["/v1/searches"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    for path, calls in made["paths"].items():
        for call in calls.values():
            assert call["security"] == ([] if path in ("/healthz", "/readyz") else [{"token": []}])
            for status, response in call["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]
    references = json.dumps(made).split('"#/components/schemas/')[1:]
    assert {one.partition('"')[0] for one in references} <= set(made["components"]["schemas"])
