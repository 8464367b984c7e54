"""Pooling, parts, necks, classifiers and attention against their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.oracles import networks as oracle
from vireid.data.errors import BadInput
from vireid.networks.attention import CBAM, NonLocal
from vireid.networks.heads import BNNeck, Classifier
from vireid.networks.parts import Parts, part_bounds
from vireid.networks.pooling import AveragePool, GeM
from vireid.networks.resnet import Stages, Stem, last_blocks


def test_gem_by_hand():
    # Values 1, 2, 3 and -5, which is replaced by 1e-6: ((1 + 8 + 27 + 0) / 4)^(1/3) = 9^(1/3).
    pooled = GeM()(torch.tensor([1.0, 2.0, 3.0, -5.0]).view(1, 1, 2, 2))
    assert pooled.item() == pytest.approx(9 ** (1 / 3))


@pytest.mark.parametrize("p", [1.0, 2.5, 3.0, 6.5])
@pytest.mark.parametrize("learnable", [False, True])
def test_gem_against_the_oracle(p, learnable):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = GeM(p, learnable=learnable)(x)
    torch.testing.assert_close(found, oracle.gem(x, p=p, eps=1e-6), rtol=1e-7, atol=1e-12, check_dtype=False)


@pytest.mark.parametrize("p", [3.0, 40.0])
@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6], ids=str)
def test_gem_is_finite_and_trainable_on_signed_input(p, learnable, scale):
    torch.manual_seed(0)
    pool = GeM(p, learnable=learnable)
    x = (scale * torch.randn(2, 3, 4, 5)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(x)
        assert torch.equal(pool(x.detach().bfloat16()), pool(x.detach().bfloat16().float()))
    assert pooled.dtype == torch.float32
    pooled.sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in pool.parameters())]
    assert len(gradients) == 1 + learnable
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_gem_gradient():
    pool = GeM(2.5, learnable=True).double()
    x = (torch.rand(2, 2, 3, 3, dtype=torch.float64) + 0.1).requires_grad_()

    def pooled(x, p):
        return torch.func.functional_call(pool, {"p": p}, (x,))

    assert torch.autograd.gradcheck(pooled, (x, pool.p))


def test_gem_between_mean_and_maximum():
    x = torch.rand(2, 3, 4, 5) + 0.01
    torch.testing.assert_close(GeM(1.0)(x), AveragePool()(x))
    torch.testing.assert_close(GeM(500.0)(x), x.amax((2, 3)), rtol=1e-2, atol=0)
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="above 0"):
            GeM(wrong)


def test_a_height_of_sixteen_in_six_parts():
    assert part_bounds(16, 6) == [(0, 3), (2, 6), (5, 8), (8, 11), (10, 14), (13, 16)]


@given(height=st.integers(1, 64), count=st.integers(1, 16))
def test_parts_cover_every_position_evenly(height, count):
    bounds = part_bounds(height, count)
    assert set().union(*(range(first, end) for first, end in bounds)) == set(range(height))
    heights = [end - first for first, end in bounds]
    assert min(heights) >= 1 and max(heights) - min(heights) <= 2
    if height % count == 0:
        assert heights == [height // count] * count


@pytest.mark.parametrize(("height", "count"), [(0, 3), (5, 0)])
def test_no_height_or_no_parts_is_an_error(height, count):
    with pytest.raises(ValueError, match=f"a height of {height} cannot be divided into {count} parts"):
        part_bounds(height, count)


@pytest.mark.parametrize(("height", "count"), [(16, 6), (9, 3), (5, 2), (2, 3), (4, 1)])
def test_parts_are_adaptive_average_pooling(height, count):
    x = torch.randn(2, 3, height, 4)
    found = Parts(count)(x)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, (count, 1))[..., 0].transpose(1, 2)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.double(), oracle.part_means(x, part_bounds(height, count)), rtol=1e-5, atol=1e-6)


def test_one_part_is_the_average():
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(Parts(1)(x)[:, 0], AveragePool()(x))
    with pytest.raises(ValueError, match="0 parts"):
        Parts(0)


def test_the_weight_of_a_neck_starts_at_one_or_near_it_as_in_agws_code():
    assert torch.equal(BNNeck(8).bn.weight, torch.ones(8))
    torch.manual_seed(0)
    weight = BNNeck(4000, start="code").bn.weight
    assert abs(weight.mean() - 1) < 5 * 0.01 / 4000**0.5
    assert weight.std().item() == pytest.approx(0.01, rel=0.06)


def test_neck_normalises_and_its_bias_does_not_change():
    torch.manual_seed(0)
    neck = BNNeck(4)
    x = 3 + 2 * torch.randn(16, 4)
    found = neck(x)
    torch.testing.assert_close(found, (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
    optimiser = torch.optim.SGD([p for p in neck.parameters() if p.requires_grad], lr=0.1)
    (found * torch.randn(16, 4)).sum().backward()
    optimiser.step()
    assert not neck.bn.bias.any() and not neck.bn.bias.requires_grad
    assert not torch.equal(neck.bn.weight, torch.ones(4))


def test_classifier_starts_near_zero_without_a_bias():
    torch.manual_seed(0)
    classifier = Classifier(512, 100)
    assert [name for name, _ in classifier.named_parameters()] == ["linear.weight"]
    assert classifier.linear.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert classifier(torch.randn(3, 512)).shape == (3, 100)


@pytest.mark.parametrize("form", ["dot", "gaussian"])
@pytest.mark.parametrize("inner", [1, 2])
def test_non_local_against_the_oracle(form, inner):
    torch.manual_seed(0)
    block = NonLocal(4, inner=inner, form=form).eval()
    block.bn.weight.data.uniform_(0.5, 1.5)
    block.bn.bias.data.uniform_(-1, 1)
    x = torch.randn(2, 4, 3, 2)
    # A 1×1 convolution multiplies the channels of each position by a matrix.
    flat = x.flatten(2).transpose(1, 2)
    theta, phi, g = (flat @ c.weight[..., 0, 0].T + c.bias for c in (block.theta, block.phi, block.g))
    y = torch.stack(
        [oracle.non_local(t.detach(), p.detach(), v.detach(), form=form) for t, p, v in zip(theta, phi, g, strict=True)]
    )
    back = y.float() @ block.w.weight[..., 0, 0].T + block.w.bias
    wanted = x + block.bn(back.transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(block(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["dot", "gaussian"])
def test_non_local_starts_as_the_identity_and_can_learn(form):
    block = NonLocal(4, inner=2, form=form)
    x = torch.randn(2, 4, 3, 2)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    block.bn.weight.data.fill_(1.0)
    (block(x) * torch.randn_like(x)).sum().backward()
    # The normalisation removes the bias of W, so it has no effect. All other parameters learn.
    assert [n for n, p in block.named_parameters() if p.grad is None] == []
    assert all(block.get_parameter(f"{n}.weight").grad.any() for n in ("theta", "phi", "g", "w", "bn"))


@pytest.mark.parametrize(
    ("width", "form", "published"),
    [(lambda channels: channels // 4, "gaussian", 27.198), (lambda channels: 1, "dot", 23.541)],
)
def test_non_local_counts_with_resnet50(width, form, published):
    # ResNet-50 with one neck of width 2048, no classifier, and non-local blocks after the last 2 blocks of stage 2 and
    # the last 3 of stage 3.
    with torch.device("meta"):
        channels = Stages("resnet50").channels
        inserted = {
            (number, index): NonLocal(channels[number - 1], inner=width(channels[number - 1]), form=form)
            for number, index in last_blocks((3, 4, 6, 3), (0, 2, 3, 0))
        }
        parts = (Stem("resnet50"), Stages("resnet50", inserted=inserted), BNNeck(2048))
    assert round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6, 3) == published


def test_cbam_against_the_oracle():
    torch.manual_seed(0)
    block = CBAM(4, ratio=2).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    first, last = (block.channels[i].weight.detach() for i in (0, 2))
    expected = torch.stack([oracle.cbam(image, first, last, block.positions.weight.detach()[0]) for image in x])
    torch.testing.assert_close(block(x), expected)


def test_cbam_count_with_resnet50():
    with torch.device("meta"):
        plain = Stages("resnet50")
        everywhere = last_blocks(plain.blocks, plain.blocks)
        within = {(number, index): CBAM(plain.channels[number - 1]) for number, index in everywhere}
        parts = (Stem("resnet50"), Stages("resnet50", within=within), BNNeck(2048))
    assert round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6, 3) == 26.029


def test_every_parameter_of_a_trunk_with_attention_gets_a_gradient():
    torch.manual_seed(0)
    stages = Stages("tiny", inserted={(2, 0): NonLocal(64, inner=8)}, within={(1, 0): CBAM(32), (4, 0): CBAM(256)})
    nn.init.ones_(stages.inserted["stage2_block0"].bn.weight)
    pool = GeM(learnable=True)
    head = nn.Sequential(BNNeck(256), Classifier(256, 5))
    logits = head(pool(stages(torch.randn(8, 32, 16, 8))["stage4"]))
    nn.functional.cross_entropy(logits, torch.arange(8) % 5).backward()
    silent = [
        name
        for module in (stages, pool, head)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []


class _LastMap(nn.Module):
    def __init__(self, stages):
        super().__init__()
        self.stages = stages

    def forward(self, x):
        return self.stages(x)["stage4"]


@pytest.mark.parametrize("pool", [Parts(3), GeM(), GeM(learnable=True)], ids=repr)
def test_a_trunk_can_be_exported(pool):
    torch.manual_seed(0)
    stages = Stages("tiny", inserted={(2, 0): NonLocal(64, inner=8)}, within={(1, 0): CBAM(32)})
    network = nn.Sequential(Stem("tiny"), _LastMap(stages), pool).eval()
    images = torch.randn(2, 3, 64, 32)
    exported = torch.export.export(network, (images,)).module()
    torch.testing.assert_close(exported(images), network(images), rtol=1e-4, atol=1e-5)


def test_unknown_form_names_the_choices():
    with pytest.raises(BadInput, match="choices: dot, gaussian"):
        NonLocal(4, inner=2, form="x")
