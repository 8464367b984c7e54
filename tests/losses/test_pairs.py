"""The common steps of losses that compare samples: unit length, similarity, masks of pairs, means."""

from __future__ import annotations

import pytest
import torch

from vireid.losses.pairs import mean_over, same_identity, similarity, unit


def test_unit_by_hand():
    found = unit(torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_unit_is_at_least_float32(given, returned):
    features = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(given)
    found = unit(features)
    assert found.dtype == returned
    torch.testing.assert_close(found.double().norm(dim=1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-6)
    assert torch.equal(found, unit(features.to(returned)))


def test_unit_gradient():
    features = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, features)
    zero = torch.zeros(1, 4, requires_grad=True)
    unit(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_similarity_by_hand():
    f, g = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]])
    torch.testing.assert_close(similarity(f, g), torch.tensor([[0.0, 1.0, 0.8], [0.8, 0.6, 0.96]]))


def test_similarity_is_float32_inside_autocast():
    f = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarity(f, f)
        assert (f @ f.T).dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, similarity(f, f))


def test_same_identity_by_hand():
    positive, negative = same_identity(torch.tensor([7, 3, 7]))
    assert positive.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert negative.tolist() == [[False, True, False], [True, False, True], [False, True, False]]


def test_each_pair_is_positive_or_negative_and_the_diagonal_is_neither():
    identity = torch.randint(4, (9,), generator=torch.Generator().manual_seed(0))
    positive, negative = same_identity(identity)
    assert torch.equal(positive ^ negative, ~torch.eye(9, dtype=torch.bool))
    assert torch.equal(positive, positive.T) and torch.equal(negative, negative.T)


def test_mean_over_by_hand():
    values = torch.tensor([1.0, 100.0, 4.0], requires_grad=True)
    mean = mean_over(torch.tensor([True, False, True]), values)
    assert mean.item() == 2.5
    mean.backward()
    assert values.grad.tolist() == [0.5, 0.0, 0.5]


def test_mean_over_nothing_is_zero_with_a_graph():
    values = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    mean = mean_over(torch.zeros(3, dtype=torch.bool), values)
    assert mean.item() == 0.0
    mean.backward()
    assert values.grad.tolist() == [0.0, 0.0, 0.0]


def test_values_that_are_not_used_may_be_infinite():
    values = torch.tensor([2.0, float("inf"), float("nan")], requires_grad=True)
    mean = mean_over(torch.tensor([True, False, False]), values)
    assert mean.item() == 2.0
    mean.backward()
    assert values.grad.tolist() == [1.0, 0.0, 0.0]
