"""The service over real HTTP: what it refuses, and whom. All refusals have one form."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from tests.gallery.served import checked, eventually, found, picture, served, upload, word
from vireid.data.errors import BadInput
from vireid.gallery import search as searching
from vireid.gallery.service.access import Tokens

SMALL = picture(grey=True)
ID, NOBODY = "0" * 32, "f" * 32
GOOD = {"image": ("x", SMALL)}
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/nothing", {}, 404, "not-found"),
    ("GET", "/v1/pictures/../facets/thumbnail", {}, 404, "not-found"),
    ("GET", "/page/index.html", {}, 404, "not-found"),
    ("GET", "/service.py", {}, 404, "not-found"),
    ("DELETE", "/v1/searches", {}, 405, "method"),
    ("POST", "/v1/facets", {}, 405, "method"),
    ("POST", "/", {}, 405, "method"),
    ("GET", f"/v1/pictures/{ID}/thumbnail", {}, 404, "not-found"),
    ("GET", "/v1/pictures/..%2f..%2fetc/thumbnail", {}, 404, "not-found"),
    ("GET", "/v1/pictures/xyz/thumbnail", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}", {}, 404, "not-found"),
    ("GET", "/v1/searches/xyz", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?top=0", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?top=101", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?start=-1", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?start=1000", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?search_in=thermal", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?since=yesterday", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?until=yesterday&until=2026-03-02", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?until=9999-12-31", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?camera=1", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?cameras=%00", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?cameras={'x' * 65}", {}, 422, "invalid"),
    ("GET", f"/v1/searches/{ID}?" + "&".join(["cameras=1"] * 201), {}, 422, "invalid"),
    ("POST", "/v1/searches", {"content": b"x"}, 415, "wrong-type"),
    ("POST", "/v1/searches", {"data": {"picture": ID}}, 415, "wrong-type"),
    ("POST", "/v1/searches", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "bad-request"),
    ("POST", "/v1/searches", {"json": {"picture": NOBODY}}, 404, "not-found"),
    ("POST", "/v1/searches", {"json": {"picture": "../x"}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": []}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {"picture": ID, "top": "5"}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {"picture": ID, "persons": ["7"]}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {"picture": ID, "sources": ["a\0b"]}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {"picture": ID, "reason": "x" * 501}}, 422, "invalid"),
    ("POST", "/v1/searches", {"json": {"picture": ID, "reason": "a\nb"}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": {"other": SMALL}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": {"image": (None, b"text")}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": GOOD, "data": {"top": "1000"}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": GOOD, "data": {"modality": "thermal"}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": GOOD, "data": {"picture": ID}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": GOOD, "data": {"top": ["1", "2"]}}, 422, "invalid"),
    ("POST", "/v1/searches", {"files": [("image", SMALL)] * 9}, 400, "bad-request"),
    ("POST", "/v1/searches", {"files": {"image": b"GIF89a"}}, 415, "wrong-type"),
    ("POST", "/v1/searches", {"files": {"image": b""}}, 422, "unreadable"),
    ("POST", "/v1/searches", {"files": {"image": SMALL[:100]}}, 422, "unreadable"),
    ("POST", "/v1/searches", {"files": {"image": bytes(11 * 2**20)}}, 413, "too-large"),
    ("PUT", "/v1/feedback", {"json": {"search": ID, "picture": ID, "verdict": "same"}}, 404, "not-found"),
    ("PUT", "/v1/feedback", {"json": {"search": ID, "picture": ID, "verdict": "maybe"}}, 422, "invalid"),
    ("PUT", "/v1/feedback", {"content": b"{}"}, 415, "wrong-type"),
    ("PUT", "/v1/feedback", {"json": {"search": "x" * 70_000}}, 413, "too-large"),
]


@pytest.mark.parametrize(("method", "path", "given", "status", "kind"), REFUSED)
def test_what_cannot_be_answered_is_refused_in_one_form(client, method, path, given, status, kind):
    response = client.request(method, path, **given)
    assert (response.status_code, word(response)) == (status, kind), response.text


def test_a_refusal_names_the_choices(client):
    assert client.delete("/v1/searches").json()["choices"] == ["POST"]
    assert client.delete("/v1/searches").headers["allow"] == "POST"
    wrong = client.get(f"/v1/searches/{ID}?search_in=thermal").json()
    assert wrong["choices"] == ["visible", "infrared"]
    assert "cameras" in client.get(f"/v1/searches/{ID}?camera=1").json()["choices"]
    assert client.post("/v1/searches", content=b"x").json()["choices"] == ["multipart/form-data", "application/json"]
    assert "image/jpeg" in upload(client, b"GIF89a").json()["choices"]
    assert upload(client, SMALL, modality="thermal").json()["choices"] == ["auto", "visible", "infrared"]


def test_a_mistake_of_ours_is_told_without_details(own, monkeypatch, caplog):
    with served(own) as running, checked(running.client()) as client:
        engine = running.service.engine
        monkeypatch.setattr(engine, "thumbnail", lambda id: 1 / 0)
        monkeypatch.setattr(engine.searching, "embed", lambda *_: {}["the secret"])
        with caplog.at_level(logging.ERROR):
            for response in (client.get(f"/v1/pictures/{ID}/thumbnail"), upload(client, SMALL)):
                assert (response.status_code, word(response)) == (500, "internal")
                assert "secret" not in response.text
                assert "division" not in response.text
        # It is logged after the answer was sent.
        eventually(lambda: "the secret" in caplog.text and "division by zero" in caplog.text)
        monkeypatch.undo()
        found(upload(client, SMALL))


def test_a_store_that_cannot_be_used_is_503_without_its_place(own, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise BadInput(f"the gallery in {own} is damaged")

    with served(own) as running, checked(running.client()) as client:
        search = found(upload(client, SMALL))["search"]
        for name in ("search", "get", "thumbnail", "facts", "iterate"):
            monkeypatch.setattr(running.service.engine.store, name, broken)
        for response in (
            upload(client, SMALL),
            client.get(f"/v1/searches/{search}"),
            client.post("/v1/searches", json={"picture": ID}),
            client.get(f"/v1/pictures/{ID}/thumbnail"),
            client.get("/metrics"),
        ):
            assert (response.status_code, word(response)) == (503, "unavailable")
            assert str(own) not in response.text


# --- who may ask ------------------------------------------------------------------------------------------------------


def test_nothing_but_probes_and_the_page_is_given_without_a_token(shared):
    with checked(shared.stranger()) as stranger:
        for method, path in (
            ("GET", "/v1/facets"),
            ("POST", "/v1/searches"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/nothing"),
            ("DELETE", "/v1/facets"),
        ):
            response = stranger.request(method, path)
            assert (response.status_code, word(response)) == (401, "unauthenticated")
        for given in ("Bearer", "Bearer wrong", f"Basic {shared.token}", shared.token, f"Bearer {shared.token}x"):
            response = stranger.get("/v1/facets", headers={"Authorization": given})
            assert response.status_code == 401, given
        assert stranger.get("/healthz").json() == {"status": "ok"}
        assert stranger.get("/readyz").json() == {"status": "ready"}
        assert stranger.get("/").status_code == 200
        assert stranger.get("/v1/facets", headers={"Authorization": f"bearer {shared.token}"}).status_code == 200


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(own):
    with served(own, burst=5) as running, checked(running.stranger()) as stranger, checked(running.client()) as client:
        codes = [stranger.get("/v1/facets", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(15)]
        assert codes[:10] == [401] * 10
        assert 429 in codes[10:]
        assert client.get("/v1/facets").status_code == 200
        assert stranger.get("/v1/facets").status_code == 401  # no token was tried


def test_searches_of_one_token_are_limited_and_those_of_another_are_not(own, tmp_path):
    _, first = Tokens.make(tmp_path / "tokens", "first")
    tokens, second = Tokens.make(tmp_path / "tokens", "second")
    with served(own, tokens=tokens, rate=0.05, burst=3) as running:
        one, other = (running.stranger() for _ in range(2))
        one.headers["Authorization"], other.headers["Authorization"] = f"Bearer {first}", f"Bearer {second}"
        with checked(one), checked(other):
            got = [upload(one, SMALL) for _ in range(4)]
            assert [response.status_code for response in got] == [200, 200, 200, 429]
            assert word(got[3]) == "too-many"
            assert 1 <= int(got[3].headers["retry-after"]) <= 20
            assert one.get(f"/v1/searches/{got[0].json()['search']}").status_code == 429
            assert one.get("/v1/facets").status_code == 200
            found(upload(other, SMALL))
            # Another's search is as unknown as none.
            hidden = other.get(f"/v1/searches/{got[0].json()['search']}")
            assert (hidden.status_code, word(hidden)) == (404, "not-found")
            said = {"search": got[0].json()["search"], "picture": got[0].json()["matches"][0]["picture"]}
            assert other.put("/v1/feedback", json={**said, "verdict": "same"}).status_code == 404
            assert [entry.who for entry in running.service.engine.audit.entries()] == ["first"] * 3 + ["second"]


def test_a_search_is_forgotten(own):
    with served(own) as running, checked(running.client()) as client:
        search = found(upload(client, SMALL))["search"]
        found(client.get(f"/v1/searches/{search}"))
        passed = 14 * 60
        searches = running.service.engine.searches
        searches._clock = lambda: time.monotonic() + passed
        found(client.get(f"/v1/searches/{search}"))
        passed = 28 * 60  # 14 minutes after the last use
        found(client.get(f"/v1/searches/{search}"))
        passed = 44 * 60
        assert client.get(f"/v1/searches/{search}").status_code == 404
        assert len(running.service.engine.searches) == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("LOCALHOST:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("evil.example:127", 400),
        ("127.0.0.1@evil.example", 400),
        ("", 400),
    ],
)
def test_only_names_of_this_host_are_served(client, host, status):
    for path in ("/v1/facets", "/", "/page.js"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == status
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200),
        ("https://localhost", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("null", 403),
        ("http://[bad", 403),
        ("", 403),
    ],
)
def test_pages_of_other_addresses_cannot_search(client, origin, status):
    response = client.post("/v1/searches", files=GOOD, headers={"Origin": origin})
    assert response.status_code == status
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_page_is_served_from_a_fixed_list_and_can_be_left_out(shared, client, own):
    folder = Path(searching.__file__).parent / "service" / "page"
    for file in folder.iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        response = client.get(path)
        assert response.content == file.read_bytes()
        assert response.headers["content-type"].startswith(
            {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[file.suffix]
        )
    with served(own, page=False, wait=False) as running, checked(running.client()) as other:
        assert other.get("/").status_code == 404
        assert other.get("/page.js").status_code == 404
