"""Every row against a table that was written from the papers: the protocol, the numbers, and the fields in which the
row differs from the paper's full model. Nothing here is derived from the rows of the package."""

from __future__ import annotations

from typing import Any

import pytest

from vireid.recipes import recipe, recipes
from vireid.training.configuration import differences, to_json

# --- the full models --------------------------------------------------------------------------------------------------

# What the papers (for AGW its code) say about their full models, by field.
FULL: dict[str, dict[str, Any]] = {
    "agw": {
        "epochs": 81, "size": "288x144", "identities_per_batch": 8, "visible_per_identity": 4,
        "infrared_per_identity": 4, "optimiser.lr": 0.1, "optimiser.trunk_factor": 0.1, "optimiser.momentum": 0.9,
        "optimiser.weight_decay": 5e-4, "schedule.warm_up_epochs": 10, "schedule.milestones": [20, 50],
        "schedule.decay": 0.1, "gem_power": 3.0, "non_local": "half", "trunk": "resnet50", "crop.padding": 10,
        "flip.p": 0.5, "erasing": None, "exchange": None, "ical": None, "views": 1, "with_replacement": False,
    },
    "fusion_dml": {
        "fusion.stages": [1, 2, 3], "mutual.theta1": 0.6, "mutual.theta2": 1.8, "branch_identity": True,
        "mutual.pairs": ["joint-global", "joint-fusion"], "mutual.temperature": 1.0, "trunk": "resnet50",
        "epochs": 80, "size": "288x144", "identities_per_batch": 8, "visible_per_identity": 4,
        "infrared_per_identity": 4, "optimiser.lr": 0.1, "optimiser.momentum": 0.9, "optimiser.weight_decay": 5e-4,
        "schedule.milestones": [20, 50], "schedule.decay": 0.1, "gem_power": 3.0, "label_smoothing": 0.0,
    },
    "peca": {
        "instance.temperature": 0.15, "modality.temperature": 0.10, "modality.weight": 0.5, "ical.margin": 0.7,
        "instance.negatives": 50, "modality.rate": 0.8, "trunk": "resnet50", "epochs": 100, "size": "288x144",
        "identities_per_batch": 8, "visible_per_identity": 4, "infrared_per_identity": 4, "optimiser.lr": 0.1,
        "schedule.warm_up_epochs": 10, "schedule.milestones": [20, 50], "exchange.cases": "rgb_unchanged",
    },
    "wrim_net": {
        "size": "384x144", "identities_per_batch": 8, "visible_per_identity": 8, "infrared_per_identity": 8,
        "miim": ["separate", "separate", "shared", "shared"], "mining.spatial_ratio": [4, 2, 1, 1],
        "mining.channel_ratio": [2, 2, 4, 4], "mining.pool": 3, "mining.fusion": "sigmoid_mul", "contrast.top_k": 4,
        "contrast.weight": 0.5, "auxiliary.weight": 0.1, "trunk": "resnet50", "epochs": 140, "optimiser.lr": 3.5e-4,
        "optimiser.weight_decay": 5e-4, "schedule.milestones": [80, 120], "schedule.decay": 0.1, "last_stride": 1,
        "mining.heads": 8, "mining.positions": "sincos1d", "mining.gate_input": "bn", "contrast.temperature": 0.07,
        "auxiliary.margin": 0.3,
    },
}  # fmt: skip

# --- what rows change -------------------------------------------------------------------------------------------------

AGW_CODE = {"non_local": "code", "with_replacement": True, "neck_start": "code", "triplet.epsilon": 1e-6}
ERASED = {"p": 0.5, "area": [0.02, 0.4], "aspect": [0.3, 1 / 0.3]}
CAJ_CODE = {
    "non_local": "code", "with_replacement": True, "neck_start": "code", "epochs": 100, "views": 2,
    "triplet": {"type": "SquaredTriplet", "alpha": 1.0, "gamma": 1.0, "epsilon": 1e-6},
    "erasing": {"type": "ChannelErasing", **ERASED, "fill": "caj_const"},
    "exchange": {"type": "ChannelExchange", "cases": "rgb"},
    "exchange_infrared": {"type": "ChannelExchange", "cases": "rgb_unchanged_grey"},
}  # fmt: skip
LLCM_CODE = AGW_CODE | {"erasing": {"type": "RandomErasing", **ERASED, "fill": "mean"}}
M1 = {"instance": {"type": "Triplet", "kind": "weighted", "margin": 0.3}, "modality": None, "gsl": None, "ical": None}
NO_MIIM = {"miim": [None] * 4}
NO_AICL = {"contrast": None, "auxiliary": None}
SYSU_BATCH = {"identities_per_batch": 4, "visible_per_identity": 16, "infrared_per_identity": 16}
REGDB_PARTS = {"size": "256x144", "parts": 6, "auxiliary.parts": 2}
NARROW = {"size": "384x128"}
NO_LSR = {"mutual.theta1": 1.0, "mutual.theta2": 1.0}
ALL, INDOOR, V2I, I2V = "sysu-mm01/all/single", "sysu-mm01/indoor/single", "regdb/v2i", "regdb/i2v"
LLCM = "llcm/i2v"

Printed = tuple[float | None, ...]
Table = dict[str, tuple[str | None, Printed, dict[str, Any]]]

# row → (protocol, Rank-1 and mAP as printed, fields that differ from the full model)
AGW: Table = {
    "code": (None, (), AGW_CODE),
    "caj-code": (None, (), CAJ_CODE),
    "sysu-mm01/all": (ALL, (47.50, 47.65), AGW_CODE),
    "sysu-mm01/indoor": (INDOOR, (54.17, 62.97), AGW_CODE),
    "regdb/v2i": (V2I, (70.05, 66.37), AGW_CODE),
    "regdb/i2v": (I2V, (70.49, 65.90), AGW_CODE),
    "llcm/i2v": (LLCM, (46.4, 54.8), LLCM_CODE),
    "llcm/v2i": ("llcm/v2i", (56.0, 59.1), LLCM_CODE),
    "caj/sysu-all": (ALL, (69.88, 66.89), CAJ_CODE),
    "caj/sysu-indoor": (INDOOR, (76.26, 80.37), CAJ_CODE),
    "caj/regdb-v2i": (V2I, (85.03, 79.14), CAJ_CODE),
    "caj/regdb-i2v": (I2V, (84.75, 77.82), CAJ_CODE),
    "channel-augmentation": (
        None, (),
        {"erasing": CAJ_CODE["erasing"], "exchange": {"type": "ChannelExchange", "cases": "rgb_unchanged_grey"}},
    ),
}  # fmt: skip

FUSION_FULL: Printed = (72.57, 68.61)
FUSION: Table = {
    "table1/baseline": (ALL, (49.86, 46.55), {"mutual": None, "fusion": None, "rcc": None, "erasing": None}),
    "table1/fusion": (ALL, (54.12, 52.99), {"mutual": None, "rcc": None, "erasing": None}),
    "table1/rcc": (ALL, (56.87, 54.30), {"mutual": None, "fusion": None, "erasing": None}),
    "table1/cre": (ALL, (59.48, 59.16), {"mutual": None, "fusion": None, "rcc": None}),
    "table1/rcc_cre": (ALL, (65.45, 60.78), {"mutual": None, "fusion": None}),
    "table1/rcc_cre_fusion": (ALL, (69.68, 65.66), {"mutual": None}),
    "table1/full": (ALL, FUSION_FULL, {}),
    "table2/l12": (ALL, (66.01, 62.30), {"fusion.stages": [1, 2]}),
    "table2/l13": (ALL, (71.58, 67.19), {"fusion.stages": [1, 3]}),
    "table2/l23": (ALL, (72.39, 68.10), {"fusion.stages": [2, 3]}),
    "table2/l123": (ALL, FUSION_FULL, {}),
    "table2/l124": (ALL, (67.59, 65.39), {"fusion.stages": [1, 2, 4]}),
    "table2/l134": (ALL, (70.21, 66.83), {"fusion.stages": [1, 3, 4]}),
    "table2/l234": (ALL, (71.08, 67.43), {"fusion.stages": [2, 3, 4]}),
    "table2/l1234": (ALL, (71.69, 67.52), {"fusion.stages": [1, 2, 3, 4]}),
    "table3/none": (ALL, (69.59, 65.36), {"mutual": None, "branch_identity": False}),
    "table3/id": (ALL, (69.68, 65.66), {"mutual": None}),
    "table3/kd": (ALL, (68.37, 65.32), {"branch_identity": False, **NO_LSR}),
    "table3/id_kd": (ALL, (71.24, 67.38), NO_LSR),
    "table3/id_kd_lsr": (ALL, FUSION_FULL, {}),
    "table3-smoothing/kd": (ALL, (), {"branch_identity": False}),
    "table3-smoothing/id_kd": (ALL, (), {}),
    "table3-smoothing/id_kd_lsr": (ALL, (), {"label_smoothing": 0.1}),
    "table4/none": (ALL, (69.68, 65.66), {"mutual": None}),
    "table4/global_to_fusion": (
        ALL, (68.67, 64.31), {"mutual.pairs": ["global-fusion"], "mutual.direction": "one_way"},
    ),
    "table4/global_to_fusion-both": (ALL, (), {"mutual.pairs": ["global-fusion"]}),
    "table4/joint_to_global": (ALL, (70.18, 65.95), {"mutual.pairs": ["joint-global"]}),
    "table4/joint_to_fusion": (ALL, (70.87, 66.78), {"mutual.pairs": ["joint-fusion"]}),
    "table4/joint_to_global_and_fusion": (ALL, FUSION_FULL, {}),
    "table5/v2i": (V2I, (92.00, 88.01), {}),
    "table5/i2v": (I2V, (90.01, 86.15), {}),
    "table6/all": (ALL, FUSION_FULL, {}),
    "table6/indoor": (INDOOR, (78.01, 81.39), {}),
}  # fmt: skip
for tenth in range(0, 21, 2):  # figure 4: θ1 with θ2 = 1; then θ2 with θ1 = 0.6, its best is 1.8
    value = tenth / 10
    first = {"mutual.theta2": 1.0} | ({"mutual.theta1": value} if value != 0.6 else {})
    FUSION[f"figure4/theta1={value}"] = (ALL, (), first)
    FUSION[f"figure4/theta2={value}"] = (ALL, (), {"mutual.theta2": value} if value != 1.8 else {})

PECA: Table = {
    "table1/all": (ALL, (74.89, 72.28), {}),
    "table1/indoor": (INDOOR, (79.96, 83.96), {}),
    "table2/v2i": (V2I, (94.97, 89.07), {}),
    "table2/i2v": (I2V, (93.06, 90.22), {}),
    "table3/m1": (ALL, (65.12, 61.25), M1),
    "table3/m2": (ALL, (65.98, 62.17), {"modality": None, "gsl": None, "ical": None}),
    "table3/m3": (ALL, (67.23, 62.83), {"gsl": None, "ical": None}),
    "table3/m4": (ALL, (72.86, 68.25), {"ical": None}),
    "table3/m5": (ALL, (70.23, 66.83), {"gsl": None}),
    "table3/peca": (ALL, (74.89, 72.28), {}),
    "table3-regdb/m1": (V2I, (80.23, 73.06), M1),
    "table3-regdb/m2": (V2I, (81.25, 73.86), {"modality": None, "gsl": None, "ical": None}),
    "table3-regdb/m3": (V2I, (83.17, 75.32), {"gsl": None, "ical": None}),
    "table3-regdb/m4": (V2I, (88.96, 83.19), {"ical": None}),
    "table3-regdb/m5": (V2I, (85.36, 80.07), {"gsl": None}),
    "table3-regdb/peca": (V2I, (94.97, 89.07), {}),
}
CURVES = (  # figures 4 to 6: field, points, and PECA's own point
    ("figure4", "tau_ins", "instance.temperature", (0.05, 0.10, 0.15, 0.20, 0.25), 0.15),
    ("figure5", "tau_mod", "modality.temperature", (0.05, 0.10, 0.15, 0.20, 0.25), 0.10),
    ("figure6", "lambda_m", "modality.weight", (0.0, 0.25, 0.50, 0.75, 1.0), 0.50),
)
for figure, short, path, points, own in CURVES:
    for suffix, on, printed in (("", ALL, (74.89, 72.28)), ("-regdb", V2I, (94.97, 89.07))):
        for point in points:
            here = (on, printed, {}) if point == own else (on, (), {path: point})
            PECA[f"{figure}{suffix}/{short}={point:.2f}"] = here

WRIM_FULL = (LLCM, (58.38, 64.75), {})
WRIM: Table = {
    "table1/all-single": (ALL, (77.4, 75.4), SYSU_BATCH),
    "table1/all-multi": ("sysu-mm01/all/multi", (83.2, 71.1), SYSU_BATCH),
    "table1/indoor-single": (INDOOR, (86.2, 88.1), SYSU_BATCH),
    "table1/indoor-multi": ("sysu-mm01/indoor/multi", (92.1, 84.6), SYSU_BATCH),
    "table1/regdb-v2i": (V2I, (94.5, 90.5), REGDB_PARTS),
    "table1/regdb-i2v": (I2V, (93.7, 89.7), REGDB_PARTS),
    "table2/i2v": (LLCM, (58.4, 64.8), {}),
    "table2/v2i": ("llcm/v2i", (67.0, 69.2), {}),
    "table3/baseline": (LLCM, (50.42, 57.05), NO_MIIM | NO_AICL),
    "table3/miim": (LLCM, (55.31, 61.56), NO_AICL),
    "table3/aicl": (LLCM, (54.83, 61.27), NO_MIIM),
    "table3/full": WRIM_FULL,
    "table4/none": (LLCM, (54.83, 61.27), NO_MIIM),
    "table4/stages12": (LLCM, (57.82, 64.03), {"miim": ["separate", "separate", None, None]}),
    "table4/stages34": (LLCM, (56.16, 62.72), {"miim": [None, None, "shared", "shared"]}),
    "table4/stages1234": WRIM_FULL,
    "table5/triplet": (
        LLCM, (56.53, 63.19), {"contrast": {"type": "BatchHardTriplet", "weight": 0.5, "margin": 0.3}},
    ),
    "table5/contrastive": (LLCM, (56.79, 63.39), {"contrast.top_k": 1, "contrast.selection": "random"}),
    "table5/cmkic": WRIM_FULL,
    "table6/cbam": (LLCM, (50.71, 57.83), NO_MIIM | NO_AICL | {"attention": "cbam"}),
    "table6/non-local": (LLCM, (50.66, 57.25), NO_MIIM | NO_AICL | {"attention": "non_local"}),
    "table6/miim": (LLCM, (55.31, 61.56), NO_AICL),
    "table7/8-4-2-2": (LLCM, (57.87, 64.17), NARROW | {"mining.spatial_ratio": [8, 4, 2, 2]}),
    "table7/4-2-1-1": (LLCM, (58.00, 64.32), NARROW),
    "table7/2-1-1-1": (LLCM, (57.71, 64.04), NARROW | {"mining.spatial_ratio": [2, 1, 1, 1]}),
    "table8/4-4-8-8": (LLCM, (57.51, 63.79), NARROW | {"mining.channel_ratio": [4, 4, 8, 8]}),
    "table8/2-2-4-4": (LLCM, (58.00, 64.32), NARROW),
    "table8/1-1-2-2": (LLCM, (57.45, 63.77), NARROW | {"mining.channel_ratio": [1, 1, 2, 2]}),
    "table9/pool=1": (LLCM, (57.77, 64.11), {"mining.pool": 1}),
    "table9/pool=2": (LLCM, (None, 64.49), {"mining.pool": 2}),
    "table9/pool=3": WRIM_FULL,
    "table9/pool=4": (LLCM, (None, 64.23), {"mining.pool": 4}),
    **{f"table10/top_k={k}": (LLCM, (None, None), {"contrast.top_k": k}) for k in (1, 2, 6, 8)},
    "table10/top_k=4": WRIM_FULL,
    "table10/random": (LLCM, (56.46, 63.14), {"contrast.selection": "random"}),
    "tableS1/none": (LLCM, (54.83, 61.27), NO_MIIM),
    "tableS1/stage1": (LLCM, (56.68, 62.83), {"miim": ["separate", None, None, None]}),
    "tableS1/stage2": (LLCM, (57.34, 63.53), {"miim": [None, "separate", None, None]}),
    "tableS1/stage3": (LLCM, (55.26, 61.98), {"miim": [None, None, "shared", None]}),
    "tableS1/stage4": (LLCM, (55.03, 61.76), {"miim": [None, None, None, "shared"]}),
    "tableS1/stages12": (LLCM, (57.82, 64.03), {"miim": ["separate", "separate", None, None]}),
    "tableS1/stages34": (LLCM, (56.16, 62.72), {"miim": [None, None, "shared", "shared"]}),
    "tableS1/stages1234": WRIM_FULL,
    "tableS2/shared": (LLCM, (57.63, 64.15), {"miim": ["shared"] * 4}),
    "tableS2/separate": (LLCM, (57.12, 63.53), {"miim": ["separate"] * 4}),
    "tableS2/full": WRIM_FULL,
    "tableS3/mul": (LLCM, (56.08, 62.98), {"mining.fusion": "mul"}),
    "tableS3/add": (LLCM, (56.74, 63.55), {"mining.fusion": "add"}),
    "tableS3/sigmoid-mul": WRIM_FULL,
    "tableS4/no-auxiliary": (LLCM, (57.32, 63.43), {"auxiliary": None}),
    "tableS4/full": WRIM_FULL,
    # figure S1: λ1 with λ2 = 0.1, and λ2 with λ1 = 0.5
    **{f"figureS1/lambda1={x}": ("llcm/v2i", (), {"contrast.weight": x}) for x in (0.1, 0.3, 0.7, 1.0)},
    **{f"figureS1/lambda2={x}": ("llcm/v2i", (), {"auxiliary.weight": x}) for x in (0.05, 0.3, 0.5, 1.0)},
    "figureS1/lambda1=0.5": ("llcm/v2i", (), {}),
    "figureS1/lambda2=0.1": ("llcm/v2i", (), {}),
}  # fmt: skip

TABLES = {"agw": AGW, "fusion_dml": FUSION, "peca": PECA, "wrim_net": WRIM}
EVERY = [(name, row) for name, table in TABLES.items() for row in table]


def at(config: dict[str, Any], path: str) -> Any:
    """The value of a field in a configuration in JSON values."""
    for name in path.split("."):
        config = config[name]
    return config  # type: ignore[return-value]


@pytest.mark.parametrize("name", FULL)
def test_the_full_model_is_the_papers(name):
    config = to_json(recipe(name).PAPER)
    assert {path: at(config, path) for path in FULL[name]} == FULL[name]


@pytest.mark.parametrize("name", TABLES)
def test_the_table_has_every_row(name):
    assert name in recipes()
    missing, gone = recipe(name).ROWS.keys() - TABLES[name].keys(), TABLES[name].keys() - recipe(name).ROWS.keys()
    assert not missing, f"write these rows into the table above, from the paper: {sorted(missing)}"
    assert not gone, f"the package lacks these rows: {sorted(gone)}"


@pytest.mark.parametrize(("name", "row"), EVERY)
def test_a_row_differs_from_the_full_model_as_in_the_paper(name, row):
    module, (_, _, wanted) = recipe(name), TABLES[name][row]
    found = {path: after for path, (_, after) in differences(module.PAPER, module.ROWS[row].config).items()}
    assert found == wanted


@pytest.mark.parametrize(("name", "row"), EVERY)
def test_a_row_has_the_protocol_and_the_numbers_of_the_paper(name, row):
    on, printed, _ = TABLES[name][row]
    found = recipe(name).ROWS[row]
    assert found.on == on
    assert (bool(found.published), *(found.published.get(metric) for metric in ("rank1", "map"))) == (
        (True, *printed) if printed else (False, None, None)
    )
