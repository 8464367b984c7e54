"""Files that compute something else are noticed and not kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vireid
from tests.recipes.test_sweep import SIZE, prepared
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.evaluation.embedding import NetworkEmbedder
from vireid.evaluation.parity import LIMIT, patterns
from vireid.experiments.export import ExportOptions, export
from vireid.export import onnx, parity
from vireid.export.specialise import OneModality


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A network, not trained."""
    return prepared("agw", None).eval()


@pytest.fixture(scope="module")
def one(network) -> OneModality:
    """The same for visible pictures."""
    return OneModality(network, Modality.VISIBLE)


def computed(one: OneModality, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return one(torch.from_numpy(images)).numpy()


def difference(network: torch.nn.Module, compute) -> float:
    return parity.difference(NetworkEmbedder(network.embed), Modality.VISIBLE, compute, SIZE)


def test_the_network_itself_does_not_differ(network, one):
    assert difference(network, lambda images: computed(one, images)) < 1e-9


def normalised_twice(one: OneModality):
    def compute(images):
        again = images.astype(np.float32) / 255 * one.scale.numpy() * 255 - one.shift.numpy()
        return computed(one, np.clip(again * 255, 0, 255).astype(np.uint8))

    return compute


FAULTS = {
    "channels the other way round": lambda one: lambda images: computed(one, images[:, ::-1].copy()),
    "normalised twice": normalised_twice,
    "not of length one": lambda one: lambda images: computed(one, images) * 1.1,
    "the first picture of each batch": lambda one: lambda images: computed(one, images)[:1].repeat(len(images), 0),
    "another order in the batch": lambda one: lambda images: computed(one, images)[::-1],
    "a picture too few": lambda one: lambda images: computed(one, images)[1:],
    "a number that is not finite": lambda one: lambda images: computed(one, images) * np.float32("nan"),
    "wrong in batches of one": lambda one: lambda images: computed(one, images) * (-1 if len(images) == 1 else 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused(network, one, fault):
    found = difference(network, FAULTS[fault](one))
    with pytest.raises(BadInput, match=r"the onnx file of visible pictures is not kept: its features differ"):
        parity.check({"visible": found}, "onnx")


def test_the_other_stem_is_refused(network):
    other = OneModality(network, Modality.INFRARED)
    assert difference(network, lambda images: computed(other, images)) > LIMIT


def test_differences_up_to_the_limit_are_allowed():
    parity.check({"visible": 0.0, "infrared": LIMIT}, "onnx")
    with pytest.raises(BadInput, match=r"infrared pictures is not kept: .* by 1\.1e-04 .* 1e-04 is the limit"):
        parity.check({"visible": 0.0, "infrared": 1.1e-4}, "onnx")


def test_patterns_are_unlike_each_other_and_always_the_same(one):
    images = patterns(64, SIZE)
    assert images.dtype == np.uint8 and images.shape == (64, 3, *SIZE)
    assert (images == patterns(64, SIZE)).all() and len({image.tobytes() for image in images}) == 64
    grey = (images == images[:, :1]).all(axis=(1, 2, 3))
    assert grey[1::2].all() and not grey[::2].any()
    features = computed(one, images)
    assert np.median(features @ features.T) < 0.99  # so a feature of another picture is far above the limit


def test_files_that_differ_are_not_kept(agw, tmp_path, monkeypatch):
    """The file of the other modality, in the place of each: what a mix-up in the exporter would write."""

    def write(network, size, file) -> None:
        word = "infrared" if network.modality == Modality.VISIBLE else "visible"
        file.write_bytes((agw.export / f"{word}.onnx").read_bytes())

    monkeypatch.setattr(onnx, "write", write)
    with pytest.raises(BadInput, match="of visible pictures is not kept"):
        export(ExportOptions(run=agw.run, out=tmp_path / "new"))
    assert not any(tmp_path.iterdir())


def test_a_network_that_cannot_be_exported_is_one_sentence(tmp_path):
    class Branching(torch.nn.Module):
        def embed(self, images, modality):
            features = images.mean((2, 3))
            return features if features.sum() > 0 else -features  # depends on the pictures

    with pytest.raises(BadInput, match=r"^this network cannot be exported to ONNX: "):
        onnx.write(OneModality(Branching(), Modality.VISIBLE), SIZE, tmp_path / "one.onnx")
    assert not any(tmp_path.iterdir())


def test_a_missing_package_is_one_sentence():
    with pytest.raises(BadInput, match=r"package no_such, which is not installed: pip install 'vireid\[export\]'"):
        onnx.package("no_such.part")


def test_a_loaded_run_has_no_runtime(agw):
    assert vireid.load(agw.run).runtime == "" and vireid.load(agw.export).runtime == "onnx"
