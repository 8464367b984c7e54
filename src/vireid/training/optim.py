"""Optimisers and learning-rate schedules as values of a configuration.

A schedule is a pure function of (epoch, step), so a resumed run needs no schedule state.

A network may give some of its parameters a learning rate of their own, such as the centres of a loss: see `OwnRate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from torch import nn

from vireid.data.errors import BadInput
from vireid.data.settings import Share, Whole, settings

# Numbers beyond these limits do not fit into the optimiser's arithmetic.
Rate = Annotated[float, Interval(gt=0, le=1000)]
Factor = Annotated[float, Interval(ge=0, le=1000)]


@settings
class SGD:
    """Stochastic gradient descent in AGW's two groups: new layers at `lr`, everything else at a fraction of it."""

    lr: Rate = 0.1
    """code of AGW: learning rate of the new layers (neck, classifier)."""

    trunk_factor: Factor = 0.1
    """code of AGW: the other parameters learn at `lr` times this."""

    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """code of AGW: share of the last step that is added to the next one."""

    nesterov: bool = True
    """code of AGW: the look-ahead form of momentum."""

    weight_decay: Factor = 5e-4
    """code of AGW: coupled L2, on every parameter."""

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise BadInput("optimiser: nesterov needs a momentum above 0; set nesterov=false too")

    def build(
        self, model: nn.Module, new: Iterable[nn.Parameter], *, fused: bool | None = None
    ) -> torch.optim.Optimizer:
        """The optimiser of `model`; `new` are its parameters that learn at the full rate.

        `fused` updates all parameters in one pass, which is for a GPU; None leaves it to torch.
        """
        return torch.optim.SGD(
            two_groups(model, new, self.lr, self.trunk_factor),
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            fused=fused,
        )


@settings
class Adam:
    """Adam with coupled L2 weight decay (not AdamW), in the same two groups; a factor of 1 makes them one."""

    lr: Rate = 3.5e-4
    """code of fast-reid: learning rate of the new layers."""

    trunk_factor: Factor = 1.0
    """code of fast-reid: the other parameters learn at `lr` times this."""

    weight_decay: Factor = 5e-4
    """code of fast-reid: coupled L2, on every parameter."""

    def build(
        self, model: nn.Module, new: Iterable[nn.Parameter], *, fused: bool | None = None
    ) -> torch.optim.Optimizer:
        """The optimiser of `model`; `new` are its parameters that learn at the full rate. `fused` is as in `SGD`."""
        groups = two_groups(model, new, self.lr, self.trunk_factor)
        return torch.optim.Adam(groups, weight_decay=self.weight_decay, fused=fused)


@dataclass(frozen=True)
class OwnRate:
    """Parameters with a learning rate of their own. `own_rates()` of a network returns some, by the name of the group.

    Attributes:
        parameters: the parameters.
        factor: they learn at the full rate times this. The schedule holds for them too.
        weight_decay: theirs; None for that of the optimiser.
    """

    parameters: tuple[nn.Parameter, ...]
    factor: float
    weight_decay: float | None = None


def two_groups(model: nn.Module, new: Iterable[nn.Parameter], lr: float, trunk_factor: float) -> list[dict]:
    """Parameter groups `trunk` and `new`, each with its learning rate and that rate's start in `initial_lr`.

    Each `OwnRate` of the model is one more group, and its parameters are in no other one.
    """
    own: Mapping[str, OwnRate] = model.own_rates() if hasattr(model, "own_rates") else {}  # type: ignore[operator]
    apart = {id(parameter) for rate in own.values() for parameter in rate.parameters}
    new_ids = {id(parameter) for parameter in new} - apart
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trunk = [parameter for parameter in trainable if id(parameter) not in new_ids | apart]
    fresh = [parameter for parameter in trainable if id(parameter) in new_ids]
    rates = {"trunk": lr * trunk_factor, "new": lr} | {name: lr * rate.factor for name, rate in own.items()}
    groups = {"trunk": trunk, "new": fresh} | {name: list(rate.parameters) for name, rate in own.items()}
    decays = {name: {"weight_decay": rate.weight_decay} for name, rate in own.items() if rate.weight_decay is not None}
    return [
        {"name": name, "params": parameters, "lr": rates[name], "initial_lr": rates[name], **decays.get(name, {})}
        for name, parameters in groups.items()
        if parameters
    ]


@settings
class WarmUpSteps:
    """Linear warm-up, then a step down at each milestone.

    With `warm_up_epochs=10` epoch e < 10 runs at (e + 1) / 10 of the full rate, as in AGW's code; with
    `warm_up_steps=n` the rate rises from `warm_up_start` at the first step to 1 at step n, as in fast-reid's.
    """

    warm_up_epochs: Whole = 10
    """code of AGW: epochs of warm-up, one rate for each epoch; 0 for none."""

    warm_up_steps: Whole = 0
    """code of fast-reid: steps of warm-up, one rate for each step; 0 for none."""

    warm_up_start: Share = 0.1
    """code of fast-reid: fraction of the full rate at the first of `warm_up_steps`."""

    warm_up_at_most: Share | None = None
    """ours: warm-up lasts for this share of all epochs and steps at most; null is no such limit."""

    milestones: tuple[Whole, ...] = (20, 50)
    """code of AGW: epochs, counted from 0, at which the rate is multiplied by `decay`; ascending."""

    decay: Share = 0.1
    """code of AGW: factor at each milestone."""

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise BadInput(f"schedule.milestones {list(self.milestones)} must ascend, so that every step can happen")

    def factor(self, epoch: int, step: int, steps_per_epoch: int, epochs: int | None = None) -> float:
        """The learning rate at this step, as a fraction of the full rate.

        Args:
            epoch, step: the step, both counted from 0.
            steps_per_epoch: steps in one epoch.
            epochs: epochs of the whole training. Only `warm_up_at_most` needs it.

        Raises:
            ValueError: `warm_up_at_most` needs `epochs`.

        >>> schedule = WarmUpSteps()
        >>> [round(schedule.factor(e, 0, 100), 6) for e in (0, 9, 10, 19, 20, 50)]
        [0.1, 1.0, 1.0, 1.0, 0.1, 0.01]
        """
        factor = self.decay ** sum(epoch >= milestone for milestone in self.milestones)
        warm_up_epochs, warm_up_steps = self.warm_up_epochs, self.warm_up_steps
        if self.warm_up_at_most is not None:
            if epochs is None:
                raise ValueError("warm_up_at_most is a share of all epochs; say how many there are")
            warm_up_epochs = min(warm_up_epochs, round(self.warm_up_at_most * epochs))
            warm_up_steps = min(warm_up_steps, round(self.warm_up_at_most * epochs * steps_per_epoch))
        if epoch < warm_up_epochs:
            factor *= (epoch + 1) / warm_up_epochs
        done = epoch * steps_per_epoch + step
        if done < warm_up_steps:
            factor *= self.warm_up_start + (1 - self.warm_up_start) * done / warm_up_steps
        return factor


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set the rate of every group to `factor` times its full rate. Returns the rate by group name."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return {group["name"]: group["lr"] for group in optimiser.param_groups}
