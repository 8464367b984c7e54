"""Every store gives the same answers: the suite over a folder, milvus-lite's server, and Milvus itself."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.gallery import servers
from tests.gallery.rows import MODEL, WIDTH, nearest, row, unit
from tests.gallery.suite import Suite
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.row import Where, id_of
from vireid.gallery.store import Hit, Store
from vireid.gallery.store import open as open_gallery
from vireid.gallery.stores import embedded, milvus

Open = Callable[[str], Store]
VISIBLE = Where(modality=Modality.VISIBLE)


@pytest.fixture(scope="session")
def lite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    if not servers.LITE.exists():
        pytest.skip("milvus-lite is not installed")
    pytest.importorskip("pymilvus")
    with servers.lite(tmp_path_factory.mktemp("lite") / "data") as (port, _):
        yield port


@pytest.fixture(params=["folder", pytest.param("lite", marks=pytest.mark.process)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the gallery of a name in one kind of store. What exists is not made again."""
    if request.param == "folder":
        return lambda name: open_gallery(tmp_path / name, model=MODEL, width=WIDTH)
    port = request.getfixturevalue("lite_port")
    unique = f"{tmp_path.name}_{next(_COUNT)}".replace("-", "_").replace("[", "_").replace("]", "_")
    url = f"milvus://127.0.0.1:{port}/n{{}}_{unique}?thumbnails={tmp_path}/thumbnails"
    return lambda name: open_gallery(url.format(name), model=MODEL, width=WIDTH)


_COUNT = itertools.count()


def run(name: str, open_one: Open, *, examples: int, steps: int) -> None:
    machine = type(f"Suite_{name}", (Suite,), {"open": staticmethod(lambda: open_one("suite"))})
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.reuse, Phase.generate),  # to make a failure shorter takes longer than a test may
    )
    run_state_machine_as_test(machine, settings=limits)


def test_a_store_answers_like_a_dictionary(opened: Open) -> None:
    run("small", opened, examples=15, steps=15)


def test_since_is_the_first_time_that_passes_and_until_the_first_that_does_not(opened: Open) -> None:
    """And a picture without a time passes neither."""
    times = {1: None, 3: -1, 5: 0, 7: 4, 9: 5, 11: 6}
    with opened("times") as store:
        store.upsert([row(number, time=time) for number, time in times.items()])
        for since, until in ((0, 5), (None, 5), (5, None), (-1, 6), (5, 5)):
            where = Where(since=since, until=until)
            passing = [-(10**6) if since is None else since, 10**6 if until is None else until]
            expected = {row(n).id for n, time in times.items() if time is not None and passing[0] <= time < passing[1]}
            assert {one.id for one in store.iterate(where)} == expected and store.count(where) == len(expected)


def test_ties_that_cross_the_limit_are_cut_by_id(opened: Open) -> None:
    """More equal pictures than any first guess of a limit asks for: which of them are shown must not be chance."""
    one, other = unit(2, seed=8)
    rows = [row(2 * n, one) for n in range(150)] + [row(400, other)]
    with opened("ties") as store:
        store.upsert(rows)
        for top in (1, 7, 20, 151):
            (found,) = store.search(one[None], top, VISIBLE)
            assert [(hit.id, hit.score) for hit in found] == nearest(rows, one, top, VISIBLE)


def test_more_rows_than_one_reading_gives_come_back_in_order(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus, "MESSAGE", 2**16)  # 60 rows
    monkeypatch.setattr(embedded, "BATCH", 60)
    rows = [row(n) for n in range(420)]
    with opened("many") as store:
        store.upsert(rows)
        assert [one.id for one in store.iterate()] == sorted(one.id for one in rows)
        store.delete([one.id for one in rows[:200]])
        assert [one.id for one in store.iterate(vectors=True)] == sorted(one.id for one in rows[200:])
        assert list(store.get([one.id for one in rows])) == [one.id for one in rows[200:]]


def test_another_model_is_refused(opened: Open) -> None:
    opened("mine").close()
    with opened("mine") as store:
        assert store.facts().model == MODEL
    if (url := getattr(store, "_address", None)) is None:
        again: str | Path = store._folder  # type: ignore[attr-defined]
    else:
        again = f"milvus://{url.uri.removeprefix('http://')}/{url.name}"
    with open_gallery(again) as store:
        assert store.facts().model == MODEL
    for model, width in ((MODEL[::-1], WIDTH), (MODEL, WIDTH + 1)):
        with pytest.raises(BadInput, match="holds vectors of the model 5eed5eed5eed5eed"):
            open_gallery(again, model=model, width=width)


def test_a_gallery_that_is_not_there_is_not_made_by_reading(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no gallery"):
        open_gallery(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda s: s.search(unit(1), 5, Where()), "a search needs a modality"),
        (lambda s: s.search(unit(1), 1001, VISIBLE), "1 to 1000 pictures, not 1001"),
        (lambda s: s.search(unit(1), 0, VISIBLE), "1 to 1000 pictures, not 0"),
        (lambda s: s.search(unit(1)[0], 5, VISIBLE), "shape N×8, not 8"),
        (lambda s: s.search(unit(1, 9), 5, VISIBLE), "shape N×8, not 1×9"),
        (lambda s: s.search(2 * unit(1), 5, VISIBLE), "length one"),
        (lambda s: s.search(np.full((1, 8), np.nan), 5, VISIBLE), "length one"),
        (lambda s: s.upsert([row(1, unit(1, 9)[0])]), "0001.jpg has 9 numbers, and the gallery 8"),
        (lambda s: s.get(["../../x"]), "32 hexadecimal digits"),
        (lambda s: s.delete(['" or id != "']), "32 hexadecimal digits"),
        (lambda s: s.thumbnail("../gallery.sqlite"), "32 hexadecimal digits"),
        (lambda s: s.keep("../x", ""), "short lower-case word"),
    ],
)
def test_a_wrong_call_is_refused_and_changes_nothing(opened: Open, ask: Callable[[Store], object], says: str) -> None:
    with opened("calls") as store:
        store.upsert([row(0)])
        with pytest.raises(BadInput, match=says):
            ask(store)
        assert store.count() == 1


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=64)
attacks = st.sampled_from(
    ('" or 1 == 1 or "', "' OR '1'='1", 'a"] or camera in ["b', "{camera}", "%", "\\", '\\"', "_", "x;DROP TABLE rows")
)


def test_no_text_in_a_filter_says_more_than_itself(opened: Open) -> None:
    """A name finds the row that has it, and no other, whatever language the store speaks."""
    with opened("names") as store:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(name=texts | attacks, other=texts | attacks)
        def check(name: str, other: str) -> None:
            store.upsert([row(0, camera=name, person=name), row(2, camera=other, person=other)])
            many = 2 if name == other else 1
            for where in (Where(cameras=(name,)), Where(persons=(name,), modality=Modality.VISIBLE)):
                assert store.count(where) == many
                assert row(0).id in {one.id for one in store.iterate(where)}
            assert store.get([row(0).id])[row(0).id].camera == name

        check()


def test_a_source_and_a_path_of_a_thousand_bytes_fit(opened: Open) -> None:
    long = row(0, source="s" * 1024, path="é" * 512, camera="中" * 64, person="😀" * 64)
    with opened("long") as store:
        store.upsert([long])
        assert store.get([long.id])[long.id] == long
        assert store.search(unit(1), 3, VISIBLE)[0] == [Hit(*nearest([long], unit(1)[0], 1, VISIBLE)[0])]


def test_a_document_of_forty_kilobytes_fits(opened: Open) -> None:
    """A calibration has about as much."""
    with opened("document") as store:
        assert store.kept("calibration") is None
        store.keep("calibration", "0.123 " * 7000)
    with opened("document") as store:
        assert store.kept("calibration") == "0.123 " * 7000


def test_an_id_without_a_row_has_no_thumbnail(opened: Open) -> None:
    with opened("thumbnails") as store:
        store.upsert([row(0), row(2, thumbnail=None)])
        assert store.thumbnail(row(0).id) == row(0).thumbnail
        assert store.thumbnail(row(2).id) is None and store.thumbnail(id_of("a", "b")) is None
        store.upsert([row(0, thumbnail=None)])
        assert store.thumbnail(row(0).id) is None


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not servers.MILVUS.exists(), reason="the package milvus is not installed")
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare to make a network namespace")
def test_milvus_itself_answers_like_a_dictionary(tmp_path: Path) -> None:
    if not servers.has_namespaces():
        pytest.skip("network namespaces are not allowed here")
    done = servers.in_a_namespace([sys.executable, "-m", "tests.gallery.real", tmp_path], seconds=850)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "all answers equal" in done.stdout
