"""The parts of the area `search` that search made-up vectors: in memory, in a folder, and in Milvus."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vireid.bench.gallery.server import lite_server
from vireid.bench.gallery.vectors import MODEL, TOP, queries_of, row_id, rows_of, vectors_of
from vireid.bench.measure import Line, Missing, Timed, need
from vireid.bench.run import Bench
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.row import Where
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores.product import best, encode
from vireid.training.progress import Progress

MANY = 64
EVERYTHING = Where(modality=Modality.VISIBLE)
SIXTH = Where(modality=Modality.VISIBLE, cameras=("3",))


def matrix_lines(bench: Bench) -> list[Line]:
    """One query against NumPy's usual method, and a filter against none."""
    asked, folder = bench.options, bench.folder
    size = asked.rows * asked.width
    need(memory=5 * size, disk=5.2 * size, folder=folder)
    vectors = np.empty((asked.rows, asked.width), np.float32)
    with open_gallery(folder / "gallery", model=MODEL, width=asked.width) as store:
        _fill(store, asked.rows, asked.width, bench.progress, vectors.__setitem__)
        return _matrix_timed(store, vectors, bench)


def _matrix_timed(store: Store, vectors: np.ndarray, bench: Bench) -> list[Line]:
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
    flat, coded = "float32, exact", "int8 first, exact"
    timed = bench.timed(
        {},
        others={
            base: plain,
            flat: lambda: exact(None),
            coded: lambda: exact(codes),
            whole: lambda: store.search(query, TOP, EVERYTHING),
            sixth: lambda: store.search(query, TOP, SIXTH),
        },
    )
    what = f"matrix: {len(vectors):,} × {vectors.shape[1]}, one query"
    return [
        timed.line(what, baseline=base, ours=flat, goal=1.0, larger=False),
        timed.line(what, baseline=base, ours=coded, goal=0.5, larger=False),
        timed.line(what, baseline=base, ours=whole, goal=0.5, larger=False),
        timed.line(what, baseline=whole, ours=sixth, goal=0.5, larger=False),
    ]


def large_lines(bench: Bench) -> list[Line]:
    """One query and 64 queries against faiss's flat index, which also compares with every vector."""
    try:
        import faiss
    except ImportError:
        raise Missing("faiss is not installed: pip install faiss-cpu") from None
    asked, folder = bench.options, bench.folder
    size = asked.large_rows * asked.large_width
    need(memory=5 * size, disk=5.2 * size, folder=folder)
    flat = faiss.IndexFlatIP(asked.large_width)
    one, turns, many, ours, ours_many = (
        "faiss flat, one",
        "faiss flat, one after another",
        "faiss flat, together",
        "a folder, one",
        "a folder, together",
    )
    with open_gallery(folder / "gallery", model=MODEL, width=asked.large_width) as store:
        _fill(store, asked.large_rows, asked.large_width, bench.progress, lambda _, part: flat.add(part))
        queries = queries_of(MANY, asked.large_rows, asked.large_width)
        _, wanted = flat.search(queries, TOP)
        _agree("the folder", _found(store, queries, EVERYTHING), [{row_id(n) for n in line} for line in wanted])
        timed = bench.timed(
            {},
            others={
                one: lambda: flat.search(queries[:1], TOP),
                ours: lambda: store.search(queries[:1], TOP, EVERYTHING),
                turns: lambda: [flat.search(one[None], TOP) for one in queries],
                many: lambda: flat.search(queries, TOP),
                ours_many: lambda: store.search(queries, TOP, EVERYTHING),
            },
        )
    what = f"large: {asked.large_rows:,} × {asked.large_width}"
    return [
        timed.line(f"{what}, one query", baseline=one, ours=ours, goal=1 / 5, larger=False),
        timed.line(f"{what}, {MANY} queries", baseline=turns, ours=ours_many, goal=1 / 8, larger=False),
        timed.line(f"{what}, {MANY} queries", baseline=many, ours=ours_many, larger=False),
    ]


def milvus_lines(bench: Bench) -> list[Line]:
    """Our adapter against bare pymilvus, in the server that was named, or in milvus-lite's."""
    if importlib.util.find_spec("pymilvus") is None:
        raise Missing("pymilvus is not installed: pip install 'vireid[milvus]'")
    asked = bench.options
    with contextlib.ExitStack() as held:
        url = asked.store or f"milvus://127.0.0.1:{held.enter_context(lite_server(bench.folder / 'lite'))}/bench"
        free_address(url)
        store = held.enter_context(open_gallery(url, model=MODEL, width=asked.large_width))
        client, collection = held.enter_context(bare_client(url))
        held.callback(client.drop_collection, collection)
        _fill(store, asked.milvus_rows, asked.large_width, bench.progress, lambda *_: None)
        timed = _milvus_timed(store, client, collection, bench)
    server = "the given server" if asked.store else "milvus-lite"
    what = f"milvus: {asked.milvus_rows:,} × {asked.large_width} in {server}, one query"
    return [
        timed.line(what, baseline="pymilvus, with vectors", ours="vireid", goal=1.3, limit=1.0, larger=False),
        timed.line(what, baseline="pymilvus, ids only", ours="vireid", larger=False),
    ]


def _milvus_timed(store: Store, client: Any, collection: str, bench: Bench) -> Timed:
    """The adapter and the bare client, with the same consistency and the same filter."""
    asked = bench.options
    query = queries_of(1, asked.milvus_rows, asked.large_width)

    def bare(fields: list[str]) -> list[Any]:
        asked_for = {"limit": TOP, "filter": f"modality == {int(Modality.VISIBLE)}", "anns_field": "vector"}
        data = list(query)
        level = "Bounded" if "consistency=bounded" in (asked.store or "") else "Strong"
        return client.search(collection, data=data, output_fields=fields, consistency_level=level, **asked_for)

    _agree("the adapter", _found(store, query, EVERYTHING), [{hit["id"] for hit in bare(["id"])[0]}])
    return bench.timed(
        {},
        others={
            "pymilvus, with vectors": lambda: bare(["id", "vector"]),
            "pymilvus, ids only": lambda: bare(["id"]),
            "vireid": lambda: store.search(query, TOP, EVERYTHING),
        },
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
