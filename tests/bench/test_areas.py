"""Each area of `vireid bench`, found by its file, and the verb that runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vireid.bench import measure
from vireid.bench.areas import about, area, areas
from vireid.bench.measure import Missing
from vireid.bench.run import BenchOptions, bench
from vireid.cli.main import main
from vireid.data.errors import BadInput

KEYS = {"area", "name", "baseline", "ours", "ratio", "goal", "reached", "limit"}
ALONE = {"rounds", "machine", "versions", "commit", "command"}
# Those that take ten seconds or more: an export, an untrained model, a service, the steps of all recipes.
LONG = {"inference", "search", "training"}


@pytest.fixture(autouse=True)
def without_rest(monkeypatch):
    monkeypatch.setattr(measure, "REST", 0)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in areas()]
)
@pytest.mark.process
def test_every_area_runs_and_each_line_stands_for_itself(name, tmp_path, capsys):
    file = tmp_path / "lines.json"
    more = ["--store", str(tmp_path / "store")] if name == "store" else []
    assert main(["bench", name, "--quick", "--growth", "--json", str(file), *more]) == 0
    printed = capsys.readouterr().out
    assert "too small to say anything" in printed
    lines = json.loads(file.read_text())
    assert lines
    for line in lines:
        assert line.keys() >= KEYS | ALONE
        assert (line["area"], line["reached"]) == (name, None)
        assert line["ratio_min"] <= line["ratio"] <= line["ratio_max"]
        assert len(line["rounds"]) == 2
        assert line["command"].startswith(f"vireid bench {name} --quick")
        assert line["name"] in printed
    names = [tuple(line[key] for key in ("name", "baseline", "ours")) for line in lines]
    assert len(set(names)) == len(names), "--compare could not tell them apart"
    if hasattr(area(name), "growth"):
        assert any("exponent" in line["figures"] for line in lines)


def test_an_area_says_in_one_line_what_it_is():
    for name in areas():
        first = (area(name).__doc__ or "").split("\n")[0]
        assert about(name) == first
        assert 20 < len(first) <= 117
        assert first.endswith(".")


def test_a_file_is_an_area(monkeypatch, tmp_path, capsys):
    """A newcomer's file is found, named by --help, and measured."""
    import vireid.bench.areas as package

    source = Path(str(area("losses").__file__)).read_text().replace("Losses with their gradients", "Copied")
    (tmp_path / "copied.py").write_text(source)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert "copied" in areas()
    found = bench(BenchOptions(areas=("copied",), quick=True, rounds=1))
    assert {line.area for line in found.lines} == {"copied"}


def test_all_areas_are_measured_but_those_on_request(monkeypatch):
    measured = []
    for name in areas():
        monkeypatch.setattr(area(name), "measure", lambda given, name=name: measured.append(name) or iter(()))
    bench(BenchOptions())
    assert measured == [name for name in areas() if name != "store"]
    measured.clear()
    bench(BenchOptions(areas=("synthesis", "losses")))
    assert measured == ["synthesis", "losses"]


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured(monkeypatch, capsys):
    real = area("losses").measure

    def half(given):
        yield next(real(given))
        raise Missing("there is no second half")

    monkeypatch.setattr(area("losses"), "measure", half)
    assert main(["bench", "losses", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert "losses: not measured: there is no second half" in printed
    assert "a loop over anchors" in printed


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["speed"], "unknown area of the benchmark 'speed'"),
        (["loses"], "did you mean 'losses'"),
        (["losses", "--rounds", "0"], "rounds"),
        (["losses", "--rounds", "few"], "whole number"),
        (["search", "--area", "memory"], "build, matrix, large, service, milvus"),
        (["search", "--area", "milvus", "--store", "folder"], "names a server"),
        (["search", "--kills", "2"], "--kills is only for store"),
        (["losses", "--area", "matrix"], "--area is only for search"),
        (["--keep"], "--keep is only for store"),
        (["store"], "needs --store"),
        (["losses", "--rows", "5"], "--rows is only for search and store"),
    ],
)
def test_a_mistake_is_one_sentence(wrong, said, capsys):
    assert main(["bench", *wrong]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_the_options_of_an_area_that_is_not_measured_are_refused():
    with pytest.raises(BadInput, match="--rows: an option of the area search"):
        bench(BenchOptions(areas=("losses",), options={"search": {"rows": 5}}))


def test_a_comparison_is_printed_last_and_does_not_fail(tmp_path, capsys):
    file = tmp_path / "earlier.json"
    assert main(["bench", "losses", "--quick", "--json", str(file)]) == 0
    lines = json.loads(file.read_text())
    for key in ("ratio", "ratio_min", "ratio_max"):
        lines[0][key] *= 1000
    file.write_text(json.dumps(lines))
    capsys.readouterr()
    assert main(["bench", "losses", "--quick", "--compare", str(file)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"slower: losses, {lines[0]['name']}: ratio {lines[0]['ratio']:.2f}")


def test_help_names_the_areas_and_groups_the_options(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    printed = capsys.readouterr().out
    for name in areas():
        assert f"\n  {name} " in printed
    assert printed.index("for search and store") < printed.index("only for search") < printed.index("only for store")


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("losses", "hard_by_loop"),
        ("evaluation", "textbook"),
        ("reranking", "textbook"),
        ("pipeline", "load_by_pillow"),
        ("pipeline", "normalised"),
    ],
)
def test_a_baseline_that_computes_something_else_stops_the_run(name, broken, monkeypatch):
    module = area(name)
    real = getattr(module, broken)

    def wrong(*given, **named):
        found = real(*given, **named)
        return [one.float() + 9 for one in found] if isinstance(found, list) else found + 9

    monkeypatch.setattr(module, broken, wrong)
    with pytest.raises(RuntimeError, match="computes something else"):
        bench(BenchOptions(areas=(name,), quick=True, rounds=1))
