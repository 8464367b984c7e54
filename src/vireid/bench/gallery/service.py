"""The parts of the area `search` that need a model: building an index from pictures, and searches over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vireid.bench.gallery.server import free_port, last_words, stop, wait_for_port
from vireid.bench.gallery.vectors import rows_of, vectors_of
from vireid.bench.measure import Line, Missing, need
from vireid.bench.pictures import jpegs, write_pictures
from vireid.bench.run import Bench
from vireid.data.modality import Modality
from vireid.gallery.build import BuildOptions, build
from vireid.gallery.index import load_model, make_index
from vireid.training.progress import Quiet

SMALL = ("trunk=tiny", "weights=world", "epochs=1", "epoch_length=1", "identities_per_batch=2")
"""The model that is made if none is given: AGW's size of pictures, 288×144, and a small trunk."""
BATCH = 64
READY = 120.0
"""Seconds in which the service must be ready."""


def build_lines(bench: Bench) -> list[Line]:
    """`vireid gallery build` against a bare loop that decodes and embeds the same pictures and keeps nothing."""
    asked, folder = bench.options, bench.folder
    model = model_of(bench)
    pictures = write_pictures(folder / "pictures", asked.pictures)
    numbers = itertools.count()

    def bare() -> None:
        embed_only(model, pictures, asked.workers)

    def ours() -> None:
        index = folder / f"index-{next(numbers)}"
        done = build(BuildOptions(index, model, (pictures,), "visible", "1", batch=BATCH, workers=asked.workers))
        if done.embedded != asked.pictures:
            raise RuntimeError(f"the build embedded {done.embedded} of {asked.pictures} pictures")

    timed = bench.timed({"decode and embed only": bare, "gallery build": ours}, rounds=3)
    what = f"build: {asked.pictures:,} pictures, {load_model(model).run.facts.name}, {asked.workers} workers"
    return [timed.line(what, baseline="decode and embed only", ours="gallery build", goal=0.9, limit=1.0)]


def embed_only(model: Path, pictures: Path, workers: int) -> np.ndarray:
    """What a build does at least: load the model, decode and resize the pictures, embed them."""
    from vireid.evaluation.embedding import fastest_device
    from vireid.experiments.embed import listed
    from vireid.experiments.embedding import Inference, embed_records

    loaded = load_model(model)
    records, _ = listed(pictures, "visible")
    device = None if loaded.runtime else fastest_device()
    embedder = loaded.embedder(device=device, pictures=len(records), batch=BATCH)
    how = Inference(loaded.size, batch=BATCH, workers=workers)
    return embed_records(embedder, records.with_scaling(loaded.scaling), np.arange(len(records)), how, Quiet())


def service_lines(bench: Bench) -> list[Line]:
    """Searches that are sent at the same time against the same ones in turn, to `vireid gallery serve`.

    The processor time is that of the client alone: the service runs in another process, which goes on.
    """
    if missing := [one for one in ("fastapi", "uvicorn", "multipart") if importlib.util.find_spec(one) is None]:
        raise Missing(f"{missing[0]} is not installed: pip install 'vireid[serve]'")
    asked, folder = bench.options, bench.folder
    model = model_of(bench)
    bodies = [upload(data) for data in jpegs(asked.requests)]
    with make_index(folder / "index", model) as index:
        width = index.facts.width
        need(memory=5 * asked.rows * width, disk=5.2 * asked.rows * width, folder=folder)
        with bench.progress.bar(f"storing {asked.rows:,} × {width}") as advance:
            for first, part in vectors_of(asked.rows, width):
                index.store.upsert(rows_of(first, part))
                advance(first + len(part), asked.rows)
    with served(folder / "index") as port, ThreadPoolExecutor(asked.requests) as pool:
        in_turn, together = "one after another", "at the same time"
        timed = bench.timed(
            {
                in_turn: lambda: [send(port, body) for body in bodies],
                together: lambda: list(pool.map(lambda body: send(port, body), bodies)),
            },
            rounds=3,
            agree=lambda wanted, found: [sorted(one) for one in wanted] == [sorted(one) for one in found],
        )
    what = f"service: {asked.requests} searches over HTTP, {asked.rows:,} × {width}"
    return [timed.line(what, baseline=in_turn, ours=together, goal=4.0)]


# --- a model ----------------------------------------------------------------------------------------------------------


def model_of(bench: Bench) -> Path:
    """The model that was given, or a small one that was trained for one step."""
    if bench.options.model is not None:
        return bench.options.model
    from vireid.data.size import Size
    from vireid.experiments.train import TrainOptions, train
    from vireid.synthesis.world import World, write_world

    world, run = bench.folder / "world", bench.folder / "run"
    write_world(world, World(8), layout="llcm", size=Size(48, 24), pictures=2, workers=1)
    train(TrainOptions("agw", f"llcm:{world}", run, set=SMALL, workers=0), bench.progress)
    return run


# --- the service ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(index: Path) -> Iterator[int]:
    """The service in another process, on this machine's own address and without limits on requests: the port.

    Raises:
        Missing: it does not start.
    """
    port = free_port()
    log = index.with_suffix(".log")
    with open(log, "wb") as written:
        words = [sys.executable, "-m", __name__, str(index), str(port)]
        process = subprocess.Popen(words, stdout=written, stderr=written)
    try:
        wait_for_port(port, process, seconds=READY, name="the service", log=log)
        deadline = time.monotonic() + READY
        while _status(port, "/readyz") != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"the service did not get ready: {last_words(log)}")
            time.sleep(0.1)
        yield port
    finally:
        stop(process)


def _serve(index: str, port: int) -> None:
    """What the other process does: `vireid gallery serve` without a token, and with no limit that the searches meet."""
    from vireid.gallery.index import open_index
    from vireid.gallery.service.engine import Engine, Serving
    from vireid.gallery.service.process import Server
    from vireid.gallery.service.routes import Access, Service
    from vireid.gallery.service.server import LOCAL, listen

    engine = Engine(open_index(index), Serving(rate=1000, burst=1_000_000))
    service = Service(engine, Access(frozenset(LOCAL)))
    Server(service, lambda: None).run([listen("127.0.0.1", port)])


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status


def upload(picture: bytes) -> tuple[str, bytes]:
    """The content type and the body of a search for a visible picture."""
    mark = secrets.token_hex(16)
    part = '--{}\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    pieces = [
        part.format(mark, "modality", "").encode() + Modality.VISIBLE.word.encode() + b"\r\n",
        part.format(mark, "image", '; filename="q.jpg"\r\nContent-Type: image/jpeg').encode() + picture + b"\r\n",
        f"--{mark}--\r\n".encode(),
    ]
    return f"multipart/form-data; boundary={mark}", b"".join(pieces)


def send(port: int, upload: tuple[str, bytes]) -> Sequence[str]:
    """Send one search on a connection of its own: the ids of the matches.

    Raises:
        RuntimeError: the answer is not 200.
    """
    kind, body = upload
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/searches", body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"a search was answered with {answer.status}: {text[:300].decode(errors='replace')}")
    return [match["picture"] for match in json.loads(text)["matches"]]


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
