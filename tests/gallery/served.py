"""The real service on a free port: in a thread of the test, or as a process that can be killed."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from vireid.gallery.index import Index, open_index
from vireid.gallery.service import answers
from vireid.gallery.service.access import Tokens
from vireid.gallery.service.engine import Engine, Serving
from vireid.gallery.service.gate import SECURITY
from vireid.gallery.service.problems import KINDS
from vireid.gallery.service.process import Server
from vireid.gallery.service.routes import Access, Service
from vireid.gallery.service.server import LOCAL, listen


@dataclass
class Served:
    """A running service."""

    service: Service
    server: Server
    url: str
    token: str
    thread: threading.Thread

    def client(self, **settings: Any) -> httpx.Client:
        """A client with the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **settings)

    def stranger(self) -> httpx.Client:
        """A client without a token."""
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False)


@contextlib.contextmanager
def served(
    index: Index | Path, *, wait: bool = True, tokens: Tokens | None = None, **settings: Any
) -> Iterator[Served]:
    """Serve an index on a free port until the end of the block.

    Args:
        index: open or not; it is closed at the end.
        wait: whether to wait until searches are answered.
        tokens: None for one token, named local.
        settings: of `Serving`; without others, there is no limit of searches a second.
    """
    settings = {"rate": 1000.0, "burst": 10_000, **settings}
    known, token = Tokens.temporary() if tokens is None else (tokens, "")
    engine = Engine(open_index(index) if isinstance(index, Path) else index, Serving(**settings))
    service = Service(engine, Access(frozenset(LOCAL), known))
    listening = listen("127.0.0.1", 0)
    server = Server(service)
    thread = threading.Thread(target=lambda: server.run([listening]), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 200
        while not server.started or (wait and not engine.worker.ready.is_set()):
            assert engine.worker.trouble is None, engine.worker.trouble
            assert time.monotonic() < until and thread.is_alive()
            time.sleep(0.01)
        yield Served(service, server, f"http://127.0.0.1:{listening.getsockname()[1]}", token, thread)
    finally:
        server.stop()
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


def picture(seed: int = 0, *, grey: bool = False, size: tuple[int, int] = (64, 32), kind: str = "PNG") -> bytes:
    """A picture of noise as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    if grey:
        pixels[:] = pixels[..., :1]
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, kind)
    return made.getvalue()


def checked(client: httpx.Client) -> httpx.Client:
    """A client that checks what every response must have."""

    def check(response: httpx.Response) -> None:
        response.read()
        for name, value in SECURITY.items():
            assert response.headers[name] == value
        assert response.headers["cache-control"] in ("no-store", "no-cache", "private, max-age=300")
        if response.status_code < 400:
            return
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        answers.Problem.model_validate(problem)
        word = problem["type"].removeprefix("urn:vireid:problem:")
        assert KINDS[word] == (response.status_code, problem["title"]) == (problem["status"], problem["title"])
        assert problem["detail"].endswith(".")
        assert ("retry-after" in response.headers) == (response.status_code in (429, 503))
        assert ("www-authenticate" in response.headers) == (response.status_code == 401)

    client.event_hooks["response"].append(check)
    return client


def word(response: httpx.Response) -> str:
    """The kind of a refusal, see `vireid.gallery.service.problems`."""
    return response.json()["type"].removeprefix("urn:vireid:problem:")


def upload(client: httpx.Client, *pictures: bytes, **fields: Any) -> httpx.Response:
    """Search for pictures."""
    files = [("image", ("x", one, "application/octet-stream")) for one in pictures]
    return client.post("/v1/searches", files=files, data=fields)


def found(response: httpx.Response) -> dict[str, Any]:
    """The answer of a search, which must have all fields and no others."""
    assert response.status_code == 200, response.text
    answers.Found.model_validate(response.json())
    assert set(response.json()) == set(answers.Found.model_fields)
    return response.json()


@contextlib.contextmanager
def busy(running: Served) -> Iterator[threading.Event]:
    """Let the worker hang in its next search, until the event is set."""
    go, hangs = threading.Event(), threading.Event()
    searcher = running.service.engine.searching
    usual = searcher.search

    def slow(*given: Any) -> Any:
        hangs.set()
        assert go.wait(60)
        return usual(*given)

    searcher.search = slow  # type: ignore[method-assign]
    with running.client() as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(upload, client, picture(grey=True))
        assert hangs.wait(30)
        try:
            yield go
        finally:
            go.set()
            searcher.search = usual  # type: ignore[method-assign]
            assert first.result(30).status_code == 200


def eventually(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)
