"""The areas of `vireid bench search` that search made-up vectors: in memory, in a folder, and in Milvus."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.bench.ratios import (
    MODEL,
    TOP,
    BenchOptions,
    Missing,
    Ratio,
    Timed,
    interleaved,
    need,
    queries_of,
    row_id,
    rows_of,
    vectors_of,
)
from vireid.gallery.row import Where
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores.product import best, encode
from vireid.training.progress import Progress

MANY = 64
EVERYTHING = Where(modality=Modality.VISIBLE)
SIXTH = Where(modality=Modality.VISIBLE, cameras=("3",))


def matrix_ratios(asked: BenchOptions, folder: Path, progress: Progress) -> list[Ratio]:
    """One query against NumPy's usual method, and a filter against none."""
    size = asked.rows * asked.width
    need(memory=5 * size, disk=5.2 * size, folder=folder)
    vectors = np.empty((asked.rows, asked.width), np.float32)
    with open_gallery(folder / "gallery", model=MODEL, width=asked.width) as store:
        _fill(store, asked.rows, asked.width, progress, vectors.__setitem__)
        return matrix_timed(store, vectors, asked.rounds)


def matrix_timed(store: Store, vectors: np.ndarray, rounds: int) -> list[Ratio]:
    """The ratios of a store that holds these vectors."""
    codes, places = encode(vectors), np.arange(len(vectors))
    query = queries_of(1, *vectors.shape)

    def plain() -> np.ndarray:
        return np.argpartition(-(query @ vectors.T), TOP, axis=1)[0, :TOP]

    def exact(coded: np.ndarray | None) -> np.ndarray:
        return best(query, vectors, coded, places, TOP)[0][0]

    wanted = sorted(plain().tolist())
    _agree("float32", sorted(exact(None).tolist()), wanted)
    _agree("int8", sorted(exact(codes).tolist()), wanted)
    _agree("the folder", _found(store, query, EVERYTHING), [{row_id(n) for n in wanted}])
    base, whole, sixth = "NumPy, product and argpartition", "a folder, whole search", "a folder, 1 of 6 cameras"
    timed = interleaved(
        {
            base: plain,
            "float32, exact": lambda: exact(None),
            "int8 first, exact": lambda: exact(codes),
            whole: lambda: store.search(query, TOP, EVERYTHING),
            sixth: lambda: store.search(query, TOP, SIXTH),
        },
        rounds,
    )
    what = f"{len(vectors):,} × {vectors.shape[1]}, one query"
    return [
        timed.ratio("matrix", what, "float32, exact", base, 1.0),
        timed.ratio("matrix", what, "int8 first, exact", base, 0.5),
        timed.ratio("matrix", what, whole, base, 0.5),
        timed.ratio("matrix", what, sixth, whole, 0.5),
    ]


def large_ratios(asked: BenchOptions, folder: Path, progress: Progress) -> list[Ratio]:
    """One query and 64 queries against faiss's flat index, which also compares with every vector."""
    try:
        import faiss
    except ImportError:
        raise Missing("faiss is not installed: pip install faiss-cpu") from None
    size = asked.large_rows * asked.large_width
    need(memory=5 * size, disk=5.2 * size, folder=folder)
    flat = faiss.IndexFlatIP(asked.large_width)
    with open_gallery(folder / "gallery", model=MODEL, width=asked.large_width) as store:
        _fill(store, asked.large_rows, asked.large_width, progress, lambda _, part: flat.add(part))
        queries = queries_of(MANY, asked.large_rows, asked.large_width)
        _, wanted = flat.search(queries, TOP)
        _agree("the folder", _found(store, queries, EVERYTHING), [{row_id(n) for n in line} for line in wanted])
        timed = interleaved(
            {
                "faiss flat, one": lambda: flat.search(queries[:1], TOP),
                "a folder, one": lambda: store.search(queries[:1], TOP, EVERYTHING),
                "faiss flat, one after another": lambda: [flat.search(one[None], TOP) for one in queries],
                "faiss flat, together": lambda: flat.search(queries, TOP),
                "a folder, together": lambda: store.search(queries, TOP, EVERYTHING),
            },
            asked.rounds,
        )
    what = f"{asked.large_rows:,} × {asked.large_width}"
    many = f"{what}, {MANY} queries"
    return [
        timed.ratio("large", f"{what}, one query", "a folder, one", "faiss flat, one", 1 / 5),
        timed.ratio("large", many, "a folder, together", "faiss flat, one after another", 1 / 8),
        timed.ratio("large", many, "a folder, together", "faiss flat, together", None),
    ]


def milvus_ratios(asked: BenchOptions, folder: Path, progress: Progress) -> list[Ratio]:
    """Our adapter against bare pymilvus, in the server that was named, or in milvus-lite's."""
    if importlib.util.find_spec("pymilvus") is None:
        raise Missing("pymilvus is not installed: pip install 'vireid[milvus]'")
    with contextlib.ExitStack() as held:
        url = asked.store or f"milvus://127.0.0.1:{held.enter_context(lite_server(folder / 'lite'))}/bench"
        free_address(url)
        store = held.enter_context(open_gallery(url, model=MODEL, width=asked.large_width))
        client, collection = held.enter_context(bare_client(url))
        held.callback(client.drop_collection, collection)
        _fill(store, asked.milvus_rows, asked.large_width, progress, lambda *_: None)
        timed = milvus_timed(store, client, collection, asked)
    server = "the given server" if asked.store else "milvus-lite"
    what = f"{asked.milvus_rows:,} × {asked.large_width} in {server}, one query"
    with_vectors = timed.ratio("milvus", what, "vireid", "pymilvus, with vectors", 1.3)
    return [with_vectors, timed.ratio("milvus", what, "vireid", "pymilvus, ids only", None)]


def milvus_timed(store: Store, client: Any, collection: str, asked: BenchOptions) -> Timed:
    """The adapter and the bare client, with the same consistency and the same filter."""
    query = queries_of(1, asked.milvus_rows, asked.large_width)

    def bare(fields: list[str]) -> list[Any]:
        asked_for = {"limit": TOP, "filter": f"modality == {int(Modality.VISIBLE)}", "anns_field": "vector"}
        data = list(query)
        level = "Bounded" if "consistency=bounded" in (asked.store or "") else "Strong"
        return client.search(collection, data=data, output_fields=fields, consistency_level=level, **asked_for)

    _agree("the adapter", _found(store, query, EVERYTHING), [{hit["id"] for hit in bare(["id"])[0]}])
    return interleaved(
        {
            "pymilvus, with vectors": lambda: bare(["id", "vector"]),
            "pymilvus, ids only": lambda: bare(["id"]),
            "vireid": lambda: store.search(query, TOP, EVERYTHING),
        },
        asked.rounds,
    )


@contextlib.contextmanager
def bare_client(url: str) -> Iterator[tuple[Any, str]]:
    """pymilvus's own client, and the name of the collection of the benchmark's gallery."""
    import pymilvus

    from vireid.gallery.stores import milvus

    address = milvus.Address.parse(url)
    client = pymilvus.MilvusClient(address.uri, token=os.environ.get(milvus.TOKEN, ""))
    with contextlib.closing(client):
        yield client, f"{address.name}_{MODEL}"


def free_address(url: str) -> None:
    """Check that no gallery has this URL yet.

    Raises:
        BadInput: one has, or the server cannot be used.
    """
    try:
        open_gallery(url).close()
    except BadInput as error:
        if "no gallery" in str(error):
            return
        raise
    raise BadInput(f"{url} is there already: the benchmark makes a gallery of its own, so give another name")


@contextlib.contextmanager
def lite_server(folder: Path, *, seconds: float = 60) -> Iterator[int]:
    """milvus-lite's server on the loopback address, with its data in a folder: the port.

    Raises:
        Missing: it is not installed, or does not start.
    """
    beside = Path(sys.executable).with_name("milvus-lite")
    program = str(beside) if beside.exists() else shutil.which("milvus-lite")
    if program is None:
        raise Missing("there is no server: give one with --store milvus://host:port/name, or pip install milvus-lite")
    port = free_port()
    command = [program, "server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    log = folder.with_suffix(".log")
    with open(log, "ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
    try:
        wait_for_port(port, process, seconds=seconds, name="milvus-lite's server", log=log)
        yield port
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """Ask a process to end; after 20 seconds, kill it."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen, *, seconds: float, name: str, log: Path) -> None:
    """Wait until a process that was started accepts connections.

    Raises:
        Missing: it ends before, or takes longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise Missing(f"{name} did not start: {last_words(log)}")
        time.sleep(0.1)


def last_words(log: Path) -> str:
    """The last line that a process wrote."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "it said nothing")


def free_port() -> int:
    """A port of the loopback address that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _fill(store: Store, count: int, width: int, progress: Progress, also: Callable[[Any, np.ndarray], object]) -> None:
    """Store the made-up rows, and hand each part of the vectors to `also` with its place as a slice."""
    with progress.bar(f"storing {count:,} × {width}") as advance:
        for first, part in vectors_of(count, width):
            store.upsert(rows_of(first, part))
            also(slice(first, first + len(part)), part)
            advance(first + len(part), count)


def _found(store: Store, queries: np.ndarray, where: Where) -> list[set[str]]:
    return [{hit.id for hit in hits} for hits in store.search(queries, TOP, where)]


def _agree(name: str, found: object, wanted: object) -> None:
    """Contenders that do not find the same pictures must not be compared."""
    if found != wanted:
        raise RuntimeError(f"{name} found other pictures than the baseline")
