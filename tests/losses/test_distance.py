"""Euclidean distances and cross-entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import losses as oracle
from vireid.losses.classification import cross_entropy
from vireid.losses.distance import SMALLEST, euclidean, paired


def test_distance_by_hand():
    found = euclidean(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[1e-6, 5.0], [5.0, 1e-6]]))


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_distance_against_the_oracle(offset):
    a = torch.randn(5, 7, dtype=torch.float64) + offset
    b = torch.randn(3, 7, dtype=torch.float64) + offset
    for other, second in ((b, b), (a, None)):
        expected = torch.tensor(
            [[oracle.distance(x, y) for y in other.tolist()] for x in a.tolist()], dtype=torch.float64
        )
        torch.testing.assert_close(euclidean(a, second), expected, rtol=1e-9, atol=1e-9)


def test_features_far_from_the_origin_have_exact_distances():
    # Values of 100 ± 0.01 in 2048 dimensions have squared lengths of 2e7 and squared distances of 0.4. In float32 the
    # difference of such squared lengths would have no correct digit.
    generator = torch.Generator().manual_seed(0)
    features = 100 + 0.01 * torch.randn(6, 2048, generator=generator)
    torch.testing.assert_close(euclidean(features), euclidean(features.double()).float(), rtol=1e-4, atol=0)


def test_distance_gradient():
    a = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(euclidean, (a, b))
    away = ~torch.eye(4, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda f: euclidean(f)[away], a)


def test_paired_by_hand():
    f = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    g = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    found = paired(f, g)
    torch.testing.assert_close(found, torch.tensor([5.0, 1e-6]))
    found.sum().backward()
    # Towards g in the first pair; 0 where the two features are equal.
    torch.testing.assert_close(f.grad, torch.tensor([[-0.6, -0.8], [0.0, 0.0]]))


def test_paired_is_the_diagonal_of_all_pairs():
    f, g = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(paired(f, g), euclidean(f, g).diagonal())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_against_the_oracle(label_smoothing):
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    identity = torch.tensor([0, 3, 1, 1, 2, 0])
    expected = oracle.cross_entropy(logits.tolist(), identity.tolist(), label_smoothing)
    found = cross_entropy(logits, identity, label_smoothing=label_smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, identity, label_smoothing=label_smoothing), logits)


def test_cross_entropy_by_hand():
    # With equal logits for four identities the loss is log 4, with and without smoothing.
    for label_smoothing in (0.0, 0.1):
        loss = cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]), label_smoothing=label_smoothing)
        assert loss.item() == pytest.approx(1.386294, abs=1e-6)


def test_cross_entropy_of_half_precision_is_float32():
    logits = torch.randn(4, 5).bfloat16()
    identity = torch.tensor([0, 1, 2, 3])
    loss = cross_entropy(logits, identity)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits.float(), identity))


def _plain(features):
    """The formula, with autograd's gradient."""
    f = features - features.detach().mean(0)
    squared = f.square().sum(1)[:, None] + f.square().sum(1)[None, :] - 2 * f @ f.T
    return squared.masked_fill(torch.eye(len(f), dtype=torch.bool), 0.0).clamp(min=SMALLEST).sqrt()


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    equal=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_the_written_gradient_has_the_bits_of_autograd(size, dtype, equal, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*size, generator=generator, dtype=dtype) * 3 + 1
    if equal:
        features[-1] = features[0]
    gradient = torch.randn(size[0], size[0], generator=generator, dtype=dtype)
    ours, plain = features.clone().requires_grad_(), features.clone().requires_grad_()
    found, expected = euclidean(ours), _plain(plain)
    assert torch.equal(found, expected)
    found.backward(gradient)
    expected.backward(gradient)
    if torch.backends.mkl.is_available():
        assert torch.equal(ours.grad, plain.grad)
    else:  # another library may add the summands of a product and of its transpose in different orders
        torch.testing.assert_close(ours.grad, plain.grad)
