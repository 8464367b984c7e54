"""Compare every cited number with a second copy of the papers' tables, and check what `cited` returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vireid.data.errors import BadInput
from vireid.data.protocol import protocol_names
from vireid.experiments.cited import cited

COPY = Path(__file__).parents[1] / "recipes" / "paper_tables.yaml"
PAPERS = {"wrim_net": "wrim_net", "peca": "peca", "ffdml": "fusion_dml"}
METRICS = {"R1": "rank1", "R10": "rank10", "R20": "rank20", "mAP": "map", "mINP": "minp"}
# How the columns of a compared table are called in the copy → our protocol.
PROTOCOLS = {
    "sysu_all_single": "sysu-mm01/all/single",
    "sysu_all_multi": "sysu-mm01/all/multi",
    "sysu_indoor_single": "sysu-mm01/indoor/single",
    "sysu_indoor_multi": "sysu-mm01/indoor/multi",
    "regdb_vis2ir": "regdb/v2i",
    "regdb_ir2vis": "regdb/i2v",
    "llcm_vis2ir": "llcm/v2i",
    "llcm_ir2vis": "llcm/i2v",
    "all": "sysu-mm01/all/single",
    "indoor": "sysu-mm01/indoor/single",
    "vis2ir": "regdb/v2i",
    "ir2vis": "regdb/i2v",
}


def _copy() -> dict[tuple[str, str, str, str, str], float]:
    """(recipe, table, method, protocol, metric) → number, of every table that compares methods."""
    found = {}
    for paper, said in yaml.safe_load(COPY.read_text(encoding="utf-8"))["papers"].items():
        for name, table in said["tables"].items():
            others = [row for row in table.get("rows", {}).values() if not row.get("own")]
            for row in others if table["kind"] == "comparison" else []:
                for column, value in row["values"].items():
                    if value is not None:
                        side, _, metric = column.rpartition("_")
                        place = (PAPERS[paper], name.replace("_", ""), row["name"])
                        found[*place, PROTOCOLS[side], METRICS[metric]] = value
    return found


def _ours() -> dict[tuple[str, str, str, str, str], float]:
    return {
        (one.recipe, one.table, one.method, one.protocol, metric): value
        for one in cited()
        for metric, value in one.published.items()
    }


def test_every_number_of_the_compared_methods_is_there_and_no_other():
    copy = _copy()
    assert len(copy) > 600
    assert _ours() == copy


def test_no_row_is_there_twice_or_empty_or_by_a_protocol_that_is_unknown():
    found = cited()
    places = [(one.recipe, one.table, one.method, one.protocol) for one in found]
    assert len(set(places)) == len(places)
    assert all(one.published for one in found)
    assert {one.protocol for one in found} <= set(protocol_names())


def test_venue_and_year_are_those_of_the_copy():
    papers = yaml.safe_load(COPY.read_text(encoding="utf-8"))["papers"]
    for one in cited():
        paper = next(key for key, recipe in PAPERS.items() if recipe == one.recipe)
        rows = papers[paper]["tables"][one.table.replace("table", "table_")]["rows"].values()
        assert one.ref == next(row for row in rows if row["name"] == one.method).get("ref", ""), one


def test_every_method_with_a_note_in_the_copy_has_one_here():
    papers = yaml.safe_load(COPY.read_text(encoding="utf-8"))["papers"]
    ours = {(one.recipe, one.table, one.method) for one in cited() if one.note}
    for paper, said in papers.items():
        for name, table in said["tables"].items():
            for row in table["rows"].values() if table["kind"] == "comparison" else []:
                if "note" in row or row["name"].endswith("*"):
                    assert (PAPERS[paper], name.replace("_", ""), row["name"]) in ours


def test_a_note_stands_at_the_protocol_that_it_is_about():
    notes = {(one.table, one.method, one.protocol): one.note for one in cited("wrim_net")}
    assert "SMCL" in notes["table1", "MCLNet", "sysu-mm01/indoor/multi"]
    assert notes["table1", "MCLNet", "sysu-mm01/all/single"] == ""
    assert all(note for (table, _, _), note in notes.items() if table == "table2")


def test_one_recipe_only_and_json():
    found = cited("fusion_dml")
    assert {one.recipe for one in found} == {"fusion_dml"}
    assert {one.where for one in found} == {"FFDML table 5", "FFDML table 6"}
    stored = json.loads(json.dumps([one.to_json() for one in found]))
    assert stored[0]["published"] == {"rank1": 17.75, "rank10": 34.21, "rank20": 44.35, "map": 18.90}
    assert cited("agw") == []  # no paper of the three proposes it
    with pytest.raises(BadInput, match="did you mean 'peca'"):
        cited("pecca")
