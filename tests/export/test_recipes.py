"""Every recipe, and slowly every row that has another network: the files compute what PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import vireid
from tests.recipes.test_sweep import DISTINCT, SIZE, prepared
from vireid.data.modality import Modality
from vireid.evaluation.embedding import NetworkEmbedder
from vireid.evaluation.parity import LIMIT
from vireid.evaluation.scoring import read_features
from vireid.experiments.test import TestOptions
from vireid.experiments.test import test as measure
from vireid.export import onnx, parity
from vireid.export.specialise import OneModality
from vireid.recipes import recipes

BOTH = (Modality.VISIBLE, Modality.INFRARED)
PROTOCOL = "sysu-mm01/all/single"
# An export takes ten seconds and more, so the others are slow.
RECIPES = [name if name == "agw" else pytest.param(name, marks=pytest.mark.slow) for name in recipes()]


def measured(directory: Path, worlds, file: Path):
    """The report of a run or an export, and all of its test features."""
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    asked = TestOptions(run=directory, data=data, protocols=(PROTOCOL,), features=file, workers=0)
    (found,) = measure(asked)
    return found, read_features(file)["features"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_export_ranks_as_pytorch_does(recipe, exported, worlds, tmp_path):
    pair = exported(recipe)
    ours, features = measured(pair.run, worlds, tmp_path / "run.npz")
    theirs, exported_features = measured(pair.export, worlds, tmp_path / "export.npz")
    same = ("queries", "gallery", "rank1", "rank5", "map", "minp")
    assert {name: getattr(ours.report, name) for name in same} == {name: getattr(theirs.report, name) for name in same}
    assert ours.examples == theirs.examples
    used = features.any(1)
    assert 20 < used.sum() == exported_features.any(1).sum()
    here, there = features[used].astype(float), exported_features[used].astype(float)
    order = np.argsort(-(here @ here.T), axis=1)
    in_that_order = np.take_along_axis(there @ there.T, order, axis=1)
    assert (np.diff(in_that_order, axis=1) < 1e-6).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_file_has_what_its_features_need_and_no_branches(recipe, exported):
    package = pytest.importorskip("onnx")
    pair = exported(recipe)
    state = vireid.load(pair.run).network.state_dict()
    classifiers = [list(x.shape) for name, x in state.items() if "classifier" in name]
    assert classifiers
    for word in ("visible", "infrared"):
        graph = package.load(pair.export / f"{word}.onnx").graph
        (images,), (features,) = graph.input, graph.output
        sides = [one.dim_value or one.dim_param for one in images.type.tensor_type.shape.dim]
        assert (images.name, features.name) == ("images", "features") and sides == ["pictures", 3, *SIZE]
        assert images.type.tensor_type.elem_type == package.TensorProto.UINT8
        assert not {node.op_type for node in graph.node} & {"If", "Loop", "Scan", "SequenceConstruct"}
        shapes = [list(one.dims) for one in graph.initializer]
        assert sum(shape[1:] == [3, 7, 7] for shape in shapes) == 1  # one stem
        assert not [shape for shape in shapes if shape in classifiers or shape[::-1] in classifiers]
        assert sum(map(math.prod, shapes)) <= sum(x.numel() for name, x in state.items() if needed_for(name, word))


def needed_for(name: str, word: str) -> bool:
    """Whether a parameter of this name can be needed for features of pictures of this modality."""
    (other,) = {"visible", "infrared"} - {word}
    left_out = (
        "num_batches_tracked",
        "classifier",
        "memory",
        "projections",
        "head.",
        f"copies.{other}",
        "copies.auxiliary",
    )
    return not any(one in name for one in left_out)


# --- rows -------------------------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """Notes every operation with the shapes and the other values that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation: Callable, types, args=(), kwargs=None):
        shapes = tree_map(lambda x: tuple(x.shape) if isinstance(x, torch.Tensor) else str(x), (args, kwargs))
        self.seen.append(f"{operation} {shapes}")
        return operation(*args, **(kwargs or {}))


def computation(name: str, row: str | None) -> str:
    """What a row computes for two visible pictures, step by step. Rows that differ only in training are equal."""
    network = OneModality(prepared(name, row), Modality.VISIBLE)
    with Operations() as noted, torch.no_grad():
        network(torch.zeros(2, 3, *SIZE, dtype=torch.uint8))
    return "\n".join(noted.seen)


def test_rows_are_grouped_by_what_they_compute():
    assert computation("peca", None) == computation("peca", "table3/m1")  # another objective
    assert computation("wrim_net", None) != computation("wrim_net", "table9/pool=2")  # other keys of the attention


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_row_with_another_network_is_exported(tmp_path):
    groups: dict[str, tuple[str, str | None]] = {}
    for name, row in DISTINCT:
        groups.setdefault(computation(name, row), (name, row))
    assert len(groups) > 10
    found, file = {}, tmp_path / "one.onnx"
    for number, (name, row) in enumerate(groups.values()):
        network, modality = prepared(name, row).eval(), BOTH[number % 2]
        onnx.write(OneModality(network, modality), SIZE, file)
        found[name, row] = parity.difference(NetworkEmbedder(network.embed), modality, onnx.opened(file), SIZE)
    assert not {which: value for which, value in found.items() if not value <= LIMIT}
