"""What only the store in Milvus has: its URL, its filter's text, the server that dies, thumbnails in a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.gallery import servers
from tests.gallery.rows import MODEL, WIDTH, nearest, row, same, unit
from tests.processes import free_port
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.row import EARLIEST, LATEST, Where
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores import milvus
from vireid.gallery.stores.milvus import Address, sure_candidates
from vireid.gallery.stores.product import float32_error, scores
from vireid.gallery.stores.thumbnails import Thumbnails

VISIBLE = Where(modality=Modality.VISIBLE)


def test_a_url_names_server_gallery_consistency_and_thumbnails(tmp_path: Path) -> None:
    found = Address.parse(f"milvus://db.example:19530/station_2?consistency=bounded&thumbnails={tmp_path}")
    assert found == Address("http://db.example:19530", "station_2", "Bounded", tmp_path)
    assert Address.parse("milvus+tls://10.0.0.1:443/a") == Address("https://10.0.0.1:443", "a", "Strong", None)
    assert Address.parse("milvus://[::1]:19530/a").uri == "http://[::1]:19530"


@pytest.mark.parametrize(
    "url, says",
    [
        ("milvus://host/name", "is not like milvus://host:port/name"),
        ("milvus://host:19530", "is not like"),
        ("milvus://host:19530/a/b", "is not like"),
        ("milvus://host:19530/1a", "is not like"),
        ("milvus://host:19530/a%22", "is not like"),
        ("milvus://host:99999/a", "is no URL of a gallery"),
        ("milvus://root:Milvus@host:19530/a", "give the token of Milvus in VIREID_MILVUS_TOKEN"),
        ("milvus://host:19530/a?level=x", "unknown option of a gallery's URL 'level'"),
        ("milvus://host:19530/a?consistency=eventually", "unknown consistency 'eventually'; choices: strong, bounded"),
        ("postgres://host:5432/a", "a gallery is a folder, milvus://host:port/name, milvus.tls://"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_asked(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as refusal:
        open_gallery(url)
    assert "Milvus@" not in str(refusal.value)


def test_a_filter_becomes_an_expression_with_quoted_names() -> None:
    where = Where(modality=Modality.INFRARED, cameras=('a"b\\', "Zürich"), ids=("0f" * 16,), until=5)
    assert milvus._expression(where) == (
        f'modality == 1 and camera in ["a\\"b\\\\", "Zürich"] and id in ["{"0f" * 16}"] '
        f"and time >= {EARLIEST} and time < 5"
    )
    assert milvus._expression(Where(since=7)) == f"time >= 7 and time < {LATEST}"
    assert milvus._expression(Where()) == ""


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(BadInput, match=r"needs the package pymilvus.*pip install 'vireid\[milvus\]'"):
        open_gallery("milvus://127.0.0.1:1/a")


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymilvus")
    monkeypatch.setattr(milvus, "SECONDS", 1.0)
    port = free_port()
    with pytest.raises(BadInput, match=f"Milvus at http://127.0.0.1:{port}: "):
        open_gallery(f"milvus://127.0.0.1:{port}/a")


@pytest.mark.process
@pytest.mark.skipif(not servers.LITE.exists(), reason="milvus-lite is not installed")
def test_acknowledged_rows_survive_a_server_that_is_killed(tmp_path: Path) -> None:
    """And what others keep in the same server is neither opened nor shown."""
    pymilvus = pytest.importorskip("pymilvus")
    rows = [row(n) for n in range(60)]
    port = free_port()
    url = f"milvus://127.0.0.1:{port}/station"
    server = servers.lite(tmp_path / "data", port)
    with server as (_, process), open_gallery(url, model=MODEL, width=WIDTH) as store:
        store.upsert(rows)
        store.delete([row(0).id])
        servers.kill(process)
    with servers.lite(tmp_path / "data", port), open_gallery(url) as store:
        assert (store.facts().model, store.facts().width) == (MODEL, WIDTH)
        found = store.get([one.id for one in rows])
        assert len(found) == 59 and all(same(found[one.id], one) for one in rows[1:])
        (hits,) = store.search(unit(1), 100, VISIBLE)
        assert [(hit.id, hit.score) for hit in hits] == nearest(rows[1:], unit(1)[0], 100, VISIBLE)

        client = pymilvus.MilvusClient(f"http://127.0.0.1:{port}")
        with pytest.raises(BadInput, match="there is no gallery stat in"):
            open_gallery(url.replace("station", "stat"))
        client.create_collection("foreign_" + "ab" * 16, dimension=8)
        with pytest.raises(BadInput, match="has other columns than a gallery"):
            open_gallery(url.replace("station", "foreign"))
        client.create_collection("station_" + "cd" * 16, dimension=8)
        with pytest.raises(BadInput, match="has the gallery station of several models"):
            open_gallery(url)
        client.close()


class Jumbled:
    """A server that is as far from the exact scores as float32 may be, and orders equal ones anew for each limit."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.limits: list[int] = []

    def nearest(self, queries: np.ndarray, limit: int) -> list[list[tuple[str, float]]]:
        self.limits.append(limit)
        found = []
        for query in queries:
            off = np.random.default_rng(3).uniform(-0.9, 0.9, len(self.vectors)) * float32_error(WIDTH)
            products = (scores(query, self.vectors) + off).astype(np.float32)
            order = np.random.default_rng(limit).permutation(len(products))
            order = order[np.argsort(-products[order], kind="stable")][:limit]
            found.append([(str(n), float(products[n])) for n in order])
        return found


def test_the_limit_is_doubled_until_the_last_hit_is_surely_too_far() -> None:
    """Ninety rows that float32 cannot tell apart, ten of which are better; another query needs no more than it got."""
    one, other = unit(2, seed=8)
    vectors = np.concatenate([one[None].repeat(90, axis=0), unit(100, seed=4)])
    vectors[80:90, 0] = np.nextafter(vectors[80:90, 0], np.float32(2 * np.sign(one[0])))
    server = Jumbled(vectors)
    found = sure_candidates(server.nearest, np.stack([one, other]), 5)
    assert server.limits == [21, 42, 84, 168]
    for query, ids in zip((one, other), found, strict=True):
        exact = scores(query, vectors)
        best = np.flatnonzero(exact >= np.sort(exact)[-5])
        assert set(map(str, best)) <= set(ids)
    assert len(found[1]) < 10


def test_more_equal_pictures_than_the_server_can_give_are_not_cut_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "MOST", 50)
    server = Jumbled(unit(1).repeat(90, axis=0))
    with pytest.raises(BadInput, match="more than 45 pictures are equally similar: narrow the search by its filters"):
        sure_candidates(server.nearest, unit(1), 5)
    assert server.limits == [21, 42, 50]


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_thumbnails_are_private_and_links_are_not_followed(tmp_path: Path) -> None:
    thumbnails = Thumbnails(tmp_path / "pictures")
    thumbnails.put([row(0), row(1)])
    modes = {one.stat().st_mode & 0o777 for one in (tmp_path / "pictures").rglob("*")}
    assert modes == {0o700, 0o600} and thumbnails.get(row(0).id) == row(0).thumbnail
    file = next((tmp_path / "pictures").rglob(f"{row(0).id}.jpg"))
    file.unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    file.symlink_to(tmp_path / "secret")
    assert thumbnails.get(row(0).id) is None
    thumbnails.put([row(0)])
    assert thumbnails.get(row(0).id) == row(0).thumbnail and (tmp_path / "secret").read_bytes() == b"secret"
    thumbnails.remove([row(0).id, row(9).id])
    assert [one.name for one in (tmp_path / "pictures").rglob("*.jpg")] == [f"{row(1).id}.jpg"]
    (tmp_path / "pictures").chmod(0o755)
    with pytest.raises(BadInput, match=r"others may read .*pictures, where thumbnails are kept: chmod 700"):
        Thumbnails(tmp_path / "pictures")
