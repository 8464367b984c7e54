from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.oracles import evaluation as oracle
from vireid.data.errors import BadInput
from vireid.data.protocol import Trial, draw_trials, parse_protocol, protocol_names
from vireid.data.records import UNLABELLED
from vireid.evaluation.report import METRICS, Report, incomparable, table
from vireid.evaluation.scoring import chance, read_features, score, score_trials


@pytest.fixture(scope="module")
def pictures():
    """A little test set with the cameras of SYSU-MM01, some cells empty, three pictures in the others."""
    generator = np.random.default_rng(0)
    labels = [
        (camera, number) for camera in range(1, 7) for number in range(1, 31) for _ in range(3) if (number + camera) % 4
    ]
    camera, identity = np.array(labels).T
    modality = np.isin(camera, (3, 6)).astype(np.int64)
    centre = generator.normal(size=(31, 16))
    features = centre[identity] + 1.5 * generator.normal(size=(len(labels), 16))
    return {"features": features.astype(np.float32), "identity": identity, "camera": camera, "modality": modality}


def fitting(pictures, protocol):
    """The pictures with cameras as the protocol's layout has them."""
    camera, modality = pictures["camera"], pictures["modality"]
    own = {"regdb": modality + 1, "llcm": np.where(modality == 1, camera // 3, camera)}
    return {**pictures, "camera": own.get(protocol.partition("/")[0], camera)}


def fixed_permutation(pictures):
    pairs = set(zip(pictures["camera"].tolist(), pictures["identity"].tolist(), strict=True))
    generator = np.random.default_rng(1)
    return {pair: np.stack([generator.permutation(3) + 1 for _ in range(10)]) for pair in pairs}


@pytest.mark.parametrize("name", [name for name in protocol_names() if "/mixed/" not in name])  # see test_mixed.py
def test_every_protocol_agrees_with_the_slow_loop(pictures, name):
    pictures = fitting(pictures, name)
    permutation = fixed_permutation(pictures) if name.endswith("@official") else None
    rules = parse_protocol(name)
    report = score(**pictures, protocol=name, permutation=permutation)
    identity = pictures["identity"]
    unit = pictures["features"].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    trials = draw_trials(name, identity, pictures["camera"], pictures["modality"], permutation=permutation)
    assert len(report.trials) == rules.trials
    for trial, found in list(zip(trials, report.trials, strict=True))[:2]:
        curve, precision, penalty, valid = oracle.evaluate(
            -unit[trial.query] @ unit[trial.gallery].T,
            identity[trial.query],
            trial.query_key,
            identity[trial.gallery],
            trial.gallery_key,
            cmc=rules.cmc,
        )
        assert [found[f"rank{k}"] for k in (1, 5, 10, 20)] == pytest.approx(
            [100 * curve[k - 1] for k in (1, 5, 10, 20)]
        )
        assert (found["map"], found["minp"]) == pytest.approx((100 * precision, 100 * penalty))
        assert found["valid_queries"] == valid
        assert (found["queries"], found["gallery"]) == (len(trial.query), len(trial.gallery))
    odds = []
    for q, key in zip(trials[0].query, trials[0].query_key, strict=True):
        seen = trials[0].gallery[(trials[0].gallery_key != key) | (key == -1)]
        if (identity[seen] == identity[q]).any():
            odds.append((identity[seen] == identity[q]).mean())
    assert chance(trials[0], identity) == pytest.approx(np.mean(odds))
    for metric in METRICS:
        values = [trial[metric] for trial in report.trials]
        assert getattr(report, metric) == pytest.approx(sum(values) / len(values))
        mean = sum(values) / len(values)
        assert report.std[metric] == pytest.approx((sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5)
    assert report.cmc == rules.cmc
    assert 0 < report.chance_rank1 < 100
    assert Report.from_json(json.dumps(report.to_json())) == report


def test_the_json_has_exactly_these_fields(pictures):
    written = score(**fitting(pictures, "llcm"), protocol="llcm/i2v", embedding="pooled", seed=7, flip=True).to_json()
    assert list(written) == [
        "protocol", "rank1", "rank5", "rank10", "rank20", "map", "minp", "trials", "std", "valid_queries", "queries",
        "gallery", "embedding", "flip", "rerank", "seed", "warnings", "distance", "cmc", "chance_rank1",
    ]  # fmt: skip
    assert set(written["trials"][0]) == {*METRICS, "valid_queries", "queries", "gallery"}
    assert set(written["std"]) == set(METRICS)
    assert (written["embedding"], written["flip"], written["rerank"], written["seed"]) == ("pooled", True, "none", 7)
    assert json.loads(json.dumps(written, allow_nan=False)) == written


@pytest.mark.parametrize("text", ["[]", "{", '{"protocol": "regdb/v2i"}', '{"colour": 1}'])
def test_a_report_that_cannot_be_read(text):
    with pytest.raises(BadInput, match="a report's JSON"):
        Report.from_json(text)


def test_perfect_features_score_a_hundred():
    identity = np.repeat(np.arange(30), 4)
    modality = np.tile([0, 0, 1, 1], 30)
    report = score(np.eye(30)[identity], identity, np.ones(120), modality, protocol="regdb/v2i")
    assert [getattr(report, metric) for metric in METRICS] == [100.0] * 6
    assert report.chance_rank1 == pytest.approx(100 * 2 / 60)
    assert report.warnings == (
        "regdb has 206 test identities, 2060 visible and 2060 infrared test pictures as published; here 30, 60 and 60",
    )


def test_chance_is_matches_over_pictures_seen():
    # Query of identity 1 sees three pictures (one hangs in its own place), one of them its own: 1/3.
    # Query of identity 2 sees all four, two of them its own: 1/2. Query of identity 9 has no match and does not count.
    identity = np.array([1, 2, 9, 1, 1, 2, 2])
    trial = Trial(np.arange(3), np.arange(3, 7), np.array([2, -1, 2]), np.array([2, -1, -1, 5]))
    assert chance(trial, identity) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_chance_is_what_random_features_reach(pictures):
    generator = np.random.default_rng(3)
    trials = draw_trials("sysu-mm01/all/multi", pictures["identity"], pictures["camera"], pictures["modality"])[:1]
    expected = 100 * chance(trials[0], pictures["identity"])
    reached = [
        score_trials(generator.normal(size=(len(pictures["identity"]), 64)), pictures["identity"], trials, cmc="image")
        for _ in range(60)
    ]
    assert np.mean([one[0].metrics["rank1"] for one in reached]) == pytest.approx(expected, abs=0.6)


def test_per_query_results_belong_to_their_queries(pictures):
    trials = draw_trials("llcm/v2i", pictures["identity"], pictures["camera"], pictures["modality"])
    (one,) = score_trials(pictures["features"], pictures["identity"], trials[:1], cmc="identity")
    assert one.first.shape == one.precision.shape == one.penalty.shape == (len(one.trial.query),)
    assert 100 * np.mean(one.first[one.first > 0] == 1) == pytest.approx(one.metrics["rank1"])
    assert 100 * np.nanmean(one.precision) == pytest.approx(one.metrics["map"])


def test_sample_order_inside_a_full_test_list_does_not_matter(pictures):
    pictures = fitting(pictures, "regdb")
    order = np.random.default_rng(4).permutation(len(pictures["identity"]))
    shuffled = {name: column[order] for name, column in pictures.items()}
    plain, moved = (score(**columns, protocol="regdb/i2v") for columns in (pictures, shuffled))
    for metric in METRICS:
        assert getattr(moved, metric) == pytest.approx(getattr(plain, metric), abs=1e-9)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_are_welcome(pictures, kind):
    pictures = fitting(pictures, "regdb")
    given = torch.from_numpy(pictures["features"]).to(kind).requires_grad_()
    expected = score(**{**pictures, "features": given.detach().double().numpy()}, protocol="regdb/v2i")
    columns = {name: torch.from_numpy(pictures[name]) for name in ("identity", "camera", "modality")}
    assert score(given, **columns, protocol="regdb/v2i").map == pytest.approx(expected.map, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: {"identity": p["identity"][:-1]}, "identity has shape"),
        (lambda p: {"camera": p["camera"][:, None]}, "camera has shape"),
        (lambda p: {"features": p["features"][0]}, "features have shape"),
        (lambda p: {"features": p["features"][:, :0]}, "features have shape"),
        (lambda p: {"features": p["features"].astype(str)}, "features are <U"),
        (lambda p: {"features": p["features"] + 1j}, "features are complex"),
        (lambda p: {"features": [[1.0], [1.0, 2.0]]}, "features of different lengths"),
        (lambda p: {"modality": p["modality"] * 2}, "has modality 2; choices: 0"),
        (lambda p: {"identity": p["identity"] + 0.5}, "identity: sample 0 is 2.5|identity: sample 0 is 1.5"),
        (lambda p: {"identity": p["identity"].astype(str)}, "identity is <U"),
        (lambda p: {"camera": np.where(p["camera"] == 1, np.nan, p["camera"])}, "camera: sample 0 is nan"),
    ],
)
def test_arrays_that_cannot_be_used(pictures, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        score(**{**pictures, **change(pictures)}, protocol="regdb/v2i")


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "an infinite number")])
def test_a_number_that_is_none_names_its_sample(pictures, value, word):
    features = pictures["features"].copy()
    features[17, 3] = value
    with pytest.raises(BadInput, match=f"sample 17 holds {word}"):
        score(**{**pictures, "features": features}, protocol="regdb/v2i")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocol": "regdb/vi"}, "unknown protocol 'regdb/vi'; did you mean"),
        ({"protocol": "regdb/v2i", "distance": "cosin"}, "did you mean 'cosine'"),
        ({"protocol": "regdb/v2i", "rerank": "k-recip"}, "did you mean 'k-reciprocal'"),
        ({"protocol": "regdb/v2i", "reranker": lambda query, gallery: query @ gallery.T}, "needs a name"),
        ({"protocol": "sysu-mm01/all/single@official"}, "rand_perm_cam.mat"),
        ({"protocol": "sysu-mm01/all/single@official", "permutation": "no/such.mat"}, "cannot be read"),
    ],
)
def test_options_that_cannot_be_used(pictures, options, sentence):
    with pytest.raises(BadInput, match=sentence):
        score(**pictures, **options)


def test_reranked_distances_take_the_place_of_plain_ones(pictures):
    seen = []

    def backwards(query, gallery):
        seen.append((len(query), len(gallery)))
        return -(query @ gallery.T)

    unit = pictures["features"] / np.linalg.norm(pictures["features"], axis=1, keepdims=True)
    columns = {**fitting(pictures, "llcm"), "features": unit}
    plain = score(**columns, protocol="llcm/i2v")
    other = score(**columns, protocol="llcm/i2v", rerank="backwards", reranker=backwards)
    assert seen == [(plain.queries, plain.gallery)] * 10
    assert other.map == pytest.approx(plain.map, abs=1e-3)
    assert any("re-ranked (backwards)" in warning for warning in other.warnings)


def test_warnings_say_what_moves_the_numbers(pictures):
    report = score(**fitting(pictures, "llcm"), protocol="llcm/v2i@swapped")
    assert any("not comparable with llcm/v2i" in warning for warning in report.warnings)
    few = np.flatnonzero(pictures["identity"] <= 7)
    small = score(**{name: column[few] for name, column in pictures.items()}, protocol="sysu-mm01/all/single")
    assert "the gallery has 7 identities: rank10, rank20 say nothing" in small.warnings
    pictures = fitting(pictures, "regdb")
    identity = np.where((pictures["modality"] == 1) & (pictures["identity"] == 2), 99, pictures["identity"])
    lonely = score(**{**pictures, "identity": identity}, protocol="regdb/i2v")
    count = (identity == 99).sum()
    assert lonely.valid_queries == lonely.queries - count
    assert f"{count} of {lonely.queries} queries have no true match left in the gallery and are not counted" in (
        lonely.warnings
    )
    features = pictures["features"].copy()
    features[:4] = 0
    assert any(
        "4 of" in warning for warning in score(**{**pictures, "features": features}, protocol="regdb/i2v").warnings
    )


@pytest.mark.parametrize(("valid", "shown"), [(7, "7 of 9"), (9, "9")])
def test_a_table_says_how_many_queries_count(valid, shown):
    numbers = dict.fromkeys(METRICS, 50.0)
    report = Report("regdb/v2i", **numbers, trials=({},), std=numbers, valid_queries=valid, queries=9, gallery=11)
    head, line = table(report).splitlines()
    assert line[head.index("chance R1") + len("chance R1") :].split() == [*shown.split(), "11", "1"]


def test_tables_warn_across_conventions(pictures):
    names = ["llcm/v2i", "llcm/v2i@swapped", "llcm/i2v", "sysu-mm01/all/single", "sysu-mm01/all/single@agw"]
    reports = [score(**fitting(pictures, name), protocol=name) for name in names]
    assert incomparable(reports) == [
        "llcm/v2i and llcm/v2i@swapped are different conventions: do not compare their numbers"
    ]
    text = table(reports)
    assert "warning: llcm/v2i and llcm/v2i@swapped are different conventions" in text
    assert f"{reports[0].map:.2f} ± {reports[0].std['map']:.2f}" in text
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["protocol", "R1"]
    assert [line.split()[0] for line in lines[1 : 1 + len(names)]] == names
    flipped = score(**fitting(pictures, "llcm"), protocol="llcm/i2v", flip=True, distance="euclidean")
    assert incomparable([reports[2], flipped]) == [
        "llcm/i2v: reports differ in flipped pictures (False, True)",
        "llcm/i2v: reports differ in distance (cosine, euclidean)",
    ]
    assert "llcm/i2v (flip, euclidean)" in table(flipped)
    assert "±" not in table(score(**fitting(pictures, "regdb"), protocol="regdb/v2i"))


def test_a_features_file_comes_back(pictures, tmp_path):
    file = tmp_path / "features.npz"
    np.savez(file, **pictures, notes=np.array(["any"]))
    found = read_features(file)
    assert list(found) == ["features", "identity", "camera", "modality"]
    for name, column in found.items():
        assert (column == pictures[name]).all()


def test_words_for_modalities_and_cameras_score_as_numbers_do(pictures):
    modality = np.array(["RGB", "Thermal"])[pictures["modality"]]
    camera = np.array([f"cam{number}" for number in pictures["camera"]])
    words = {**pictures, "modality": modality, "camera": camera}
    assert score(**words, protocol="sysu-mm01/indoor/single") == score(**pictures, protocol="sysu-mm01/indoor/single")
    encoded = {**words, "modality": modality.astype("S"), "camera": camera.astype(object)}
    assert score(**encoded, protocol="sysu-mm01/indoor/single") == score(**words, protocol="sysu-mm01/indoor/single")
    with pytest.raises(BadInput, match="unknown modality 'termal'; did you mean 'thermal'"):
        score(**{**words, "modality": np.where(modality == "RGB", "rgb", "termal")}, protocol="regdb/v2i")


def test_camera_names_exclude_as_camera_numbers_do(pictures):
    """Queries and gallery share cameras here, so that the protocol leaves out pairs of equal identity and camera."""
    numbers = fitting(pictures, "llcm")
    names = np.array(["", "yard", "entrance", "", "hall", "gate"])[numbers["camera"]]
    rules = replace(parse_protocol("folder/v2i"), exclusion="identity-camera")
    named = score(**{**numbers, "camera": names}, protocol=rules)
    assert named.map == pytest.approx(score(**numbers, protocol=rules).map)
    alone = {**numbers, "camera": np.arange(len(names))}
    assert score(**alone, protocol=rules).map != pytest.approx(named.map)


def test_only_protocols_that_use_cameras_need_them(pictures, tmp_path):
    columns = fitting(pictures, "regdb")
    np.savez(tmp_path / "f.npz", **{name: column for name, column in columns.items() if name != "camera"})
    found = read_features(tmp_path / "f.npz")
    assert found["camera"] is None
    assert score(**found, protocol="regdb/i2v") == score(**columns, protocol="regdb/i2v")
    for name in ("sysu-mm01/all/single", "llcm/v2i"):
        with pytest.raises(BadInput, match=f"protocol {name} depends on the cameras"):
            score(**found, protocol=name)
    with pytest.raises(BadInput, match="depends on the cameras"):
        score(**found, protocol=replace(parse_protocol("folder/v2i"), exclusion="identity-camera"))


def test_cameras_of_another_data_set_are_refused(pictures):
    for name in ("regdb/v2i", "llcm/i2v@full"):
        with pytest.raises(BadInput, match="these look like features of sysu-mm01"):
            score(**pictures, protocol=name)
    with pytest.raises(BadInput, match="the infrared samples have cameras 1, 2"):
        llcm = fitting(pictures, "llcm")
        score(**{**llcm, "camera": np.where(llcm["modality"] == 1, llcm["camera"], 7)}, protocol="regdb/i2v")
    with pytest.raises(BadInput, match="llcm has cameras 1 to 9 of both modalities, but there is camera 10"):
        score(**{**pictures, "camera": pictures["camera"] + 9}, protocol="llcm/i2v")
    with pytest.raises(BadInput, match="cameras of sysu-mm01 are 1 to 6"):
        score(**{**pictures, "camera": pictures["camera"] + 9}, protocol="sysu-mm01/all/single")


def test_counts_that_are_not_the_published_ones_are_said_in_python_too(pictures):
    (said,) = score(**pictures, protocol="sysu-mm01/all/single").warnings
    assert said.startswith("sysu-mm01 has 96 test identities, 6775 visible and 3803 infrared")
    assert not [w for w in score(**pictures, protocol="folder/v2i").warnings if "published" in w]


def test_unlabelled_pictures_are_neither_queries_nor_in_the_gallery(pictures):
    columns = fitting(pictures, "regdb")
    some = np.random.default_rng(5).random(len(columns["identity"])) < 0.3
    some |= columns["identity"] == 1  # a person of whom nothing is known
    marked = {**columns, "identity": np.where(some, UNLABELLED, columns["identity"])}
    without = {name: column[~some] for name, column in columns.items()}
    found, wanted = (score(**given, protocol="regdb/v2i") for given in (marked, without))
    assert (found.map, found.rank1, found.queries, found.gallery) == (
        wanted.map, wanted.rank1, wanted.queries, wanted.gallery,
    )  # fmt: skip
    assert f"{some.sum()} of {len(some)} pictures are unlabelled, and are no queries" in found.warnings


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: None, "cannot be read"),
        (lambda file: file.mkdir(), "cannot be read"),
        (lambda file: file.write_bytes(b""), "not an .npz"),
        (lambda file: file.write_text("features"), "not an .npz"),
        (lambda file: file.write_bytes(b"PK\x03\x04 cut short"), "not an .npz"),
        (lambda file: np.save(file.open("wb"), np.ones(3)), "single array"),
        (
            lambda file: np.savez(file, features=np.eye(2), id=np.ones(2)),
            "no array 'identity'; it has: features, id;",
        ),
        (lambda file: np.savez(file, features=np.array([{}]), identity=1, camera=1, modality=1), "Python objects"),
    ],
)
def test_a_file_that_is_no_features_file(tmp_path, write, sentence):
    file = tmp_path / "features.npz"
    write(file)
    with pytest.raises(BadInput, match=sentence):
        read_features(file)


def test_importing_scoring_needs_neither_torch_nor_numba():
    code = "import sys, vireid.evaluation.scoring; print(sorted({'torch', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
