"""What batch normalisations use and keep inside the block, and that they are as before after it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vireid.networks.normalisation import normalising_by


@pytest.mark.parametrize(
    ("statistics", "by_batch", "updates"),
    [("batch_stats_no_update", True, False), ("train", True, True), ("eval", False, False)],
)
def test_statistics_inside_and_after_the_block(statistics, by_batch, updates):
    norm, frozen = nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval()
    network = nn.Sequential(norm, frozen).train()
    frozen.eval()
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0)) * 2 + 5
    with normalising_by(network, statistics):
        found = norm(x)
    expected = (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt() if by_batch else x / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(found, expected)
    assert bool(norm.running_mean.any()) is updates
    assert norm.training and norm.track_running_stats and not frozen.training and frozen.track_running_stats


def test_an_error_inside_the_block_leaves_everything_as_it_was():
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError), normalising_by(norm, "eval"):
        assert not norm.training
        raise ValueError
    assert norm.training
