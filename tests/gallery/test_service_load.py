"""The service under load, with slow clients, while it starts and while it stops."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("fastapi")

from tests.gallery.served import Served, busy, checked, eventually, found, picture, served, upload, word
from vireid.gallery.service import engine as engines
from vireid.gallery.service import process as processes

SMALL = picture(grey=True)
GOOD = {"image": ("x", SMALL)}


def test_a_full_queue_is_429_and_the_others_are_answered(own):
    with served(own, waiting=3) as running, checked(running.client()) as client:
        with busy(running) as go, ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(upload, client, SMALL) for _ in range(3)]
            eventually(lambda: running.service.engine.worker.waiting() == 3)
            refused = [upload(client, SMALL) for _ in range(3)]
            assert {(one.status_code, word(one)) for one in refused} == {(429, "busy")}
            assert all(1 <= int(one.headers["retry-after"]) < 60 for one in refused)
            assert client.get("/v1/facets").status_code == 200
            assert "vireid_gallery_waiting_searches 3.0" in client.get("/metrics").text
            go.set()
            assert [one.result(30).status_code for one in waiting] == [200] * 3
        found(upload(client, SMALL))


def test_a_client_that_leaves_leaves_the_queue_too(own):
    with served(own) as running, checked(running.client()) as client:
        with busy(running):
            worker = running.service.engine.worker
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/searches", files=GOOD, timeout=0.5)
            eventually(lambda: worker.waiting() == 0)
            assert len(list(running.service.engine.audit.entries())) == 0
        found(upload(client, SMALL))
        eventually(lambda: running.service.gate.running == 0)
        assert len(list(running.service.engine.audit.entries())) == 2
        assert 'requests_total{route="/v1/searches",status="499"} 1.0' in client.get("/metrics").text


def test_while_the_model_is_loaded_it_lives_but_is_not_ready(own, monkeypatch):
    go = threading.Event()
    usual = engines.Searching.warm
    monkeypatch.setattr(engines.Searching, "warm", lambda self: (go.wait(20), usual(self)))
    with served(own, wait=False) as running, checked(running.client()) as client:
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/readyz"), upload(client, SMALL)):
            assert (response.status_code, word(response)) == (503, "loading")
        go.set()
        eventually(lambda: client.get("/readyz").status_code == 200)
        found(upload(client, SMALL))


def test_a_stop_lets_requests_finish_and_refuses_new_ones(own):
    with served(own) as running, checked(running.client()) as client:
        client.get("/v1/facets")
        with busy(running) as go, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(upload, client, SMALL)
            eventually(lambda: running.service.engine.worker.waiting() == 1)
            running.server.stop()
            eventually(lambda: running.service.gate.stopping)
            for response in (client.get("/v1/facets"), upload(client, SMALL), client.get("/readyz")):
                assert (response.status_code, word(response)) == (503, "stopping")
            assert client.get("/healthz").status_code == 200
            go.set()
        assert waiting.result(30).status_code == 200
        running.thread.join(20)
        assert not running.thread.is_alive()


def raw(running: Served, *parts: bytes, pause: float = 0.0, half_close: bool = False) -> bytes:
    """Send bytes, with pauses, and read until the connection ends."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for part in parts:
            with contextlib.suppress(ConnectionError):
                connection.sendall(part)
            time.sleep(pause)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        read = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(65536):
                read += more
    return read


def problem_of(read: bytes) -> tuple[int, str]:
    head, _, body = read.partition(b"\r\n\r\n")
    assert b"content-security-policy" in head.lower()
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)["type"].removeprefix("urn:vireid:problem:")


def head_of(running: Served, length: str, *more: str) -> bytes:
    lines = ["POST /v1/searches HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {running.token}", length, *more]
    return ("\r\n".join([*lines, "Content-Type: multipart/form-data; boundary=b", "", ""])).encode()


def test_what_is_no_http_is_told_in_the_same_form(shared):
    assert problem_of(raw(shared, b"HELLO\r\n\r\n")) == (400, "bad-request")
    assert problem_of(raw(shared, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")) == (400, "bad-request")
    assert problem_of(raw(shared, b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n")) == (400, "bad-request")


def test_a_large_body_is_refused_before_it_is_read_and_also_without_a_length(shared):
    refused = raw(shared, head_of(shared, "Content-Length: 99999999999", "Expect: 100-continue"))
    assert problem_of(refused) == (413, "too-large")
    assert b"100 Continue" not in refused
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    start = b"%x\r\n%s\r\n" % (len(start), start)
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    refused = raw(
        shared, head_of(shared, "Transfer-Encoding: chunked", "Connection: close"), start, chunk * 162, b"0\r\n\r\n"
    )
    assert problem_of(refused) == (413, "too-large")


def test_a_body_that_comes_slowly_is_cut_off(own):
    with served(own, idle_seconds=0.3, body_seconds=1.0) as running:
        began = time.monotonic()
        read = raw(running, head_of(running, "Content-Length: 1000"), b"--b\r\n")
        assert problem_of(read) == (408, "timeout")
        assert time.monotonic() - began < 5
        # One byte at a time, each in time, to the end: the whole is still too late.
        slowly = [b"--b\r\nContent-Disposition: ", *[b"f"] * 12]
        read = raw(running, head_of(running, f"Content-Length: {len(b''.join(slowly))}"), *slowly, pause=0.15)
        assert problem_of(read) == (408, "timeout")
        assert running.service.gate.running == 0


def test_a_head_that_comes_slowly_or_never_ends_the_connection(own, monkeypatch):
    monkeypatch.setattr(processes.Connection, "seconds", 1.0)
    with served(own) as running:
        began = time.monotonic()
        assert raw(running) == b""
        assert raw(running, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n") == b""
        first = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        read = raw(running, first, b"GET /hea", pause=0.1)
        assert read.count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - began < 9
        read = raw(running, first, first, b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", pause=0.05)
        assert read.count(b"HTTP/1.1 200") == 3


def test_a_body_that_ends_early_is_no_mistake_of_ours(shared, client, caplog):
    with caplog.at_level(logging.WARNING):
        raw(shared, head_of(shared, "Content-Length: 1000"), b"--b\r\n", half_close=True)
        eventually(lambda: shared.service.gate.running == 0)
        found(upload(client, SMALL))
    assert "Traceback" not in caplog.text
