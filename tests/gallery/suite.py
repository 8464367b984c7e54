"""One suite for all stores: random calls against a dictionary. Ids and float64 scores must be equal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.gallery.rows import MODEL, WIDTH, nearest, passes, row, same, unit
from vireid.data.modality import Modality
from vireid.gallery.row import Row, Where, id_of
from vireid.gallery.store import Store


def _vectors() -> np.ndarray:
    """Few, so that equal scores are common; two pairs differ by one bit, which float32 products do not see."""
    made = unit(12, seed=3)
    made[10], made[11] = made[0], made[1]
    made[10, 3], made[11, 5] = np.nextafter(made[10, 3], np.float32(2)), np.nextafter(made[11, 5], np.float32(-2))
    return made


VECTORS = _vectors()
CAMERAS = ("0", "1", "2", "east gate", 'say "a\\b"', "Zürich 中")
TIMES = (None, -1, 0, 1000, 5000, 9000)

numbers = st.integers(0, 39)
rows = st.builds(
    lambda number, vector, camera, modality, time, thumbnail: row(
        number, VECTORS[vector], camera=camera, modality=modality, time=time, thumbnail=thumbnail
    ),
    numbers,
    st.integers(0, len(VECTORS) - 1),
    st.sampled_from(CAMERAS),
    st.sampled_from((Modality.VISIBLE, Modality.INFRARED)),
    st.sampled_from(TIMES),
    st.sampled_from((None, b"\xff\xd8 one", b"\xff\xd8 two")),
)
ids = numbers.map(lambda number: row(number).id)
FILTERS = {
    "modality": st.sampled_from((Modality.VISIBLE, Modality.INFRARED)),
    "cameras": st.lists(st.sampled_from(CAMERAS), max_size=3).map(tuple),
    "sources": st.sampled_from((("gate",), ("gate", "hall"), ("cellar",))),
    "tracklets": st.just(("t0", "t2")),
    "persons": st.just(("p1",)),
    "contents": st.lists(numbers.map(lambda number: row(number).content), max_size=5).map(tuple),
    "ids": st.lists(ids, max_size=8).map(tuple),
    "since": st.sampled_from(TIMES[1:]),
    "until": st.sampled_from(TIMES[1:]),
}
# One or two conditions: with more, hardly any row passes, and nothing is compared.
filters = (
    st.lists(st.sampled_from(sorted(FILTERS)), max_size=2, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: FILTERS[name] for name in names}))
    .map(lambda given: Where(**given))
)


class Suite(RuleBasedStateMachine):
    """Subclasses say how the store is opened, and whether it keeps thumbnails."""

    open: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Row] = {}
        self.documents: dict[str, str] = {}
        self.store = type(self).open()

    @initialize(first=st.lists(rows, min_size=15, max_size=40))
    def begin(self, first: list[Row]) -> None:
        self.store.delete([one.id for one in self.store.iterate()])
        assert self.store.count() == 0
        self.upsert(first)

    @rule(new=st.lists(rows, max_size=20))
    def upsert(self, new: list[Row]) -> None:
        self.store.upsert(new)
        self.kept |= {one.id: one for one in new}

    @rule(chosen=st.lists(ids, max_size=10))
    def delete(self, chosen: list[str]) -> None:
        self.store.delete(chosen)
        for one in chosen:
            self.kept.pop(one, None)

    @rule(asked=st.lists(st.tuples(filters, st.integers(0, 11), st.integers(1, 12)), min_size=4, max_size=8))
    def ask(self, asked: list[tuple[Where, int, int]]) -> None:
        """Several filters: how many rows pass, which ones, and which are the nearest to three queries."""
        for where, chosen, top in asked:
            passing = sorted(id for id, one in self.kept.items() if passes(one, where))
            assert self.store.count(where) == len(passing)
            found = list(self.store.iterate(where, vectors=chosen % 2 == 0))
            assert [one.id for one in found] == passing
            assert all(same(one, self.kept[one.id], vector=chosen % 2 == 0) for one in found)
            modality = where.modality if where.modality is not None else Modality(chosen % 2)
            where = Where(**{**vars(where), "modality": modality})
            queries = np.stack([VECTORS[chosen], unit(1, seed=chosen + 50)[0], -VECTORS[chosen]])
            answers = [nearest(self.kept.values(), query, top, where) for query in queries]
            hits = self.store.search(queries, top, where)
            assert [[(hit.id, hit.score) for hit in some] for some in hits] == answers

    @rule(chosen=st.lists(ids, max_size=5))
    def get(self, chosen: list[str]) -> None:
        found = self.store.get([*chosen, id_of("nowhere", "x")])
        assert list(found) == [one for one in dict.fromkeys(chosen) if one in self.kept]
        assert all(same(one, self.kept[id]) for id, one in found.items())

    @rule(chosen=ids)
    def thumbnail(self, chosen: str) -> None:
        expected = self.kept[chosen].thumbnail if chosen in self.kept else None
        assert self.store.thumbnail(chosen) == expected

    @rule(name=st.sampled_from(("calibration", "sources")), text=st.sampled_from(("{}", '{"a": "ü"}')))
    def document(self, name: str, text: str) -> None:
        self.store.keep(name, text)
        assert self.store.kept(name) == text

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = type(self).open()

    @invariant()
    def facts(self) -> None:
        found = self.store.facts()
        modalities = [one.modality for one in self.kept.values()]
        assert (found.model, found.width) == (MODEL, WIDTH)
        assert (found.visible, found.infrared) == (modalities.count(0), modalities.count(1))

    def teardown(self) -> None:
        with contextlib.suppress(AttributeError):
            self.store.close()
