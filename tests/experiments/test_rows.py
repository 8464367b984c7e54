"""Which measurements stand beside which printed number: those of the row's configuration and protocol."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.facts import some_facts
from vireid import recipes
from vireid.cli.main import main
from vireid.data.protocol import protocol_names
from vireid.evaluation.report import METRICS, Report
from vireid.experiments.measurement import Circumstances, Measurement
from vireid.experiments.rows import Ours, combined, ours, plain_measurements, rows
from vireid.recipes import Row, find_row
from vireid.training.configuration import digest, to_json, with_fields
from vireid.training.run import Run, RunFacts, create

ALL = "sysu-mm01/all/single"
LAYOUTS = ("sysu-mm01", "regdb", "llcm")


def facts(spec: str, *given: str, seed: int = 0, fold: int | None = None) -> RunFacts:
    """What `run.json` says of a run that was started as `vireid train SPEC --set GIVEN`."""
    recipe, row, found = find_row(spec)
    config = with_fields(found.config, [*given, f"seed={seed}"])
    told = some_facts(recipe=recipe, row=row, set=(*given, f"seed={seed}"), seed=seed, config=to_json(config))
    return replace(told, data=replace(told.data, fold=fold))


def measurement(of: RunFacts, protocol=ALL, rank1=50.0, started="2026-01-01", **changes) -> Measurement:
    numbers = dict.fromkeys(METRICS, rank1)
    report = Report(
        protocol, **numbers, trials=(), std=dict.fromkeys(METRICS, 0.0), valid_queries=1, queries=1, gallery=1, seed=3
    )
    where = {name: getattr(of, name) for name in ("versions", "git_commit", "hardware")}
    values = {"checkpoint": "last", "untrained": False, "embedding": "neck", "generated": True, "root": "r", **changes}
    return Measurement(
        report, Circumstances("c", of.config["epochs"], fingerprint="f", started=started, **where, **values)
    )


def pair(spec: str, *given: str, seed=0, fold=None, run="runs/x", **values):
    told = facts(spec, *given, seed=seed, fold=fold)
    return Run(Path(run), told), measurement(told, **values)


def row(name: str) -> Row:
    return find_row(name)[2]


def test_the_configuration_decides_and_not_the_name_of_the_row():
    found = [pair("wrim_net:table4/stages1234", protocol="llcm/i2v", rank1=1.0)]
    for name in ("table3/full", "table2/i2v", "tableS1/stages1234", "table10/top_k=4"):
        one = ours(found, "wrim_net", row(f"wrim_net:{name}"))
        assert one is not None and one.metrics["rank1"] == 1.0 and one.set == (), name
    assert ours(found, "wrim_net", row("wrim_net:table3/miim")) is None
    assert ours(found, "wrim_net", row("wrim_net:table2/v2i")) is None, "another protocol"
    assert ours(found, "peca", row("wrim_net:table3/full")) is None, "another recipe"


def test_a_run_without_a_row_counts_if_only_shared_settings_were_changed():
    table = row("wrim_net:table3/full")
    scale = ("trunk=tiny", "epochs=3")
    one = ours([pair("wrim_net", *scale, protocol="llcm/i2v")], "wrim_net", table)
    assert one is not None and one.set == scale
    method = (*scale, "mining.pool=2")
    assert ours([pair("wrim_net", *method, protocol="llcm/i2v")], "wrim_net", table) is None
    # Asked for by the name of the row, it is shown with what was changed.
    named = ours([pair("wrim_net:table3/full", *method, protocol="llcm/i2v")], "wrim_net", table)
    assert named is not None and named.set == method
    # These changes make another row of it.
    other = [pair("wrim_net", "contrast=null", "auxiliary=null", protocol="llcm/i2v")]
    assert ours(other, "wrim_net", table) is None
    assert ours(other, "wrim_net", row("wrim_net:table3/miim")) is not None


def test_changes_count_from_the_row_that_the_run_was_started_as():
    """Put on top of the full model, these changes would give the same configuration. The run is no run of that row."""
    changed = ("contrast=null", "auxiliary=null", "epochs=3")
    found = [pair("wrim_net:table3/miim", *changed, protocol="llcm/i2v")]
    assert ours(found, "wrim_net", row("wrim_net:table3/full")) is None
    one = ours(found, "wrim_net", row("wrim_net:table3/miim"))
    assert one is not None and one.set == changed


def test_runs_of_all_seeds_are_the_rows():
    found = [pair("peca", "trunk=tiny", seed=seed, rank1=10.0 * seed) for seed in (0, 3, 4)]
    one = ours(found, "peca", row("peca:table1/all"))
    assert one is not None and one.seeds == (0, 3, 4) and one.set == ("trunk=tiny",)
    assert one.metrics["rank1"] == pytest.approx(70 / 3) and one.others == 0


def test_a_run_with_changes_is_shown_only_if_there_is_none_without():
    table = row("wrim_net:table3/full")
    changed = pair("wrim_net", "epochs=3", protocol="llcm/i2v", rank1=9.0, started="2026-02-01")
    plain = pair("wrim_net", protocol="llcm/i2v", rank1=5.0, started="2026-01-01")
    one = ours([changed, plain], "wrim_net", table)
    assert one is not None and (one.metrics["rank1"], one.set, one.others) == (5.0, (), 1)
    newer = pair("wrim_net", "epochs=4", protocol="llcm/i2v", rank1=7.0, started="2026-03-01")
    one = ours([changed, newer], "wrim_net", table)
    assert one is not None and (one.metrics["rank1"], one.set, one.others) == (7.0, ("epochs=4",), 1)
    elsewhere = pair("wrim_net", protocol="llcm/i2v", rank1=1.0, started="2026-02-01", root="other")
    one = ours([elsewhere, plain], "wrim_net", table)
    assert one is not None and (one.metrics["rank1"], one.others) == (1.0, 1), "two data sets are not averaged"


def test_agw_is_a_second_name_of_the_usual_draw():
    one = ours([pair("peca", protocol=f"{ALL}@agw")], "peca", row("peca:table1/all"))
    assert one is not None and one.protocol == ALL
    assert ours([pair("peca", protocol=f"{ALL}@official")], "peca", row("peca:table1/all")) is None


def test_means_over_folds_and_seeds_against_the_table():
    generator = np.random.default_rng(3)
    table = generator.uniform(0, 100, (3, 4))  # seeds × folds
    found = [
        pair(
            "peca",
            seed=seed,
            fold=fold,
            protocol="regdb/v2i",
            rank1=float(table[place, fold - 1]),
            run=f"r/{seed}{fold}",
        )
        for place, seed in enumerate((2, 5, 7))
        for fold in (1, 2, 3, 4)
    ]
    generator.shuffle(found)  # type: ignore[arg-type]
    one = combined(found, ())
    assert (one.seeds, one.folds, one.of_folds, len(one.runs)) == ((2, 5, 7), (1, 2, 3, 4), 10, 12)
    assert one.extent == "4 of 10 folds, seeds 2, 5, 7"
    by_seed = [sum(values) / 4 for values in table.tolist()]
    by_fold = [sum(values) / 3 for values in table.T.tolist()]
    mean = sum(by_seed) / 3
    assert one.metrics["rank1"] == pytest.approx(mean)
    assert one.std["rank1"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in by_fold) / 4))
    half = 4.303 * math.sqrt(sum((v - mean) ** 2 for v in by_seed) / 2) / math.sqrt(3)
    assert one.interval["rank1"] == pytest.approx(half)


def test_one_run_has_no_spread_and_seeds_of_one_fold_have_one():
    alone = combined([pair("peca", rank1=40.0)], ())
    assert alone.metrics["rank1"] == 40.0 and not alone.std and not alone.interval
    assert (alone.folds, alone.of_folds, alone.extent) == ((), 1, "seed 0")
    two = combined([pair("peca", rank1=40.0), pair("peca", seed=1, rank1=44.0)], ())
    assert (two.metrics["rank1"], two.std["rank1"]) == (42.0, 2.0)
    assert two.interval["rank1"] == pytest.approx(12.706 * math.sqrt(8) / math.sqrt(2))


def test_of_two_measurements_of_one_training_the_newer_counts_and_unfinished_seeds_are_left_out():
    found = [
        pair("peca", fold=1, protocol="regdb/v2i", rank1=10.0, started="2026-01-02"),
        pair("peca", fold=1, protocol="regdb/v2i", rank1=90.0, started="2026-01-01"),
        pair("peca", fold=2, protocol="regdb/v2i", rank1=20.0),
        pair("peca", seed=1, fold=1, protocol="regdb/v2i", rank1=70.0),
    ]
    one = combined(found, ())
    assert (one.metrics["rank1"], one.seeds, one.folds) == (15.0, (0,), (1, 2))


@pytest.mark.parametrize("change", [{"untrained": True}, {"embedding": "pooled"}, {"checkpoint": "best"}])
def test_only_plain_measurements_are_found(tmp_path, change):
    told = facts("peca:table1/all")
    run = create(tmp_path / "deep" / "run", told)
    measurement(told, **change).keep(run)
    assert plain_measurements(tmp_path) == []
    measurement(told, rank1=7.0).keep(run)
    ((where, one),) = plain_measurements(tmp_path)
    assert where.path == run.path and one.report.rank1 == 7.0
    found = {each.name: each for each in rows("peca", runs=tmp_path)}
    first = found["table1/all"]
    assert first.ours is not None and first.ours.metrics["rank1"] == 7.0 and first.published["rank1"] == 74.89
    # Every other row of this configuration and protocol shows it too, and no other row does.
    same = {name for name, each in found.items() if (each.row.config, each.row.on) == (first.row.config, ALL)}
    assert {name for name, each in found.items() if each.ours} == same and "table3/peca" in same


def test_no_printed_number_stands_beside_a_measurement_of_another_protocol(tmp_path):
    """For every row of every recipe: its configuration was trained, and measured by every protocol of every layout."""
    protocols = [name for layout in LAYOUTS for name in protocol_names(layout) if not name.endswith("@agw")]
    made: set[tuple[str, str]] = set()
    for recipe in recipes.recipes():
        for name, each in recipes.recipe(recipe).ROWS.items():
            if (key := (recipe, digest(to_json(each.config)))) in made:
                continue
            made.add(key)
            told = facts(f"{recipe}:{name}")
            run = create(tmp_path / "runs" / str(len(made)), told)
            # Rank-1 says which protocol it was.
            for place, protocol in enumerate(protocols):
                measurement(told, protocol=protocol, rank1=float(place), root=protocol).keep(run)
    assert main(["rows", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "rows.json")]) == 0
    found = json.loads((tmp_path / "rows.json").read_text())
    assert len(found) == sum(len(recipes.recipe(name).ROWS) for name in recipes.recipes())
    for one in found:
        assert one["ours"] is not None, one["row"]
        if one["published"]:
            assert one["ours"]["protocol"] == one["on"] == protocols[int(one["ours"]["rank1"])], one["row"]
        elif one["on"] is not None:
            assert one["ours"]["protocol"] == one["on"], one["row"]
    assert sum(bool(one["published"]) for one in found) > 100


def test_ours_in_json_is_flat():
    found = Ours("regdb/v2i", {"rank1": 2.0}, {"rank1": 1.0}, {}, (0,), (1,), 10, (), True, "2 cores", ("r",), "2026")
    told = found.to_json()
    assert told["rank1"] == 2.0 and told["std"] == {"rank1": 1.0} and "metrics" not in told
    assert told["protocol"] == "regdb/v2i" and told["seeds"] == [0] and told["folds"] == [1]
