"""The areas of `vireid bench search` that need a model: building an index from pictures, and searches over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
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
from PIL import Image, ImageFilter

from vireid.data.modality import Modality
from vireid.gallery.bench.ratios import BenchOptions, Missing, Ratio, interleaved, need, rows_of, vectors_of
from vireid.gallery.build import BuildOptions, build
from vireid.gallery.index import load_model, make_index
from vireid.training.progress import Progress, Quiet

SMALL = ("trunk=tiny", "weights=world", "epochs=1", "epoch_length=1", "identities_per_batch=2")
"""The model that is made if none is given: AGW's size of pictures, 288×144, and a small trunk."""
BATCH = 64
READY = 120.0
"""Seconds in which the service must be ready."""


def build_ratios(asked: BenchOptions, folder: Path, progress: Progress) -> list[Ratio]:
    """`vireid gallery build` against a bare loop that decodes and embeds the same pictures and keeps nothing."""
    model = model_of(asked, folder, progress)
    pictures = write_pictures(folder / "pictures", asked.pictures)
    numbers = itertools.count()

    def bare() -> None:
        embed_only(model, pictures, asked.workers)

    def ours() -> None:
        index = folder / f"index-{next(numbers)}"
        done = build(BuildOptions(index, model, (pictures,), "visible", "1", batch=BATCH, workers=asked.workers))
        if done.embedded != asked.pictures:
            raise RuntimeError(f"the build embedded {done.embedded} of {asked.pictures} pictures")

    timed = interleaved({"decode and embed only": bare, "gallery build": ours}, max(2, asked.rounds // 2))
    what = f"{asked.pictures:,} pictures, {load_model(model).run.facts.name}, {asked.workers} workers"
    return [timed.ratio("build", what, "gallery build", "decode and embed only", 0.9, speed=True)]


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


def service_ratios(asked: BenchOptions, folder: Path, progress: Progress) -> list[Ratio]:
    """Searches that are sent at the same time against the same ones in turn, to `vireid gallery serve`."""
    if missing := [one for one in ("fastapi", "uvicorn", "multipart") if importlib.util.find_spec(one) is None]:
        raise Missing(f"{missing[0]} is not installed: pip install 'vireid[serve]'")
    model = model_of(asked, folder, progress)
    bodies = [upload(data) for data in pictures_of(asked.requests)]
    with make_index(folder / "index", model) as index:
        width = index.facts.width
        need(memory=5 * asked.rows * width, disk=5.2 * asked.rows * width, folder=folder)
        with progress.bar(f"storing {asked.rows:,} × {width}") as advance:
            for first, part in vectors_of(asked.rows, width):
                index.store.upsert(rows_of(first, part))
                advance(first + len(part), asked.rows)
    with served(folder / "index") as port, ThreadPoolExecutor(asked.requests) as pool:
        in_turn, together = "one after another", "at the same time"
        timed = interleaved(
            {
                in_turn: lambda: [send(port, body) for body in bodies],
                together: lambda: list(pool.map(lambda body: send(port, body), bodies)),
            },
            asked.rounds,
        )
    what = f"{asked.requests} searches over HTTP, {asked.rows:,} × {width}"
    return [timed.ratio("service", what, together, in_turn, 4.0, speed=True)]


# --- a model and pictures ---------------------------------------------------------------------------------------------


def model_of(asked: BenchOptions, folder: Path, progress: Progress) -> Path:
    """The model that was given, or a small one that was trained for one step."""
    if asked.model is not None:
        return asked.model
    from vireid.data.size import Size
    from vireid.experiments.train import TrainOptions, train
    from vireid.synthesis.world import World, write_world

    world, run = folder / "world", folder / "run"
    write_world(world, World(8), layout="llcm", size=Size(48, 24), pictures=2, workers=1)
    train(TrainOptions("agw", f"llcm:{world}", run, set=SMALL, workers=0), progress)
    return run


def pictures_of(count: int) -> Iterator[bytes]:
    """JPEGs of blurred noise, which compresses like a photograph: 110–190 × 320–480 pixels, as crops of cameras are."""
    draw = np.random.default_rng(9)
    for _ in range(count):
        width, height = int(draw.integers(110, 191)), int(draw.integers(320, 481))
        noise = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        made = io.BytesIO()
        noise.filter(ImageFilter.GaussianBlur(1.5)).save(made, "JPEG", quality=90)
        yield made.getvalue()


def write_pictures(folder: Path, count: int) -> Path:
    """`pictures_of` as files of a folder."""
    folder.mkdir()
    for number, data in enumerate(pictures_of(count)):
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return folder


# --- the service ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(index: Path) -> Iterator[int]:
    """The service in another process, on this machine's own address and without limits on requests: the port.

    Raises:
        Missing: it does not start.
    """
    from vireid.gallery.bench.vectors import free_port, last_words, stop, wait_for_port

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
