"""Which statistics batch normalisations use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Statistics = Literal["batch_stats_no_update", "train", "eval"]
_SWITCHES = {"batch_stats_no_update": "track_running_stats", "eval": "training"}


@contextmanager
def normalising_by(network: nn.Module, statistics: Statistics) -> Iterator[None]:
    """A `with` block in which the network's batch normalisations use the given statistics.

    Only normalisations in training mode are changed. When the block ends they are as they were before.

    Args:
        network: the module.
        statistics: `batch_stats_no_update` normalises by the batch and leaves the running statistics unchanged;
            `train` normalises by the batch and updates them; `eval` normalises by them.
    """
    switch = _SWITCHES.get(statistics, "")
    norms = [m for m in network.modules() if switch and isinstance(m, _BatchNorm) and m.training and getattr(m, switch)]
    try:
        for norm in norms:
            setattr(norm, switch, False)
        yield
    finally:
        for norm in norms:
            setattr(norm, switch, True)
