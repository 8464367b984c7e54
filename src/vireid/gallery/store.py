"""What every store of a gallery does, and `open`, which finds the store that a URL names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vireid.data.errors import BadInput
from vireid.gallery.row import MODALITIES, Row, Where, checked_vectors

TOP = 1000
"""Most hits of one search."""
WIDTH = 32_768
"""Most numbers of a vector. Milvus takes no more."""
EVERY_ROW = Where()

_MODEL = re.compile(r"[0-9a-f]{16,64}")
_DOCUMENT = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Hit:
    """One picture that a search found: its id, and its cosine with the query, computed in float64."""

    id: str
    score: float


@dataclass(frozen=True)
class Facts:
    """What a store is.

    Attributes:
        model: the fingerprint of the model that made all vectors, 16 to 64 hexadecimal digits.
        width: the numbers of a vector.
        visible, infrared: how many rows of each modality there are.
        dead: how many vectors of deleted or replaced rows the files still hold, until `compact` is called. 0 where a
            server looks after this itself.
    """

    model: str
    width: int
    visible: int
    infrared: int
    dead: int = 0


class Store(Protocol):
    """Rows that can be searched. All stores give the same answers; `vireid.gallery.store.open` opens one.

    A store may be used by several threads at a time.
    """

    def upsert(self, rows: Iterable[Row]) -> None:
        """Add rows; a row whose id is known replaces the old one. Of two rows with one id, the last one counts.

        When it returns, the rows are on disk and every later search sees them.
        """
        ...

    def delete(self, ids: Iterable[str]) -> None:
        """Remove rows and their thumbnails. Ids that are not known are passed over."""
        ...

    def get(self, ids: Iterable[str]) -> dict[str, Row]:
        """The rows with these ids, with vectors. Ids that are not known are left out."""
        ...

    def search(self, vectors: np.ndarray, top: int, where: Where) -> list[list[Hit]]:
        """The rows that pass a filter and are the most similar to each query.

        Args:
            vectors: Q×D float32, of length one.
            top: most hits for each query, 1 to 1,000.
            where: the filter. It names a modality: cosines between different pairs of modalities do not compare, and
                one list must not hold both.

        Returns:
            Q lists, by falling score; equal scores by id. The scores are the same in every store, bit for bit.
        """
        ...

    def count(self, where: Where = EVERY_ROW) -> int:
        """How many rows pass a filter."""
        ...

    def iterate(self, where: Where = EVERY_ROW, *, vectors: bool = False) -> Iterator[Row]:
        """The rows that pass a filter, by id. Rows may be deleted and added meanwhile, which it may or may not see."""
        ...

    def thumbnail(self, id: str) -> bytes | None:
        """The JPEG of a picture; None if there is none."""
        ...

    def keep(self, name: str, text: str) -> None:
        """Keep a document, such as the calibration, in the store. It replaces one of the same name."""
        ...

    def kept(self, name: str) -> str | None:
        """The document with this name; None if there is none."""
        ...

    def facts(self) -> Facts:
        """The model, the width, and how many rows there are."""
        ...

    def compact(self) -> None:
        """Remove the bytes of deleted and replaced rows for good."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...

    def __enter__(self) -> Store: ...

    def __exit__(self, *_: object) -> None: ...


def open(url: str | Path, *, model: str | None = None, width: int | None = None) -> Store:
    """Open the gallery at a URL, or make one.

    Args:
        url: a folder, or `milvus://host:port/name`.
        model: the fingerprint of the model whose vectors are stored, 16 to 64 hexadecimal digits. With it, a gallery
            that does not exist is made, and one of another model is refused. Without it, the gallery must exist.
        width: the numbers of a vector, with `model`.

    Raises:
        BadInput: there is no gallery, it is of another model, or it cannot be opened.
    """
    if (model is None) != (width is None):
        raise BadInput("model and width are given together, or not at all")
    if model is not None and not _MODEL.fullmatch(model):
        raise BadInput(f"the fingerprint of a model has 16 to 64 hexadecimal digits: '{model[:80]}' has not")
    if width is not None and not 1 <= width <= WIDTH:
        raise BadInput(f"vectors can have 1 to {WIDTH} numbers, not {width}")
    made = None if model is None or width is None else Facts(model, width, 0, 0)
    if isinstance(url, str) and (scheme := re.match(r"([a-zA-Z][\w+.-]*)://", url)):
        from vireid.gallery.stores import milvus

        if scheme[1] not in milvus.SCHEMES:
            choices = ", ".join(f"{one}://host:port/name" for one in milvus.SCHEMES)
            raise BadInput(f"a gallery is a folder, {choices}: '{scheme[1]}://' is none of them")
        return milvus.MilvusStore(milvus.Address.parse(url), made)
    from vireid.gallery.stores.embedded import FolderStore

    return FolderStore(Path(os.fspath(url)), made)


def check_facts(where: str, found: Facts, wanted: Facts | None) -> None:
    """Check that a gallery is of the model that is wanted.

    Raises:
        BadInput: it is of another one.
    """
    if wanted is None or (found.model, found.width) == (wanted.model, wanted.width):
        return
    raise BadInput(
        f"the gallery {where} holds vectors of the model {found.model[:16]} (width {found.width}), and the given model "
        f"is {wanted.model[:16]} (width {wanted.width}): use the other model, or another gallery"
    )


def checked_search(vectors: Any, top: int, where: Where, width: int) -> np.ndarray:
    """The queries of a search as Q×D float32.

    Raises:
        BadInput: a wrong shape or length, a `top` that is not from 1 to 1,000, or no modality.
    """
    if where.modality is None:
        raise BadInput("a search needs a modality, visible or infrared: search each one by itself")
    if not 1 <= top <= TOP:
        raise BadInput(f"a search gives 1 to {TOP} pictures, not {top}")
    return checked_vectors(vectors, dimensions=2, width=width)


def check_document(name: str) -> None:
    """Check the name of a document.

    Raises:
        BadInput: it is not a short lower-case word.
    """
    if not _DOCUMENT.fullmatch(name):
        raise BadInput(f"a document's name is a short lower-case word, not '{name[:80]}'")


def ranked(ids: Sequence[str], scores: np.ndarray, top: int) -> list[Hit]:
    """The first `top` of some rows, by falling score and then by id."""
    best = sorted(zip(-scores, ids, strict=True))[:top]
    return [Hit(id, float(-negative)) for negative, id in best]


__all__ = ["MODALITIES", "Facts", "Hit", "Store", "open"]
