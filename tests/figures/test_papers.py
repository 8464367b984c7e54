"""`vireid figures --paper`: which runs a paper's figures show, what is missing, and what the commands say."""

from __future__ import annotations

import functools
import json
import shlex
from dataclasses import fields, replace

import pytest

from tests.documents.pages import ROOT
from tests.figures.invented import invented, measured
from tests.small import SECOND
from vireid import recipes
from vireid.cli.main import main, parser
from vireid.data.errors import BadInput
from vireid.experiments.measurement import measurements
from vireid.figures.kinds import DoesNotApply, kind
from vireid.figures.papers import PaperOptions, draw_paper, of_one_training, papers, with_the_same_changes
from vireid.training.configuration import with_fields

PROTOCOL = "sysu-mm01/all/single"
FIGURES = [(recipe, name) for recipe, figures in papers().items() for name in figures]


@pytest.mark.parametrize("recipe, name", FIGURES)
def test_every_figure_names_a_kind_rows_of_one_protocol_and_choices_that_there_are(recipe, name):
    one = papers()[recipe][name]
    rows = one.needs(recipe)
    assert rows and len({row.on for row in rows.values()}) == 1 and one.layout(recipe)
    choices = with_fields(kind(one.kind).Choices(), one.choices)
    named = {field.name for field in fields(choices)}
    assert set(one.choices) <= named
    if over := one.choices.get("over"):
        values = {functools.reduce(getattr, over.split("."), row.config) for row in rows.values()}
        assert len(values) == len(rows) > 1, f"{over} is what the rows vary"


def test_every_paper_has_its_figures():
    """Those with results, in the papers' own numbers; RegDB's curves have the names of their rows."""
    assert {recipe: list(found) for recipe, found in papers().items()} == {
        "wrim_net": ["figure4", "figure5", "figureS1-lambda1", "figureS1-lambda2"],
        "peca": [*(f"figure{k}" for k in (4, 5, 6)), *(f"figure{k}-regdb" for k in (4, 5, 6)), "figure7", "figure8"],
        "fusion_dml": ["figure4a", "figure4b", "figure5", "figure6"],
    }


@pytest.mark.parametrize("recipe", papers())
def test_the_page_of_a_paper_has_a_table_of_its_figures(recipe):
    page = (ROOT / "docs" / "papers" / f"{recipe}.md").read_text("utf-8")
    lines = page.partition("\n## Figures\n")[2].partition("\n## ")[0].splitlines()
    table = [line.split("|")[1:-1] for line in lines if line.startswith("| `")]
    found = {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in table}
    assert list(found) == [f"{recipe}-{name}" for name in papers()[recipe]]
    for name, one in papers()[recipe].items():
        shows, made, rows = found[f"{recipe}-{name}"]
        assert shows == one.shows and made == f"`{one.kind}`"
        assert rows == ", ".join(f"`{row}`" for row in ([one.rows] if isinstance(one.rows, str) else one.rows.values()))
    assert f"vireid figures --paper {recipe} --data " in page


# --- which runs are shown ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def like(runs, worlds):
    return measured(runs["sysu-mm01"], worlds["sysu-mm01"], "sysu-mm01", PROTOCOL)


@pytest.fixture
def make(like, tmp_path):
    def made(row: str, value: float = 50.0, *set: str, seed: int = 0, **more):
        path = tmp_path / "runs" / "-".join([row.replace("/", "-"), *set, str(seed), *map(str, more.values())])
        return invented(path, like, f"peca:{row}", {"map": value}, seed=seed, set=set, **more)

    return made


def found(*runs):
    return [(run, one) for run in runs for one in measurements(run)]


def rows(*names):
    return {name: recipes.recipe("peca").ROWS[name] for name in names}


def measured_in(run, year: int) -> None:
    (one,) = measurements(run)
    replace(one, measured=replace(one.measured, started=f"{year}-01-01T00:00:00+00:00")).keep(run)


def test_the_runs_of_a_figure_have_the_same_changes(make):
    """Two rows: of two sets of changes only one was trained for both, although the other one is newer."""
    both = [make("table3/m4", 1, "epochs=3"), make("table3/peca", 2, "epochs=3")]
    new = make("table3/peca", 3)
    measured_in(new, 2998)
    changed, chosen = with_the_same_changes(rows("table3/m4", "table3/peca"), found(new, *both))
    assert changed == ("epochs=3",)
    assert {name: [run.path for run, _ in pairs] for name, pairs in chosen.items()} == {
        "table3/m4": [both[0].path],
        "table3/peca": [both[1].path],
    }
    whole = make("table3/m4", 4)
    measured_in(both[0], 2999)
    changed, chosen = with_the_same_changes(rows("table3/m4", "table3/peca"), found(*both, new, whole))
    assert changed == (), "without a change is better, although older"
    assert [run.path for pairs in chosen.values() for run, _ in pairs] == [whole.path, new.path]


def test_a_change_that_a_row_cannot_take_is_left_out_there(make):
    """M4 has no ICAL, so `vireid reproduce` trains it without the change of ICAL."""
    runs = [make("table3/m4", 1, "epochs=3"), make("table3/peca", 2, "epochs=3", "ical.mix=abs")]
    changed, chosen = with_the_same_changes(rows("table3/m4", "table3/peca"), found(*runs))
    assert changed == ("epochs=3", "ical.mix=abs")
    assert all(chosen.values())


def test_measurements_of_another_protocol_do_not_count(make):
    run = make("table3/m4", protocol="sysu-mm01/indoor/single")
    assert with_the_same_changes(rows("table3/m4"), found(run))[1] == {"table3/m4": []}


def test_the_runs_of_a_figure_have_one_seed_and_fold(make):
    first = [make("table3/m4", seed=seed, fold=fold) for seed, fold in ((0, 1), (2, 1), (2, 3))]
    second = [make("table3/peca", seed=seed, fold=fold) for seed, fold in ((2, 3), (2, 1), (1, 1))]
    pairs = {"a": found(*first), "b": found(*second)}
    assert {name: run.path for name, run in of_one_training(pairs).items()} == {"a": first[1].path, "b": second[1].path}
    assert {name: run.path for name, run in of_one_training(pairs, 3).items()} == {
        "a": first[2].path,
        "b": second[0].path,
    }
    with pytest.raises(
        DoesNotApply, match=r"no seed in common in fold 2: a fold 1 seed 0, fold 1 seed 2, fold 3 seed 2"
    ):
        of_one_training(pairs, 2)


def test_a_study_is_drawn_with_all_seeds_and_what_is_missing_has_its_command(make, worlds, tmp_path):
    weights = ("0.00", "0.25", "0.50", "0.75", "1.00")
    for seed in (0, 1):
        for weight in weights:
            make(f"figure6/lambda_m={weight}", 50 + 10 * float(weight) + seed, "epochs=3", seed=seed)
    make("figure5/tau_mod=0.05", 40, "epochs=3")
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    drawn = draw_paper(PaperOptions("peca", data, tmp_path / "runs", ("curves.bars=std",)))
    (figure,) = drawn.figures
    assert figure.name == "peca-figure6" and figure.numbers["x"] == "λ_m"
    points = [(p["value"], p["metrics"]["map"], p["bars"]["map"]) for p in figure.numbers["lines"][""]]
    assert points == [(float(weight), 50.5 + 10 * float(weight), 0.5) for weight in weights]
    assert list(drawn.missing) == ["figure4", "figure5", "figure7", "figure8"]
    # figure5/tau_mod=0.10 is PECA's own configuration, as figure6/lambda_m=0.50 is.
    sentence, _, command = drawn.missing["figure5"].partition(": vireid ")
    assert sentence == "no run of 3 of the 5 rows figure5 on these pictures"
    asked = parser().parse_args(shlex.split(command))
    assert (asked.recipe, asked.table, asked.data, asked.set) == ("peca", "figure5", data, ["epochs=3"])
    assert asked.runs == tmp_path / "runs"
    assert "no run of table3/m4 on these pictures: vireid reproduce peca table3/m4 " in drawn.missing["figure8"]


def test_runs_of_other_pictures_are_not_shown(make, worlds, like, tmp_path):
    for weight in ("0.00", "0.25", "0.50", "0.75", "1.00"):
        run = make(f"figure6/lambda_m={weight}")
        told = json.loads((run.path / "run.json").read_text())
        told["data"]["fingerprint"] = "another"
        (run.path / "run.json").write_text(json.dumps(told))
    drawn = draw_paper(PaperOptions("peca", f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "runs"))
    assert not drawn.figures and "5 of the 5 rows figure6" in drawn.missing["figure6"]


def test_what_cannot_be_asked_for(worlds, tmp_path):
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    with pytest.raises(BadInput, match="unknown recipe with figures 'agw'; choices: wrim_net, peca, fusion_dml"):
        draw_paper(PaperOptions("agw", data))
    with pytest.raises(BadInput, match="the figures of wrim_net show results on llcm; the data are sysu-mm01"):
        draw_paper(PaperOptions("wrim_net", data))
    with pytest.raises(BadInput, match=r"'tsne\.people' is a choice of tsne, which is not drawn; drawn: curves, "):
        draw_paper(PaperOptions("peca", data, set=("tsne.people=3",)))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_paper_from_reproduced_runs(worlds, tmp_path, capsys):
    """Two rows are trained, so one of the four figures can be drawn; it is written, and the command fails."""
    data, runs = f"llcm:{worlds['llcm']}", str(tmp_path / "runs")
    small = (*SECOND, "epochs=1", "epoch_length=1", "visible_per_identity=4", "infrared_per_identity=4")
    for row in ("table3/baseline", "table3/aicl"):
        command = ["reproduce", "wrim_net", row, "--data", data, "--runs", runs, "--workers", "0"]
        assert main([*command, "--set", *small]) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    again = ["figures", "--paper", "wrim_net", "--data", data, "--runs", runs, "--workers", "0", "--format", "svg"]
    assert main([*again, "--out", str(out), "--set", "tsne.people=3"]) == 2
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / name) for name in ("wrim_net-figure5.svg", "figures.json")]
    last = printed.err.splitlines()[-1]
    assert last == "vireid: not drawn: figure4, figureS1-lambda1, figureS1-lambda2; the reasons stand above"
    assert "not drawn: figure4: no run of table3/miim on these pictures: vireid reproduce wrim_net" in printed.err
    caption = json.loads((out / "figures.json").read_text())["wrim_net-figure5"]["caption"]
    assert "baseline: wrim_net:table3/baseline, seed 0" in caption and "with AICL: wrim_net:table3/aicl" in caption


@pytest.mark.parametrize(
    "options, sentence",
    [
        ([], "vireid figures needs run directories, or --paper RECIPE"),
        (["run", "--runs", "runs"], "--runs is for --paper"),
        (["--paper", "peca"], "--paper needs --data LAYOUT:PATH"),
        (["run", "--paper", "peca"], "leave out run directories"),
        (["--paper", "peca", "--figure", "tsne", "--untrained"], "leave out --figure, --untrained"),
        (["--paper", "peca", "--checkpoint", "best"], "leave out --checkpoint"),
    ],
)
def test_options_that_do_not_go_together(options, sentence, capsys):
    assert main(["figures", *options]) == 2
    assert sentence in capsys.readouterr().err
