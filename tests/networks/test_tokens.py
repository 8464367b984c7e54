"""Attention: its formula, and which of two computations is used."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from vireid.networks.tokens import FEW_KEYS, attend


@pytest.mark.parametrize("path", ["fused", "plain"])
def test_attention_is_its_formula_on_both_paths(path):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, *shape, generator=generator) for shape in ((5, 4), (7, 4), (7, 6)))
    found = attend(query, key, value, path=path)
    assert found.shape == (2, 3, 5, 6)
    for b, h, q in itertools.product(range(2), range(3), range(5)):
        weights = [math.exp(float(query[b, h, q] @ key[b, h, k]) / math.sqrt(4)) for k in range(7)]
        expected = sum(weight * value[b, h, k] for k, weight in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(found[b, h, q], expected)


class Called(TorchFunctionMode):
    """Notes every function of torch that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Any] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.functions.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("path", "keys", "fused"),
    [
        ("auto", FEW_KEYS, False),
        ("auto", FEW_KEYS + 1, True),
        ("fused", FEW_KEYS, True),
        ("plain", FEW_KEYS + 1, False),
    ],
)
def test_few_keys_are_computed_plainly_on_a_cpu_and_a_path_that_is_named_is_taken(path, keys, fused):
    query, key = torch.randn(1, 3, 2), torch.randn(1, keys, 2)
    with Called() as called:
        attend(query, key, key, path=path)
    assert (scaled_dot_product_attention in called.functions) == fused
