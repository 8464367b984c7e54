"""A gallery that can be searched: pictures of two modalities, what is known of them, and their vectors.

    import vireid.gallery

    with vireid.gallery.open("index") as store:
        found = store.search(vectors, 20, Where(modality=Modality.VISIBLE, cameras=("1", "2")))

`open` takes a folder or `milvus://host:port/name`. Both kinds of store give the same answers.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Answer": "vireid.gallery.search",
    "BuildOptions": "vireid.gallery.build",
    "Facts": "vireid.gallery.store",
    "Hit": "vireid.gallery.store",
    "Index": "vireid.gallery.index",
    "Query": "vireid.gallery.search",
    "Row": "vireid.gallery.row",
    "SearchOptions": "vireid.gallery.lookup",
    "Store": "vireid.gallery.store",
    "Where": "vireid.gallery.row",
    "id_of": "vireid.gallery.row",
    "look_up": "vireid.gallery.lookup",
    "open": "vireid.gallery.store",
    "open_index": "vireid.gallery.index",
    "query_from": "vireid.gallery.search",
    "query_of": "vireid.gallery.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vireid.gallery' has no attribute '{name}'; it has {', '.join(_HOMES)}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
