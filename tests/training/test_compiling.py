"""`compile`: stems and stages are compiled, and nothing else; the terms are those of the network as it is.

The tests of every day let torch trace the modules and run what was traced as it stands, which takes seconds. Its real
compiler is in a test that `make test-all` runs.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch

from tests.small import SECOND
from tests.steps import Kept, take_steps
from vireid import recipes
from vireid.data.errors import BadInput
from vireid.experiments.train import TrainOptions, train
from vireid.networks.resnet import recompute
from vireid.training.compiling import compile_trunk

CPU = torch.device("cpu")


@pytest.fixture
def traced(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """Modules that torch was asked to compile, with its arguments. It traces them only."""
    asked: list[tuple[str, dict[str, Any]]] = []
    compiling = torch.compile

    def trace(what: Any, **how: Any) -> Any:
        asked.append((type(getattr(what, "__self__", what)).__name__, how))
        return compiling(what, backend="eager", dynamic=how.get("dynamic"))

    monkeypatch.setattr(torch, "compile", trace)
    torch._dynamo.reset()
    return asked


def two_steps(name: str, mode: str) -> tuple[list[Kept], Kept, Any]:
    """Terms of two steps, the weights after them, and the network."""
    terms, network = take_steps(name, 2, lambda network: compile_trunk(network, mode, CPU))
    return terms, network.state_dict(), network


@pytest.mark.parametrize("name", recipes.recipes())
def test_what_is_traced_computes_the_same_in_every_recipe(name, traced):
    terms, weights, _ = two_steps(name, "off")
    assert traced == []
    ours, after, network = two_steps(name, "reduce-overhead")
    torch.testing.assert_close(ours, terms)
    torch.testing.assert_close(after, weights)
    assert after.keys() == weights.keys()
    stems, stages = network.pretrained_parts()
    compiled = [type(one).__name__ for one in (*stems, stages)]
    how = {"mode": "reduce-overhead", "dynamic": False}
    assert traced == [("function", {"mode": "reduce-overhead"}), *((one, how) for one in compiled)]
    inside = {id(module) for module in network.modules() if module._compiled_call_impl is not None}
    assert inside == {id(one) for one in (*stems, stages)}
    assert all(one._compiled_call_impl is None for one in copy.deepcopy(network).modules())


def test_a_training_compiles_when_its_settings_say_so(traced, worlds, tmp_path):
    fields = (*SECOND, "epochs=1", "epoch_length=1", "compile=max-autotune")
    asked = TrainOptions("agw", f"sysu-mm01:{worlds['sysu-mm01']}", tmp_path / "run", set=fields, workers=0)
    assert train(asked).epochs()
    assert {how["mode"] for _, how in traced} == {"max-autotune"} and len(traced) == 4


def test_maps_cannot_be_computed_again_in_what_is_compiled(traced):
    with pytest.raises(BadInput, match=r"^compile=default and --recompute do not work together"):
        take_steps("agw", 1, lambda network: (recompute(network), compile_trunk(network, "default", CPU)))
    assert traced == []


def test_a_machine_that_cannot_compile_is_told_in_one_sentence(monkeypatch):
    def fails(*_what: Any, **_how: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nand what a user does not need")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(
        BadInput, match=r"^compile=default does not work here: No working C\+\+ compiler found; choices"
    ):
        two_steps("agw", "default")


@pytest.mark.slow
@pytest.mark.rare
def test_the_real_compiler_gives_terms_that_are_near_and_the_same_ones_again():
    once = functools.partial(two_steps, "agw", "default")
    terms, ours, again = two_steps("agw", "off")[0], once()[0], once()[0]
    torch.testing.assert_close(ours, terms, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(again, ours, rtol=0, atol=0)
