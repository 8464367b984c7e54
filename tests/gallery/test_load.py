"""Many clients at once, slow ones, and ones that leave: who is served is in the audit log, and nobody else waits."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gallery.served import Served, picture, served
from tests.gallery.station import station
from vireid.gallery.index import open_index
from vireid.gallery.service.audit import Audit
from vireid.gallery.service.process import Connection

CLIENTS = 200
BOUNDARY = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.fixture(scope="module")
def made(worlds: dict[str, Path], runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load") / "index"
    station(folder, runs["sysu-mm01"], worlds["sysu-mm01"]).close()
    return folder


@pytest.fixture()
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture()
def impatient(folder: Path) -> Iterator[Served]:
    """A service that waits for a body for 2 seconds, and for a part of it for half a second."""
    with served(folder, body_seconds=2.0, idle_seconds=0.5) as service:
        yield service


def key(answer: dict[str, Any]) -> tuple[str, ...]:
    return tuple(match["picture"] for match in answer["matches"])


async def flood(url: str, token: str, count: int) -> tuple[list[httpx.Response], list[float]]:
    """The answers to many clients that begin together, and how long probes took meanwhile."""
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {token}"}
    probes: list[float] = []
    settings: dict[str, Any] = {"base_url": url, "limits": limits, "timeout": 60, "trust_env": False}
    async with httpx.AsyncClient(headers=headers, **settings) as client, httpx.AsyncClient(**settings) as other:
        sent = [picture(n % 5, grey=n % 2 == 0) for n in range(10)]

        async def search(n: int) -> httpx.Response:
            return await client.post("/v1/searches", files={"image": sent[n % 10]}, data={"top": str(1 + n % 7)})

        async def probe() -> None:
            while True:
                began = time.monotonic()
                assert (await other.get("/healthz")).status_code == 200
                probes.append(time.monotonic() - began)
                await asyncio.sleep(0.05)

        probing = asyncio.create_task(probe())
        answers = await asyncio.gather(*(search(n) for n in range(count)))
        probing.cancel()
        return list(answers), probes


def test_two_hundred_clients_get_an_answer_or_a_time_to_come_again(folder: Path) -> None:
    """And every answer is in the log, with what it showed; nothing else is."""
    with served(folder) as service:
        answers, probes = asyncio.run(flood(service.url, service.token, CLIENTS))
        with service.client() as client:
            after = client.post("/v1/searches", files={"image": picture()})
            assert after.status_code == 200
        entries = list(service.service.engine.audit.entries())
    codes = Counter(one.status_code for one in answers)
    assert set(codes) <= {200, 429} and codes[200] >= 64, codes
    for one in answers:
        assert one.status_code == 200 or int(one.headers["retry-after"]) >= 1
    shown = Counter(key(one.json()) for one in [*answers, after] if one.status_code == 200)
    assert Counter(entry.shown for entry in entries) == shown
    assert probes and max(probes) < 10


def test_equal_queries_have_equal_answers_under_load(folder: Path) -> None:
    with served(folder) as service:
        answers, _ = asyncio.run(flood(service.url, service.token, 60))
        with service.client() as client:
            for n in range(10):
                data = {"top": "7"}
                one = client.post("/v1/searches", files={"image": picture(n % 5, grey=n % 2 == 0)}, data=data).json()
                by_list = {
                    kind: [m["picture"] for m in one["matches"] if m["modality"] == kind] for kind in one["searched"]
                }
                for answer in answers[n::10]:
                    if answer.status_code == 200:
                        for kind, wanted in by_list.items():
                            found = [m["picture"] for m in answer.json()["matches"] if m["modality"] == kind]
                            assert found == wanted[: len(found)]


# --- slow clients -----------------------------------------------------------------------------------------------------


def connect(service: Served) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=20)
    found.settimeout(20)
    return found


def head(service: Served, *more: bytes) -> bytes:
    lines = (
        b"POST /v1/searches HTTP/1.1",
        b"Host: localhost",
        b"Authorization: Bearer " + service.token.encode(),
        b"Content-Type: multipart/form-data; boundary=x",
        *more,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


def rest(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def test_a_sender_that_stops_is_cut_off(impatient: Served) -> None:
    with connect(impatient) as connection:
        began = time.monotonic()
        connection.sendall(head(impatient, b"Content-Length: 5000") + BOUNDARY)
        answer = rest(connection)
        assert answer.split()[1] == b"408" and b"application/problem+json" in answer
        assert time.monotonic() - began < 8


def test_a_sender_that_sends_a_byte_at_a_time_is_cut_off(impatient: Served) -> None:
    """Each byte comes in time, and all of them do not. Others are served meanwhile."""
    with connect(impatient) as connection, impatient.client() as client:
        began = time.monotonic()
        connection.sendall(head(impatient, b"Content-Length: 5000") + BOUNDARY)
        try:
            while time.monotonic() < began + 15:
                connection.sendall(b"x")
                assert client.get("/v1/facets").status_code == 200
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert time.monotonic() - began < 12


def test_a_head_that_does_not_end_is_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "seconds", 1.0)
    with served(folder) as service, connect(service) as silent, connect(service) as slow:
        began = time.monotonic()
        slow.sendall(b"GET /v1/facets HTTP/1.1\r\nHost: localhost\r\nX: ")
        try:
            while time.monotonic() < began + 15:
                slow.sendall(b"x")
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert rest(silent) == b""
        assert time.monotonic() - began < 12


@pytest.mark.parametrize("length", [b"Content-Length: 104857600", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_too_long_is_refused_before_it_is_all_there(length: bytes, folder: Path) -> None:
    with served(folder) as service, connect(service) as connection:
        connection.sendall(head(service, length))
        sent, part = 0, bytes(65536)
        data = b"%x\r\n" % len(part) + part + b"\r\n" if b"chunked" in length else part
        try:
            connection.sendall(BOUNDARY if b"chunked" not in length else b"%x\r\n" % len(BOUNDARY) + BOUNDARY + b"\r\n")
            while sent < 100 * 2**20:
                connection.sendall(data)
                sent += len(part)
        except OSError:
            pass
        answer = rest(connection)
        assert not answer or answer.split()[1] == b"413"
        assert sent < 60 * 2**20
        with service.client() as client:
            assert client.post("/v1/searches", files={"image": picture()}).status_code == 200


def test_connections_that_ask_nothing_stop_nobody(folder: Path) -> None:
    with served(folder) as service:
        idle = [connect(service) for _ in range(300)]
        try:
            with service.client() as client:
                assert client.post("/v1/searches", files={"image": picture()}).status_code == 200
        finally:
            for one in idle:
                one.close()


def test_clients_that_leave_hold_nothing(folder: Path) -> None:
    """In the middle of a body, and while they wait for an answer."""
    with served(folder) as service, service.client() as client:
        body = BOUNDARY + picture() + b"\r\n--x--\r\n"
        for whole in (False, True) * 25:
            with connect(service) as connection:
                size = b"Content-Length: %d" % len(body)
                connection.sendall(head(service, size) + (body if whole else body[:500]))
        until = time.monotonic() + 15
        while time.monotonic() < until:
            if service.service._uploads == 0 and service.service.gate.running == 0:
                break
            time.sleep(0.05)
        assert service.service._uploads == 0 and service.service.gate.running == 0
        assert client.post("/v1/searches", files={"image": picture()}).status_code == 200


# --- a service that is killed -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_every_answer_of_a_killed_service_is_in_the_log(folder: Path) -> None:
    """What somebody has seen is on disk, whenever the service ends."""
    serve = [sys.executable, "-m", "vireid.cli.main", "gallery", "serve", str(folder)]
    process = subprocess.Popen([*serve, "--port", "0", "--rate", "1000"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen: list[tuple[str, ...]] = []
    try:
        url, token = re.findall(r"(http://\S+)#token=(\S+)", process.stdout.readline())[0]
        ended = threading.Event()

        def ask(number: int) -> None:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                client.headers["Authorization"] = f"Bearer {token}"
                while not ended.is_set():
                    try:
                        answer = client.post("/v1/searches", files={"image": picture(number)}, data={"top": "3"})
                    except httpx.HTTPError:
                        return
                    if answer.status_code == 200:
                        seen.append(key(answer.json()))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for one in threads:
            one.start()
        until = time.monotonic() + 60
        while len(seen) < 60 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        ended.set()
        for one in threads:
            one.join(40)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert len(seen) >= 20
    with open_index(folder) as index, Audit(index.folder) as audit:
        logged = Counter(entry.shown for entry in audit.entries())
    assert not Counter(seen) - logged
