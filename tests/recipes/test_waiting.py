"""No training step reads a value back from the device: on a GPU, the host would wait there for everything before it.

The device is a tensor class of this file. Every result of an operation on it is of this class too, and each method that
would make a host wait for a GPU raises an exception. The same is asked of a real GPU, where there is one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from tests.small import SECOND
from tests.training.facts import some_facts
from vireid import recipes
from vireid.data import host
from vireid.data.batch import Batch
from vireid.data.errors import BadInput
from vireid.data.settings import all_but
from vireid.training.configuration import with_fields
from vireid.training.loop import Rehearsal, accelerator_for, seed_everything
from vireid.training.run import Run

VALUES = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "equal"}
SIZES = {"nonzero", "unique", "unique_consecutive", "masked_select", "argwhere", "bincount", "allclose", "is_nonzero"}
PLACES = {"__getitem__", "__setitem__", "index_put", "index_put_"}


class Waits(AssertionError):
    """A step would wait for the device."""


class OnDevice(Tensor):
    """A tensor that stands for one on a GPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs: Mapping | None = None):
        name = func.__name__
        if name in VALUES | SIZES:
            raise Waits(f"{name} waits for the device")
        if name in PLACES:
            chosen = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(one, OnDevice) and one.dtype == torch.bool for one in chosen):
                raise Waits(f"{name} with booleans waits for the device")
        if name == "where" and len(args) == 1:
            raise Waits("where with one argument waits for the device")
        return super().__torch_function__(func, types, args, kwargs or {})


def on_device(batch: Batch) -> Batch:
    """The batch as `Batch.to` gives it on a GPU: its columns are known to the host, its pictures are not."""
    columns = {name: getattr(batch, name) for name in ("identity", "modality", "camera")}
    moved = {name: host.keep(column.as_subclass(OnDevice), column) for name, column in columns.items()}
    return Batch(batch.images.as_subclass(OnDevice), **moved, seed=batch.seed)


def a_batch() -> Batch:
    """Three people with four pictures of each modality, mixed."""
    kind = torch.tensor([0, 1]).repeat(12)
    images = torch.randn(24, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.arange(3).repeat_interleave(8), kind, camera=kind, seed=7)


def network(name: str, assignments: tuple[str, ...]) -> nn.Module:
    own = (*SECOND, "visible_per_identity=4", "infrared_per_identity=4", *assignments)
    seed_everything(0)
    return recipes.build(name, with_fields(recipes.recipe(name).PAPER, own), 3, pretrained=False)


def variants() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each recipe as it is, without each of its parts, and with auxiliary samples that are classified."""
    for name in recipes.recipes():
        yield name, ()
        for part, value in all_but(recipes.recipe(name).PAPER, "training").items():
            off = (f"{part}=null",)
            with contextlib.suppress(BadInput):
                if value is not None and network(name, off):
                    yield name, off
        if hasattr(recipes.recipe(name).PAPER, "ical"):
            yield name, ("ical=ICAL", "ical.in_ce=true", "ical.in_ins=true")


def terms_and_gradients(network: nn.Module, batch: Batch) -> tuple[dict[str, float], dict[str, Tensor | None]]:
    terms = network.objective(batch)  # type: ignore[operator]
    total = torch.stack([term.as_subclass(Tensor) for term in terms.values()])
    total.sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return dict(zip(terms, total.tolist(), strict=True)), gradients


@pytest.fixture
def a_device(monkeypatch):
    """What the host sends to the device arrives there, in every module that sends something."""
    send = host.to_device
    for module in [m for name, m in sys.modules.items() if name.startswith("vireid.")]:
        if getattr(module, "to_device", None) is send:
            monkeypatch.setattr(
                module, "to_device", lambda values, device: host.keep(values.as_subclass(OnDevice), values)
            )


@pytest.mark.parametrize(("name", "assignments"), list(variants()), ids=lambda value: str(value))
def test_a_step_waits_for_nothing(name, assignments, a_device):
    """Terms and gradients are also those of an ordinary batch, bit for bit."""
    there = terms_and_gradients(network(name, assignments), on_device(a_batch()))
    here = terms_and_gradients(network(name, assignments), a_batch())
    assert there[0] == here[0]
    for key, gradient in here[1].items():
        other = there[1][key]
        assert other is gradient is None or torch.equal(other.as_subclass(Tensor), gradient), key


def test_the_loop_asks_for_a_step_and_reads_its_terms_later(a_device, monkeypatch, tmp_path):
    """The whole step, optimiser included, waits for nothing. Only `read` does."""
    training = with_fields(recipes.recipe("agw").PAPER, [*SECOND, "gradient_clip=1"]).training
    accelerator = accelerator_for("off")
    steps = Rehearsal(network("agw", ()), training, Run(tmp_path, some_facts()), steps=4, accelerator=accelerator)
    monkeypatch.setattr(Batch, "to", lambda batch, device: on_device(batch))
    loop = steps._loop
    loop.objective.train()
    loop.step(a_batch())
    loop.step(a_batch())
    assert [(terms.epoch, terms.step) for terms in loop.asked] == [(0, 0), (0, 1)] and not loop.at.sums
    with pytest.raises(Waits, match="tolist"):
        loop.read()


@pytest.mark.parametrize("wait", [Tensor.item, Tensor.tolist, Tensor.nonzero, bool, lambda t: t[t > 0]])
def test_a_wait_is_noticed(wait):
    with pytest.raises(Waits):
        wait(torch.ones(1).as_subclass(OnDevice) * 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", recipes.recipes())
def test_a_step_waits_for_nothing_on_a_real_gpu(name, tmp_path):
    training = with_fields(recipes.recipe(name).PAPER, SECOND).training
    accelerator = accelerator_for("off")
    steps = Rehearsal(network(name, ()), training, Run(tmp_path, some_facts()), steps=4, accelerator=accelerator)
    batch = a_batch().pin_memory()
    list(steps.steps([batch, batch]))  # the first steps choose algorithms and fill caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps._loop.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
