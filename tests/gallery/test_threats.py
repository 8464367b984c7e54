"""What an attacker can send to the running service. Each row of the table of threats has its tests.

`test_threats_files.py` has files that an attacker altered, `test_load.py` many clients at once, `test_fuzz.py` requests
made up from the service's own description, `page/` what a browser does.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gallery.hostile import INJECTIONS, TRICKS, bombs
from tests.gallery.served import Served, picture, served
from tests.gallery.servers import LITE, lite
from tests.gallery.station import station
from vireid.gallery.index import open_index
from vireid.gallery.row import Row
from vireid.gallery.service.access import Tokens

SCRIPT = "<script>alert(1)</script>"
BOMBS = bombs()
PUBLIC = {"/", "/healthz", "/readyz"}
REFUSED = (400, 404, 405, 422)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with a camera whose name is a script."""
    made = tmp_path_factory.mktemp("threats") / "index"
    with station(made, runs["sysu-mm01"], worlds["sysu-mm01"]) as index:
        first = next(index.store.iterate(vectors=True))
        thumbnail = index.store.thumbnail(first.id)
        index.store.upsert([replace(first, path=f"{SCRIPT}.jpg", source=SCRIPT, camera=SCRIPT, thumbnail=thumbnail)])
    return made


@pytest.fixture()
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the index that nobody has used."""
    shutil.copytree(folder, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    own = tmp_path_factory.mktemp("served") / "index"
    shutil.copytree(folder, own)
    with served(own) as running:
        yield running


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    with open_index(folder) as index:
        return list(index.store.iterate())


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[httpx.Client]:
    with service.client() as made:
        yield made


def is_problem(answer: httpx.Response) -> bool:
    """Whether a refusal is the document that all refusals are."""
    return (
        answer.headers["content-type"] == "application/problem+json"
        and answer.json()["status"] == answer.status_code
        and bool(answer.json()["detail"])
    )


def raw(service: Served, request: bytes) -> bytes:
    """The answer to bytes that no client library would send."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        connection.settimeout(20)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def routes(service: Served) -> list[tuple[str, str]]:
    """(method, path) of every route that the application has, with made-up parameters."""
    found = []
    for route in service.service.app.routes:
        path = re.sub(r"\{\w+\}", "0" * 32, getattr(route, "path", ""))
        found += [(method, path) for method in sorted(getattr(route, "methods", None) or {"GET"})]
    assert ("POST", "/v1/searches") in found and len(found) > 8
    return found


# --- bombs, oversized files, wrong types ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOMBS)
def test_a_bad_picture_is_refused_and_the_service_goes_on(name: str, client: httpx.Client) -> None:
    status, data = BOMBS[name]
    answer = client.post("/v1/searches", files={"image": (f"../../etc/{SCRIPT}.jpg", data, "image/jpeg")})
    assert answer.status_code == status, answer.text
    assert status == 200 or is_problem(answer)
    assert "etc" not in answer.text and (status == 200 or "script" not in answer.text)
    assert client.get("/readyz").json() == {"status": "ready"}


def test_neither_the_name_nor_the_declared_type_of_a_file_matters(client: httpx.Client) -> None:
    good = client.post("/v1/searches", files={"image": ("a.exe", picture(), "text/html")})
    assert good.status_code == 200
    bad = client.post("/v1/searches", files={"image": ("a.png", BOMBS["GIF"][1], "image/png")})
    assert bad.status_code == 415 and "image/png" in bad.json()["choices"]


def test_one_bad_picture_among_good_ones_is_refused(client: httpx.Client) -> None:
    files = [("image", ("a", picture(n), "image/png")) for n in range(3)]
    answer = client.post("/v1/searches", files=[*files, ("image", ("b", BOMBS["half a PNG"][1], "image/png"))])
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"a"', b"[" * 100_000, b'{"picture": 1}', b'{"picture": "../x"}', b"\xff\xfe", b'{"picture":NaN}'],
)
def test_other_documents_are_refused(body: bytes, client: httpx.Client) -> None:
    answer = client.post("/v1/searches", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and is_problem(answer)


def test_a_form_without_an_end_and_one_with_many_parts_are_refused(client: httpx.Client) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    many = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n'
    for body in (head + picture(), b"--x", b"", b"".join(many % n for n in range(5000)) + b"--x--\r\n"):
        answer = client.post("/v1/searches", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert answer.status_code in (400, 422) and is_problem(answer)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "text/plain", "application/x-pickle", ""):
        answer = client.post("/v1/searches", content=head, headers={"Content-Type": kind})
        assert answer.status_code in (400, 415, 422) and is_problem(answer)


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trick", TRICKS)
def test_an_id_is_no_path(trick: str, service: Served) -> None:
    for path in (f"/v1/pictures/{trick}/thumbnail", f"/v1/searches/{trick}", f"/{trick}", f"/page/{trick}"):
        target = path.encode().replace(b" ", b"%20")
        token = service.token.encode()
        request = b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token
        answer = raw(service, request + b"\r\nConnection: close\r\n\r\n")
        assert int(answer.split()[1]) in REFUSED, (path, answer[:200])
        assert b"root:" not in answer and b"SQLite" not in answer


@quick
@given(st.text(min_size=1, max_size=60))
def test_made_up_ids_find_nothing(client: httpx.Client, text: str) -> None:
    sent = text.encode("utf-8", "replace")
    for id in (quote(sent, safe=""), quote(sent), sent.hex()[:32]):
        answer = client.get(f"/v1/pictures/{id}/thumbnail")
        assert answer.status_code in REFUSED and is_problem(answer)
        answer = client.post("/v1/searches", json={"picture": unquote(id)})
        assert answer.status_code in REFUSED and is_problem(answer)


def test_only_the_files_of_the_page_are_served_without_a_token(service: Served) -> None:
    with service.stranger() as client:
        for name in ("service.py", "page/page.js", "page.js/", "page.js%00", "page.py", ".env", "Page.js"):
            assert client.get(f"/{name}").status_code in (401, 404), name


# --- tokens -----------------------------------------------------------------------------------------------------------


def public(service: Served) -> set[str]:
    """The paths that need no token: probes, and the page as it is in the package, which knows nothing of a gallery."""
    from vireid.gallery.service.routes import page_files

    return PUBLIC | set(page_files())


def credentials(service: Served) -> list[dict[str, Any]]:
    """Ways to come without a token, or with a wrong one."""
    token = service.token
    return [
        {},
        {"headers": {"Authorization": ""}},
        {"headers": {"Authorization": "Bearer"}},
        {"headers": {"Authorization": token}},
        {"headers": {"Authorization": f"Basic {token}"}},
        {"headers": {"X-Token": token, "Cookie": f"token={token}"}},
        {"params": {"token": token, "access_token": token}},
    ]


def test_no_route_answers_without_a_token(service: Served) -> None:
    """Routes are taken from the application, so that a new one is looked at without being named here."""
    with service.stranger() as client:
        for method, path in routes(service):
            if path in public(service):
                continue
            for given_ in credentials(service):
                answer = client.request(method, path, **given_)
                assert answer.status_code == 401, (method, path, given_)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert method == "HEAD" or is_problem(answer)


def test_without_a_token_nobody_learns_which_paths_there_are(service: Served) -> None:
    with service.stranger() as client:
        for path in ("/v1/nothing", "/docs", "/redoc", "/static/x", "/v1/pictures/x/thumbnail", "/v1/searches/"):
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "STRANGE"):
                assert client.request(method, path).status_code == 401


def test_a_wrong_token_opens_no_route(service: Served) -> None:
    token = service.token
    wrong = [
        "x",
        token[:-1],
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token + "A",
        token.lower(),
        "é",
        "a" * 9000,
    ]
    with service.stranger() as client:
        for method, path in routes(service):
            if path in public(service):
                continue
            for one in wrong:
                headers = {"Authorization": f"Bearer {one}".encode()}
                answer = client.request(method, path, headers=headers)
                assert answer.status_code in (401, 429), (method, path, one)  # 429 after ten of them


def test_wrong_tokens_are_limited_and_a_right_one_still_works(copy: Path, tmp_path: Path) -> None:
    with served(copy) as service, service.stranger() as client:
        found = [client.get("/v1/facets", headers={"Authorization": f"Bearer {n:043d}"}) for n in range(15)]
        assert [one.status_code for one in found] == [401] * 10 + [429] * 5
        assert all(int(one.headers["retry-after"]) >= 1 for one in found[10:])
        with service.client() as right:
            assert right.get("/v1/facets").status_code == 200


def test_a_removed_token_is_refused_by_the_running_service(copy: Path, tmp_path: Path) -> None:
    from vireid.gallery.service.access import remove_token

    Tokens.make(tmp_path / "tokens.json", "one")
    tokens, text = Tokens.make(tmp_path / "tokens.json", "other")
    with served(copy, tokens=tokens) as service, service.stranger() as client:
        client.headers["Authorization"] = f"Bearer {text}"
        assert client.get("/v1/facets").status_code == 200
        remove_token(tmp_path / "tokens.json", "other")
        assert client.get("/v1/facets").status_code == 401


def test_a_search_belongs_to_the_token_that_made_it(copy: Path, tmp_path: Path) -> None:
    _, one = Tokens.make(tmp_path / "tokens.json", "one")
    tokens, other = Tokens.make(tmp_path / "tokens.json", "other")
    with served(copy, tokens=tokens) as service, service.stranger() as client:
        mine, theirs = ({"Authorization": f"Bearer {token}"} for token in (one, other))
        made = client.post("/v1/searches", files={"image": picture()}, headers=mine).json()
        path = f"/v1/searches/{made['search']}"
        verdict = {"search": made["search"], "picture": made["matches"][0]["picture"], "verdict": "same"}
        assert client.get(path, headers=theirs).status_code == 404
        assert client.put("/v1/feedback", json=verdict, headers=theirs).status_code == 404
        assert client.get(path, headers=mine).status_code == 200
        assert client.put("/v1/feedback", json=verdict, headers=mine).status_code == 204


def test_nobody_says_anything_of_a_picture_that_was_not_shown(client: httpx.Client, rows: list[Row]) -> None:
    made = client.post("/v1/searches", files={"image": picture()}, data={"top": "1"}).json()
    shown = {match["picture"] for match in made["matches"]}
    other = next(row.id for row in rows if row.id not in shown)
    verdict = {"search": made["search"], "picture": other, "verdict": "same"}
    assert client.put("/v1/feedback", json=verdict).status_code in (404, 422)


# --- other pages, other names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "127.1", "[::2]"]
)
def test_another_name_of_the_host_is_refused_everywhere(host: str, service: Served) -> None:
    """A page of another name that its owner points to this address (DNS rebinding) reaches nothing."""
    with service.client() as client:
        for method, path in routes(service):
            if path in ("/healthz", "/readyz"):
                continue
            answer = client.request(method, path, headers={"Host": host})
            assert answer.status_code == 400, (host, method, path)
            assert method == "HEAD" or b"alert" not in answer.content


def test_a_request_with_two_names_or_none_is_refused(service: Served) -> None:
    token = b"Authorization: Bearer " + service.token.encode() + b"\r\nConnection: close\r\n\r\n"
    for head in (
        b"GET /v1/facets HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        b"GET /v1/facets HTTP/1.1\r\n",
        b"GET /v1/facets HTTP/1.0\r\n",
    ):
        assert raw(service, head + token).split()[1] == b"400"


def test_a_page_of_another_origin_gets_nothing(client: httpx.Client) -> None:
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "file://", "x"):
        for method, path in (("GET", "/v1/facets"), ("POST", "/v1/searches"), ("PUT", "/v1/feedback")):
            answer = client.request(method, path, headers={"Origin": origin})
            assert answer.status_code == 403
        asked = client.options("/v1/searches", headers={"Origin": origin, "Access-Control-Request-Method": "POST"})
        assert asked.status_code in (403, 405)
        assert not [name for name in (*answer.headers, *asked.headers) if name.startswith("access-control")]


def test_every_answer_has_the_headers_that_a_browser_obeys(service: Served, rows: list[Row]) -> None:
    """Also refusals, and those that the server makes before the application is asked."""
    seen = set()
    with service.client() as client, service.stranger() as stranger:
        answers = [client.request(method, path) for method, path in routes(service)]
        answers += [stranger.get("/v1/facets"), client.get("/nothing"), client.get("/", headers={"Host": "evil"})]
        answers += [client.get(f"/v1/pictures/{rows[0].id}/thumbnail"), client.delete("/v1/feedback")]
        answers += [
            client.post("/v1/searches", files={"image": picture()}),
            client.post("/v1/searches", files={"image": b"x"}),
        ]
        for answer in answers:
            seen.add(answer.status_code)
            policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
            assert policy["script-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in answer.headers and "set-cookie" not in answer.headers
            assert "server" not in answer.headers
            if answer.headers.get("content-type", "").startswith("application/"):
                assert answer.headers["cache-control"] == "no-store"
    assert seen >= {200, 400, 401, 404, 405, 415}
    broken = raw(service, b"NO HTTP AT ALL\r\n\r\n").lower()
    assert broken.split()[1] == b"400" and b"frame-ancestors 'none'" in broken and b"nosniff" in broken


def test_names_from_the_index_are_data_and_never_a_page(client: httpx.Client, rows: list[Row]) -> None:
    answer = client.get("/v1/facets")
    assert SCRIPT in {camera["name"] for camera in answer.json()["cameras"]}
    found = client.post("/v1/searches", files={"image": picture()}, data={"cameras": SCRIPT})
    assert [match["camera"] for match in found.json()["matches"]] == [SCRIPT]
    for one in (answer, found):
        assert one.headers["content-type"] == "application/json"
    unknown = client.get(f"/{SCRIPT}")
    assert unknown.headers["content-type"] == "application/problem+json" and "<script>" not in unknown.text


def test_a_refusal_repeats_nothing_that_was_sent_as_a_tag(client: httpx.Client) -> None:
    for params in ({"since": SCRIPT}, {SCRIPT: "1"}, {"search_in": SCRIPT}, {"top": SCRIPT}):
        answer = client.get(f"/v1/searches/{'0' * 32}", params=params)
        assert answer.status_code in (404, 422) and answer.headers["content-type"] == "application/problem+json"


# --- filters ----------------------------------------------------------------------------------------------------------


def filtered(client: httpx.Client, rows: list[Row], search: str, filters: dict[str, Any]) -> None:
    """The matches of a remembered search with filters are those that pass them, or the filter is refused."""
    answer = client.get(f"/v1/searches/{search}", params={**filters, "top": 100})
    if answer.status_code == 422:
        assert is_problem(answer)
        return
    assert answer.status_code == 200, answer.text
    cameras, sources = filters.get("cameras"), filters.get("sources")
    wanted = {
        row.id
        for row in rows
        if (cameras is None or row.camera in cameras) and (sources is None or row.source in sources)
    }
    assert {match["picture"] for match in answer.json()["matches"]} == wanted


def hostile_text() -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(INJECTIONS), st.text(min_size=1, max_size=40))


@quick
@given(texts=st.lists(hostile_text(), min_size=1, max_size=3), name=st.sampled_from(["cameras", "sources"]))
@example(texts=["' OR '1'='1"], name="cameras")
@example(texts=['"] or true or camera in ["', "1"], name="cameras")
def test_a_filter_is_a_value_and_never_a_part_of_a_command(
    client: httpx.Client, rows: list[Row], texts: list[str], name: str
) -> None:
    made = client.post("/v1/searches", json={"picture": rows[0].id}).json()
    others = [row for row in rows if row.id != rows[0].id]
    filtered(client, others, made["search"], {name: texts})


@quick
@given(st.sampled_from(["since", "until", "search_in", "top", "start", "cameras[]", "where"]), hostile_text())
def test_other_filters_take_their_own_kind_of_value_only(client: httpx.Client, name: str, text: str) -> None:
    answer = client.get(f"/v1/searches/{'0' * 32}", params={name: text})
    assert answer.status_code in (404, 422) and is_problem(answer)  # 404: the filter could be read
    if (text in INJECTIONS and text.strip()) or name in ("cameras[]", "where"):
        assert answer.status_code == 422


@pytest.mark.process
@pytest.mark.skipif(not LITE.exists(), reason="milvus-lite is not installed")
def test_filters_cannot_be_injected_into_milvus(
    worlds: dict[str, Path], runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with lite(tmp_path / "milvus") as (port, _):
        url = f"milvus://127.0.0.1:{port}/threats?thumbnails={tmp_path / 'thumbnails'}"
        index = station(url, runs["sysu-mm01"], worlds["sysu-mm01"])
        rows = list(index.store.iterate())
        with served(index) as service, service.client() as client:
            made = client.post("/v1/searches", json={"picture": rows[0].id}).json()
            others = [row for row in rows if row.id != rows[0].id]
            filtered(client, others, made["search"], {"cameras": ["1", "2"]})

            @settings(max_examples=25, deadline=None)
            @given(hostile_text(), st.sampled_from(["cameras", "sources"]))
            def tried(text: str, name: str) -> None:
                filtered(client, others, made["search"], {name: [text]})

            for text in INJECTIONS:
                filtered(client, others, made["search"], {"cameras": [text], "sources": [text, "sysu-mm01"]})
            tried()


# --- insiders ---------------------------------------------------------------------------------------------------------


def test_every_answer_with_matches_is_in_the_log(copy: Path, tmp_path: Path) -> None:
    """A picture, a picture of the gallery, further pages, other filters."""
    began = datetime.now(UTC).timestamp()
    with served(copy, require_reason=True) as service, service.client() as client:
        files = {"image": ("a", picture(), "image/png")}
        refused = client.post("/v1/searches", files=files)
        assert refused.status_code == 422 and "reason" in refused.json()["detail"]
        one = client.post("/v1/searches", files=files, data={"reason": "missing person 17", "top": "3"}).json()
        two = client.post("/v1/searches", json={"picture": one["matches"][0]["picture"], "reason": "seen again"}).json()
        more = client.get(f"/v1/searches/{one['search']}", params={"top": 3, "start": 3, "cameras": "1"}).json()
        entries = list(service.service.engine.audit.entries())
    assert len(entries) == 3
    for entry, answer in zip(entries, (one, two, more), strict=True):
        assert entry.who == "local" and list(entry.shown) == [match["picture"] for match in answer["matches"]]
        assert abs(entry.time / 1000 - began) < 60
    assert [entry.reason for entry in entries] == ["missing person 17", "seen again", "missing person 17"]
    assert entries[0].query == entries[2].query != entries[1].query
    assert entries[2].filters["cameras"] == ["1"] and entries[2].filters["start"] == 3


def test_without_a_log_there_is_no_answer(copy: Path, tmp_path: Path) -> None:
    """The entry is written before the answer is sent: if it cannot be, nothing is shown."""
    with served(copy) as service, service.client() as client:
        assert client.post("/v1/searches", files={"image": picture()}).status_code == 200
        service.service.engine.audit._sql.execute("PRAGMA query_only = ON")
        answer = client.post("/v1/searches", files={"image": picture()})
        assert answer.status_code == 503 and is_problem(answer)
        assert "matches" not in answer.text and "sqlite" not in answer.text.lower()


def test_searches_of_a_token_are_limited(copy: Path, tmp_path: Path) -> None:
    with served(copy, rate=0.01, burst=5) as service, service.client() as client:
        found = [client.post("/v1/searches", files={"image": picture()}) for _ in range(8)]
        assert [one.status_code for one in found] == [200] * 5 + [429] * 3
        again = client.get(f"/v1/searches/{found[0].json()['search']}")
        assert again.status_code == 429 and int(again.headers["retry-after"]) >= 1  # pages count as well
        assert len(list(service.service.engine.audit.entries())) == 5


def test_the_pictures_of_a_query_are_stored_nowhere(copy: Path, tmp_path: Path) -> None:
    sent = picture(7, size=(200, 100))
    before = {file.name for file in copy.iterdir()}
    with served(copy) as service, service.client() as client:
        made = client.post("/v1/searches", files={"image": ("hidden name.png", sent, "image/png")}).json()
        client.put(
            "/v1/feedback",
            json={"search": made["search"], "picture": made["matches"][0]["picture"], "verdict": "same"},
        )
        stored = b"".join(file.read_bytes() for file in copy.iterdir())
    assert sent[50:150] not in stored and b"hidden name" not in stored
    after = {file.name for file in copy.iterdir()} - before
    assert after <= {f"{name}.sqlite{end}" for name in ("audit", "feedback") for end in ("", "-wal", "-shm")} | {
        "audit.key"
    }
    assert json.dumps(made)
