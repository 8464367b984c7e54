"""A gallery that can be searched: pictures of two modalities, what is known of them, and their vectors.

    import vireid.gallery

    with vireid.gallery.open("index") as store:
        found = store.search(vectors, 20, Where(modality=Modality.VISIBLE, cameras=("1", "2")))

`open` takes a folder or `milvus://host:port/name`. Both kinds of store give the same answers.
"""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Facts": "vireid.gallery.store",
    "Hit": "vireid.gallery.store",
    "Row": "vireid.gallery.row",
    "Store": "vireid.gallery.store",
    "Where": "vireid.gallery.row",
    "id_of": "vireid.gallery.row",
    "open": "vireid.gallery.store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vireid.gallery' has no attribute '{name}'; it has {', '.join(_HOMES)}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
