"""A gallery in Milvus, for more pictures than one machine holds: `milvus://host:port/name`.

Answers are those of the folder. What the server does differently is made good here:

- The server may store an id twice if it comes twice in a batch, or by `insert`. Here the last one is kept before
  sending, and `upsert` is the only way in.
- It orders equal scores by chance, and differently for another limit. Here 16 more are asked for, doubled until the
  last one is surely too far; float64 scores are computed anew, and sorted by score and id.
- A write is surely seen by later reads only at the level Strong. That is the level here; `?consistency=bounded` is
  faster, and may miss the last seconds.
- `row_count` does not know rows that are not flushed yet: here it is `count(*)`.
- A filter is text, in the server's language. Here it is made of checked whole numbers and hexadecimal digits, and of
  names as JSON.
- With a partition key, Milvus 2.3.5 put upserted rows into wrong partitions, and a filter by that key lost half of
  them. Here there is none.
- Messages above 64 MB are refused: here they have about 4 MB.
- Columns are held in memory, so thumbnails have no place there: they are files, in the folder of `?thumbnails=FOLDER`.

The index is FLAT with inner products, which is exact. `?index=ivf_sq8` and `?index=hnsw` choose an approximate one when
a gallery is made: it needs less memory or less time, and misses some of the nearest rows. The scores of those that it
finds are exact all the same. The token comes from the environment, never from the URL.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.gallery.row import LONG, MODALITIES, NAME, Row, Where, checked_ids, last_of_each
from vireid.gallery.store import EVERY_ROW, Facts, Hit, check_document, check_facts, checked_search, ranked
from vireid.gallery.stores.product import float32_error, scores
from vireid.gallery.stores.thumbnails import Thumbnails

OPTIONS = ("consistency", "thumbnails", "index")
SCHEMES = {"milvus": "http", "milvus+tls": "https"}
TOKEN = "VIREID_MILVUS_TOKEN"
LEVELS = {"strong": "Strong", "bounded": "Bounded"}
UNKNOWN_TIME = -(2**63)
MOST = 16_384  # rows that one call of the server can give
MORE = 16  # rows that are asked for beyond those wanted
MESSAGE = 4 * 2**20  # bytes
SECONDS = 60.0
KEEPALIVE = 300_000
"""Milliseconds between signs of life. pymilvus sends one every 10 s, and a server with the defaults of gRPC, such as
milvus-lite, hangs up on that: when it is busy for half a minute, the call fails."""
INDEXES: dict[str, tuple[dict[str, int], Callable[[int], dict[str, int]]]] = {
    "flat": ({}, lambda limit: {}),
    "ivf_sq8": ({"nlist": 1024}, lambda limit: {"nprobe": 64}),
    "hnsw": ({"M": 16, "efConstruction": 200}, lambda limit: {"ef": max(128, limit)}),
}
"""Kind of index → how it is built, and how a search for so many rows uses it."""
Pairs = list[tuple[str, float]]
"""Ids and scores."""
_HEX = "0123456789abcdef"
_COLUMNS = ["id", "content", "source", "path", "camera", "modality", "time", "tracklet", "person"]


@dataclass(frozen=True)
class Address:
    """The parts of `milvus://host:port/name?consistency=…&thumbnails=…&index=…`.

    >>> Address.parse("milvus://localhost:19530/station?consistency=bounded")
    Address(uri='http://localhost:19530', name='station', level='Bounded', thumbnails=None, index=None)

    Attributes:
        uri, name: the server, and the gallery in it.
        level: `Strong` or `Bounded`.
        thumbnails: the folder of thumbnails; None keeps none.
        index: a key of `INDEXES`, for a gallery that is made; None for `flat`.
    """

    uri: str
    name: str
    level: str = "Strong"
    thumbnails: Path | None = None
    index: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            BadInput: a part is missing or unknown, or the URL has a password.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadInput(f"'{url}' is no URL of a gallery: {error}") from None
        if parts.username is not None or parts.password is not None:
            raise BadInput(f"a URL is written down in many places: give the token of Milvus in {TOKEN} instead")
        name = parts.path.removeprefix("/")
        if not host or port is None or not re.fullmatch(r"[A-Za-z_]\w{0,99}", name, re.ASCII) or parts.fragment:
            raise BadInput(f"'{url}' is not like milvus://host:port/name, with a name of letters, digits and _")
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        if strange := sorted(set(given) - set(OPTIONS)):
            raise unknown("option of a gallery's URL", strange[0], OPTIONS)
        level = given.get("consistency", "strong")
        if level not in LEVELS:
            raise unknown("consistency", level, LEVELS)
        index = given.get("index")
        if index is not None and index not in INDEXES:
            raise unknown("index", index, INDEXES)
        folder = Path(given["thumbnails"]) if given.get("thumbnails") else None
        host = f"[{host}]" if ":" in host else host
        return cls(f"{SCHEMES[parts.scheme]}://{host}:{port}", name, LEVELS[level], folder, index)


class MilvusStore:
    """The store of `vireid.gallery.store.Store` in a Milvus server or cluster. Any number of processes may write.

    Raises (when an instance is made, and by all methods):
        BadInput: pymilvus is not installed, the server cannot be reached or refuses, or there is no such gallery.
    """

    def __init__(self, address: Address, made: Facts | None) -> None:
        self._address = address
        self._pymilvus = _library()
        self._thumbnails = None if address.thumbnails is None else Thumbnails(address.thumbnails)
        token = os.environ.get(TOKEN, "")
        named = {"token": token, "timeout": SECONDS, "grpc_options": {"grpc.keepalive_time_ms": KEEPALIVE}}
        self._client = self._said(lambda: self._pymilvus.MilvusClient(address.uri, **named))
        try:
            self._collection = self._find(made)
            self._model, self._width = self._made()
            check_facts(f"{address.name} of {address.uri}", Facts(self._model, self._width, 0, 0), made)
            self.index = self._kind_of_index()
            self._call("load_collection", self._collection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MilvusStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, rows: Iterable[Row]) -> None:
        rows = last_of_each(rows)
        for row in rows:
            if row.vector is not None and len(row.vector) != self._width:
                raise BadInput(f"the vector of {row.path} has {len(row.vector)} numbers, and the gallery {self._width}")
        if self._thumbnails is not None:
            self._thumbnails.put(rows)
        step = self._at_a_time(vectors=True)
        for start in range(0, len(rows), step):
            self._call("upsert", self._collection, [_values(row) for row in rows[start : start + step]])

    def delete(self, ids: Iterable[str]) -> None:
        ids = checked_ids(ids)
        for start in range(0, len(ids), MOST // 2):
            self._call("delete", self._collection, ids=ids[start : start + MOST // 2])
        if self._thumbnails is not None:
            self._thumbnails.remove(ids)

    def keep(self, name: str, text: str) -> None:
        check_document(name)
        self._call("alter_collection_properties", self._collection, properties={f"vireid.{name}": text})

    def compact(self) -> None:
        """Ask the server to compact. It removes the bytes some time later, as its own settings say."""
        self._call("compact", self._collection)

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, ids: Iterable[str]) -> dict[str, Row]:
        ids = checked_ids(ids)
        found = {}
        step = self._at_a_time(vectors=True)
        for start in range(0, len(ids), step):
            part = _expression(Where(ids=tuple(ids[start : start + step])))
            found |= {row.id: row for row in self._rows(part, vectors=True)}
        return {one: found[one] for one in ids if one in found}

    def search(self, vectors: np.ndarray, top: int, where: Where) -> list[list[Hit]]:
        queries = checked_search(vectors, top, where, self._width)
        if where.passes_none() or not len(queries):
            return [[] for _ in queries]
        expression = _expression(where)
        if self.index == "flat":
            candidates = sure_candidates(lambda some, limit: self._nearest(some, limit, expression), queries, top)
        else:
            # What it knows of scores is approximate too, so more rows are scored anew than are wanted.
            found = self._nearest(queries, min(2 * top + MORE, MOST), expression)
            candidates = [[id for id, _ in pairs] for pairs in found]
        stored = self._vectors(sorted({one for ids in candidates for one in ids}))
        hits = []
        for query, ids in zip(queries, candidates, strict=True):
            ids = [one for one in ids if one in stored]  # without those that were deleted since
            found = np.stack([stored[one] for one in ids]) if ids else np.empty((0, self._width), np.float32)
            hits.append(ranked(ids, scores(query, found), top))
        return hits

    def _nearest(self, queries: np.ndarray, limit: int, expression: str) -> list[Pairs]:
        """The nearest rows of each query that pass."""
        how = {"metric_type": "IP", "params": INDEXES[self.index][1](limit)}
        asked = {"limit": limit, "filter": expression, "anns_field": "vector", "search_params": how}
        step = max(1, min(MESSAGE // (4 * self._width), MESSAGE // (64 * limit)))  # 64 bytes for an id and a score
        found = []
        for start in range(0, len(queries), step):
            part = list(queries[start : start + step])
            hits = self._call("search", self._collection, data=part, **asked, consistency_level=self._address.level)
            found += [[(hit["id"], float(hit["distance"])) for hit in some] for some in hits]
        return found

    def _vectors(self, ids: list[str]) -> dict[str, np.ndarray]:
        found = {}
        step = self._at_a_time(vectors=True)
        for start in range(0, len(ids), step):
            part = _expression(Where(ids=tuple(ids[start : start + step])))
            rows = self._query(part, ["id", "vector"])
            found |= {one["id"]: np.asarray(one["vector"], np.float32) for one in rows}
        return found

    def count(self, where: Where = EVERY_ROW) -> int:
        if where.passes_none():
            return 0
        return int(self._query(_expression(where), ["count(*)"])[0]["count(*)"])

    def iterate(self, where: Where = EVERY_ROW, *, vectors: bool = False) -> Iterator[Row]:
        """By the first digits of the ids: the server promises no order, and gives up to 16,384 rows at a time."""
        most = min(self._at_a_time(vectors=vectors), MOST - 1)
        many, digits = self.count(where), 0
        while many > most * 16**digits / 2:
            digits += 1
        expression = _expression(where)
        for number in range(16**digits):
            prefix = f"{number:0{digits}x}" if digits else ""
            yield from self._below(prefix, expression, most, vectors)

    def _below(self, prefix: str, expression: str, most: int, vectors: bool) -> Iterator[Row]:
        """The rows whose ids begin with some digits, by id."""
        if len(prefix) > 32:
            return
        rows = self._rows(_all(expression, _begins(prefix)), vectors=vectors, limit=most + 1)
        if len(rows) <= most:
            yield from sorted(rows, key=lambda row: row.id)
            return
        for digit in _HEX:
            yield from self._below(prefix + digit, expression, most, vectors)

    def thumbnail(self, id: str) -> bytes | None:
        checked_ids([id])
        return None if self._thumbnails is None else self._thumbnails.get(id)

    def kept(self, name: str) -> str | None:
        check_document(name)
        properties = self._call("describe_collection", self._collection).get("properties", {})
        return properties.get(f"vireid.{name}")

    def facts(self) -> Facts:
        visible, infrared = (self.count(Where(modality=one)) for one in MODALITIES)
        return Facts(self._model, self._width, visible, infrared)

    def _rows(self, expression: str, *, vectors: bool, limit: int = MOST) -> list[Row]:
        columns = [*_COLUMNS, "vector"] if vectors else _COLUMNS
        return [_row(one) for one in self._query(expression, columns, limit)]

    def _query(self, expression: str, columns: list[str], limit: int = MOST) -> list[dict[str, Any]]:
        asked = {"filter": expression, "output_fields": columns, "consistency_level": self._address.level}
        if columns != ["count(*)"]:
            asked["limit"] = limit
        return list(self._call("query", self._collection, **asked))

    def _at_a_time(self, *, vectors: bool) -> int:
        """How many rows make about 4 MB."""
        return max(1, MESSAGE // (1024 + (4 * self._width if vectors else 0)))

    # --- the collection -----------------------------------------------------------------------------------------------

    def _find(self, made: Facts | None) -> str:
        """The name of the gallery's collection, which is made if it is not there and a model is given."""
        name = self._address.name
        known = [one for one in self._call("list_collections") if re.fullmatch(rf"{name}_[0-9a-f]{{16,64}}", one)]
        if len(known) > 1:
            raise BadInput(f"{self._address.uri} has the gallery {name} of several models: {', '.join(sorted(known))}")
        if known:
            return known[0]
        if made is None:
            raise BadInput(f"there is no gallery {name} in {self._address.uri}: vireid gallery build makes one")
        collection = f"{name}_{made.model}"
        client, types = self._client, self._pymilvus.DataType
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", types.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("modality", types.INT64)
        schema.add_field("time", types.INT64)
        bytes_of = {"content": 64, "source": LONG, "path": LONG}
        bytes_of |= dict.fromkeys(("camera", "tracklet", "person"), 4 * NAME)
        for column, most in bytes_of.items():
            schema.add_field(column, types.VARCHAR, max_length=most)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=made.width)
        index = client.prepare_index_params()
        kind = self._address.index or "flat"
        index.add_index("vector", index_type=kind.upper(), metric_type="IP", params=INDEXES[kind][0])
        asked = {"schema": schema, "index_params": index, "consistency_level": "Strong"}
        try:
            self._call("create_collection", collection, **asked)
        except BadInput:
            if not self._call("has_collection", collection):  # else another process has just made it
                raise
        return collection

    def _made(self) -> tuple[str, int]:
        """The model, which the collection's name ends with, and the width."""
        fields = self._call("describe_collection", self._collection)["fields"]
        width = {one["name"]: one["params"].get("dim") for one in fields}
        if set(width) != {*_COLUMNS, "vector"}:
            raise BadInput(f"the collection {self._collection} of {self._address.uri} has other columns than a gallery")
        return self._collection.rpartition("_")[2], int(width["vector"])

    def _kind_of_index(self) -> str:
        """The kind of the collection's index, a key of `INDEXES`.

        Raises:
            BadInput: it is of another kind, or not of the one that the URL names.
        """
        found = [
            self._call("describe_index", self._collection, one) for one in self._call("list_indexes", self._collection)
        ]
        kinds = [str(one.get("index_type", "")).lower() for one in found if one and one.get("field_name") == "vector"]
        kind = kinds[0] if kinds else "flat"
        where = f"the gallery {self._address.name} of {self._address.uri}"
        if kind not in INDEXES:
            raise BadInput(f"{where} has an index {kind}, which vireid does not know; it knows {', '.join(INDEXES)}")
        if self._address.index not in (None, kind):
            raise BadInput(f"{where} has the index {kind}, not {self._address.index}: it is chosen when one is made")
        return kind

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        return self._said(lambda: getattr(self._client, method)(*arguments, timeout=SECONDS, **named))

    def _said(self, call: Callable[[], Any]) -> Any:
        """What a call returns. What the server refuses is told in a sentence."""
        import grpc  # pymilvus needs it

        try:
            return call()
        except self._pymilvus.MilvusException as error:
            raise BadInput(f"Milvus at {self._address.uri}: {' '.join(str(error.message).split())}") from error
        except grpc.RpcError as error:  # pymilvus lets a time limit through
            why = error.code().name if isinstance(error, grpc.Call) else "the connection failed"
            raise BadInput(f"Milvus at {self._address.uri} does not answer: {why}") from error


def sure_candidates(
    nearest: Callable[[np.ndarray, int], list[Pairs]], queries: np.ndarray, top: int
) -> list[list[str]]:
    """For each query, the ids of all rows that can be among its `top` best, and of few others.

    A server knows scores in float32 only, and cuts equal ones as it likes. So it is asked for more rows, until the last
    one is so far that it cannot be among the best, nor anything after it.

    Args:
        nearest: queries and a limit → (id, float32 score) of up to so many nearest rows of each query.
        queries: Q×D float32, of length one.
        top: 1 or more.

    Raises:
        BadInput: the server cannot give as many rows as are equally similar.
    """
    slack = 2 * float32_error(queries.shape[1])
    found: list[list[str]] = [[] for _ in queries]
    left, limit = list(range(len(queries))), min(top + MORE, MOST)
    while left:
        again = []
        for which, pairs in zip(left, nearest(queries[left], limit), strict=True):
            pairs = sorted(pairs, key=lambda pair: -pair[1])
            least = pairs[top - 1][1] - slack if len(pairs) >= top else -np.inf
            found[which] = [id for id, score in pairs if score >= least]
            if len(pairs) == limit and pairs[-1][1] >= least:
                again.append(which)
        if again and limit == MOST:
            raise BadInput(f"more than {MOST - top} pictures are equally similar: narrow the search by its filters")
        left, limit = again, min(2 * limit, MOST)
    return found


def _library() -> Any:
    try:
        import pymilvus
    except ImportError:
        raise BadInput(
            "a gallery in Milvus needs the package pymilvus, which is not installed: pip install 'vireid[milvus]'"
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # each refusal is raised; it also logs a traceback
    return pymilvus


# --- expressions and rows ---------------------------------------------------------------------------------------------


def _expression(where: Where) -> str:
    """The filter in Milvus's language. Every value was checked when `where` was made."""
    parts = []
    if where.modality is not None:
        parts.append(f"modality == {int(where.modality)}")
    for column, choices in where.members().items():
        # Each value once: milvus-lite gives a row as often as its id is named.
        parts.append(f"{column} in [{', '.join(_quoted(one) for one in dict.fromkeys(choices))}]")
    if (times := where.times()) is not None:
        parts.append(f"time >= {int(times[0])} and time < {int(times[1])}")
    return _all(*parts)


def _all(*parts: str) -> str:
    return " and ".join(part for part in parts if part)


def _begins(prefix: str) -> str:
    """The ids that begin with some digits. `g` comes after all of them."""
    return f"id >= {_quoted(prefix)} and id < {_quoted(prefix + 'g')}" if prefix else ""


def _quoted(text: str) -> str:
    """A text in double quotes. Other letters stay as they are: milvus-lite does not know JSON's `\\u`."""
    return json.dumps(text, ensure_ascii=False)


def _values(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "content": row.content,
        "source": row.source,
        "path": row.path,
        "camera": row.camera,
        "modality": int(row.modality),
        "time": UNKNOWN_TIME if row.time is None else row.time,
        "tracklet": row.tracklet or "",
        "person": row.person or "",
        "vector": row.vector,
    }


def _row(found: dict[str, Any]) -> Row:
    return Row(
        source=found["source"],
        path=found["path"],
        content=found["content"],
        camera=found["camera"],
        modality=Modality(found["modality"]),
        time=None if found["time"] == UNKNOWN_TIME else found["time"],
        tracklet=found["tracklet"] or None,
        person=found["person"] or None,
        vector=np.asarray(found["vector"], np.float32) if "vector" in found else None,
    )
