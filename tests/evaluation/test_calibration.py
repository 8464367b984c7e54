"""Calibration against slow loops over all pairs, against scikit-learn, and against the people it has not seen."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import UNLABELLED
from vireid.evaluation import cosines as counting
from vireid.evaluation.calibration import (
    NEEDED,
    POINTS,
    Calibration,
    PairCalibration,
    calibrate_pairs,
    kind_of,
)
from vireid.evaluation.cosines import PRIOR, STEP, STEPS, Cosines, cosine_of, logistic, step_of
from vireid.evaluation.pairs import KINDS


def people(
    number: int, pictures: int, *, seed: int = 0, width: int = 8, spread: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, identities and modalities of people, each with a direction of its own, and a shift by modality."""
    random = np.random.default_rng(seed)
    identity = np.repeat(np.arange(number) * 7 + 3, 2 * pictures)
    modality = np.tile(np.repeat([0, 1], pictures), number)
    own, shift = random.normal(size=(number, width)), 0.7 * random.normal(size=(2, width))
    features = own[np.repeat(np.arange(number), 2 * pictures)] + shift[modality]
    return features + spread * random.normal(size=features.shape), identity, modality


def all_pairs(features, identity, modality, key=None) -> dict[str, tuple[list, list]]:
    """For each kind: (cosine, person, person) of each pair of one person, and of each pair of two people."""
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    found: dict[str, tuple[list, list]] = {kind: ([], []) for kind in KINDS}
    for i, j in itertools.combinations(range(len(identity)), 2):
        if UNLABELLED in (identity[i], identity[j]):
            continue
        if key is not None and key[i] == key[j] != -1:
            continue
        cosine = float(unit[i].astype(np.float64) @ unit[j].astype(np.float64))
        kind = kind_of(Modality(modality[i]), Modality(modality[j]))
        same = identity[i] == identity[j]
        first, second = (i, j) if modality[i] <= modality[j] else (j, i)
        found[kind][0 if same else 1].append((cosine, identity[first], identity[second]))
    return found


def shares(pairs: list, at: np.ndarray) -> np.ndarray:
    """The share of pairs whose cosine is at least each value, counted one by one."""
    return np.array([sum(cosine >= value for cosine, _, _ in pairs) / len(pairs) for value in at])


@pytest.fixture(scope="module")
def some() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    features, identity, modality = people(9, 3, seed=1)
    identity = identity.copy()
    identity[[4, 17]] = UNLABELLED
    key = np.random.default_rng(5).integers(-1, 4, len(identity))
    return features, identity, modality, key


# --- counts against loops ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("block", [1, 40, 2**21])
def test_counts_and_rates_are_those_of_a_loop_over_all_pairs(some, with_key, block, monkeypatch):
    monkeypatch.setattr(counting, "_BLOCK", block)
    monkeypatch.setattr(counting, "_KEPT", 0 if block == 40 else 2**25)
    features, identity, modality, key = some
    used = key if with_key else None
    found = calibrate_pairs(features, identity, modality, key=used, resamplings=0)
    expected = all_pairs(features, identity, modality, used)
    for kind, (same, different) in expected.items():
        one = found[kind]
        assert (one.same, one.different) == (len(same), len(different))
        assert one.people == 9 and one.matched == len({person for _, person, _ in same})
        at = np.array(one.cosines)
        assert np.allclose(one.false, shares(different, at), atol=1e-6)
        assert np.allclose(one.missed, 1 - shares(same, at), atol=1e-6)
        assert one.false[0] == 1 and one.missed[0] == 0 and one.false[-1] == 0 and one.missed[-1] == 1


def test_pictures_in_another_order_give_the_same_calibration(some):
    features, identity, modality, key = some
    order = np.random.default_rng(3).permutation(len(identity))
    mixed = calibrate_pairs(features[order], identity[order], modality[order], key=key[order], resamplings=50, seed=4)
    assert mixed == calibrate_pairs(features, identity, modality, key=key, resamplings=50, seed=4)


def test_drawing_people_again_is_a_loop_over_pairs_with_weights(some):
    features, identity, modality, key = some
    random = np.random.default_rng(2)
    for number, (kind, both) in enumerate(KINDS.items()):
        sides = [np.flatnonzero((modality == one) & (identity != UNLABELLED)) for one in both]
        counted = Cosines(features, identity, key, sides, within=both[0] == both[1])
        times = random.multinomial(counted.people, np.full(counted.people, 1 / counted.people), size=5)
        names = np.unique(identity[np.concatenate(sides)])
        same, different = all_pairs(features, identity, modality, key)[kind]
        steps = np.unique(step_of(np.array([-0.5, 0.0, 0.3, 0.3, 0.8])))
        found = counted.counts(steps, times)
        for draw, drawn in enumerate(times):
            of = dict(zip(names.tolist(), drawn.tolist(), strict=True))
            for column, at in enumerate([-2.0, *cosine_of(steps)]):
                own = sum(of[p] for cosine, p, _ in same if cosine >= at)
                two = sum(of[p] * of[q] for cosine, p, q in different if cosine >= at)
                assert (found[0][draw, column], found[1][draw, column]) == (own, two), (number, draw, column)


def test_a_person_drawn_twice_is_no_stranger_to_its_copy():
    """Two people: a draw of one of them twice has no pair of two people, and counts for nothing."""
    features, identity, modality = people(2, 4, seed=3, spread=0.2)
    found = calibrate_pairs(features, identity, modality, resamplings=200)["across"]
    assert found.false == found.false_lower  # all draws with both of them once are the same
    assert all(upper == max(rate, found.resolution) for rate, upper in zip(found.false, found.false_upper, strict=True))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_a_step_holds_its_cosine(values):
    cosines = np.array(values)
    steps = step_of(cosines)
    assert steps.min() >= 0 and steps.max() < STEPS
    assert (cosine_of(steps) <= cosines + 1e-9).all() and (cosines < cosine_of(steps) + 1.01 * STEP).all()
    assert (step_of(cosine_of(steps)) == steps).all()


# --- the fit ----------------------------------------------------------------------------------------------------------


def fitted_by_scikit_learn(same: list, different: list, matched: int) -> tuple[float, float]:
    linear_model = pytest.importorskip("sklearn.linear_model")
    cosines = np.array([one[0] for one in (*same, *different)])
    label = np.repeat([1, 0], [len(same), len(different)])
    weight = np.repeat([0.5 / len(same), 0.5 / len(different)], [len(same), len(different)])
    mean = np.average(cosines, weights=weight)
    scale = np.sqrt(np.average((cosines - mean) ** 2, weights=weight))
    model = linear_model.LogisticRegression(C=PRIOR**2 * matched, tol=1e-12, max_iter=10_000)
    model.fit(((cosines - mean) / scale)[:, None], label, sample_weight=weight)
    slope = model.coef_[0, 0] / scale
    return slope, model.intercept_[0] - slope * mean


@pytest.mark.parametrize("spread", [0.05, 0.5, 1.5])
def test_the_fit_is_that_of_scikit_learn(spread):
    """With little spread the classes are apart, and the prior alone holds the slope."""
    features, identity, modality = people(8, 3, seed=7, spread=spread)
    found = calibrate_pairs(features, identity, modality, resamplings=0)
    for kind, (same, different) in all_pairs(features, identity, modality).items():
        one = found[kind]
        slope, intercept = fitted_by_scikit_learn(same, different, one.matched)
        assert one.slope == pytest.approx(slope, rel=2e-3)
        middle = -intercept / slope
        assert one.ratio(middle) == pytest.approx(0, abs=0.02)
        assert np.allclose(one.ratio(np.array([0.2, 0.9])), slope * np.array([0.2, 0.9]) + intercept, rtol=3e-3)


def test_the_fit_is_a_log_likelihood_ratio():
    """Cosines of two normal distributions of one width: the ratio is known, whatever the numbers of pairs."""
    random = np.random.default_rng(0)
    same, different = random.normal(0.6, 0.1, 200_000), random.normal(0.3, 0.1, 600_000)
    counts = [np.bincount(step_of(one), minlength=STEPS) for one in (same, different)]
    slope, intercept = logistic(counts[0], counts[1], 10_000)
    assert slope == pytest.approx((0.6 - 0.3) / 0.1**2, rel=0.02)
    assert -intercept / slope == pytest.approx(0.45, abs=0.002)


def test_pairs_that_are_perfectly_apart_have_a_ratio_that_more_people_make_larger():
    slopes = [calibrate_pairs(*people(n, 2, spread=0.01), resamplings=0)["across"].slope for n in (6, 40)]
    assert 0 < slopes[0] < slopes[1] < 1e3


def test_features_that_say_the_opposite_are_refused():
    features, identity, modality = people(6, 2, spread=0.3)
    features = np.where(modality[:, None] == 0, features, -features)
    with pytest.raises(BadInput, match="across pairs of one person are not more alike than pairs of two people"):
        calibrate_pairs(features, identity, modality, resamplings=0)
    with pytest.raises(BadInput, match="not more alike"):
        calibrate_pairs(np.ones((24, 4)), identity, modality, resamplings=0)


# --- intervals --------------------------------------------------------------------------------------------------------


def crowd(number: int, random: np.random.Generator, pictures: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People who look more or less like many others: pairs of one person are far from independent."""
    family = np.random.default_rng(0).normal(size=(4, 6))
    own = family[random.integers(0, 4, number)] * random.uniform(0.3, 1.6, (number, 1))
    own += random.normal(size=(number, 6))
    identity = np.repeat(np.arange(number), 2 * pictures)
    modality = np.tile(np.repeat([0, 1], pictures), number)
    return own[identity] + 0.35 * random.normal(size=(len(identity), 6)), identity, modality


def test_intervals_hold_for_other_people_and_those_of_independent_pairs_do_not():
    truth = calibrate_pairs(*crowd(800, np.random.default_rng(99), 2), resamplings=0, kinds=("across",))["across"]
    at, far = truth.threshold(0.05).cosine, float(np.interp(0.2, truth.missed, truth.cosines))
    ours, ours_missed, naive, naive_missed, trials = 0, 0, 0, 0, 30
    for trial in range(trials):
        given_people = crowd(24, np.random.default_rng(trial))
        found = calibrate_pairs(*given_people, resamplings=200, seed=trial, kinds=("across",))["across"]
        rate, missed = found.false_match_rate(at), found.miss_rate(far)
        ours += rate.lower <= 0.05 <= rate.upper
        ours_missed += missed.lower <= 0.2 <= missed.upper
        naive += abs(rate.estimate - 0.05) <= 1.96 * (rate.estimate * (1 - rate.estimate) / found.different) ** 0.5
        naive_missed += (
            abs(missed.estimate - 0.2) <= 1.96 * (missed.estimate * (1 - missed.estimate) / found.same) ** 0.5
        )
    assert ours >= 0.9 * trials and ours_missed >= 0.85 * trials, (ours, ours_missed)
    assert naive <= 0.6 * trials and naive_missed <= 0.6 * trials, (naive, naive_missed)


def test_the_same_seed_gives_the_same_intervals_and_another_one_others():
    given = people(12, 3, spread=1.0)
    first, again, other = (calibrate_pairs(*given, resamplings=100, seed=seed)["across"] for seed in (1, 1, 2))
    assert first == again
    assert first.false_lower != other.false_lower and first.false == other.false


# --- rates and thresholds ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def across() -> PairCalibration:
    return calibrate_pairs(*people(20, 4, spread=0.8), resamplings=100)["across"]


def test_rates_between_two_cosines_are_on_a_line_and_outside_as_at_the_ends(across):
    low, high = across.cosines[100], across.cosines[101]
    quarter = across.false_match_rate(low + 0.25 * (high - low))
    assert quarter.estimate == pytest.approx(0.75 * across.false[100] + 0.25 * across.false[101])
    assert across.miss_rate(low + 0.25 * (high - low)).upper == pytest.approx(
        0.75 * across.missed_upper[100] + 0.25 * across.missed_upper[101]
    )
    below, above = across.cosines[0] - 0.1, across.cosines[-1] + 0.1
    assert across.false_match_rate(below).estimate == 1 and across.miss_rate(below).estimate == 0
    assert across.false_match_rate(above).estimate == 0 and across.miss_rate(above).lower == 1
    assert across.false_match_rate(above).lower == 0
    assert across.false_match_rate(above).upper == pytest.approx(across.resolution, rel=1e-5)
    assert across.resolution == NEEDED / across.different


def test_without_drawing_again_the_ends_are_the_estimate():
    one = calibrate_pairs(*people(12, 3), resamplings=0)["visible"]
    assert one.false_lower == one.false and one.missed_lower == one.missed == one.missed_upper
    floor = float(f"{one.resolution:.6g}")
    assert one.false_upper == tuple(max(rate, floor) for rate in one.false)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.0, 1.0))
def test_a_threshold_is_the_inverse_of_the_false_match_rate(across, share):
    rate = across.resolution + share * (1 - across.resolution)
    found = across.threshold(rate)
    assert across.false_match_rate(found.cosine).estimate == pytest.approx(rate, abs=1e-9)
    assert found.lower <= found.cosine <= found.upper
    assert across.false_match_rate(found.upper).upper <= rate * (1 + 1e-5)
    assert across.false_match_rate(found.lower).lower == pytest.approx(rate, abs=1e-9)


def test_a_rate_that_cannot_be_told_or_is_none_is_refused(across):
    with pytest.raises(BadInput, match=r"false match rate of 1e-07 cannot be told from \d,\d+ pairs of two people"):
        across.threshold(1e-7)
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(BadInput, match="from 0 to 1"):
            across.threshold(wrong)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(1, 3), st.floats(0.05, 3), st.integers(0, 2**31), st.sampled_from([0, 1, 20]))
def test_curves_never_turn_back_and_stay_between_their_ends(number, pictures, spread, seed, resamplings):
    given_people = people(number, pictures, seed=seed, spread=spread)
    try:
        found = calibrate_pairs(*given_people, resamplings=resamplings, seed=seed)
    except BadInput as error:
        assert "not more alike" in str(error)
        return
    assert "across" in found and (pictures > 1) == ("visible" in found)
    for one in found.values():
        cosines, false, missed = (np.array(given) for given in (one.cosines, one.false, one.missed))
        assert 2 <= len(cosines) <= POINTS and (np.diff(cosines) > 0).all() and one.slope > 0
        for name in ("false", "false_lower", "false_upper"):
            assert (np.diff(getattr(one, name)) <= 0).all()
        for name in ("missed", "missed_lower", "missed_upper"):
            assert (np.diff(getattr(one, name)) >= 0).all()
        assert (np.array(one.false_lower) <= false).all() and (false <= np.array(one.false_upper)).all()
        assert (np.array(one.missed_lower) <= missed).all() and (missed <= np.array(one.missed_upper)).all()
        assert min(one.false_upper) >= 0.999999 * one.resolution
        assert 0 <= one.equal_error_rate < 1
        assert Calibration.from_text(a_calibration({**found}).as_text(), "here").pairs == found


def test_the_equal_error_rate_is_where_the_curves_meet(some):
    features, identity, modality, _ = some
    one = calibrate_pairs(features, identity, modality, resamplings=0)["across"]
    same, different = all_pairs(features, identity, modality)["across"]
    at = sorted({cosine for cosine, _, _ in (*same, *different)})
    gap = min(abs(f - m) for f, m in zip(shares(different, np.array(at)), 1 - shares(same, np.array(at)), strict=True))
    best = min(max(f, m) for f, m in zip(shares(different, np.array(at)), 1 - shares(same, np.array(at)), strict=True))
    assert one.equal_error_rate == pytest.approx(best, abs=gap + 0.02)


# --- what is missing --------------------------------------------------------------------------------------------------


def test_a_kind_without_pairs_is_missing_and_across_must_be_there():
    features, identity, modality = people(5, 1)
    assert list(calibrate_pairs(features, identity, modality, resamplings=0)) == ["across"]
    features, identity, modality = people(5, 3)
    with pytest.raises(BadInput, match="no pairs across the modalities"):
        calibrate_pairs(features, identity, np.zeros_like(modality), resamplings=0)
    with pytest.raises(BadInput, match="no pairs across"):
        calibrate_pairs(features, np.full_like(identity, UNLABELLED), modality, resamplings=0)
    only = calibrate_pairs(features, identity, modality, resamplings=0, kinds=("infrared",))
    assert list(only) == ["infrared"]


def test_arrays_that_do_not_fit_are_refused():
    features, identity, modality = people(3, 2)
    for wrong, sentence in (
        ({"identity": identity[:-1]}, "identity"),
        ({"modality": modality + 5}, "modality"),
        ({"key": [1, 2]}, "key"),
        ({"features": features * np.nan}, "NaN"),
        ({"resamplings": -1}, "resamplings is -1"),
    ):
        arguments = {"features": features, "identity": identity, "modality": modality, **wrong}
        with pytest.raises(BadInput, match=sentence):
            calibrate_pairs(**arguments)


def test_features_and_modalities_of_other_types_are_the_same(some):
    features, identity, modality, key = some
    torch = pytest.importorskip("torch")
    expected = calibrate_pairs(features.astype(np.float32), identity, modality, key=key, resamplings=3)
    words = np.array(["rgb", "thermal"])[modality]
    given_tensor = torch.from_numpy(features.astype(np.float32))
    assert calibrate_pairs(given_tensor, identity.tolist(), words, key=key.tolist(), resamplings=3) == expected


# --- the file ---------------------------------------------------------------------------------------------------------


def a_calibration(pairs: dict[str, PairCalibration]) -> Calibration:
    return Calibration(pairs, "0123456789abcdef", "folder:hof", "fedc", 20, 3, ("nur – 20 Leute",), "vireid gallery …")


def test_the_file_comes_back_as_it_was(across, tmp_path):
    kept = a_calibration({"across": across})
    (tmp_path / "calibration.json").write_text(kept.as_text(), encoding="utf-8")
    assert Calibration.read(tmp_path / "calibration.json") == kept
    values = json.loads(kept.as_text())
    assert list(values) == [field.name for field in fields(Calibration)]
    assert len(kept.as_text().splitlines()) < 40 and len(kept.as_text()) < 60_000


SPOILT = [
    ("slope", 0.0, "slope must be above 0"),
    ("slope", float("inf"), "slope"),
    ("slope", "2", "wrong 'pairs.across.slope'"),
    ("intercept", None, "wrong 'pairs.across.intercept'"),
    ("same", 0, "there must be pairs"),
    ("cosines", [0.5], "2 to 512 ascending numbers"),
    ("cosines", [0.1] * 30, "2 to 512 ascending numbers"),
    ("cosines", list(range(513)), "2 to 512 ascending numbers"),
    ("false", [1.0, 0.5], "'false' must be"),
    ("colour", 1, "unknown field 'pairs.across.colour'"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), SPOILT)
def test_a_spoilt_field_is_named(across, name, value, sentence):
    values = json.loads(a_calibration({"across": across}).as_text())
    values["pairs"]["across"][name] = value
    with pytest.raises(BadInput, match=sentence) as refusal:
        Calibration.from_text(json.dumps(values), "there")
    assert str(refusal.value).startswith("there") and "\n" not in str(refusal.value)


def test_curves_that_cannot_be_are_refused(across):
    turned = replace(across, missed=across.missed[::-1])
    above = replace(across, false=tuple(rate + 1 for rate in across.false))
    crossed = replace(across, missed_lower=across.missed_upper, missed_upper=across.missed_lower)
    for wrong in (turned, above, crossed):
        with pytest.raises(BadInput, match=r"there, across: '(missed|false)' must"):
            Calibration.from_text(a_calibration({"across": wrong}).as_text(), "there")


def test_damaged_text_is_one_sentence(across, tmp_path):
    text = a_calibration({"across": across}).as_text()
    for damaged in ("", text[: len(text) // 2], "[" * 100_000, "\0"):
        with pytest.raises(BadInput, match=r"^there is not JSON; calibrate again$"):
            Calibration.from_text(damaged, "there")
    for other in ("[]", "7", '{"pairs": {}}', text.replace('"format": 1', '"format": 2')):
        with pytest.raises(BadInput, match="has format"):
            Calibration.from_text(other, "there")
    with pytest.raises(BadInput, match="kind 'sideways'"):
        Calibration.from_text(a_calibration({"sideways": across}).as_text(), "there")
    with pytest.raises(BadInput, match="no pairs across"):
        Calibration.from_text(a_calibration({"visible": across}).as_text(), "there")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for file, sentence in ((tmp_path / "none", "cannot be read"), (tmp_path / "bytes", "not JSON")):
        with pytest.raises(BadInput, match=sentence):
            Calibration.read(file)


def test_a_kind_is_named_by_its_two_modalities():
    assert kind_of(Modality.VISIBLE, Modality.VISIBLE) == "visible"
    assert kind_of(Modality.INFRARED, Modality.INFRARED) == "infrared"
    assert kind_of(Modality.INFRARED, Modality.VISIBLE) == kind_of(Modality.VISIBLE, Modality.INFRARED) == "across"
