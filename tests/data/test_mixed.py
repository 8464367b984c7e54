"""Halves of people, names and keys of galleries of both modalities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import mixed as oracle
from vireid.data.errors import BadInput
from vireid.data.mixed import PEOPLE, calibrating, mixed_protocols
from vireid.data.protocol import (
    LAYOUTS,
    Protocol,
    Side,
    default_protocols,
    draw_trials,
    forget,
    parse_protocol,
    protocol_names,
    register,
)
from vireid.evaluation.report import expanded

KINDS = ("i2v", "v2i", "i2both", "v2both")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_names_of_a_layout(layout):
    kinds = KINDS[:2] if layout == "regdb" else KINDS
    names = [f"{layout}/mixed/{kind}{end}" for kind in kinds for end in ("", "@calibrated")]
    assert [name for name in protocol_names(layout) if "/mixed/" in name] == names == expanded([f"{layout}/mixed"])
    assert not set(default_protocols(layout)) & set(names)
    for name in names:
        rules = parse_protocol(name)
        assert (rules.halves, rules.trials, rules.compare == "ratio") == (True, 10, "@" in name)
        assert rules.gallery.modality is None and rules.note


@pytest.mark.parametrize("people", [20, 21, 351])
def test_half_of_the_people_are_calibrated_on(people):
    numbers = np.arange(people) * 3 + 5
    found = [calibrating(numbers, trial) for trial in range(10)]
    assert all(len(one) == people // 2 and set(one) <= set(numbers) and (np.diff(one) > 0).all() for one in found)
    assert len({tuple(one) for one in found}) == 10
    for trial, one in enumerate(found):
        assert set(one) == oracle.calibrating(numbers, trial)


def test_the_halves_stay_what_they_are():
    """Published numbers depend on them."""
    assert calibrating(np.arange(20), 0).tolist() == FIRST
    assert calibrating(np.arange(20), 9).tolist() == LAST


FIRST = [2, 3, 4, 5, 7, 8, 9, 11, 12, 15]
LAST = [1, 2, 4, 7, 10, 11, 13, 15, 16, 17]


@st.composite
def test_sets(draw):
    people = draw(st.integers(PEOPLE, 26))
    size = draw(st.integers(people * 2, people * 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    identity = np.concatenate([np.arange(people), np.arange(people), generator.integers(-1, people, size)])
    camera = generator.choice([1, 2, 3, 4, 5, 6], len(identity))
    return identity * 2 + 7 * (identity >= 0) + (identity < 0), camera


test_sets.__test__ = False  # type: ignore[attr-defined]


@settings(max_examples=12, deadline=None)
@given(test_sets(), st.sampled_from(("sysu-mm01", "llcm", "folder")), st.sampled_from(KINDS))
def test_trials_are_the_definition(columns, layout, kind):
    identity, camera = columns
    modality = np.isin(camera, (3, 6)).astype(int) if layout == "sysu-mm01" else (np.arange(len(camera)) % 2)
    try:
        trials = draw_trials(f"{layout}/mixed/{kind}", identity, camera, modality)
    except BadInput as refused:
        assert "not one query has a true match" in str(refused) or "has no queries" in str(refused)
        return
    loop = oracle.Mixed(layout, np.ones((len(identity), 1)), identity, camera, modality)
    for t, trial in list(enumerate(trials))[::4]:
        queries, gallery = loop.sides(kind, t)
        assert trial.query.tolist() == queries and trial.gallery.tolist() == gallery
        out = oracle.calibrating(identity, t)
        assert trial.other is not None and trial.other_key is not None
        assert trial.other.tolist() == [i for i, person in enumerate(identity.tolist()) if person in out]
        assert set(trial.pictures.tolist()) == {i for i, person in enumerate(identity.tolist()) if person != -1}
        for q, key in list(zip(trial.query, trial.query_key, strict=True))[::7]:
            for g, other in zip(trial.gallery, trial.gallery_key, strict=True):
                wanted = oracle.excluded(layout, kind, loop.pictures[q], loop.pictures[g])
                assert (key == other) == wanted, (loop.pictures[q], loop.pictures[g])
                assert q != g or wanted, "no query finds itself"


def test_pairs_of_one_person_and_camera_are_not_calibrated_on():
    identity, camera = np.repeat(np.arange(20), 6), np.tile([1, 1, 2, 3, 3, 6], 20)
    modality = np.isin(camera, (3, 6)).astype(int)
    for kind, same in (("i2v", lambda a, b: a == b), ("i2both", lambda a, b: oracle.ROOM[a] == oracle.ROOM[b])):
        trial = draw_trials(f"sysu-mm01/mixed/{kind}", identity, camera, modality)[0]
        other, key = trial.other, trial.other_key
        assert other is not None and key is not None
        for i, a in enumerate(other):
            for j, b in enumerate(other):
                wanted = identity[a] == identity[b] and same(int(camera[a]), int(camera[b]))
                assert (key[i] == key[j]) == wanted


def test_published_counts():
    """RegDB and LLCM; on SYSU-MM01 the people have different numbers of pictures, so its counts vary."""
    identity, modality = np.repeat(np.arange(206), 20), np.tile(np.repeat([0, 1], 10), 206)
    sizes = {(len(t.query), len(t.gallery)) for t in draw_trials("regdb/mixed/v2i", identity, modality, modality)}
    assert sizes == {(1030, 2060)}


def test_few_people_are_refused():
    for people, refused in ((PEOPLE - 1, True), (PEOPLE, False)):
        identity, modality = np.repeat(np.arange(people), 2), np.tile([0, 1], people)
        identity, modality = np.append(identity, -1), np.append(modality, 0)  # nobody, who does not count
        if refused:
            with pytest.raises(BadInput, match=f"at least {PEOPLE} people, and there are {PEOPLE - 1}"):
                draw_trials("regdb/mixed/i2v", identity, modality, modality)
        else:
            assert len(draw_trials("regdb/mixed/i2v", identity, modality, modality)) == 10


def test_a_trial_without_a_true_match_is_refused():
    """Person 0 alone is seen in both modalities, so a trial that calibrates on it has no match."""
    identity = np.append(np.arange(30), 0)
    modality = np.append(np.zeros(30, int), 1)
    with pytest.raises(BadInput, match="has a true match"):
        draw_trials("regdb/mixed/i2v", identity, modality, modality)


def test_protocols_that_do_not_go_together():
    sides = {"query": Side(None), "gallery": Side(None)}
    for wrong, sentence in (
        ({"compare": "ratio"}, "needs people to calibrate on"),
        ({"halves": True, "tracklets": "average"}, "one by one"),
        ({"halves": True, "gallery": Side(None, drawn=1)}, "one by one"),
    ):
        with pytest.raises(BadInput, match=sentence):
            Protocol("a/b", "a", **{**sides, **wrong})


def test_a_layout_from_outside_can_have_them():
    mine = mixed_protocols("my-yard")
    try:
        register(mine, "my-yard")
        assert expanded(["my-yard/mixed"]) == [one.name for one in mine] and len(mine) == 8
        assert expanded(["my-garden/mixed"]) == ["my-garden/mixed"]
        with pytest.raises(BadInput, match="for sysu-mm01 only"):
            register([replace(mine[4], exclusion="identity-location")], "my-yard")
    finally:
        forget(one.name for one in mine)
