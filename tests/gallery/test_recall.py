"""An approximate index of Milvus is chosen by the URL, says what it is, and its recall is counted against all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.gallery import servers
from tests.gallery.rows import MODEL, WIDTH, row
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.recall import recall_of
from vireid.gallery.store import Hit
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores.milvus import Address
from vireid.gallery.stores.product import scores


class Forgetful:
    """A folder's store that says it is approximate, and forgets each hit whose id begins with one of some digits."""

    index = "hnsw"

    def __init__(self, folder: Path, forgets: str) -> None:
        self._store = open_gallery(folder, model=MODEL, width=WIDTH)
        self.forgets, self.iterate, self.count = forgets, self._store.iterate, self._store.count

    def search(self, vectors: np.ndarray, top: int, where: object) -> list[list[Hit]]:
        found = self._store.search(vectors, 1000, where)  # type: ignore[arg-type]
        return [[hit for hit in hits if hit.id[0] not in self.forgets][:top] for hits in found]


@pytest.mark.parametrize("forgets", ["", "0", "01234567", "0123456789abcdef"])
def test_recall_is_the_share_of_the_nearest_that_is_found(forgets: str, tmp_path: Path) -> None:
    store = Forgetful(tmp_path / "store", forgets)
    rows = [row(n) for n in range(300)]
    store._store.upsert(rows)
    expected, asked = [], 0
    for modality in (Modality.VISIBLE, Modality.INFRARED):
        alike = sorted((one for one in rows if one.modality == modality), key=lambda one: one.id)
        for query in alike[:20]:
            others = [one for one in alike if one is not query]
            near = sorted(others, key=lambda one: -float(scores(query.vector, one.vector[None])[0]))[:7]  # type: ignore[index]
            expected.append(sum(one.id[0] not in forgets for one in near))
            asked += 1
    found = recall_of(store, queries=40, top=7)  # type: ignore[arg-type]
    assert found is not None and (found.index, found.queries) == ("hnsw", 40)
    assert found.share == pytest.approx(sum(expected) / (7 * asked))
    few = recall_of(store, most=100)  # type: ignore[arg-type]
    assert few is not None and (few.share, few.queries) == (None, 0)


def test_a_folder_is_exact(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "store", model=MODEL, width=WIDTH) as store:
        assert recall_of(store) is None


def test_the_url_names_the_index() -> None:
    assert Address.parse("milvus://h:1/a").index is None and Address.parse("milvus://h:1/a?index=hnsw").index == "hnsw"
    with pytest.raises(BadInput, match="unknown index 'annoy'; choices: flat, ivf_sq8, hnsw"):
        Address.parse("milvus://h:1/a?index=annoy")


@pytest.mark.process
@pytest.mark.skipif(not servers.LITE.exists(), reason="milvus-lite is not installed")
def test_an_approximate_index_is_made_kept_and_measured(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    with servers.lite(tmp_path / "data") as (port, _):
        for kind in ("ivf_sq8", "hnsw", "flat"):
            url = f"milvus://127.0.0.1:{port}/{kind}"
            with open_gallery(f"{url}?index={kind}", model=MODEL, width=WIDTH) as store:
                store.upsert([row(n) for n in range(400)])
            with open_gallery(url) as store:
                found = recall_of(store, queries=20)
                assert (found is None) == (kind == "flat")
                assert found is None or (found.index == kind and found.share is not None and found.share > 0.8)
            other = "hnsw" if kind == "flat" else "flat"
            with pytest.raises(BadInput, match=f"has the index {kind}, not {other}: it is chosen when one is made"):
                open_gallery(f"{url}?index={other}")
