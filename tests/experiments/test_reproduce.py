"""`vireid reproduce`: each configuration is trained once, and every row shows what belongs to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.small import SECOND
from vireid import recipes
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.reproduce import ReproduceOptions, plan, reproduce
from vireid.experiments.trainings import distinct, numbers
from vireid.training.progress import Quiet

SMALL = (*SECOND, "epochs=1")


def command(worlds, layout, runs, recipe, table, *options, given=SMALL):
    where = ["--data", f"{layout}:{worlds[layout]}", "--runs", str(runs), "--workers", "0"]
    return ["reproduce", recipe, table, *where, *map(str, options), "--set", *given]


def trained(folder):
    return sorted(file.parent for file in folder.glob("**/run.json"))


def weights(folder):
    return {file.parent: file.stat().st_mtime_ns for file in folder.glob("**/last.pt")}


@pytest.fixture(scope="module")
def wrim(worlds, tmp_path_factory):
    """Table 1 of WRIM-Net on the layout of SYSU-MM01."""
    folder = tmp_path_factory.mktemp("wrim")
    files = ["--json", folder / "t.json", "--out", folder / "t.md", "--out", folder / "t.html"]
    # CMKIC takes four positives of the other modality, so there must be four.
    given = (*SMALL, "visible_per_identity=4", "infrared_per_identity=4")
    assert main(command(worlds, "sysu-mm01", folder / "runs", "wrim_net", "table1", *files, given=given)) == 0
    return folder


def test_rows_of_one_configuration_are_one_training_and_other_layouts_are_skipped(wrim):
    found = {one["row"]: one for one in json.loads((wrim / "t.json").read_text())}
    assert len(trained(wrim / "runs")) == 1
    shown = [name for name, one in found.items() if one["ours"]]
    assert shown == [f"table1/{name}" for name in ("all-single", "all-multi", "indoor-single", "indoor-multi")]
    for name in shown:
        one = found[name]
        assert one["ours"]["protocol"] == one["on"] and one["skipped"] is None and one["published"]["rank1"] > 70
        (run,) = trained(wrim / "runs")
        report = json.loads((run / "reports" / f"{one['on'].replace('/', '-')}.json").read_text())["report"]
        metrics = ("rank1", "rank5", "rank10", "rank20", "map", "minp")
        assert [one["ours"][metric] for metric in metrics] == [report[metric] for metric in metrics]
    for name in ("table1/regdb-v2i", "table1/regdb-i2v"):
        assert found[name]["ours"] is None and found[name]["skipped"] == "printed for regdb; the data are sysu-mm01"
        assert found[name]["published"]["rank1"] > 90


def test_the_files_show_the_four_rows_and_what_was_skipped(wrim):
    for name in ("t.md", "t.html"):
        text = (wrim / name).read_text("utf-8")
        assert all(number in text for number in ("77.40", "71.10", "88.10", "92.10")) and "generated" in text
        assert "94.50" not in text and "skipped: printed for regdb" in text
        assert "difference" not in text, "the paper did not use these pictures"


def test_a_row_of_another_layout_asked_for_by_name_has_no_printed_numbers(worlds, tmp_path, capsys):
    arguments = command(worlds, "regdb", tmp_path / "runs", "agw", "llcm/i2v", "--folds", "1", "--json", tmp_path / "t")
    assert main(arguments) == 0
    (one,) = json.loads((tmp_path / "t").read_text())
    assert (one["published"], one["on"], one["ours"]["protocol"]) == ({}, "llcm/i2v", "regdb/v2i")
    assert "46.4" not in capsys.readouterr().out
    assert any("the paper's numbers are for llcm/i2v" in note for note in one["notes"])
    assert main(["rows", "agw", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows")]) == 0
    for row in json.loads((tmp_path / "rows").read_text()):
        assert row["ours"] is None or row["ours"]["protocol"] == (row["on"] or "regdb/v2i"), row["row"]


@pytest.fixture(scope="module")
def regdb(worlds, tmp_path_factory):
    """Table 5 of the fusion paper on two folds of the layout of RegDB."""
    folder = tmp_path_factory.mktemp("regdb")
    options = ["--folds", "1-2", "--json", folder / "t.json"]
    assert main(command(worlds, "regdb", folder / "runs", "fusion_dml", "table5", *options)) == 0
    return folder


def test_two_folds_are_two_trainings_for_both_directions_and_the_mean_is_the_folds_mean(regdb, worlds, capsys):
    runs = trained(regdb / "runs")
    assert [json.loads((run / "run.json").read_text())["data"]["fold"] for run in runs] == [1, 2]
    for one in json.loads((regdb / "t.json").read_text()):
        direction = one["on"].partition("/")[2]
        reports = [json.loads((run / "reports" / f"regdb-{direction}.json").read_text())["report"] for run in runs]
        for metric in ("rank1", "map", "minp"):
            values = [report[metric] for report in reports]
            assert one["ours"][metric] == pytest.approx(np.mean(values))
            assert one["ours"]["std"][metric] == pytest.approx(np.std(values))
        assert (one["ours"]["folds"], one["ours"]["of_folds"], one["ours"]["seeds"]) == ([1, 2], 10, [0])
    again = ["--folds", "1,2", "--json", regdb / "again.json"]
    before = weights(regdb / "runs")
    assert main(command(worlds, "regdb", regdb / "runs", "fusion_dml", "table5", *again)) == 0
    shown = capsys.readouterr()
    assert "2 of 10 folds" in shown.out and "2 trainings, 2 there already" in shown.err
    assert weights(regdb / "runs") == before
    assert json.loads((regdb / "again.json").read_text()) == json.loads((regdb / "t.json").read_text())


def test_one_direction_measures_the_other_one_too(regdb, worlds):
    asked = ReproduceOptions("fusion_dml", f"regdb:{worlds['regdb']}", "table5/v2i", regdb / "runs", SMALL, "1")
    ((only,),) = (row.trainings for row in plan(asked))
    assert only.protocols == ("regdb/v2i", "regdb/i2v")


def test_a_run_of_another_directory_and_another_row_is_used(regdb, worlds, tmp_path, capsys):
    (regdb / "runs").rename(tmp_path / "moved")
    try:
        asked = command(
            worlds, "regdb", tmp_path, "fusion_dml", "table6/all", "--folds", "1-2", "--json", tmp_path / "t"
        )
        assert main(asked) == 0
        assert "2 trainings, 2 there already" in capsys.readouterr().err
        (one,) = json.loads((tmp_path / "t").read_text())
        assert one["ours"]["protocol"] == "regdb/v2i" and one["published"] == {}
    finally:
        (tmp_path / "moved").rename(regdb / "runs")


def test_seeds_are_trained_apart_and_have_an_interval(worlds, tmp_path, capsys):
    options = ["--seeds", "0-1", "--json", tmp_path / "t.json"]
    assert main(command(worlds, "sysu-mm01", tmp_path / "runs", "agw", "sysu-mm01", *options)) == 0
    assert len(trained(tmp_path / "runs")) == 2
    for one in json.loads((tmp_path / "t.json").read_text()):
        ours = one["ours"]
        name = one["on"].replace("/", "-")
        values = [
            json.loads((run / "reports" / f"{name}.json").read_text())["report"]["map"] for run in trained(tmp_path)
        ]
        assert ours["seeds"] == [0, 1] and ours["folds"] == [] and ours["map"] == pytest.approx(np.mean(values))
        assert ours["interval"]["map"] == pytest.approx(12.706 * np.std(values, ddof=1) / 2**0.5)
    assert "95 % interval" in capsys.readouterr().out


@pytest.mark.slow
def test_two_seeds_at_once(worlds, tmp_path, capsys):
    """The lines say that both begin before one is done, and the row has the mean of both."""
    command = ["reproduce", "wrim_net", "table3/full", "--data", f"llcm:{worlds['llcm']}", "--runs", str(tmp_path)]
    command += ["--seeds", "0,1", "--jobs", "2", "--workers", "0", "--set", *SECOND, "epochs=1", "contrast.top_k=2"]
    assert main(command) == 0
    lines = capsys.readouterr().err.splitlines()
    begun = [next(i for i, line in enumerate(lines) if line.startswith(f"training {place} of 2")) for place in (1, 2)]
    assert begun[1] == begun[0] + 1
    assert len(list(tmp_path.glob("**/reports/llcm-i2v.json"))) == 2


def test_when_one_training_fails_the_others_go_on_and_the_row_says_why(worlds, tmp_path, capsys):
    blocked = tmp_path / "runs"
    asked = ReproduceOptions("fusion_dml", f"regdb:{worlds['regdb']}", "table5", blocked, SMALL, "1-2", workers=0)
    first = distinct([one for row in plan(asked) for one in row.trainings])[0]
    occupied = first.directory(blocked)
    occupied.mkdir(parents=True)
    (occupied / "something else").write_text("a file of the user")
    arguments = command(
        worlds, "regdb", blocked, "fusion_dml", "table5", "--folds", "1-2", "--json", tmp_path / "t.json"
    )
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "failed: table5/v2i, table5/i2v" in shown.err and "1 done in" in shown.err
    assert "Traceback" not in shown.err, "a mistake of the user"
    assert "1 of 10 folds" in shown.out and "is not an empty directory" in shown.out
    assert (occupied / "something else").read_text() == "a file of the user"
    (occupied / "something else").unlink()
    assert main(arguments) == 0
    assert all(
        one["failed"] is None and len(one["ours"]["folds"]) == 2
        for one in json.loads((tmp_path / "t.json").read_text())
    )


@pytest.mark.process
def test_killed_in_the_middle_it_ends_as_if_it_had_not_been(regdb, worlds, tmp_path):
    options = ["--folds", "1-2", "--json", tmp_path / "t.json"]
    arguments = command(worlds, "regdb", tmp_path / "runs", "fusion_dml", "table5", *options)
    process = subprocess.Popen(
        [sys.executable, "-m", "vireid.cli.main", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        ends = time.monotonic() + 120
        while len(trained(tmp_path)) < 2 and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.005)
        assert len(trained(tmp_path)) == 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    first = trained(tmp_path)[0]
    before = weights(tmp_path)[first]
    assert main(arguments) == 0
    assert weights(tmp_path)[first] == before
    one, other = (json.loads((folder / "t.json").read_text()) for folder in (regdb, tmp_path))
    numbers = [[{m: row["ours"][m] for m in ("rank1", "map", "std")} for row in found] for found in (one, other)]
    assert numbers[0] == numbers[1]


def test_a_change_that_does_not_apply_to_a_row_is_left_out_there_and_said(worlds, tmp_path):
    asked = ReproduceOptions(
        "fusion_dml", f"sysu-mm01:{worlds['sysu-mm01']}", "table1", tmp_path, (*SMALL, "fusion.width=8"), workers=0
    )
    rows = {row.name: row for row in plan(asked)}
    assert "fusion.width=8" not in rows["table1/baseline"].set
    assert rows["table1/baseline"].notes == (
        "fusion.width=8 does not apply: field 'fusion' is null; to use 'width' set fusion=Fusion as well",
    )
    full = rows["table1/full"]
    assert "fusion.width=8" in full.set and full.trainings[0].config["fusion"]["width"] == 8 and not full.notes
    with pytest.raises(BadInput, match="'fusion' is null"):
        plan(ReproduceOptions("fusion_dml", asked.data, "table1/baseline", tmp_path, ("fusion.width=8",)))
    with pytest.raises(BadInput, match=r"unknown field 'fusion\.widht'"):
        plan(ReproduceOptions("fusion_dml", asked.data, "table1", tmp_path, ("fusion.widht=8",)))


@pytest.mark.parametrize("recipe", recipes.recipes())
def test_every_recipe_needs_fewer_trainings_than_rows(recipe, worlds, tmp_path):
    table = recipes.recipe(recipe).ROWS
    for layout in ("sysu-mm01", "regdb", "llcm"):
        asked = ReproduceOptions(
            recipe, f"{layout}:{worlds[layout]}", "", tmp_path, folds="1" if layout == "regdb" else None
        )
        rows = plan(asked)
        needed = distinct([one for row in rows for one in row.trainings])
        own = [row for row in table.values() if row.on is None or row.on.startswith(f"{layout}/")]
        assert len([row for row in rows if row.trainings]) == len(own)
        configurations = [row.config for row in own]
        assert len(needed) == sum(config not in configurations[:place] for place, config in enumerate(configurations))
        assert all(row.protocol.startswith(f"{layout}/") for row in rows if row.trainings)
        assert all((row.skipped is None) == bool(row.trainings) for row in rows)


def test_nothing_is_trained_for_a_table_that_is_skipped_whole(worlds, tmp_path):
    asked = ReproduceOptions("wrim_net", f"regdb:{worlds['regdb']}", "table3", tmp_path, workers=0)
    found = reproduce(asked, Quiet())
    assert len(found) == 4 and all(one.skipped and one.ours is None for one in found)
    assert trained(tmp_path) == []


@pytest.mark.parametrize(("text", "found"), [("0,1,2", [0, 1, 2]), ("0-2", [0, 1, 2]), ("7", [7]), ("3, 1", [1, 3])])
def test_which_seeds(text, found):
    assert numbers(text, "--seeds", 0, None, "seeds are whole numbers from 0") == found


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0-99999999"])
def test_seeds_that_are_none(text, worlds, tmp_path):
    with pytest.raises(BadInput, match=r"^--seeds '"):
        plan(ReproduceOptions("agw", f"sysu-mm01:{worlds['sysu-mm01']}", "sysu-mm01", tmp_path, seeds=text))


def test_folds_of_a_layout_with_one_are_refused(worlds, tmp_path):
    with pytest.raises(BadInput, match="sysu-mm01 has one fold"):
        plan(ReproduceOptions("agw", f"sysu-mm01:{worlds['sysu-mm01']}", "sysu-mm01", tmp_path, folds="1"))
