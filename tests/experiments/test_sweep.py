"""`vireid sweep`: combinations, what is trained for them, and the table over seeds."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest

from tests.documents.pages import ROOT
from tests.small import SECOND
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.experiments.sweep import SweepOptions, axes, plan, split_values, sweep

SMALL = (*SECOND, "epochs=1", "epoch_length=1")
# CMKIC takes four positives of the other modality, so there must be four.
WRIM = ("miim=[null,separate,shared,shared]", *SMALL, "visible_per_identity=4", "infrared_per_identity=4")
PROTOCOL = "sysu-mm01/all/single"
METRICS = ("rank1", "rank5", "rank10", "rank20", "map", "minp")


def test_values_in_brackets_stay_whole():
    assert split_values("[4,8],[6]") == ["[4,8]", "[6]"]
    assert split_values(" a , {x: [1,2], y: 3},null,a") == ["a", "{x: [1,2], y: 3}", "null"]
    assert split_values("'a,[b',\"c,d\",it's") == ["'a,[b'", '"c,d"', "it's"]
    assert axes(["schedule.milestones=[4,8],[6]", "seed=0,2-3"]) == {
        "schedule.milestones": ["[4,8]", "[6]"],
        "seed": ["0", "2", "3"],
    }


WRONG = {
    "no equals": (["epochs"], "FIELD=VALUE,VALUE"),
    "no value": (["epochs="], "FIELD=VALUE,VALUE"),
    "an empty value": (["epochs=1,,2"], "empty value"),
    "a bracket that stays open": (["miim=[null,shared"], "no closing ]"),
    "a bracket that was not opened": (["miim=1],2"], "not opened"),
    "a field twice": (["epochs=1", "epochs=2"], "twice"),
    "seeds of another form": (["seed=a"], "--over seed 'a' is not of the form"),
    "an unknown field": (["epoch=1,2"], "unknown field 'epoch'; did you mean 'epochs'"),
    "a value that is not allowed": (["flip.p=0.5,7"], "'flip.p' cannot be '7'"),
    "a field that is set too": (["trunk=tiny,resnet50"], "'trunk' is given by --over and by --set"),
    "a field of a part that nobody has": (
        ["erasing=null", "erasing.p=0.1,0.2"],
        "to use 'p' set erasing=",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_said_before_anything_is_trained(mistake, worlds, tmp_path):
    over, words = WRONG[mistake]
    asked = SweepOptions("agw", f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "runs", tuple(over), SMALL)
    with pytest.raises(BadInput) as told:
        sweep(asked)
    assert words in str(told.value)
    assert not (tmp_path / "runs").exists()


def test_combinations_of_equal_configuration_are_one(worlds, tmp_path):
    over = ("erasing=null,RandomErasing", "erasing.p=0.5,0.25", "seed=0-1")
    asked = SweepOptions("agw", f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path, over, SMALL, ("sysu-mm01",))
    planned = plan(asked)
    values = [tuple(one.values.values()) for one in planned.combinations]
    assert values == [("null", None), ("RandomErasing", "0.5"), ("RandomErasing", "0.25")]
    assert [[one.config["seed"] for one in each.trainings] for each in planned.combinations] == [[0, 1]] * 3
    assert len(planned.protocols) == 4, "a layout stands for its usual protocols"
    assert any("erasing.p=0.5 does not apply" in note for note in planned.notes)
    assert any(f"every combination: {', '.join(SMALL)}" == note for note in planned.notes)


def test_folds_are_trained_apart(worlds, tmp_path):
    data = f"regdb:{worlds['regdb']}"
    (one,) = plan(SweepOptions("agw", data, tmp_path, ("seed=0-1",), SMALL, folds="1,3")).combinations
    assert [(each.config["seed"], each.pictures.fold) for each in one.trainings] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert one.label == "agw" and one.values == {}
    with pytest.raises(BadInput, match="folds 1 to 10"):
        plan(SweepOptions("agw", data, tmp_path, ("seed=0",), SMALL, folds="11"))


def arguments(worlds, folder, *over, given=WRIM, recipe="wrim_net"):
    where = ["--data", f"sysu-mm01:{worlds['sysu-mm01']}", "--runs", str(folder / "runs"), "--workers", "0"]
    return ["sweep", recipe, *where, "--protocol", PROTOCOL, "--over", *over, "--set", *given]


ABLATION = ("contrast.top_k=2,4", "optimiser.lr=1e-3,3e-4", "seed=0-2")


def printed_command() -> str:
    """The ablation of WRIM-Net as docs/sweep.md has it."""
    text = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")
    (found,) = (line for line in text.splitlines() if line.startswith("vireid sweep wrim_net "))
    return found


@pytest.fixture(scope="module")
def ablation(worlds, tmp_path_factory):
    """WRIM-Net without MIIM at stage 1, K = 2 and 4, two rates, three seeds: the page's command on a smaller world."""
    folder = tmp_path_factory.mktemp("ablation")
    program, *words = printed_command().split()
    given = words[words.index("--set") + 1 :]
    assert (program, tuple(words[: len(words) - len(given) - 1])[-len(ABLATION) :]) == ("vireid", ABLATION)
    files = [word for ending in ("csv", "md", "tex", "txt") for word in ("--out", str(folder / f"t.{ending}"))]
    command = arguments(worlds, folder, *ABLATION, given=(*given, *WRIM))
    assert main([*command, *files, "--json", str(folder / "t.json")]) == 0
    return folder


def test_the_ablation_is_one_short_command():
    command = printed_command()
    assert len(command) < 200
    assert "miim=[null,separate,shared,shared]" in command and all(word in command.split() for word in ABLATION)


def reports(folder):
    """(K, rate, seed) → the report that was kept for it."""
    found = {}
    for file in folder.glob("runs/**/run.json"):
        config = json.loads(file.read_text())["config"]
        kept = json.loads((file.parent / "reports" / f"{PROTOCOL.replace('/', '-')}.json").read_text())
        assert config["miim"] == [None, "separate", "shared", "shared"]
        assert kept["breakdown"]["identities"]
        found[config["contrast"]["top_k"], config["optimiser"]["lr"], config["seed"]] = kept["report"]
    return found


def test_the_ablation_is_one_table(ablation):
    kept = reports(ablation)
    assert sorted(kept) == [(k, lr, seed) for k in (2, 4) for lr in (3e-4, 1e-3) for seed in (0, 1, 2)]
    rows = list(csv.DictReader(io.StringIO((ablation / "t.csv").read_text())))
    assert [row["numbers"] for row in rows] == ["run"] * 12 + ["mean"] * 4 + ["difference"] * 3
    for row in rows[:12]:
        report = kept[int(row["contrast.top_k"]), float(row["optimiser.lr"]), int(row["seed"])]
        assert [float(row[name]) for name in METRICS] == [report[name] for name in METRICS]
    seeds = {pair: [kept[(*pair, seed)] for seed in (0, 1, 2)] for pair in {key[:2] for key in kept}}
    for row in rows[12:16]:
        assert row["seed"] == "0; 1; 2"
        for name in METRICS:
            values = [report[name] for report in seeds[int(row["contrast.top_k"]), float(row["optimiser.lr"])]]
            assert float(row[name]) == pytest.approx(statistics.mean(values))
            assert float(row[f"{name}_std"]) == pytest.approx(statistics.pstdev(values))
            assert float(row[f"{name}_interval"]) == pytest.approx(4.303 * statistics.stdev(values) / 3**0.5)
    for row in rows[16:]:
        assert row["minus"] == "contrast.top_k=2, optimiser.lr=1e-3"
        pair = int(row["contrast.top_k"]), float(row["optimiser.lr"])
        for name in METRICS:
            both = zip(seeds[pair], seeds[2, 1e-3], strict=True)
            values = [one[name] - first[name] for one, first in both]
            assert float(row[name]) == pytest.approx(statistics.mean(values))
            assert float(row[f"{name}_interval"]) == pytest.approx(4.303 * statistics.stdev(values) / 3**0.5)


def test_every_format_has_the_table(ablation):
    for ending in ("md", "tex", "txt"):
        text = (ablation / f"t.{ending}").read_text("utf-8")
        assert "miim=[null,separate,shared,shared]" in text.replace("\\", "")
        assert text.count("1e-3") >= 2 and text.count("3e-4") >= 2 and "generated world" in text
        assert "settings" not in text
    stored = json.loads((ablation / "t.json").read_text())
    assert stored["fields"] == ["contrast.top_k", "optimiser.lr"] and len(stored["combinations"]) == 4
    assert [one["metrics"]["map"]["seeds"] for one in stored["differences"][PROTOCOL]] == [[0, 1, 2]] * 3


def test_two_numbers_that_are_varied_are_two_curves_with_two_lines_each(ablation):
    """The points are the means of the table."""
    kept = reports(ablation)
    stored = json.loads((ablation / "runs" / "figures" / "figures.json").read_text())
    assert sorted(stored) == ["curves-contrast-top_k", "curves-optimiser-lr"]
    lines = stored["curves-contrast-top_k"]["numbers"]["lines"]
    assert sorted(lines) == ["optimiser.lr=0.0003", "optimiser.lr=0.001"]
    for lr in (3e-4, 1e-3):
        for k, point in zip((2, 4), lines[f"optimiser.lr={lr}"], strict=True):
            assert point["value"] == k
            for name in METRICS:
                values = [kept[k, lr, seed][name] for seed in (0, 1, 2)]
                assert point["metrics"][name] == pytest.approx(statistics.mean(values))
                assert point["bars"][name] == pytest.approx(4.303 * statistics.stdev(values) / 3**0.5)
    assert all((ablation / "runs" / "figures" / file).exists() for one in stored.values() for file in one["files"])


def test_a_second_call_trains_what_is_new_and_says_what_failed(ablation, worlds, capsys):
    before = {file: file.stat().st_mtime_ns for file in ablation.glob("runs/**/last.pt")}
    # Five pictures of a person and modality in a step give four positives, and 99 are not there.
    code = main(arguments(worlds, ablation, "contrast.top_k=2,99,4", "seed=0", given=(*WRIM, "optimiser.lr=1e-3")))
    printed = capsys.readouterr()
    assert code == 2
    assert "3 trainings, 2 there already" in printed.err
    assert (
        printed.err.splitlines()[-1] == "vireid: failed: contrast.top_k=99, seed 0; the reasons stand below the table"
    )
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["99", "–", "–", "–", "–"] in lines
    assert "failed: contrast.top_k=99, seed 0: " in " ".join(printed.out.split())
    assert {file: file.stat().st_mtime_ns for file in before} == before
    curve = json.loads((ablation / "runs" / "figures" / "figures.json").read_text())["curves-contrast-top_k"]
    assert [point["value"] for point in curve["numbers"]["lines"][""]] == [2, 4], "99 was not trained"
    assert "generated pictures, not real ones" in curve["caption"]


def test_a_run_that_was_stopped_goes_on(ablation, worlds, tmp_path, capsys):
    """What `kill -9` leaves: a run without a measurement, and one that has begun."""
    runs = sorted(file.parent for file in ablation.glob("runs/**/run.json"))
    held = {json.dumps(json.loads((run / "run.json").read_text())["config"]): run for run in runs}
    stopped = next(run for config, run in held.items() if '"top_k": 4' in config and '"seed": 2' in config)
    report = next((stopped / "reports").iterdir())
    before, numbers = (stopped / "last.pt").stat().st_mtime_ns, json.loads(report.read_text())["report"]
    report.unlink()
    assert main(arguments(worlds, ablation, *ABLATION)) == 0
    assert "12 trainings, 11 there already" in capsys.readouterr().err
    assert json.loads(report.read_text())["report"] == numbers
    assert (stopped / "last.pt").stat().st_mtime_ns == before, "it was trained already"


def test_a_file_without_a_known_ending_is_refused_before_the_work(worlds, tmp_path, capsys):
    command = arguments(worlds, tmp_path, "seed=0", given=SMALL, recipe="agw")
    assert main([*command, "--out", str(tmp_path / "t.pdf")]) == 2
    assert "t.pdf: no format has the ending '.pdf'; give --format" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
