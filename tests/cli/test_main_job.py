"""The main job through the program: data → train → test → score → rows → cost → report, on all three layouts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.small import LAYOUTS, SECOND
from vireid.cli.main import main
from vireid.data.protocol import default_protocols
from vireid.evaluation.report import Report

METRICS = ("rank1", "rank5", "rank10", "rank20", "map", "minp")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_directory_explains_itself(layout, runs, worlds):
    facts = json.loads((runs[layout] / "run.json").read_text())
    assert facts["recipe"] == "agw" and facts["row"] is None and facts["set"] == list(SECOND)
    assert facts["seed"] == 0 and facts["config"]["trunk"] == "tiny" and facts["config"]["size"] == "64x32"
    assert facts["data"]["layout"] == layout and facts["data"]["fold"] == (1 if layout == "regdb" else None)
    assert facts["data"]["generated"] and facts["data"]["fingerprint"]
    assert {"python", "vireid", "torch"} <= set(facts["versions"]) and facts["hardware"]["cores"]
    assert len((runs[layout] / "log.jsonl").read_text().splitlines()) == 2
    assert (runs[layout] / "last.pt").is_file()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_test_reports_every_protocol_of_the_layout_and_score_agrees(layout, runs, worlds, tmp_path, capsys):
    source, out, features = f"{layout}:{worlds[layout]}", tmp_path / "all.json", tmp_path / "features.npz"
    arguments = ["test", str(runs[layout]), "--data", source, "--workers", "0", "--json", str(out)]
    assert main([*arguments, "--features", str(features)]) == 0
    reports = json.loads(out.read_text())
    assert [report["protocol"].removesuffix("@agw") for report in reports] == default_protocols(layout)
    printed = capsys.readouterr().out
    for report in reports:
        assert all(0 <= report[name] <= 100 for name in METRICS)
        assert set(report["std"]) == set(METRICS) and report["trials"]
        assert report["seed"] == 0 and report["flip"] is False and report["rerank"] == "none"
        assert f"{report['rank1']:.2f}" in printed
        kept = json.loads((runs[layout] / "reports" / f"{report['protocol'].replace('/', '-')}.json").read_text())
        assert kept["report"] == report and kept["measured"]["epochs"] == 2 and kept["examples"]

    for report in reports:
        one = tmp_path / "one.json"
        assert main(["score", str(features), "--protocol", report["protocol"], "--json", str(one)]) == 0
        scored = json.loads(one.read_text())
        assert all(scored[name] == pytest.approx(report[name], abs=1e-9) for name in METRICS)
        assert Report.from_json(scored).to_json() == scored


def test_flip_and_untrained_are_named_in_the_report(runs, worlds, tmp_path):
    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    for flag in ("--flip", "--untrained"):
        arguments = ["test", str(runs["sysu-mm01"]), "--data", source, "--workers", "0", flag]
        protocol = ["--protocol", "sysu-mm01/all/single", "--json", str(tmp_path / "r.json")]
        assert main([*arguments, *protocol]) == 0
        report = json.loads((tmp_path / "r.json").read_text())
        assert report["flip"] is (flag == "--flip")
    names = {file.name for file in (runs["sysu-mm01"] / "reports").iterdir()}
    assert any(name.endswith("-flip.json") for name in names) and any(name.startswith("untrained-") for name in names)


def test_a_model_embeds_what_test_embedded(runs, worlds, tmp_path):
    import vireid
    from vireid.data.pictures import read_picture

    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    arguments = ["test", str(runs["sysu-mm01"]), "--data", source, "--workers", "0"]
    assert main([*arguments, "--features", str(tmp_path / "f.npz")]) == 0
    stored = np.load(tmp_path / "f.npz")
    model = vireid.load(runs["sysu-mm01"])
    records = vireid.records("sysu-mm01", worlds["sysu-mm01"]).where(split="test")
    infrared = np.flatnonzero(records.modality == 1)[:5]
    images = np.stack([read_picture(records.file(sample), model.size).transpose(2, 0, 1) for sample in infrared])
    np.testing.assert_allclose(model.embed(images, 1), stored["features"][infrared], atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(stored["features"][infrared], axis=1), 1, atol=1e-5)
    with pytest.raises(vireid.BadInput, match="this model takes N×3×64×32 uint8"):
        model.embed(images[:, :, :32], 1)
    with pytest.raises(vireid.BadInput, match="modality takes 0"):
        model.embed(images, 2)


def test_the_same_command_gives_the_same_weights_whatever_the_workers_and_the_cache(runs, worlds, tmp_path):
    import torch

    source = f"sysu-mm01:{worlds['sysu-mm01']}"
    arguments = ["train", "agw", "--data", source, "--run", str(tmp_path / "again"), "--workers", "1"]
    assert main([*arguments, "--cache", str(tmp_path / "cache"), "--set", *SECOND]) == 0
    one = torch.load(runs["sysu-mm01"] / "last.pt", weights_only=True)["model"]
    other = torch.load(tmp_path / "again" / "last.pt", weights_only=True)["model"]
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_rows_show_missing_as_missing_and_the_command(tmp_path, capsys):
    assert main(["rows", "agw", "--runs", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert rows["sysu-mm01/all"]["published"]["rank1"] == 47.5 and rows["sysu-mm01/all"]["ours"] is None
    printed = capsys.readouterr().out
    command = "vireid reproduce agw sysu-mm01/all --data sysu-mm01:PATH"
    assert command not in printed and rows["sysu-mm01/all"]["command"] == command
    lines = [line.split() for line in printed.splitlines()]
    first = next(at for at, line in enumerate(lines) if line[:1] == ["all"])
    paper, ours = lines[first : first + 2]
    assert paper == ["all", "sysu-mm01/all/single", "paper", "47.50", "84.39", "92.14", "47.65", "35.30"]
    assert ours == ["ours", *["–"] * 5]
    assert max(map(len, printed.splitlines())) <= 112
    assert main(["rows", "agw", "--runs", str(tmp_path), "--commands"]) == 0
    assert command in capsys.readouterr().out


def test_rows_show_what_the_papers_print_for_other_methods(tmp_path, capsys):
    assert main(["rows", "wrim_net", "--cited", "--json", str(tmp_path / "cited.json")]) == 0
    found = json.loads((tmp_path / "cited.json").read_text())
    (deen,) = [one for one in found if (one["method"], one["protocol"]) == ("DEEN", "llcm/v2i")]
    assert deen["published"] == {"rank1": 62.5, "map": 65.8} and all("ours" not in one for one in found)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "DEEN" in line and "llcm/v2i" in line and "62.50" in line]
    assert line.split() == ["WRIM-Net", "table", "2", "DEEN", "llcm/v2i", "62.50", "–", "–", "–", "65.80", "–"]
    assert "suspect" in printed, "cells that cannot be right have a note"


def test_reproduce_trains_tests_and_shows_paper_beside_ours_and_goes_on_where_it_stopped(worlds, tmp_path, capsys):
    arguments = ["reproduce", "agw", "sysu-mm01/all", "--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--workers", "0"]
    options = ["--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "table.json"), "--set", *SECOND]
    for _ in range(2):
        assert main([*arguments, *options]) == 0
        (row,) = json.loads((tmp_path / "table.json").read_text())
        assert row["published"]["rank1"] == 47.5 and 0 <= row["ours"]["rank1"] <= 100
        assert row["ours"]["generated"] and row["ours"]["set"] == list(SECOND)
        assert row["ours"]["protocol"] == row["on"] == "sysu-mm01/all/single"
    assert "generated world" in capsys.readouterr().out
    assert main(["rows", "agw", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["row"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert rows["sysu-mm01/all"]["ours"]["rank1"] == row["ours"]["rank1"]


def test_cost_counts_a_plain_resnet50_as_published(tmp_path, capsys):
    arguments = ["cost", "agw", "--set", "non_local=null", "--size", "384x144", "--json", str(tmp_path / "cost.json")]
    assert main(arguments) == 0
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert {
        "recipe",
        "row",
        "size",
        "parameters_stored",
        "parameters_path",
        "macs_path",
        "embedding",
        "published",
    } <= set(cost)
    # Trunk 23,508,032 and a 2048-wide neck whose bias is frozen; the second stem is 9,408 + 128 more.
    assert cost["parameters_path"] == 23_508_032 + 2_048
    assert cost["parameters_stored"] == cost["parameters_path"] + 9_408 + 128
    assert cost["macs_path"] == pytest.approx(6.840e9, rel=1e-3)
    assert cost["embedding"] == 2048 and cost["size"] == "384x144"
    assert "23.510 M" in capsys.readouterr().out


def test_a_report_page_holds_the_numbers_and_needs_nothing_beside_it(runs, worlds, tmp_path):
    for layout in ("regdb", "llcm"):
        arguments = ["test", str(runs[layout]), "--data", f"{layout}:{worlds[layout]}", "--workers", "0"]
        assert main([*arguments, "--json", str(tmp_path / f"{layout}.json")]) == 0
    page = tmp_path / "page.html"
    assert main(["report", str(runs["regdb"]), str(runs["llcm"]), "--out", str(page)]) == 0
    text = page.read_text()
    for layout in ("regdb", "llcm"):
        for report in json.loads((tmp_path / f"{layout}.json").read_text()):
            assert report["protocol"] in text and f"{report['rank1']:.2f}" in text
    assert "generated world" in text and "data:image/jpeg;base64," in text
    assert "http://" not in text and "https://" not in text and 'src="/' not in text


def test_data_check_counts_and_writes_json(worlds, tmp_path, capsys):
    for layout in LAYOUTS:
        out = tmp_path / f"{layout}.json"
        assert main(["data", "check", f"{layout}:{worlds[layout]}", "--decode", "--json", str(out)]) == 0
        found = json.loads(out.read_text())
        assert found["counts"]["pictures"] > 0 and not found["problems"]
        printed = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["pictures", f"{found['counts']['pictures']:,}"] in printed
        published = found["expected"].get("train identities")
        told = [line for line in printed if line[:2] == ["train", "identities"]]
        assert told[0][2:] == [str(found["counts"]["train identities"]), *([str(published)] if published else [])]


def test_synthesise_says_what_it_wrote_and_refuses_to_overwrite(tmp_path, capsys):
    arguments = ["data", "synthesise", str(tmp_path / "w"), "--layout", "regdb", "--identities", "4", "--size", "64x32"]
    assert main([*arguments, "--pictures", "2", "--workers", "1"]) == 0
    assert "regdb:" in capsys.readouterr().out
    assert main([*arguments, "--pictures", "2"]) == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.parametrize("layout", ["regdb", "llcm"])
def test_a_world_that_was_killed_is_refused_and_the_same_command_completes_it(layout, tmp_path, capsys):
    world, whole = tmp_path / "world", tmp_path / "whole"
    options = ["--layout", layout, "--identities", "20", "--pictures", "3", "--size", "64x32", "--workers", "1"]
    command = [sys.executable, "-m", "vireid.cli.main", "data", "synthesise", str(world), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(pictures(world)) < 20 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()  # SIGKILL: nothing can be tidied up
    process.communicate()
    assert process.returncode == -signal.SIGKILL and len(pictures(world)) >= 20

    assert main(["data", "check", f"{layout}:{world}"]) == 2
    assert main(["train", "agw", "--data", f"{layout}:{world}", "--run", str(tmp_path / "run")]) == 2
    assert main(["data", "synthesise", str(world), *options, "--seed", "1"]) == 2
    assert "unfinished world of other settings" in capsys.readouterr().err
    assert main(["data", "synthesise", str(world), *options]) == 0
    assert main(["data", "synthesise", str(whole), *options]) == 0
    assert contents(world) == contents(whole)
    assert main(["data", "check", f"{layout}:{world}"]) == 0
    capsys.readouterr()
    assert main(["data", "synthesise", str(world), *options]) == 2  # complete now, and nothing is overwritten
    assert "is not an empty folder" in capsys.readouterr().err


def pictures(world):
    return [file for file in world.rglob("*") if file.suffix in (".jpg", ".bmp")]


def contents(world):
    return {str(file.relative_to(world)): file.read_bytes() for file in world.rglob("*") if file.is_file()}
