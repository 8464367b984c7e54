"""The queue of searches: what is computed together, who waits, and what happens to those who leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.modality import Modality
from vireid.gallery.row import Where
from vireid.gallery.search import Answer, Query
from vireid.gallery.service.batching import Closed, Full, Job, Worker

VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED


class Recorder:
    """Stands for model and index. A picture's vector turns with its first pixel; an answer's `next` tells the query."""

    def __init__(self) -> None:
        self.embedded: list[tuple[int, Modality]] = []
        self.searched: list[tuple[int, Where, int, int]] = []
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Event()

    def warm(self) -> None:
        pass

    def embed(self, pictures: Sequence[np.ndarray], modality: Modality) -> np.ndarray:
        self.busy.set()
        assert self.go.wait(20)
        self.embedded.append((len(pictures), modality))
        if any(picture[0, 0, 0] == 255 for picture in pictures):
            raise MemoryError("white")
        angles = np.array([picture[0, 0, 0] / 100 for picture in pictures])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def search(self, queries: Sequence[Query], where: Where, top: int, start: int) -> list[Answer]:
        self.busy.set()
        assert self.go.wait(20)
        self.searched.append((len(queries), where, top, start))
        if top == 13:
            raise RuntimeError("thirteen")
        return [Answer(one.modality, {}, None, (), number_of(one)) for one in queries]


def number_of(query: Query) -> int:
    return round(float(np.arctan2(query.vector[1], query.vector[0])) * 100)


def job(*numbers: int, modality: Modality = VISIBLE, **page: int) -> Job:
    return Job([np.full((2, 2, 3), number, np.uint8) for number in numbers], modality, **page)


@pytest.fixture
def recorder():
    return Recorder()


def started(recorder: Recorder, **limits) -> Worker:
    worker = Worker(recorder, **limits)
    worker.start()
    assert worker.ready.wait(30)
    return worker


def held(recorder: Recorder, **limits) -> tuple[Worker, Job]:
    """A worker that is busy with a first job until `recorder.go` is set. What is submitted meanwhile waits together."""
    worker = started(recorder, **limits)
    recorder.go.clear()
    first = job(1)
    worker.submit(first)
    assert recorder.busy.wait(30)
    return worker, first


def test_pictures_that_wait_together_are_embedded_together_and_each_gets_its_own_answer(recorder):
    worker, _ = held(recorder)
    jobs = [job(number) for number in range(2, 22)]
    for one in jobs:
        worker.submit(one)
    recorder.go.set()
    assert [one.done.result(30)[1].next for one in jobs] == list(range(2, 22))
    worker.close(10)
    assert recorder.embedded == [(1, VISIBLE), (16, VISIBLE), (4, VISIBLE)]
    assert [count for count, *_ in recorder.searched] == [1, 16, 4]


def test_a_batch_has_one_modality_and_nobody_is_overtaken_for_ever(recorder):
    worker, _ = held(recorder)
    jobs = [job(n, modality=INFRARED if n % 2 else VISIBLE) for n in range(2, 10)]
    for one in jobs:
        worker.submit(one)
    recorder.go.set()
    assert [one.done.result(30)[1].query for one in jobs] == [one.modality for one in jobs]
    assert [one.done.result(30)[1].next for one in jobs] == list(range(2, 10))
    worker.close(10)
    assert recorder.embedded == [(1, VISIBLE), (4, VISIBLE), (4, INFRARED)]


def test_searches_with_the_same_filter_and_page_share_one_search(recorder):
    worker, _ = held(recorder)
    cameras = [("1",), ("2",), ("1",), None]
    jobs = [Job([np.full((2, 2, 3), n, np.uint8)], VISIBLE, where=Where(cameras=one)) for n, one in enumerate(cameras)]
    jobs += [job(9, top=5), job(8, start=20)]
    for one in jobs:
        worker.submit(one)
    recorder.go.set()
    for one in jobs:
        one.done.result(30)
    worker.close(10)
    assert recorder.searched[1:] == [
        (2, Where(cameras=("1",)), 20, 0),
        (1, Where(cameras=("2",)), 20, 0),
        (1, Where(), 20, 0),
        (1, Where(), 5, 0),
        (1, Where(), 20, 20),
    ]


def test_several_pictures_of_one_person_stay_together_even_if_they_are_more_than_a_batch(recorder):
    worker, _ = held(recorder, most=4)
    jobs = [job(2, 2, 2), job(*[5] * 9), job(3, 3), job(4)]
    for one in jobs:
        worker.submit(one)
    recorder.go.set()
    assert [one.done.result(30)[0].pictures for one in jobs] == [3, 9, 2, 1]
    assert [one.done.result(30)[1].next for one in jobs] == [2, 5, 3, 4]
    worker.close(10)
    assert [count for count, _ in recorder.embedded] == [1, 4, 9, 2]


def test_a_search_without_pictures_joins_any_batch_and_is_not_embedded(recorder):
    worker, _ = held(recorder)
    known = Job(query=Query(np.array([0, 1], np.float32), INFRARED))
    other = job(7)
    worker.submit(known)
    worker.submit(other)
    recorder.go.set()
    assert (known.done.result(30)[1].next, known.done.result(30)[1].query) == (157, INFRARED)
    assert other.done.result(30)[1].next == 7
    worker.close(10)
    assert recorder.embedded == [(1, VISIBLE), (1, VISIBLE)]
    assert [count for count, *_ in recorder.searched] == [1, 2]


def test_a_full_queue_refuses_and_says_how_long_it_takes(recorder):
    worker, first = held(recorder, waiting=3)
    waiting = [job(n) for n in (2, 3, 4)]
    for one in waiting:
        worker.submit(one)
    assert worker.waiting() == 3
    with pytest.raises(Full) as full:
        worker.submit(job(5))
    assert 0 < full.value.seconds < 60
    recorder.go.set()
    assert [one.done.result(30)[1].next for one in (first, *waiting)] == [1, 2, 3, 4]
    worker.close(10)


def test_who_leaves_gives_the_place_to_another_and_is_not_computed(recorder):
    worker, _ = held(recorder, waiting=2)
    gone, stays, late = job(2), job(3), job(4)
    worker.submit(gone)
    worker.submit(stays)
    assert gone.done.cancel()
    assert worker.waiting() == 1
    worker.submit(late)
    recorder.go.set()
    assert [stays.done.result(30)[1].next, late.done.result(30)[1].next] == [3, 4]
    worker.close(10)
    assert recorder.embedded == [(1, VISIBLE), (2, VISIBLE)]


def test_a_mistake_reaches_those_whom_it_concerns_and_the_worker_goes_on(recorder):
    worker, _ = held(recorder)
    jobs = [job(2), job(3, top=13), job(4)]
    opposite = Job([np.full((2, 2, 3), 0, np.uint8), np.full((2, 2, 3), 0, np.uint8)], VISIBLE)
    for one in (*jobs, opposite):
        worker.submit(one)
    recorder.go.set()
    assert jobs[0].done.result(30)[1].next == 2
    with pytest.raises(RuntimeError, match="thirteen"):
        jobs[1].done.result(30)
    assert jobs[2].done.result(30)[1].next == 4
    white = job(255)
    worker.submit(white)
    with pytest.raises(MemoryError):
        white.done.result(30)
    after = job(6)
    worker.submit(after)
    assert after.done.result(30)[1].next == 6
    worker.close(10)


def test_pictures_with_nothing_in_common_do_not_spoil_the_batch(recorder, monkeypatch):
    halves = {2: (1, 0), 3: (-1, 0), 4: (0, 1)}
    monkeypatch.setattr(
        recorder, "embed", lambda pictures, _: np.array([halves[one[0, 0, 0]] for one in pictures], np.float32)
    )
    worker = started(recorder, patience=0.3)
    bad, good = job(2, 3), job(4)
    worker.submit(bad)
    worker.submit(good)
    with pytest.raises(ValueError, match="nothing in common"):
        bad.done.result(30)
    assert good.done.result(30)[1].next == 157
    worker.close(10)


def test_a_lonely_picture_waits_for_others_and_a_full_batch_does_not(recorder):
    worker = started(recorder, patience=1.5, most=4)
    began = time.monotonic()
    early = job(1)
    worker.submit(early)
    time.sleep(0.1)
    late = job(2)
    worker.submit(late)
    early.done.result(30)
    assert time.monotonic() - began > 1.4
    assert recorder.embedded == [(2, VISIBLE)]
    began = time.monotonic()
    jobs = [job(n) for n in range(4)]
    for one in jobs:
        worker.submit(one)
    for one in jobs:
        one.done.result(30)
    assert time.monotonic() - began < 1.4
    worker.close(10)


def test_the_end_computes_those_that_wait_and_takes_no_more(recorder):
    worker, first = held(recorder)
    waiting = job(2)
    worker.submit(waiting)
    ended = threading.Thread(target=worker.close)
    ended.start()
    while True:
        try:
            worker.submit(job(3)).cancel()
        except Closed:
            break
    recorder.go.set()
    ended.join(10)
    assert not ended.is_alive()
    assert (first.done.result(0)[1].next, waiting.done.result(0)[1].next) == (1, 2)


def test_an_end_that_takes_too_long_cancels_those_that_wait(recorder):
    worker, first = held(recorder)
    waiting = job(2)
    worker.submit(waiting)
    worker.close(0.1)
    with pytest.raises(CancelledError):
        waiting.done.result(1)
    assert not first.done.done()
    recorder.go.set()
    first.done.result(30)


def test_a_model_that_cannot_be_loaded_is_told_and_nobody_waits_for_it(recorder, monkeypatch):
    told, held_up = threading.Event(), threading.Event()

    def broken() -> None:
        held_up.wait(30)
        raise ValueError("no model")

    monkeypatch.setattr(recorder, "warm", broken)
    worker = Worker(recorder)
    early = job(1)
    worker.start(told.set)
    worker.submit(early)
    held_up.set()
    assert told.wait(30)
    assert str(worker.trouble) == "no model"
    assert not worker.ready.is_set()
    with pytest.raises(CancelledError):
        early.done.result(1)
    with pytest.raises(Closed):
        worker.submit(job(2))
    worker.close(1)


def test_a_worker_that_was_never_started_can_be_closed(recorder):
    worker = Worker(recorder)
    waiting = worker.submit(job(1))
    worker.close()
    assert waiting.cancelled()


some_jobs = st.lists(
    st.tuples(
        st.lists(st.integers(1, 90), min_size=0, max_size=5),
        st.sampled_from([VISIBLE, INFRARED]),
        st.sampled_from([None, ("1",), ("2", "3")]),
        st.sampled_from([1, 20]),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(asked=some_jobs, most=st.integers(1, 6))
def test_whatever_waits_together_gets_the_answers_it_would_get_alone(asked, most):
    recorder = Recorder()
    worker, _ = held(recorder, most=most, waiting=100)
    jobs = []
    for numbers, modality, cameras, top, leaves in asked:
        one = job(*numbers[:1] * len(numbers), modality=modality, top=top)
        one.where = Where(cameras=cameras)
        if not numbers:
            one.query = Query(np.array([1, 0], np.float32), modality)
        worker.submit(one)
        if leaves:
            one.done.cancel()
        jobs.append((one, numbers, modality, leaves))
    recorder.go.set()
    for one, numbers, modality, leaves in jobs:
        if leaves:
            continue
        query, answer = one.done.result(30)
        assert answer.query == query.modality == modality
        assert answer.next == (numbers[0] if numbers else 0)
        assert query.pictures == max(1, len(numbers))
    worker.close(10)
    stayed = [numbers for _, numbers, _, leaves in jobs if not leaves]
    assert sum(count for count, _ in recorder.embedded) == 1 + sum(map(len, stayed))
    assert sum(count for count, *_ in recorder.searched) == 1 + len(stayed)
    longest = max(map(len, stayed), default=0)
    assert all(count <= max(most, longest) for count, _ in recorder.embedded)
