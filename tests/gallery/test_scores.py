"""What a search may say of strangers, and of the whole search."""

from __future__ import annotations

import doctest
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vireid.gallery.times
import vireid.gallery.words
from tests.gallery.people import INFRARED, VISIBLE, calibrated, people_rows, vectors_of
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.evaluation.calibration import Calibration, PairCalibration
from vireid.gallery.scores import NOTHING, judged, strangers, thresholds, verdict
from vireid.gallery.times import parse_time, time_text
from vireid.gallery.words import plain

FALLING = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0)
RISING = (0.0, 0.05, 0.15, 0.5, 0.9, 1.0)


def pairs(different: int = 1_000_000, *, apart: float = 1.0, missed: Sequence[float] = RISING) -> PairCalibration:
    """Rates at the cosines −1, 0, 0.2, 0.4, 0.6 and 1; the interval's ends are rates divided by or times `apart`."""
    upper = tuple(min(1.0, max(rate * apart, 30 / different)) for rate in FALLING)
    return PairCalibration(
        slope=10.0,
        intercept=-3.0,
        same=500,
        different=different,
        people=50,
        cosines=(-1.0, 0.0, 0.2, 0.4, 0.6, 1.0),
        false=FALLING,
        false_lower=tuple(rate / apart for rate in FALLING),
        false_upper=upper,
        missed=tuple(missed),
        missed_lower=tuple(rate / apart for rate in missed),
        missed_upper=tuple(min(1.0, rate * apart) for rate in missed),
    )


def calibration(**kinds: PairCalibration) -> Calibration:
    return Calibration(kinds, "ab12" * 16, "folder:/nowhere", "", 50, 0)


def test_strangers_are_modalities_times_pictures_times_rate() -> None:
    found = strangers(pairs(apart=2.0), 0.4, 30, 2)
    assert found.estimate == pytest.approx(2 * 30 * 0.01)
    assert found.lower == pytest.approx(2 * 30 * 0.005) and found.upper == pytest.approx(2 * 30 * 0.02)
    halfway = strangers(pairs(), 0.5, 30, 1)  # between 0.01 at 0.4 and 0.001 at 0.6
    assert halfway.estimate == pytest.approx(30 * 0.0055)


def test_a_rate_that_no_pair_reaches_counts_as_the_resolution() -> None:
    few = pairs(different=3000)  # resolution 0.01
    found = strangers(few, 1.0, 40, 1)
    assert found.lower == 0 and found.estimate == found.upper == pytest.approx(40 * 0.01)
    assert strangers(few, 0.2, 40, 1).estimate == pytest.approx(40 * 0.1)  # above the resolution it changes nothing


BOTH = {"across": pairs(), "visible": pairs(), "infrared": pairs()}
WIDE = {kind: pairs(apart=2.0) for kind in BOTH}
FEW = {kind: pairs(different=3000) for kind in BOTH}


@pytest.mark.parametrize(
    "kinds, searched, best, state, says",
    [
        (BOTH, {VISIBLE: 20}, {VISIBLE: 0.7}, "likely", "at most 1 in 20 such searches shows a stranger"),
        (BOTH, {VISIBLE: 20, INFRARED: 20}, {VISIBLE: 0.1, INFRARED: 0.7}, "likely", "at most 1 in 20"),
        (BOTH, {VISIBLE: 20}, {VISIBLE: 0.4}, "possible", "Look yourself. Fewest strangers expected at a match: 0.2."),
        (WIDE, {VISIBLE: 40}, {VISIBLE: 0.6}, "possible", "interval of this number reaches 0.08"),
        (FEW, {VISIBLE: 50}, {VISIBLE: 0.9}, "possible", "3,000 calibrated pairs are too few for 50 visible pictures"),
        # One stranger is expected at the rate 1/10, which is at 0.2: 15 % are missed there.
        (BOTH, {VISIBLE: 10}, {VISIBLE: 0.1}, "absent", "misses at most 15 % of true ones"),
        (WIDE, {VISIBLE: 10}, {VISIBLE: 0.1}, "open", "misses 15 % of true ones (95 % interval: 8 % to 30 %)"),
        (BOTH, {VISIBLE: 100}, {VISIBLE: 0.1}, "open", "misses 50 % of true ones"),
        # Two modalities: one stranger is expected at 1/20.
        (BOTH, {VISIBLE: 10, INFRARED: 1}, {VISIBLE: 0.1, INFRARED: -0.9}, "open", "so nothing follows"),
        (FEW, {VISIBLE: 101}, {VISIBLE: 0.9}, "unresolved", "101 visible pictures are too many"),
        (FEW, {VISIBLE: 101}, {VISIBLE: -0.9}, "unresolved", "cannot tell false match rates below 0.01"),
        (FEW, {VISIBLE: 100}, {VISIBLE: 0.9}, "possible", "too few for 100 visible pictures"),
        (FEW, {VISIBLE: 60, INFRARED: 10}, {VISIBLE: 0.9, INFRARED: 0.0}, "unresolved", "60 visible pictures"),
        (FEW, {VISIBLE: 60, INFRARED: 10}, {VISIBLE: 0.1, INFRARED: 0.9}, "possible", "too few for 10 infrared"),
        (BOTH, {VISIBLE: 0, INFRARED: 0}, {}, "open", NOTHING),
        (BOTH, {}, {}, "open", NOTHING),
    ],
)
def test_the_states(
    kinds: Mapping[str, PairCalibration],
    searched: Mapping[Modality, int],
    best: Mapping[Modality, float],
    state: str,
    says: str,
) -> None:
    found = verdict(calibration(**kinds), INFRARED, searched, list(best.items()))
    assert found.state == state and says in found.words
    assert (found.words.endswith(".") and found.words[0].isupper()) or found.words[0].isdigit()


def test_what_counts_is_the_larger_miss_rate_since_the_person_may_be_in_one_modality_only() -> None:
    kinds = {"across": pairs(), "infrared": pairs(missed=(0.0, 0.4, 0.7, 0.8, 0.9, 1.0))}
    searched = {VISIBLE: 5, INFRARED: 5}
    found = verdict(calibration(**kinds), INFRARED, searched, [(VISIBLE, -0.5), (INFRARED, -0.5)])
    assert found.state == "open" and "misses 70 % of true ones" in found.words
    only = verdict(calibration(**kinds), INFRARED, {VISIBLE: 5}, [(VISIBLE, -0.5)])
    assert only.state == "absent"


def test_a_modality_without_calibrated_pairs_is_named_and_takes_no_part() -> None:
    only = calibration(across=pairs())
    searched = {VISIBLE: 20, INFRARED: 20}
    found = verdict(only, INFRARED, searched, [(VISIBLE, 0.4), (INFRARED, 0.99)])
    assert found.state == "possible" and "at a match: 0.2." in found.words  # one modality is judged, so the factor is 1
    assert "The infrared pictures were not judged: the calibration has no pairs of two infrared pictures" in found.words
    assert set(judged(only, INFRARED, searched)) == {VISIBLE}

    nothing = verdict(only, INFRARED, {INFRARED: 20}, [(INFRARED, 0.99)])
    assert nothing.state == "unresolved" and nothing.words.startswith("The infrared pictures were not judged")
    assert "not judged" not in verdict(only, INFRARED, {VISIBLE: 20, INFRARED: 0}, [(VISIBLE, 0.4)]).words


def test_the_kind_of_pairs_is_that_of_query_and_picture() -> None:
    kinds = {kind: replace(pairs(), intercept=float(n)) for n, kind in enumerate(("across", "visible", "infrared"))}
    known = calibration(**kinds)
    searched = {VISIBLE: 1, INFRARED: 1}
    assert {one: own.intercept for one, own in judged(known, INFRARED, searched).items()} == {VISIBLE: 0, INFRARED: 2}
    assert {one: own.intercept for one, own in judged(known, VISIBLE, searched).items()} == {VISIBLE: 1, INFRARED: 0}


@pytest.mark.parametrize(
    "threshold, says",
    [
        (0.05, "1 in 20 such searches shows"),
        (0.1, "1 in 10 "),
        (0.3, "1 in 3 "),
        (0.5, "1 in 2 "),
        (1.0, "100 % of such"),
    ],
)
def test_the_words_of_a_likely_search_claim_no_more_than_the_threshold(threshold: float, says: str) -> None:
    found = verdict(calibration(**BOTH), INFRARED, {VISIBLE: 20}, [(VISIBLE, 0.9)], threshold=threshold)
    assert found.state == "likely" and says in found.words


def expected_state(
    known: Mapping[str, PairCalibration],
    query: Modality,
    searched: Mapping[Modality, int],
    best: Mapping[Modality, float],
    threshold: float,
) -> str:
    """The table of states, read one line after another."""
    if sum(searched.values()) == 0:
        return "open"
    kinds = {m: "across" if m != query else ("visible" if m == VISIBLE else "infrared") for m in searched}
    there = [m for m in searched if searched[m] > 0 and kinds[m] in known]
    if not there:
        return "unresolved"
    numbers = []
    for m in there:
        own = known[kinds[m]]
        rate = own.false_match_rate(best[m])
        estimate = len(there) * searched[m] * max(rate.estimate, 30 / own.different)
        numbers.append((estimate, len(there) * searched[m] * rate.upper, own, 1 / (len(there) * searched[m])))
    if any(upper <= threshold for _, upper, _, _ in numbers):
        return "likely"
    if any(estimate <= 1 for estimate, _, _, _ in numbers):
        return "possible"
    if any(needed < 30 / own.different for _, _, own, needed in numbers):
        return "unresolved"
    missed = [own.miss_rate(own.threshold(needed).cosine).upper for _, _, own, needed in numbers]
    return "absent" if max(missed) <= 0.2 else "open"


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_state_is_that_of_the_table(data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.sampled_from(("across", "visible", "infrared")), min_size=1))
    number = st.sampled_from((40, 700, 3001, 50_000, 10_000_001))
    known = {
        kind: pairs(
            data.draw(number),
            apart=data.draw(st.sampled_from((1.0, 1.3, 4.0))),
            missed=data.draw(st.sampled_from((RISING, (0.0, 0.0, 0.01, 0.05, 0.1, 1.0)))),
        )
        for kind in sorted(chosen)
    }
    query = data.draw(st.sampled_from((VISIBLE, INFRARED)))
    counts = st.sampled_from((0, 1, 2, 7, 33, 400, 12_345))
    modalities = data.draw(st.sets(st.sampled_from((VISIBLE, INFRARED)), min_size=1))
    searched = {one: data.draw(counts) for one in sorted(modalities)}
    best = {one: data.draw(st.floats(-1, 1)) for one, pictures in searched.items() if pictures}
    threshold = data.draw(st.sampled_from((0.001, 0.05, 0.5, 1.0)))
    found = verdict(calibration(**known), query, searched, list(best.items()), threshold=threshold)
    assert found.state == expected_state(known, query, searched, best, threshold), found.words


def test_thresholds_of_a_false_match_rate() -> None:
    known = calibration(across=pairs(apart=2.0), infrared=pairs(different=300))
    found = thresholds(known, INFRARED, 0.01)
    across = found[VISIBLE]
    assert across is not None and across.cosine == pytest.approx(0.4) and across.lower < 0.4 < across.upper
    assert found[INFRARED] is None  # 300 pairs cannot tell 0.01
    assert thresholds(known, VISIBLE, 0.01)[VISIBLE] is None  # no pairs of two visible pictures


def test_people_who_are_absent_seldom_look_likely_and_those_who_are_there_often_do() -> None:
    known = calibrated(people=150, each=4, noise=0.7)
    gallery = {one: [n for n in range(40) for _ in range(2)] for one in (VISIBLE, INFRARED)}
    rows = {one: people_rows(people, one, noise=0.7, seed=4) for one, people in gallery.items()}
    searched = {one: len(found) for one, found in rows.items()}
    matrices = {one: np.stack([row.vector for row in found if row.vector is not None]) for one, found in rows.items()}

    def states(people: Sequence[int], query: Modality) -> list[str]:
        queries = vectors_of(people, query, noise=0.7, seed=5)
        cosines = {one: queries @ matrix.T for one, matrix in matrices.items()}
        best = [[(one, float(values[n].max())) for one, values in cosines.items()] for n in range(len(people))]
        return [verdict(known, query, searched, one, threshold=0.1).state for one in best]

    for query in (VISIBLE, INFRARED):
        absent, present = states(range(1000, 1400), query), states(range(40), query)
        assert absent.count("likely") / 400 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)
        assert present.count("likely") >= 15


@pytest.mark.parametrize("module", [vireid.gallery.times, vireid.gallery.words])
def test_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@given(st.integers(-62_135_596_800_000, 253_370_764_799_999))
def test_a_time_as_text_is_read_as_the_same_time(time: int) -> None:
    text = time_text(time)
    assert text is not None and parse_time(text) == time and text.endswith("Z")


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_moved() -> None:
    assert parse_time("2026-03-01T12:00") == parse_time("2026-03-01T12:00Z") == parse_time("2026-03-01T14:00+02:00")
    assert parse_time("7d", now=1_000_000_000_000) == 1_000_000_000_000 - 7 * 86_400_000
    assert time_text(None) is None


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "5y", "-3d", "1e3", "2026-03-01T25:00", "9999-01-01", "\x1b"]
)
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="since") as caught:
        parse_time(text, "since")
    assert "\x1b" not in str(caught.value)


@given(st.text())
def test_plain_text_has_one_line_and_no_control_characters(text: str) -> None:
    shown = plain(text)
    assert len(shown) == len(text) and len(shown.splitlines()) <= 1 and "\x1b" not in shown
