"""What is tested with a real Milvus server: `python -m tests.gallery.real FOLDER`, in a network namespace of its own.

`tests/gallery/test_stores.py` calls it. It runs the suite, several writers at a time, and a server that is killed.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from pathlib import Path

from tests.gallery import servers
from tests.gallery.cameras import built, station
from tests.gallery.rows import MODEL, WIDTH, nearest, row, unit
from tests.gallery.test_stores import VISIBLE, run
from tests.small import SECOND
from vireid.cli.main import main as vireid
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.gallery.store import Store
from vireid.gallery.store import open as open_gallery
from vireid.synthesis.world import World, write_world

PORT, SECOND_PORT = 19530, 29530
"""Milvus's program takes another port than the one it was given, without a word, while the killed one's is cooling."""


def main(folder: Path) -> None:
    with servers.milvus(folder / "data", PORT) as process:
        run("milvus", lambda name: _open(folder, name), examples=3, steps=8)
        _ties(folder)
        _writers(folder)
        _builders(folder)
        servers.kill(process)
    with servers.milvus(folder / "data", SECOND_PORT), _open_soon(folder, "writers", SECOND_PORT) as store:
        assert store.count() == 400, "acknowledged rows were lost when the server was killed"
    print("all answers equal")


def _open(folder: Path, name: str, port: int = PORT) -> Store:
    url = f"milvus://127.0.0.1:{port}/{name}?thumbnails={folder}/thumbnails"
    return open_gallery(url, model=MODEL, width=WIDTH)


def _open_soon(folder: Path, name: str, port: int) -> Store:
    """A server that was killed listens long before it answers: it recovers for about a minute."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return _open(folder, name, port)
        except BadInput:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def _ties(folder: Path) -> None:
    one = unit(1, seed=8)[0]
    rows = [row(2 * n, one) for n in range(150)]
    with _open(folder, "ties") as store:
        store.upsert(rows)
        for top in (1, 20, 150):
            (found,) = store.search(one[None], top, VISIBLE)
            assert [(hit.id, hit.score) for hit in found] == nearest(rows, one, top, VISIBLE)


def _writers(folder: Path) -> None:
    """Four processes make the gallery at once and write into it. Each row is there, and each shared row once."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(folder, n)) for n in range(4)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0] * 4
    with _open(folder, "writers") as store:
        assert store.count() == 400


def _write(folder: Path, which: int) -> None:
    with _open(folder, "writers") as store:
        for start in range(0, 100, 10):
            store.upsert([row(100 * which + start + n) for n in range(10)])
            store.upsert([row(n) for n in range(5)])


def _builders(folder: Path) -> None:
    """Two processes of one build, then one alone: what they make together is what one makes in a folder."""
    from tests import processes
    from tests.gallery.test_build_together import _compare, build_part

    trained, cameras, state = folder / "run", station(folder / "station", visible=20, infrared=10), folder / "state"
    world = folder / "world"
    write_world(world, World(6, seed=1), layout="sysu-mm01", size=Size(64, 32), pictures=2, workers=1)
    arguments = ["train", "agw", "--data", f"sysu-mm01:{world}", "--run", str(trained), "--workers", "0"]
    assert vireid([*arguments, "--set", *SECOND]) == 0
    built(folder / "index", trained, cameras, name="s")
    given = (f"milvus://127.0.0.1:{PORT}/built?thumbnails={folder}/small", str(trained), str(cameras), str(state))
    (one, other) = processes.together(2, folder / "two", build_part, *given)
    assert one == other and one["embedded"] == 30, (one, other)
    _compare(given[0], folder / "index")
    (again,) = processes.together(1, folder / "one", build_part, *given)
    assert (again["embedded"], again["unchanged"]) == (0, 30), again


if __name__ == "__main__":
    main(Path(sys.argv[1]))
