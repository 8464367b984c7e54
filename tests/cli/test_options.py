"""What may be asked of a test beyond the plain one: each option is named in the report, in its file and on the page."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from vireid import datasets
from vireid.cli.main import main
from vireid.evaluation.reranking import k_reciprocal
from vireid.evaluation.scoring import read_features, score

SINGLE = "sysu-mm01/all/single"


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the trained run without reports, so that tests do not see each other's."""
    copy = tmp_path / "run"
    shutil.copytree(runs["sysu-mm01"], copy, ignore=shutil.ignore_patterns("reports", "tensorboard"))
    return copy


def measured(run, worlds, *options, layout="sysu-mm01", protocol=SINGLE):
    """The report (or reports) that `vireid test` writes with these options."""
    out = run.parent / "out.json"
    arguments = ["test", str(run), "--data", f"{layout}:{worlds[layout]}", "--workers", "0", "--json", str(out)]
    assert main([*arguments, "--protocol", protocol, *map(str, options)]) == 0
    return json.loads(out.read_text())


NECK, POOLED = "after the neck, length one", "before the neck, length one"
BOTH = "after and before the neck side by side, each of length one"
#   option                           field of the report, and what it says      mark in the file's name
NAMED = {
    "":                              ("rerank",             "none",             ""),
    "--flip":                        ("flip",               True,               "-flip"),
    "--rerank k-reciprocal":         ("rerank",             "k-reciprocal",     "-k-reciprocal"),
    "--rerank query-expansion":      ("rerank",             "query-expansion",  "-query-expansion"),
    "--embedding neck":              ("embedding",          NECK,               ""),
    "--embedding pooled":            ("embedding",          POOLED,             "-pooled"),
    "--embedding both":              ("embedding",          BOTH,               "-both"),
}  # fmt: skip


@pytest.mark.parametrize("options", NAMED)
def test_reports_name_every_option(options, run, worlds):
    field, value, mark = NAMED[options]
    report = measured(run, worlds, *options.split())
    assert report[field] == value
    (kept,) = (run / "reports").iterdir()
    assert kept.name == f"sysu-mm01-all-single{mark}.json"
    assert json.loads(kept.read_text())["report"] == report
    assert any("not comparable with plain" in w for w in report["warnings"]) == (report["rerank"] != "none")


def test_embeddings_are_what_they_say(run, worlds, tmp_path):
    found = {}
    for name in ("neck", "pooled", "both"):
        measured(run, worlds, "--embedding", name, "--features", tmp_path / f"{name}.npz")
        features = read_features(tmp_path / f"{name}.npz")["features"]
        found[name] = features[np.abs(features).sum(axis=1) > 0]
        np.testing.assert_allclose(np.linalg.norm(found[name], axis=1), 1, atol=1e-5)
    assert np.abs(found["neck"] - found["pooled"]).max() > 1e-3
    side_by_side = np.concatenate([found["neck"], found["pooled"]], axis=1) / np.sqrt(2)
    np.testing.assert_allclose(found["both"], side_by_side, atol=1e-5)


def test_score_reranks_features_of_any_model(run, worlds, tmp_path):
    features, out = tmp_path / "f.npz", tmp_path / "r.json"
    measured(run, worlds, "--features", features)
    assert main(["score", str(features), "--protocol", SINGLE, "--rerank", "k-reciprocal", "--json", str(out)]) == 0
    wanted = score(**read_features(features), protocol=SINGLE, rerank="k-reciprocal", reranker=k_reciprocal)
    assert json.loads(out.read_text())["map"] == pytest.approx(wanted.map)


def test_what_differs_between_reports_is_warned_of_on_the_page(run, worlds, tmp_path):
    for options in ([], ["--rerank", "k-reciprocal"], ["--embedding", "pooled"]):
        measured(run, worlds, *options)
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    text = page.read_text()
    assert f"{SINGLE}: reports differ in re-ranking (k-reciprocal, none)" in text
    assert f"{SINGLE}: reports differ in embedding (" in text
    # Three ways of measuring one run are not three seeds.
    assert "run +k-reciprocal" in text and "run +pooled" in text and "mean of" not in text


def test_rows_take_the_plain_report_only(worlds, tmp_path):
    """`vireid rows` puts a number beside the paper's; one that was measured otherwise must not stand there."""
    arguments = ["reproduce", "agw", "sysu-mm01/all", "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--workers", "0"]
    small = ("trunk=tiny", "weights=none", "size=64x32", "identities_per_batch=3", "epochs=1", "epoch_length=1")
    assert main([*arguments, "--runs", str(tmp_path), "--json", str(tmp_path / "t.json"), "--set", *small]) == 0
    (run,) = (file.parent for file in tmp_path.glob("**/run.json"))
    plain = json.loads((tmp_path / "t.json").read_text())[0]["ours"]["rank1"]
    for kept in (run / "reports").iterdir():
        stored = json.loads(kept.read_text())
        stored["measured"]["started"] = "2999-01-01T00:00:00+00:00"  # newer, so it would be taken
        reranked = {**stored, "report": {**stored["report"], "rank1": -1.0, "rerank": "k-reciprocal"}}
        kept.with_name("rerank.json").write_text(json.dumps(reranked))
        pooled = {**stored, "report": {**stored["report"], "rank1": -1.0}}
        pooled["measured"] = {**stored["measured"], "embedding": "pooled"}
        kept.with_name("embedding.json").write_text(json.dumps(pooled))
        best = {**stored, "report": {**stored["report"], "rank1": -1.0}}
        best["measured"] = {**stored["measured"], "checkpoint": "best"}
        kept.with_name("best.json").write_text(json.dumps(best))
        break
    assert main(["rows", "agw", "--runs", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = [r for r in json.loads((tmp_path / "rows.json").read_text()) if r["row"] == "sysu-mm01/all"]
    assert row["ours"]["rank1"] == plain


@pytest.fixture
def permutation(worlds, tmp_path):
    """A file in the official one's form that fits the world."""
    records = datasets.read("sysu-mm01", worlds["sysu-mm01"])
    pairs = zip(records.camera.tolist(), records.identity.tolist(), strict=True)
    generator = np.random.default_rng(0)
    cells = np.empty((6, 1), dtype=object)
    for camera in range(6):
        cells[camera, 0] = np.empty((1, records.identity.max()), dtype=object)
        for place in range(cells[camera, 0].size):
            cells[camera, 0][0, place] = np.empty((0, 0))
    for (camera, identity), count in Counter(pairs).items():
        cells[camera - 1, 0][0, identity - 1] = np.stack([generator.permutation(count) + 1.0 for _ in range(10)])
    file = tmp_path / "rand_perm_cam.mat"
    pytest.importorskip("scipy.io").savemat(file, {"rand_perm_cam": cells})
    return file


def test_a_permutation_is_evaluated_beside_agws_draw(run, worlds, permutation, tmp_path, capsys):
    agw, official = measured(run, worlds, "--permutation", permutation, "--features", tmp_path / "f.npz")
    assert (agw["protocol"], official["protocol"]) == (f"{SINGLE}@agw", f"{SINGLE}@official")
    wanted = f"{SINGLE}: official permutation minus AGW's draw: R1 {official['rank1'] - agw['rank1']:+.2f}"
    warning = f"warning: {SINGLE} and {SINGLE}@official are different conventions: do not compare their numbers"
    printed = capsys.readouterr().out
    assert wanted in printed and warning in printed and f"mAP {official['map'] - agw['map']:+.2f}" in printed

    out = tmp_path / "s.json"
    options = ["--permutation", str(permutation), "--json", str(out)]
    assert main(["score", str(tmp_path / "f.npz"), "--protocol", SINGLE, *options]) == 0
    printed = capsys.readouterr().out
    assert wanted in printed and warning in printed
    assert [r["map"] for r in json.loads(out.read_text())] == pytest.approx([agw["map"], official["map"]])
    # Asked for by name, one draw is one report.
    assert measured(run, worlds, "--permutation", permutation, protocol=f"{SINGLE}@official") == official

    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    assert warning.removeprefix("warning: ") in page.read_text()


def test_every_sysu_protocol_has_both_draws_and_reverse_has_its_own(run, worlds, permutation):
    arguments = ["test", str(run), "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--workers", "0"]
    out = run.parent / "all.json"
    assert main([*arguments, "--permutation", str(permutation), "--json", str(out)]) == 0
    names = [report["protocol"] for report in json.loads(out.read_text())]
    assert sorted(names) == sorted(
        f"sysu-mm01/{mode}/{shot}@{draw}"
        for mode in ("all", "indoor") for shot in ("single", "multi") for draw in ("agw", "official")
    )  # fmt: skip


def test_a_breakdown_is_written_kept_printed_and_shown(run, worlds, tmp_path, capsys):
    out = tmp_path / "pieces.json"
    report = measured(run, worlds, "--breakdown", out)
    pieces = json.loads(out.read_text())
    assert pieces["protocol"] == SINGLE
    weights = [one["queries"] for one in pieces["identities"]]
    assert np.average([one["map"] for one in pieces["identities"]], weights=weights) == pytest.approx(report["map"])
    blind = next(p for p in pieces["pairs"] if (p["query_camera"], p["gallery_camera"]) == (3, 2))
    assert blind == {"query_camera": 3, "gallery_camera": 2, "rank1": None, "map": None, "queries": 0}
    assert all((worlds["sysu-mm01"] / one["path"]).is_file() for one in pieces["worst"]) and pieces["worst"]
    kept = json.loads((run / "reports" / "sysu-mm01-all-single.json").read_text())
    assert kept["breakdown"] == pieces
    printed = capsys.readouterr().out
    assert "camera 3 → camera 2: no query counts" in printed and pieces["worst"][0]["path"] in printed
    page = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    text = page.read_text()
    assert "by cameras, and the worst queries" in text and pieces["worst"][-1]["path"] in text


FEATURES = ["score", "f.npz", "--protocol", "regdb/v2i"]
#   what is wrong                        what is asked                                   what the sentence says
MISTAKES = {
    "a re-ranking of no such name":      (["test", "--rerank", "k-recip"],               ["'k-recip'", "k-reciprocal"]),
    "an embedding of no such name":      (["test", "--embedding", "nek"],                ["'nek'", "neck", "pooled"]),
    "a checkpoint of no such name":      (["test", "--checkpoint", "bset"],              ["'bset'", "best"]),
    "the best of a run not validated":   (["test", "--checkpoint", "best"],              ["no best.pt", "--validate"]),
    "a permutation that is not there":   (["test", "--permutation", "no.mat"],           ["no.mat", "rand_perm_cam"]),
    "a permutation for other layouts":   ([*FEATURES, "--permutation", "x"],             ["is for sysu-mm01/all"]),
    "re-ranking another distance":       ([*FEATURES, "--rerank", "k-reciprocal", "--distance", "euclidean"],
                                                                                         ["by cosine", "euclidean"]),
    "a breakdown below a file":          (["test", "--protocol", SINGLE, "--breakdown", "file/b.json"],
                                                                                         ["cannot write file/b.json"]),
    "features below a file":             (["test", "--protocol", SINGLE, "--features", "file/f.npz"],
                                                                                         ["cannot write file/f.npz"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake, run, worlds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    np.savez(tmp_path / "f.npz", features=np.eye(4), identity=[1, 2, 1, 2], camera=[1] * 4, modality=[0, 0, 1, 1])
    (verb, *options), words = MISTAKES[mistake]
    if verb == "test":
        options = [str(run), "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--workers", "0", *options]
    assert main([verb, *options]) == 2
    error = capsys.readouterr().err
    (sentence,) = [line for line in error.splitlines() if line.startswith("vireid: ")]
    assert "Traceback" not in error and all(word in sentence for word in words), sentence


def test_a_recipe_without_a_feature_before_its_neck_says_so():
    from torch import nn

    from vireid.data.errors import BadInput
    from vireid.model import embedder

    class Bare(nn.Module):
        def embed(self, images, modality):
            return images

    assert embedder(Bare())(1, 2) == 1
    for which in ("pooled", "both"):
        with pytest.raises(BadInput, match=f"no embedding '{which}'.*choices: neck"):
            embedder(Bare(), which)


def test_score_says_if_the_pictures_are_not_those_that_the_protocol_is_published_for(tmp_path, capsys):
    """Features of RegDB's size give no warning; those of another data set, and a part of them, do."""
    columns = {"identity": np.tile(np.arange(206), 20), "camera": np.repeat([1, 2], 2060)}
    columns |= {"modality": np.repeat([0, 1], 2060), "features": np.ones((4120, 2), np.float32)}
    columns["features"][:, 1] = np.arange(4120)
    np.savez(tmp_path / "whole.npz", **columns)
    np.savez(tmp_path / "part.npz", **{name: column[:-1] for name, column in columns.items()})
    words = "regdb has 206 test identities, 2060 visible and 2060 infrared test pictures as published"
    assert main(["score", str(tmp_path / "whole.npz"), "--protocol", "regdb/v2i"]) == 0
    assert words not in capsys.readouterr().out
    out = tmp_path / "part.json"
    assert main(["score", str(tmp_path / "part.npz"), "--protocol", "regdb/v2i", "--json", str(out)]) == 0
    assert f"warning: regdb/v2i: {words}; here 206, 2060 and 2059" in capsys.readouterr().out
    assert any(words in warning for warning in json.loads(out.read_text())["warnings"])


def test_features_without_a_direction_are_named(tmp_path, capsys):
    columns = {"identity": [1, 2, 1, 2], "camera": [1, 1, 2, 2], "modality": [0, 0, 1, 1]}
    np.savez(tmp_path / "zeros.npz", features=np.zeros((4, 3)), **columns)
    assert main(["score", str(tmp_path / "zeros.npz"), "--protocol", "regdb/v2i"]) == 0
    assert "warning: regdb/v2i: 4 of 4 features are all zeros" in capsys.readouterr().out
