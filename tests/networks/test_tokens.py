"""Which of its two computations attention uses. That both give the same is in tests/recipes/test_wrim_net_miim.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from vireid.networks.tokens import FEW_KEYS, attend


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
