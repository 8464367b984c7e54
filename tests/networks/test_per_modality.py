"""`PerModality` gives the same result as calling the copy of each sample's modality separately."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vireid.data.modality import Modality
from vireid.networks.per_modality import PerModality


def _copies(modalities=(Modality.VISIBLE, Modality.INFRARED, Modality.AUXILIARY)):
    torch.manual_seed(0)
    return PerModality(lambda: nn.Linear(3, 2), modalities)


@given(modality=st.lists(st.integers(0, 2), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_each_sample_passes_through_the_copy_of_its_modality(modality):
    split = _copies()
    x = torch.randn(len(modality), 3, requires_grad=True)
    found = split(x, torch.tensor(modality))
    expected = torch.stack([split.one(m)(sample) for m, sample in zip(modality, x, strict=True)])
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * weight).sum(), x)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(gradient, wanted)


def test_copies_start_differently_and_are_named_by_modality():
    split = _copies()
    assert list(split.copies) == ["visible", "infrared", "auxiliary"]
    assert not torch.equal(split.one(Modality.VISIBLE).weight, split.one(Modality.INFRARED).weight)
    assert split.one(0) is split.copies["visible"]


def test_an_absent_modality_is_not_run():
    split = PerModality(lambda: nn.BatchNorm1d(3))
    for modality in (torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0])):
        split(torch.randn(len(modality), 3), modality)
    assert split.one(Modality.VISIBLE).num_batches_tracked == 2
    assert split.one(Modality.INFRARED).num_batches_tracked == 0
    split(torch.randn(4, 3), torch.tensor([1, 0, 0, 1])).sum().backward()
    assert split.one(Modality.INFRARED).weight.grad is not None


def test_with_one_modality_the_input_is_not_copied():
    class Same(nn.Module):
        def forward(self, x):
            return x

    x = torch.randn(4, 3)
    assert PerModality(Same)(x, torch.ones(4, dtype=torch.int64)) is x


def test_extra_arguments_are_divided_like_the_samples():
    class Add(nn.Module):
        def forward(self, x, y):
            return x + y

    x, y = torch.randn(5, 2), torch.randn(5, 2)
    assert torch.equal(PerModality(Add)(x, torch.tensor([1, 0, 1, 1, 0]), y), x + y)


def test_a_modality_without_a_copy_is_an_error():
    split = _copies((Modality.VISIBLE, Modality.INFRARED))
    with pytest.raises(ValueError, match="no copy for auxiliary samples; there are copies for: visible, infrared"):
        split(torch.randn(2, 3), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="as many modalities"):
        split(torch.randn(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="as many modalities"):
        split(torch.randn(0, 3), torch.tensor([], dtype=torch.int64))


def test_one_copy_can_be_exported():
    split = PerModality(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).eval()
    x = torch.randn(2, 3, 8, 8)
    exported = torch.export.export(split.one(Modality.INFRARED), (x,)).module()
    torch.testing.assert_close(exported(x), split(x, torch.ones(2, dtype=torch.int64)))
