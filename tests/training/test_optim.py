"""Optimisers and schedules against AGW's rule written as its code has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vireid.data.errors import BadInput
from vireid.training.optim import SGD, Adam, OwnRate, WarmUpSteps, set_learning_rate


def agw_rate(epoch: int) -> float:
    """The learning rate of AGW's public schedule at full rate 0.1, as a chain of ifs."""
    if epoch < 10:
        return 0.1 * (epoch + 1) / 10
    if epoch < 20:
        return 0.1
    if epoch < 50:
        return 0.01
    return 0.001


@pytest.mark.parametrize("epoch", range(100))
def test_the_default_schedule_is_agws(epoch):
    assert 0.1 * WarmUpSteps().factor(epoch, 17, 695) == pytest.approx(agw_rate(epoch))


def test_warm_up_by_steps_rises_in_a_line_and_ends_at_the_full_rate():
    schedule = WarmUpSteps(warm_up_epochs=0, warm_up_steps=2000, milestones=(80, 120))
    assert schedule.factor(0, 0, 266) == pytest.approx(0.1)
    assert schedule.factor(3, 202, 266) == pytest.approx(0.1 + 0.9 * 1000 / 2000)
    assert schedule.factor(7, 138, 266) == 1.0
    assert [schedule.factor(e, 0, 266) for e in (79, 80, 120)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize(("steps", "last"), [(266, 2000), (143, 2000), (142, 1988), (32, 448), (1, 14)])
def test_warm_up_by_steps_is_a_tenth_of_the_training_at_most(steps, last):
    """140 epochs of `steps` steps: it ends at step 2000, or at a tenth of all steps."""
    schedule = WarmUpSteps(warm_up_epochs=0, warm_up_steps=2000, warm_up_at_most=0.1, milestones=())
    factors = [schedule.factor(step // steps, step % steps, steps, 140) for step in range(last + 5)]
    assert factors[:last] == pytest.approx([0.1 + 0.9 * step / last for step in range(last)])
    assert factors[last:] == [1.0] * 5


def test_warm_up_by_epochs_has_the_same_limit():
    limited = WarmUpSteps(warm_up_at_most=0.25, milestones=())
    assert [limited.factor(e, 0, 9, 16) for e in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert [limited.factor(e, 0, 9, 100) for e in (0, 9, 10)] == pytest.approx([0.1, 1, 1])
    # Without a limit, warm-up may be longer than the training.
    assert [WarmUpSteps(milestones=()).factor(e, 0, 9, 2) for e in range(2)] == pytest.approx([0.1, 0.2])
    assert WarmUpSteps(warm_up_at_most=0.0).factor(0, 0, 9, 3) == 1.0
    with pytest.raises(ValueError, match="how many"):
        limited.factor(0, 0, 9)


def test_a_milestone_that_could_never_happen_is_refused():
    with pytest.raises(BadInput, match="must ascend"):
        WarmUpSteps(milestones=(120, 80))


@pytest.mark.parametrize("optimiser", [SGD(lr=0.1), Adam(lr=0.1, trunk_factor=0.1)])
def test_two_groups_hold_every_trainable_parameter_once(optimiser):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].bias.requires_grad_(False)
    built = optimiser.build(model, model[2].parameters())
    grouped = [parameter for group in built.param_groups for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rates = set_learning_rate(built, 0.5)
    assert rates == pytest.approx({"trunk": 0.005, "new": 0.05})
    assert set_learning_rate(built, 1.0) == pytest.approx({"trunk": 0.01, "new": 0.1})


def test_sgd_is_nesterov_with_coupled_decay_worked_by_hand():
    """One weight 2, gradient 1, decay 0.1, momentum 0.9: g = 1.2, v = 1.2, step = 0.1 (g + 0.9 v) = 0.228."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    built = SGD(lr=0.1, weight_decay=0.1).build(model, model.parameters())
    model(torch.ones(1, 1)).sum().backward()
    built.step()
    assert model.weight.item() == pytest.approx(2.0 - 0.228)


@pytest.mark.parametrize("kind", [SGD(lr=0.2, trunk_factor=0.5, weight_decay=0.01), Adam(lr=0.2, weight_decay=0.01)])
def test_parameters_with_a_rate_of_their_own_are_one_more_group(kind):
    """Centres that are in the list of new parameters too: their own rate counts, and the schedule holds for it."""
    network = nn.Module()
    network.trunk, network.head = nn.Linear(2, 2), nn.Linear(2, 2)
    network.centres, network.frozen = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(1), requires_grad=False)
    network.own_rates = lambda: {"centres": OwnRate((network.centres,), 5.0, weight_decay=0.0)}
    optimiser = kind.build(network, [*network.head.parameters(), network.centres])
    groups = {group["name"]: group for group in optimiser.param_groups}
    assert {name: len(group["params"]) for name, group in groups.items()} == {"trunk": 2, "new": 2, "centres": 1}
    assert groups["centres"]["params"][0] is network.centres
    assert {name: group["weight_decay"] for name, group in groups.items()} == {"trunk": 0.01, "new": 0.01, "centres": 0}
    rates = set_learning_rate(optimiser, 0.1)
    assert rates["centres"] == pytest.approx(0.1) and rates["new"] == pytest.approx(0.02)
