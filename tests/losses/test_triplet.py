"""The triplet losses against values worked by hand and against slow loops."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import losses as oracle
from vireid.data.errors import BadInput
from vireid.losses.triplet import batch_hard_triplet, squared_difference_triplet, weighted_regularised_triplet

VARIANTS = [(sign, anchor) for sign in ("minus", "plus") for anchor in (True, False)]
LOSSES = [
    batch_hard_triplet,
    weighted_regularised_triplet,
    partial(weighted_regularised_triplet, epsilon=1e-6),
    squared_difference_triplet,
]


def _batch(identities: int, samples: int, width: int = 5, *, scale: float = 1.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    features = scale * torch.randn(identities * samples, width, generator=generator, dtype=torch.float64)
    return features, torch.arange(identities).repeat(samples)


def _line(*positions: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(positions, dtype=dtype)[:, None]


def test_batch_hard_by_hand():
    # On a line, identity 0 is at 0 and 1, identity 1 is at 3. The anchor at 0 has its positive at distance 1 and its
    # negative at distance 3, so 1 - 3 + 3 = 1. The anchor at 1 has 1 - 2 + 3 = 2. The anchor at 3 has no positive and
    # does not count.
    loss = batch_hard_triplet(_line(0, 1, 3), torch.tensor([0, 0, 1]), margin=3.0)
    assert loss.item() == pytest.approx(1.5)


def test_batch_hard_is_zero_beyond_the_margin():
    assert batch_hard_triplet(_line(0, 1, 3), torch.tensor([0, 0, 1]), margin=0.3).item() == 0.0


@pytest.mark.parametrize("margin", [0.0, 0.3, 5.0])
def test_batch_hard_against_the_oracle(margin):
    features, identity = _batch(3, 4)
    expected = oracle.batch_hard_triplet(features.tolist(), identity.tolist(), margin)
    assert batch_hard_triplet(features, identity, margin=margin).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("sign", "weights"),
    [("minus", (0.59, 0.36, 0.05)), ("plus", (0.07, 0.11, 0.82))],
)
def test_negative_weights_by_hand(sign, weights):
    # The anchor at 0 has its positive at 0 and negatives at 0.5, 1 and 3. The weights are, with `minus`,
    # e^-0.5 : e^-1 : e^-3 = 0.607 : 0.368 : 0.050, and with `plus`, e^0.5 : e^1 : e^3 = 1.65 : 2.72 : 20.09.
    distances = (0.5, 1.0, 3.0)
    found = oracle.softmax_weights(distances, -1.0 if sign == "minus" else 1.0)
    assert [round(weight, 2) for weight in found] == list(weights)
    # Only the first two samples have a positive, at distance 0. For both of them the term is softplus(-far).
    features = _line(0, 0, *distances)
    far = sum(w * d for w, d in zip(found, distances, strict=True))
    loss = weighted_regularised_triplet(features, torch.tensor([0, 0, 1, 2, 3]), negative_sign=sign)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-far)), abs=1e-6)


def test_weighted_regularised_by_hand():
    # Identity 0 is at 0 and 1, identity 1 is at 3. The anchor at 0 has w⁺ = (1, e) / (1 + e) for the distances (0, 1),
    # so near - far = 0.7311 - 3. The anchor at 1 has 0.7311 - 2. softplus(-2.2689) = 0.0984 and
    # softplus(-1.2689) = 0.2477, so the mean is 0.1731.
    loss = weighted_regularised_triplet(_line(0, 1, 3), torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx(0.1731, abs=5e-5)
    # Without the anchor, the only positive has weight 1: softplus(-2) = 0.1269, softplus(-1) = 0.3133.
    loss = weighted_regularised_triplet(_line(0, 1, 3), torch.tensor([0, 0, 1]), anchor_is_positive=False)
    assert loss.item() == pytest.approx((0.12693 + 0.31326) / 2, abs=1e-5)


@pytest.mark.parametrize(("sign", "anchor"), VARIANTS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2, 1e3, 1e4])
def test_weighted_regularised_against_the_oracle_at_any_distance(sign, anchor, scale):
    features, identity = _batch(3, 4, scale=scale)
    expected = oracle.weighted_regularised_triplet(
        features.tolist(), identity.tolist(), negative_sign=sign, anchor_is_positive=anchor
    )
    options = {"negative_sign": sign, "anchor_is_positive": anchor}
    assert weighted_regularised_triplet(features, identity, **options).item() == pytest.approx(expected, rel=1e-9)
    single = weighted_regularised_triplet(features.float(), identity, **options)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4)


def test_negatives_at_large_distances_count():
    # All distances are large, and the loss depends on the difference of near and far. If the weights were divided by a
    # sum plus 1e-6, the loss would be 400 here.
    loss = weighted_regularised_triplet(
        _line(0, 400, 600, dtype=torch.float32), torch.tensor([0, 0, 1]), anchor_is_positive=False
    )
    # The anchor at 0 has 400 - 600, and softplus(-200) = 0. The anchor at 400 has 400 - 200.
    assert loss.item() == pytest.approx(100.0, rel=1e-6)


@pytest.mark.parametrize(
    ("distance", "exact", "of_code"),
    [
        # Two identities with two samples each, all at the same distance d. Positive term: d·e^d / (1 + e^d), as 0.73106
        # for 1 and 20.00000 for 20. Exact negative term: d. Code: d·2e^-d / (2e^-d + 1e-6), as 1.00000 for 1, and
        # 20 · 4.1223e-9 / 1.0041223e-6 = 0.08211 for 20.
        (1.0, 0.567691, 0.567691),  # softplus(-0.26894)
        (20.0, 0.693147, 19.917873),  # softplus(0), softplus(19.91787)
    ],
)
def test_the_epsilon_of_the_public_code_by_hand(distance, exact, of_code):
    features, identity = torch.eye(4, dtype=torch.float64) * distance / 2**0.5, torch.tensor([0, 0, 1, 1])
    assert weighted_regularised_triplet(features, identity).item() == pytest.approx(exact, abs=2e-6)
    assert weighted_regularised_triplet(features, identity, epsilon=1e-6).item() == pytest.approx(of_code, abs=3e-5)


@pytest.mark.parametrize(("distance", "away"), [(5.0, True), (20.0, False)])
def test_with_the_epsilon_of_the_public_code_far_negatives_are_not_pushed_away(distance, away):
    # One step against the gradient changes the distance of the two identities, at 0 and at `distance`.
    identity = torch.tensor([0, 0, 1, 1])
    for epsilon, expected in ((0.0, True), (1e-6, away)):
        features = _line(0, 0.1, distance, distance + 0.1).requires_grad_()
        weighted_regularised_triplet(features, identity, epsilon=epsilon).backward()
        assert features.grad is not None
        moved = (features - features.grad).detach().view(2, 2).mean(1)
        assert ((moved[1] - moved[0]) > distance).item() is expected


def test_in_the_public_code_every_sample_is_an_anchor():
    # Identity 0 is at 0 and 1, identity 1 is at 3. The anchors at 0 and 1 have 0.0984 and 0.2477, see above. The anchor
    # at 3 has no positive but itself, so 0, and negatives at 2 and 3 with the mean (2e^-2 + 3e^-3) / (e^-2 + e^-3) =
    # 2.26894: softplus(-2.26894) = 0.0984.
    loss = weighted_regularised_triplet(_line(0, 1, 3), torch.tensor([0, 0, 1]), epsilon=1e-6)
    assert loss.item() == pytest.approx((0.0984 + 0.2477 + 0.0984) / 3, abs=1e-4)
    # A sample on its own has 0 for both terms: log 2.
    assert weighted_regularised_triplet(_line(7), torch.tensor([0]), epsilon=1e-6).item() == pytest.approx(math.log(2))
    assert squared_difference_triplet(_line(7), torch.tensor([0])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_public_codes_epsilon_against_the_oracle(scale):
    features, identity = _batch(3, 4, scale=scale)
    pairs = oracle.code_triplet(features.tolist(), identity.tolist(), epsilon=1e-6)
    gaps = [near - far for near, far in pairs]
    expected = math.fsum(max(g, 0.0) + math.log1p(math.exp(-abs(g))) for g in gaps) / len(gaps)
    assert weighted_regularised_triplet(features, identity, epsilon=1e-6).item() == pytest.approx(expected, rel=1e-9)


def test_squared_difference_by_hand():
    # Identity 0 is at 0 and 1, identity 1 is at 3 and 4. The anchors at 0 and 4 have the positive term 0.7311 and
    # negatives at 3 and 4: (3 + 4/e) / (1 + 1/e) = 3.2689, and (0.7311 - 3.2689)² = 6.4408. The anchors at 1 and 3 have
    # negatives at 2 and 3: 2.2689, and 2.3651. All positives are nearer, so the loss is the mean of
    # log(1 + e^-6.4408) = 0.001594 and log(1 + e^-2.3651) = 0.089799.
    loss = squared_difference_triplet(_line(0, 1, 3, 4), torch.tensor([0, 0, 1, 1]), epsilon=0.0)
    assert loss.item() == pytest.approx((0.001594 + 0.089799) / 2, abs=2e-5)
    # Identity 0 is at 0 and 8, identity 1 is at 1 and 9. For the anchor at 0: positive term 8·e^8/(1 + e^8) = 7.9973,
    # negatives at 1 and 9: (1 + 9 e^-8) / (1 + e^-8) = 1.0027; the square of 6.9946 is 48.925, and positives are
    # farther, so log(1 + e^48.925) = 48.925. The anchor at 8 has negatives at 7 and 1:
    # (1 + 7 e^-6) / (1 + e^-6) = 1.0148, and 6.9825² = 48.755. By symmetry the anchors at 9 and 1 are like those at 0
    # and 8.
    loss = squared_difference_triplet(_line(0, 8, 1, 9), torch.tensor([0, 0, 1, 1]), epsilon=0.0)
    assert loss.item() == pytest.approx((48.925 + 48.755) / 2, abs=2e-3)
    # The square is cut at 88.
    loss = squared_difference_triplet(_line(0, 80, 1, 90), torch.tensor([0, 0, 1, 1]), epsilon=0.0)
    assert loss.item() == pytest.approx(88.0)


@pytest.mark.parametrize(
    "how", [{}, {"alpha": 2.0}, {"gamma": 0.5}, {"alpha": 0.5, "gamma": 3.0, "epsilon": 0.1}], ids=str
)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_squared_difference_against_the_oracle(how, scale):
    features, identity = _batch(3, 4, scale=scale)
    expected = oracle.squared_difference_triplet(
        features.tolist(), identity.tolist(), **{"alpha": 1.0, "gamma": 1.0, "epsilon": 1e-6, **how}
    )
    assert squared_difference_triplet(features, identity, **how).item() == pytest.approx(expected, rel=1e-9)


def test_gradients_of_the_public_codes_losses():
    features, identity = _batch(3, 3, width=4, scale=0.5)
    for loss in (partial(weighted_regularised_triplet, epsilon=1e-3), squared_difference_triplet):
        assert torch.autograd.gradcheck(lambda f, loss=loss: loss(f, identity), features.requires_grad_())


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"gamma": -1.0}, {"epsilon": -1e-6}], ids=str)
def test_factors_that_are_out_of_range_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(BadInput, match=f"^{name} is {value}"):
        squared_difference_triplet(torch.ones(2, 2), torch.tensor([0, 1]), **wrong)
    if name == "epsilon":
        with pytest.raises(BadInput, match=r"^epsilon is"):
            weighted_regularised_triplet(torch.ones(2, 2), torch.tensor([0, 1]), **wrong)


@pytest.mark.parametrize(("sign", "anchor"), VARIANTS)
def test_gradient_of_weighted_regularised(sign, anchor):
    features, identity = _batch(3, 3, width=4)
    assert torch.autograd.gradcheck(
        lambda f: weighted_regularised_triplet(f, identity, negative_sign=sign, anchor_is_positive=anchor),
        features.requires_grad_(),
    )


def test_gradient_of_batch_hard():
    features, identity = _batch(3, 3, width=4)
    assert batch_hard_triplet(features, identity, margin=1.0) > 0
    assert torch.autograd.gradcheck(lambda f: batch_hard_triplet(f, identity, margin=1.0), features.requires_grad_())


@pytest.mark.parametrize("loss", [*LOSSES[:2], partial(squared_difference_triplet, epsilon=0.0)])
@pytest.mark.parametrize("identity", [[0, 0, 0], [0, 1, 2], [5]], ids=["no negatives", "no positives", "one sample"])
def test_no_usable_anchor_gives_zero_with_a_graph(loss, identity):
    features = torch.randn(len(identity), 4, requires_grad=True)
    value = loss(features, torch.tensor(identity))
    assert value.item() == 0.0
    value.backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_features_have_a_finite_gradient(loss):
    features = torch.ones(6, 4, requires_grad=True)
    loss(features, torch.tensor([0, 0, 0, 1, 1, 1])).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_sample_order_and_identity_numbers_do_not_matter(loss, data):
    samples = data.draw(st.integers(2, 12))
    identity = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=samples, max_size=samples)))
    order = torch.tensor(data.draw(st.permutations(range(samples))))
    features = torch.randn(samples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(samples))
    value = loss(features, identity)
    torch.testing.assert_close(loss(features[order], identity[order]), value)
    torch.testing.assert_close(loss(features, 7 - 2 * identity), value)
    torch.testing.assert_close(loss(features + 1e3, identity), value)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_inside_autocast_and_for_half_precision(loss):
    features, identity = _batch(3, 4)
    single = loss(features.float(), identity)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(features.float(), identity), single)
    half = loss(features.bfloat16(), identity)
    assert half.dtype == torch.float32
    assert torch.equal(half, loss(features.bfloat16().float(), identity))


def test_unknown_sign_names_the_choices():
    with pytest.raises(BadInput, match="'mnius'; did you mean 'minus'"):
        weighted_regularised_triplet(torch.ones(2, 2), torch.tensor([0, 1]), negative_sign="mnius")
