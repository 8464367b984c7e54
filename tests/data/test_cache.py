"""The picture cache: it always gives the same pixels, also when files, headers and processes change."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vireid.data.cache import PictureCache
from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture
from vireid.data.records import Records
from vireid.data.size import Size

SIZE = Size(32, 16)


def write(file, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)


@pytest.fixture
def records(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for record in range(12):
        write(root / f"{record}.png", record)
    return Records(
        layout="folder",
        root=root,
        path=[f"{record}.png" for record in range(12)],
        identity=np.arange(12) // 4,
        camera=np.zeros(12),
        modality=np.arange(12) % 2,
        split=["train"] * 12,
    )


def stored(cache):
    """How many pictures the cache has on disk."""
    return np.count_nonzero(np.fromfile(cache.folder / "state.bin", dtype=np.uint8))


def straight(records, record, resample="lanczos"):
    return read_picture(records.file(record), SIZE, resample=resample)


def test_reads_what_read_picture_reads_before_and_after_it_is_filled(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    assert stored(cache) == 0 and len(cache) == 12
    for _ in range(2):
        for record in range(12):
            picture = cache.read(record)
            assert picture.dtype == np.uint8 and picture.shape == (32, 16, 3)
            assert np.array_equal(picture, straight(records, record))
    assert stored(cache) == 12


def test_a_filled_cache_does_not_open_the_pictures(records, tmp_path, monkeypatch):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    want = [cache.read(record).copy() for record in range(12)]
    for record in range(12):
        file = records.file(record)
        status = file.stat()
        file.write_bytes(b"?" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = PictureCache(tmp_path / "cache", records, SIZE)
    assert all(np.array_equal(again.read(record), want[record]) for record in range(12))


def test_what_is_read_is_the_callers_own(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    for _ in range(2):
        cache.read(3)[:] = 0
    assert np.array_equal(cache.read(3), straight(records, 3))


def test_changed_files_are_noticed(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    before = cache.read(5).copy()
    write(records.file(5), 500)
    assert np.array_equal(cache.read(5), straight(records, 5))
    assert not np.array_equal(cache.read(5), before)
    # The same length and another time: only the stamp shows the change.
    status, data = records.file(6).stat(), records.file(7).read_bytes()
    cache.read(6)
    Image.fromarray(np.zeros((40, 20, 3), np.uint8)).save(records.file(6))
    short = records.file(6).read_bytes()
    records.file(6).write_bytes(short + b"\0" * (status.st_size - len(short)))
    os.utime(records.file(6), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert records.file(6).stat().st_size == status.st_size and data
    assert cache.read(6).max() == 0


def test_a_picture_that_is_gone_is_refused_even_if_it_is_cached(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    cache.read(2)
    records.file(2).unlink()
    with pytest.raises(BadInput, match=r"2\.png does not exist"):
        cache.read(2)


def test_sizes_resamplings_and_records_do_not_mix(records, tmp_path):
    place = tmp_path / "cache"
    PictureCache(place, records, SIZE).read(0)
    assert np.array_equal(PictureCache(place, records, SIZE, "area").read(0), straight(records, 0, "area"))
    assert PictureCache(place, records, Size(16, 32)).read(0).shape == (16, 32, 3)
    fewer = records.take([1, 0])
    assert np.array_equal(PictureCache(place, fewer, SIZE).read(0), straight(records, 1))
    assert np.array_equal(PictureCache(place, records, SIZE).read(0), straight(records, 0))


@pytest.mark.parametrize(
    "change", ["version", "size", "resample", "records", "fingerprint", "broken", "absent", "short"]
)
def test_a_header_that_does_not_match_is_never_trusted(records, tmp_path, change):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    for record in range(12):
        cache.read(record)
    header = cache.folder / "header.json"
    # Pixels that must never be read again.
    with open(cache.folder / "pixels.bin", "r+b") as stream:
        stream.write(b"\7" * (cache.folder / "pixels.bin").stat().st_size)
    said = json.loads(header.read_text())
    if change == "broken":
        header.write_text("{")
    elif change == "absent":
        header.unlink()
    elif change == "short":
        os.truncate(cache.folder / "pixels.bin", 100)
    else:
        header.write_text(json.dumps(said | {change: "something else"}))
    anew = PictureCache(tmp_path / "cache", records, SIZE)
    assert stored(anew) == 0
    assert np.array_equal(anew.read(4), straight(records, 4))
    assert json.loads(header.read_text()) == said
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [anew.folder.name]


def test_moved_with_its_pictures(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    cache.read(1)
    moved = tmp_path / "moved"
    shutil.copytree(records.root, moved)  # keeps the times
    there = Records("folder", moved, records.path, records.identity, records.camera, records.modality, records.split)
    again = PictureCache(tmp_path / "cache", there, SIZE)
    assert again.folder == cache.folder and stored(again) == 1
    assert np.array_equal(again.read(1), straight(records, 1))


def test_a_pickled_cache_opens_its_files_anew(records, tmp_path):
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    copy = pickle.loads(pickle.dumps(cache))
    assert np.array_equal(copy.read(1), straight(records, 1))
    assert stored(cache) == 1


def test_refusals(records, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        PictureCache(tmp_path / "file", records, SIZE)
    with pytest.raises(BadInput, match="no records"):
        PictureCache(tmp_path / "cache", records.take([]), SIZE)


def test_a_disk_without_room_is_said_at_once(records, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BadInput, match=r"needs 0\.0 GiB"):
        PictureCache(tmp_path / "cache", records, SIZE)


CHILD = """
import os, pickle, signal, sys
cache = pickle.load(open(sys.argv[1], "rb"))
for record in range(4):
    cache.read(record)
plain = os.pwrite
def struck(descriptor, data, offset):
    if len(data) > 1000:
        plain(descriptor, data[: len(data) // 2], offset)
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(descriptor, data, offset)
if sys.argv[2] == "middle":
    os.pwrite = struck
print("ready", flush=True)
while True:
    for record in range(len(cache)):
        os.utime(cache.records.file(record)) if sys.argv[2] == "anywhere" else None
        cache.read(record)
"""


@pytest.mark.parametrize("where", ["middle", "anywhere"])
def test_a_killed_writer_leaves_no_half_picture(records, tmp_path, where):
    """A real process and a real SIGKILL: in the middle of the pixels of a record, or at any time."""
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    (tmp_path / "cache.pickle").write_bytes(pickle.dumps(cache))
    for _ in range(1 if where == "middle" else 2):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "cache.pickle"), where], stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        if where == "anywhere":
            time.sleep(0.01)
            child.kill()
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        again = PictureCache(tmp_path / "cache", records, SIZE)
        if where == "middle":
            pixels = np.fromfile(cache.folder / "pixels.bin", dtype=np.uint8).reshape(12, -1)
            assert pixels[4].any() and stored(again) == 4  # record 4 is incomplete and not used
        assert all(np.array_equal(again.read(record), straight(records, record)) for record in range(12))


def _fill(cache, out):
    out.put([int(cache.read(record).astype(np.int64).sum()) for record in range(len(cache))])


def test_many_processes_begin_and_fill_one_cache(records, tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    cache = PictureCache(tmp_path / "cache", records, SIZE)
    crowd = [context.Process(target=_fill, args=(cache, out)) for _ in range(3)]
    for one in crowd:
        one.start()
    sums = [out.get(timeout=60) for _ in crowd]
    for one in crowd:
        one.join()
    want = [int(straight(records, record).astype(np.int64).sum()) for record in range(12)]
    assert sums == [want] * 3
    assert stored(cache) == 12
