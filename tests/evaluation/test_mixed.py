"""Both modalities in one gallery, against loops that read like the definition."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.oracles.mixed import Mixed, calibrating, metrics
from vireid.data.errors import BadInput
from vireid.data.protocol import Trial, draw_trials, parse_protocol, protocol_names
from vireid.evaluation.mixed import STRANGERS, Calibrations, check_comparison, false_alarms
from vireid.evaluation.report import METRICS, Alarms, Report, heads, incomparable, table
from vireid.evaluation.scoring import Measured, evaluate, score
from vireid.figures.tables import of_reports, render

NAMES = [name for name in protocol_names() if "/mixed/" in name]


def world(layout: str, people: int = 24, seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures with the layout's cameras. Some people are missing at a camera, one is visible only, one is unknown.

    Features are signs: a person's own, of which a picture has some wrong, and eight of the modality. So all cosines are
    multiples of 1/32, which float32 has exactly, and very many are equal.
    """
    generator = np.random.default_rng(seed)
    cameras = {
        "sysu-mm01": [(1, 0), (2, 0), (4, 0), (3, 1), (6, 1)],
        "regdb": [(1, 0), (2, 1)],
        "llcm": [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0)],
        "folder": [(7, 0), (8, 0), (8, 1), (9, 1)],
    }[layout]
    cells = [(c, m, p) for c, m in cameras for p in range(people) if (c + 3 * p) % 7 and (m == 0 or p != 5)]
    camera, modality, identity = np.repeat(np.array(cells), 2 if layout != "regdb" else 4, axis=0).T
    signs = generator.choice([-1.0, 1.0], size=(people, 64))[identity]
    features = np.where(generator.random(signs.shape) < 0.25, -signs, signs)
    features[:, :8] = generator.choice([-1.0, 1.0], size=(2, 8))[modality]
    identity = np.where(identity == people - 1, -1, identity)
    return {"features": features.astype(np.float32), "identity": identity, "camera": camera, "modality": modality}


@pytest.fixture(scope="module")
def oracles() -> dict[str, Mixed]:
    return {layout: Mixed(layout, **world(layout)) for layout in ("sysu-mm01", "regdb", "llcm", "folder")}


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_is_the_loop(oracles, name):
    layout, _, rest = name.split("/")
    kind, _, calibrated = rest.partition("@")
    rules = replace(parse_protocol(name), trials=2 if name.startswith("sysu-mm01/mixed/i2v") else 1)
    report = score(**world(layout), protocol=rules)
    loop = oracles[layout]
    shares, absent = [], []
    for t, found in enumerate(report.trials):
        numbers, valid, own = metrics(loop.answers(kind, t, calibrated=bool(calibrated)))
        assert [found[metric] for metric in METRICS] == pytest.approx(numbers), f"trial {t}"
        queries, gallery = loop.sides(kind, t)
        assert (found["valid_queries"], found["queries"], found["gallery"]) == (valid, len(queries), len(gallery))
        shares.append(own)
        if calibrated:
            absent += loop.strangers(kind, t)
    assert len(report.trials) == rules.trials
    assert report.own_modality == pytest.approx(np.mean(shares))
    assert (report.alarms is None) is not bool(calibrated)
    for one in report.alarms or ():
        assert one.share == pytest.approx(100 * np.mean([found <= one.strangers for found in absent]))
        assert one.lower <= one.share <= one.upper and one.expected == pytest.approx(100 - 100 / math.e**one.strangers)
    if calibrated:
        assert tuple(one.strangers for one in report.alarms or ()) == STRANGERS == (0.05, 0.1, 1.0)


def test_the_names_have_ten_trials_and_their_own_numbers():
    columns = world("regdb")
    report = score(**{**columns, "camera": None}, protocol="regdb/mixed/v2i")
    assert len(report.trials) == 10 and len({trial["map"] for trial in report.trials}) > 5
    assert report == score(**columns, protocol="regdb/mixed/v2i"), "RegDB needs no cameras"
    with pytest.raises(BadInput, match="depends on the cameras"):
        score(**{**world("folder"), "camera": None}, protocol="folder/mixed/i2v@calibrated")


def test_nobody_is_both_calibrated_on_and_tested():
    columns = world("llcm")
    features, identity, modality = (columns[name] for name in ("features", "identity", "modality"))
    trial = draw_trials("llcm/mixed/i2v@calibrated", identity, columns["camera"], modality)[1]
    before = Calibrations(features, identity, modality).of(trial)
    tested = ~np.isin(identity, list(calibrating(identity, 1)))
    noise = np.roll(features, 1, axis=1) * np.linspace(1, 2, 64, dtype=np.float32)
    assert Calibrations(np.where(tested[:, None], noise, features), identity, modality).of(trial) == before
    assert Calibrations(np.where(tested[:, None], features, noise), identity, modality).of(trial) != before


def test_trials_share_a_calibration_only_if_their_pairs_are_the_same():
    columns = world("sysu-mm01")
    arrays = (columns["identity"], columns["camera"], columns["modality"])
    fits = Calibrations(columns["features"], columns["identity"], columns["modality"])
    trials = {kind: draw_trials(f"sysu-mm01/mixed/{kind}", *arrays) for kind in ("i2v", "v2i", "i2both")}
    assert fits.of(trials["i2v"][0]) is fits.of(trials["v2i"][0])
    assert fits.of(trials["i2v"][0]) is not fits.of(trials["i2v"][1])
    assert fits.of(trials["i2v"][0]) is not fits.of(trials["i2both"][0])


def strong(people: int = 60, *, shift: float = 1.5, seed: int = 0) -> dict[str, np.ndarray]:
    """People whom features tell apart, with a large offset between the modalities."""
    generator = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), 8)
    camera = np.tile([1, 1, 4, 4, 3, 3, 6, 6], people)
    modality = np.isin(camera, (3, 6)).astype(int)
    features = generator.normal(size=(people, 32))[identity] + generator.normal(size=(len(identity), 32))
    features += shift * generator.normal(size=(2, 32))[modality]
    return {"features": features, "identity": identity, "camera": camera, "modality": modality}


def test_ratios_find_the_person_in_the_other_modality_where_cosines_do_not():
    plain, calibrated = (score(**strong(), protocol=f"sysu-mm01/mixed/i2v{end}") for end in ("", "@calibrated"))
    assert plain.own_modality is not None and calibrated.own_modality is not None
    assert plain.own_modality > 90 and calibrated.own_modality < 60
    assert calibrated.map > plain.map + 10 and calibrated.rank1 > plain.rank1 + 10
    assert [trial["gallery"] for trial in plain.trials] == [trial["gallery"] for trial in calibrated.trials]


def test_alarms_are_as_many_as_the_strangers_predict():
    """Pictures of people whom nothing connects: strangers are independent, so the prediction is nearly exact."""
    generator = np.random.default_rng(5)
    identity, modality = np.repeat(np.arange(120), 4), np.tile([0, 0, 1, 1], 120)
    features = generator.normal(size=(120, 64))[identity] * 0.8 + generator.normal(size=(480, 64))
    report = score(features, identity, modality, modality, protocol="regdb/mixed/i2v@calibrated")
    assert report.alarms is not None
    for one in report.alarms:
        assert one.lower <= one.expected <= one.upper or one.share <= one.expected
        assert one.share == pytest.approx(one.expected, rel=0.4)
        assert 0 < one.upper - one.lower < 20


def test_the_share_and_its_interval_are_those_of_people():
    """Six people with five queries each in every trial. One person's queries are alarms, in one trial or in all."""
    identity = np.repeat(np.arange(6), 5)
    trial = Trial(np.arange(30), np.arange(30), identity, identity)
    nothing, alarm = np.full(30, 9.0), np.where(identity == 2, 0.07, 9.0)
    first, second, third = false_alarms([trial] * 4, identity, [alarm, nothing, nothing, nothing])
    assert first.share == 0 and first.upper == pytest.approx(100 * (1 - 0.025 ** (1 / 6))), "none of six people"
    assert second.share == third.share == pytest.approx(100 / 6 / 4)
    every = false_alarms([trial] * 4, identity, [alarm] * 4)[1]
    # The number of times that person 2 is drawn of six has its 97.5 % quantile at 3 of 6.
    assert (every.share, every.lower, every.upper) == pytest.approx((100 / 6, 0, 50))
    assert second.upper > second.share


@pytest.mark.parametrize(
    ("change", "protocol", "sentence"),
    [
        ({"distance": "euclidean"}, "regdb/mixed/i2v@calibrated", "by the ratio of the cosine, not by euclidean"),
        ({"rerank": "k-reciprocal"}, "regdb/mixed/i2v", "cannot be re-ranked"),
        ({"rerank": "query-expansion"}, "regdb/mixed/v2i@calibrated", "cannot be re-ranked"),
    ],
)
def test_what_a_mixed_gallery_cannot_be_compared_by(change, protocol, sentence):
    with pytest.raises(BadInput, match=sentence):
        score(**world("regdb"), protocol=protocol, **change)
    check_comparison(parse_protocol("regdb/i2v"), "euclidean", "k-reciprocal")


def test_plain_names_take_another_distance():
    columns = strong(24)
    features = columns["features"]
    by = {**columns, "protocol": "sysu-mm01/mixed/i2v"}
    cosine, other = score(**by), score(**by, distance="euclidean")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    same = score(**{**by, "features": unit}, distance="euclidean")
    assert other.map != pytest.approx(cosine.map, abs=0.01) and same.map == pytest.approx(cosine.map, abs=0.01)


def plain_warnings(columns) -> tuple[str, ...]:
    return score(**columns, protocol=replace(parse_protocol("sysu-mm01/mixed/i2v@calibrated"), trials=1)).warnings


def test_people_who_cannot_be_calibrated_on():
    identity, modality = np.repeat(np.arange(30), 2), np.tile([0, 1], 30)
    features = np.random.default_rng(0).normal(size=(30, 8))[identity]
    features += 0.5 * np.random.default_rng(1).normal(size=features.shape)
    with pytest.raises(BadInput, match="cannot calibrate infrared pairs: no person to calibrate on has two such"):
        score(features, identity, modality, modality, protocol="regdb/mixed/i2v@calibrated")
    assert score(features, identity, modality, modality, protocol="regdb/mixed/i2v").map > 0
    names = {one for one in plain_warnings(strong()) if "coarse" in one}
    assert names == {"calibrated on 30 people: with fewer than 50, ratios and false alarms are coarse"}
    columns = strong()
    nothing = np.random.default_rng(3).normal(size=columns["features"].shape)
    with pytest.raises(BadInput, match=r"trial \d.*cannot be calibrated; sysu-mm01/mixed/v2i needs no calibration"):
        score(**{**columns, "features": nothing}, protocol="sysu-mm01/mixed/v2i@calibrated")
    with pytest.raises(ValueError, match="needs the modality"):
        rules = parse_protocol("regdb/mixed/i2v")
        evaluate(features, identity, rules, draw_trials(rules, identity, modality, modality), Measured())


def test_reports_come_back_and_old_ones_stay_as_they_are():
    columns = world("regdb")
    rules = replace(parse_protocol("regdb/mixed/i2v@calibrated"), trials=2)
    report = score(**columns, protocol=rules)
    stored = report.to_json()
    assert Report.from_json(json.dumps(stored, allow_nan=False)) == report
    assert set(stored["alarms"][0]) == {"strangers", "share", "lower", "upper", "expected"}
    old = score(**columns, protocol="regdb/i2v")
    assert {"own_modality", "alarms"} & set(old.to_json()) == set() and Report.from_json(old.to_json()) == old
    plain = score(**columns, protocol="regdb/mixed/i2v").to_json()
    assert "own_modality" in plain and "alarms" not in plain


def test_tables_say_what_is_in_the_first_ranks_and_how_many_alarms_there_are():
    numbers = dict.fromkeys(METRICS, 50.0)
    old = Report("regdb/i2v", **numbers, trials=({},), std=numbers, valid_queries=9, queries=9, gallery=11)
    plain = replace(old, protocol="regdb/mixed/i2v", own_modality=97.04)
    alarms = (Alarms(0.1, 6.8, 3.1, 11.04, 9.5162),)
    calibrated = replace(old, protocol="regdb/mixed/i2v@calibrated", own_modality=31.0, alarms=alarms)
    reports = [old, plain, calibrated]
    assert incomparable(reports) == [], "plain and calibrated names are there to be compared"
    text = table(reports)
    assert "alarms ≤ 0.1 (predicted ≤ 9.5)" in text and "6.8 (3.1 to 11.0)" in text and "97.0" in text
    assert "both modalities" not in table(old)
    made = of_reports(reports, heads(reports))
    assert [len(one.lines) for one in made.tables] == [3, 2]
    assert "6.8 (3.1 to 11.0)" in render(made, "markdown")
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [row["own_modality"] for row in rows] == ["", "97.04", "31.0"]
    assert [row["alarms_0.1_upper"] for row in rows] == ["", "", "11.04"]
    head = render(of_reports([old], ["a"]), "csv").splitlines()[0]
    assert "own_modality" not in head and "alarms" not in head
