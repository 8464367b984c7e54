"""Compare every printed number in the recipes' rows with a second copy of the papers' tables, `paper_tables.yaml`.

A wrong digit in one of the two copies fails here, and so does a row of a paper that no recipe has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from vireid.recipes import Row, recipe, recipes

PAPERS = yaml.safe_load(Path(__file__).with_name("paper_tables.yaml").read_text(encoding="utf-8"))["papers"]

AGW_SYSU = {"all": "agw all_", "indoor": "agw indoor_"}
AGW_REGDB = {"v2i": "agw vis2ir_", "i2v": "agw ir2vis_"}
STEPS = ("m1", "m2", "m3", "m4", "m5", "peca")

# `RECIPE:TABLE` of ours → `PAPER TABLE` of theirs → our row → `ROW` or `ROW PREFIX-OF-ITS-COLUMNS` of theirs. None
# stands for rows that have the same names in both.
TABLES: Mapping[str, Mapping[str, Mapping[str, str] | None]] = {
    "agw:sysu-mm01": {"peca table_1": AGW_SYSU, "ffdml table_6": AGW_SYSU},
    "agw:regdb": {"peca table_2": AGW_REGDB, "ffdml table_5": AGW_REGDB},
    "agw:caj": {
        "peca table_1": {"sysu-all": "caj all_", "sysu-indoor": "caj indoor_"},
        "peca table_2": {"regdb-v2i": "caj vis2ir_", "regdb-i2v": "caj ir2vis_"},
    },
    "agw:llcm": {"wrim_net table_2": {"i2v": "agw llcm_ir2vis_", "v2i": "agw llcm_vis2ir_"}},
    "fusion_dml:table1": {"ffdml table_1": None},
    "fusion_dml:table2": {"ffdml table_2": None},
    "fusion_dml:table3": {"ffdml table_3": None},
    "fusion_dml:table4": {"ffdml table_4": None},
    "fusion_dml:table5": {"ffdml table_5": {"v2i": "ours vis2ir_", "i2v": "ours ir2vis_"}},
    "fusion_dml:table6": {"ffdml table_6": {"all": "ours all_", "indoor": "ours indoor_"}},
    "peca:table1": {"peca table_1": {"all": "peca all_", "indoor": "peca indoor_"}},
    "peca:table2": {"peca table_2": {"v2i": "peca vis2ir_", "i2v": "peca ir2vis_"}},
    "peca:table3": {"peca table_3": {step: f"{step} sysu_all_" for step in STEPS}},
    "peca:table3-regdb": {"peca table_3": {step: f"{step} regdb_vis2ir_" for step in STEPS}},
    "peca:figure4": {"peca table_3": {"tau_ins=0.15": "peca sysu_all_"}},
    "peca:figure5": {"peca table_3": {"tau_mod=0.10": "peca sysu_all_"}},
    "peca:figure6": {"peca table_3": {"lambda_m=0.50": "peca sysu_all_"}},
    "peca:figure4-regdb": {"peca table_3": {"tau_ins=0.15": "peca regdb_vis2ir_"}},
    "peca:figure5-regdb": {"peca table_3": {"tau_mod=0.10": "peca regdb_vis2ir_"}},
    "peca:figure6-regdb": {"peca table_3": {"lambda_m=0.50": "peca regdb_vis2ir_"}},
    "wrim_net:table1": {
        "wrim_net table_1": {
            "all-single": "wrim_net sysu_all_single_",
            "all-multi": "wrim_net sysu_all_multi_",
            "indoor-single": "wrim_net sysu_indoor_single_",
            "indoor-multi": "wrim_net sysu_indoor_multi_",
            "regdb-v2i": "wrim_net regdb_vis2ir_",
            "regdb-i2v": "wrim_net regdb_ir2vis_",
        }
    },
    "wrim_net:table2": {"wrim_net table_2": {"i2v": "wrim_net llcm_ir2vis_", "v2i": "wrim_net llcm_vis2ir_"}},
    "wrim_net:table3": {
        "wrim_net table_3": {"baseline": "baseline", "miim": "baseline_miim", "aicl": "baseline_aicl", "full": "full"}
    },
    "wrim_net:table4": {
        "wrim_net table_4": {
            "none": "none", "stages12": "block12", "stages34": "block34", "stages1234": "block1234"
        }
    },
    "wrim_net:table5": {"wrim_net table_5": None},
    "wrim_net:table6": {"wrim_net table_6": {"cbam": "cbam", "non-local": "non_local", "miim": "miim"}},
    "wrim_net:table7": {"wrim_net table_7": {r: f"r_{r.replace('-', '_')}" for r in ("8-4-2-2", "4-2-1-1", "2-1-1-1")}},
    "wrim_net:table8": {"wrim_net table_8": {r: f"r_{r.replace('-', '_')}" for r in ("4-4-8-8", "2-2-4-4", "1-1-2-2")}},
    "wrim_net:table9": {"wrim_net table_9": {f"pool={size}": f"ks_{size}" for size in (1, 2, 3, 4)}},
    "wrim_net:table10": {"wrim_net table_10": {"top_k=4": "column_3", "random": "column_4"}},
    "wrim_net:tableS1": {
        "wrim_net table_S1": {"none": "blocks_none"}
        | {f"stage{stage}": f"blocks_{stage}" for stage in (1, 2, 3, 4)}
        | {f"stages{stages}": f"blocks_{stages}" for stages in (12, 34, 1234)}
    },
    "wrim_net:tableS2": {
        "wrim_net table_S2": {"shared": "all_shared", "separate": "all_separate", "full": "full"}
    },
    "wrim_net:tableS3": {
        "wrim_net table_S3": {"mul": "mul_without_sigmoid", "add": "add", "sigmoid-mul": "sigmoid_mul"}
    },
    "wrim_net:tableS4": {"wrim_net table_S4": {"no-auxiliary": "no_auxiliary", "full": "full"}},
}  # fmt: skip

# Rows of the papers that no row of ours can have: which K these columns belong to is not legible.
LEFT_OUT = {("wrim_net", "table_10", f"column_{column}") for column in (1, 2, 5, 6)}

# (our row, metric, paper) → what that paper prints, where another paper prints other digits for the same experiment.
DIFFERENT = {("agw:regdb/v2i", "rank20", "ffdml"): 94.55}

COLUMNS = {
    "rank1": ("R1", 1.0), "rank10": ("R10", 1.0), "rank20": ("R20", 1.0), "map": ("mAP", 1.0), "minp": ("mINP", 1.0),
    "parameters_path": ("params_M", 1e6), "macs_path": ("flops_B", 1e9),
}  # fmt: skip

# Prefix of a column, or data set of a table whose columns have none → protocol of our row.
PROTOCOLS = {
    "all_": "sysu-mm01/all/single",
    "indoor_": "sysu-mm01/indoor/single",
    "sysu_all_": "sysu-mm01/all/single",
    "sysu_all_single_": "sysu-mm01/all/single",
    "sysu_all_multi_": "sysu-mm01/all/multi",
    "sysu_indoor_single_": "sysu-mm01/indoor/single",
    "sysu_indoor_multi_": "sysu-mm01/indoor/multi",
    "vis2ir_": "regdb/v2i",
    "ir2vis_": "regdb/i2v",
    "regdb_vis2ir_": "regdb/v2i",
    "regdb_ir2vis_": "regdb/i2v",
    "llcm_ir2vis_": "llcm/i2v",
    "llcm_vis2ir_": "llcm/v2i",
    "LLCM": "llcm/i2v",
    "SYSU-MM01": "sysu-mm01/all/single",
}


def pairs() -> Iterator[tuple[str, str, str, str, str]]:
    """(our row, paper, table, row, prefix of the columns) of every line of the mapping."""
    for ours, theirs in TABLES.items():
        for place, rows in theirs.items():
            paper, table = place.split()
            names = {name: name for name in PAPERS[paper]["tables"][table]["rows"]} if rows is None else rows
            for name, there in names.items():
                row, _, prefix = there.partition(" ")
                yield f"{ours}/{name}", paper, table, row, prefix


def our_rows() -> dict[str, Row]:
    """Every row of every recipe by `RECIPE:ROW`."""
    return {f"{name}:{row}": found for name in recipes() for row, found in recipe(name).ROWS.items()}


def cells(paper: str, table: str, row: str) -> dict[str, float | None]:
    """The numbers of one row of a paper by column; what follows from the running text stands in for illegible cells."""
    found = PAPERS[paper]["tables"][table]["rows"][row]
    derived: dict[str, Any] = found.get("derived", {})
    return {column: derived.get(column) if value is None else value for column, value in found["values"].items()}


@pytest.mark.parametrize("place", list(pairs()), ids=lambda place: f"{place[0]} {place[1]}")
def test_the_numbers_of_a_row_are_those_of_the_paper(place):
    name, paper, table, row, prefix = place
    theirs = cells(paper, table, row)
    for metric, value in our_rows()[name].published.items():
        column, unit = COLUMNS[metric]
        if f"{prefix}{column}" not in theirs:
            continue
        printed = theirs[f"{prefix}{column}"]
        where = f"{metric} of {name}: {value}, but {paper} {table} {row} prints {printed}"
        if (name, metric, paper) in DIFFERENT:
            assert printed == DIFFERENT[name, metric, paper] != value, where
        elif value is None or printed is None:
            assert value == printed, where
        else:
            assert value == pytest.approx(printed * unit, rel=1e-12), where


@pytest.mark.parametrize("place", list(pairs()), ids=lambda place: f"{place[0]} {place[1]}")
def test_a_row_has_the_protocol_of_its_numbers(place):
    name, paper, table, _, prefix = place
    assert our_rows()[name].on == PROTOCOLS[prefix or PAPERS[paper]["tables"][table]["dataset"]]


def test_every_number_of_ours_is_compared():
    compared = defaultdict(set)
    for name, paper, table, row, prefix in pairs():
        compared[name] |= {
            metric for metric, (column, _) in COLUMNS.items() if f"{prefix}{column}" in cells(paper, table, row)
        }
    ours = our_rows()
    assert set(compared) <= set(ours)
    printed = {name: {m for m, value in row.published.items() if value is not None} for name, row in ours.items()}
    missing = {name: sorted(metrics - compared[name]) for name, metrics in printed.items() if metrics - compared[name]}
    assert not missing, f"add these rows to the mapping: {missing}"


def test_every_number_of_an_own_table_has_a_row_of_ours():
    wanted = {
        (paper, table, row, column)
        for paper, found in PAPERS.items()
        for table, content in found["tables"].items()
        for row, values in content.get("rows", {}).items()
        if content["kind"] == "ablation" or (content["kind"] == "comparison" and values.get("own"))
        for column in values["values"]
    }
    ours, covered = our_rows(), set()
    for name, paper, table, row, prefix in pairs():
        covered |= {(paper, table, row, f"{prefix}{COLUMNS[metric][0]}") for metric in ours[name].published}
    left = {cell[:3] for cell in wanted - covered}
    assert left == LEFT_OUT
    assert len(wanted) == 323


def test_what_is_left_out_is_not_legible():
    for paper, table, row in LEFT_OUT:
        assert PAPERS[paper]["tables"][table]["rows"][row]["note"] == "K not recoverable"
    kinds = {content["kind"] for paper in PAPERS.values() for content in paper["tables"].values()}
    assert kinds == {"ablation", "comparison", "figure_without_numbers"}
