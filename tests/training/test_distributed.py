"""Several processes take the steps of one, end together, and speak with one voice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.processes import together
from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.recipes import build, recipe, recipes
from vireid.training import checkpoint, distributed
from vireid.training.configuration import with_fields
from vireid.training.loop import accelerator_for, seed_everything, train
from vireid.training.optim import SGD
from vireid.training.run import Run, create

# --- normalisation ----------------------------------------------------------------------------------------------------

NORMS = {
    "2d": (lambda: nn.BatchNorm2d(3), (4, 5)),
    "1d": (lambda: nn.BatchNorm1d(3), ()),
    "1d over a length": (lambda: nn.BatchNorm1d(3), (7,)),
    "without weights": (lambda: nn.BatchNorm2d(3, affine=False), (4, 5)),
    "cumulative average": (lambda: nn.BatchNorm2d(3, momentum=None), (4, 5)),
    "no running statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 5)),
}
SHARES = ((4, 4), (5, 3), (8, 0), (1, 7))


def rows(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """8 rows far from the origin, where squares that are subtracted from each other would show."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(8, 3, *shape, generator=generator, dtype=torch.float64) * 0.5 + 30).to(dtype)


def normalised(norm: nn.Module, x: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two training steps and what is left of them, with the gradient of `(y · wanted).sum()`."""
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
    x = x.clone().requires_grad_()
    for _ in range(2):
        y = norm(x)
    (y.float() * wanted).sum().backward() if y.dtype == torch.bfloat16 else (y * wanted).sum().backward()
    found = {"y": y.detach(), "dx": x.grad} | {f"buffer {k}": v for k, v in norm.named_buffers()}
    return found | {f"gradient {k}": v.grad for k, v in norm.named_parameters()}


def normalised_in_shares() -> list[dict[str, torch.Tensor]]:
    distributed.begin()
    found = []
    for make, shape in NORMS.values():
        for share in SHARES:
            network = nn.Sequential(make().double())
            distributed.synchronise_normalisation(network)
            whole, wanted = rows(shape), torch.cos(rows(shape) * 100)
            mine = distributed.torch.distributed.get_rank()
            found.append(normalised(network[0], whole.split(share)[mine], wanted.split(share)[mine]))
    half = nn.Sequential(nn.BatchNorm2d(3))
    distributed.synchronise_normalisation(half)
    x, wanted = rows((4, 5), torch.bfloat16), torch.cos(rows((4, 5)) * 100).float()
    found.append(normalised(half[0], x.chunk(2)[mine], wanted.chunk(2)[mine]))
    return found


@pytest.mark.process
def test_normalisation_in_two_processes_is_that_of_one_whatever_their_shares(tmp_path):
    first, second = together(2, tmp_path, normalised_in_shares)
    cases = [(make().double(), rows(shape)) for make, shape in NORMS.values() for _ in SHARES]
    cases.append((nn.BatchNorm2d(3), rows((4, 5), torch.bfloat16)))
    assert len(first) == len(second) == len(cases)
    for one, other, (norm, x) in zip(first, second, cases, strict=True):
        expected = normalised(
            norm, x, torch.cos(rows(tuple(x.shape[2:])) * 100).to(torch.promote_types(x.dtype, torch.float32))
        )
        assert one.keys() == other.keys() == expected.keys()
        close = {"rtol": 1e-9, "atol": 1e-9} if x.dtype == torch.float64 else {"rtol": 2e-2, "atol": 2e-2}
        for name, value in expected.items():
            if name.startswith("buffer"):
                assert torch.equal(one[name], other[name])
                torch.testing.assert_close(one[name], value, **close)
            elif name.startswith("gradient"):
                torch.testing.assert_close(one[name] + other[name], value, **close)
            else:
                torch.testing.assert_close(torch.cat((one[name], other[name])), value, **close)


def test_synchronising_keeps_names_parameters_buffers_and_switches():
    network = nn.ModuleDict({"a": nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)), "b": nn.BatchNorm1d(2)})
    network["again"] = network["b"]
    network["b"].bias.requires_grad_(False)
    network["a"].eval()
    before = {name: id(value) for name, value in network.state_dict(keep_vars=True).items()}
    names = list(before)
    distributed.synchronise_normalisation(network)
    assert {name: id(value) for name, value in network.state_dict(keep_vars=True).items()} == before
    assert list(network.state_dict()) == names
    assert network["again"] is network["b"] and not network["a"][0].training and network["b"].training
    assert not any(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in network.modules())
    x = torch.randn(4, 2)
    torch.testing.assert_close(network["b"](x), nn.BatchNorm1d(2)(x))  # alone it is the ordinary one


# --- the step of one process ------------------------------------------------------------------------------------------

# Where a mean is over rows that only some have, or auxiliary rows take part, beside every paper's own configuration.
VARIANTS = {
    **{name: (name, ()) for name in recipes()},
    "peca: a memory that fills as rows are seen": ("peca", ("modality.start=first_seen",)),
    "peca: auxiliary rows in every term": ("peca", ("ical.in_ce=true", "ical.in_ins=true", "ical.in_mod=true")),
    "peca: a triplet": ("peca", ("instance=Triplet", "ce_scale=batch_mean", "gsl.statistics=train")),
    "wrim_net: a triplet": ("wrim_net", ("contrast=BatchHardTriplet",)),
    "wrim_net: sums": ("wrim_net", ("contrast.reduction=sum",)),
    "fusion_dml: sums": ("fusion_dml", ("mutual.reduction=sum",)),
}
SIZE = Size(96, 48)
IDENTITIES = 6


def batch_of(epoch: int, dtype: torch.dtype) -> Batch:
    """4 identities with 2 visible and 2 infrared rows each, identity by identity, as the sampler has them."""
    generator = torch.Generator().manual_seed(epoch)
    identity = torch.arange(4).repeat_interleave(4) + epoch
    modality = torch.tensor([0, 0, 1, 1]).repeat(4)
    images = torch.randn(16, 3, *SIZE, generator=generator) + identity.view(-1, 1, 1, 1) * 0.3
    return Batch(images.to(dtype), identity, modality, modality + 1, seed=epoch)


def share(batch: Batch, rank: int) -> Batch:
    """A process's half, which draws its own random numbers."""
    columns = {name: getattr(batch, name).chunk(2)[rank] for name in ("images", "identity", "modality", "camera")}
    return Batch(**columns, seed=batch.seed * 2 + rank)


def draws_of_both(network: nn.Module) -> None:
    """Let one process's PECA draw for each half of its rows what the process of that half draws."""
    alone = network._rows

    def both(batch: Batch):
        (left, *first), (right, *second) = (alone(share(batch, rank)) for rank in (0, 1))
        half = len(batch) // 2
        columns = ("images", "identity", "modality", "camera")
        parts = [[getattr(made, name) for made in (left, right)] for name in columns]
        joined = [torch.cat([part[:half] for part in pair] + [part[half:] for part in pair]) for pair in parts]
        made = replace(batch, **dict(zip(columns, joined, strict=True)))
        return made, *(torch.cat((a, b + half)) for a, b in zip(first, second, strict=True))

    network._rows = both


def stepped(folder: Path, names: list[str], dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """One step of each recipe through the real loop. After it the momentum is the gradient itself."""
    torch.set_num_threads(1)
    processes = distributed.begin()
    found = []
    for name in names:
        of, sets = VARIANTS[name]
        small = ("trunk=tiny", "weights=none", f"size={SIZE}", "epochs=1")
        config = with_fields(recipe(of).PAPER, (*small, *sets))
        config = replace(config, optimiser=SGD(lr=0.1, weight_decay=0.0))
        seed_everything(0)
        network = build(of, config, IDENTITIES, pretrained=True).to(dtype)
        if processes.num_processes == 1 and hasattr(network, "_rows"):
            draws_of_both(network)

        def batches(epoch: int, first: int):
            whole = batch_of(epoch, dtype)
            yield whole if processes.num_processes == 1 else share(whole, processes.process_index)

        run = Run(folder / name, {})
        if processes.is_main_process:
            run = create(folder / name, {})
        everybody = [replace(batch_of(epoch, dtype), seed=0) for epoch in (0, 2)]
        accelerator = accelerator_for("off")
        train(network, config, run, batches, steps=1, accelerator=accelerator, pictures=lambda: everybody)
        found.append({key: value.clone() for key, value in network.state_dict().items()})
    return found


def left_by(run: Path):
    """Weights and buffers, gradients, terms."""
    state = checkpoint.load(run / "last.pt")
    gradients = {key: value["momentum_buffer"] for key, value in state["optimiser"]["state"].items()}
    return state["model"], gradients, Run(run, {}).epochs()[0]["terms"]


@pytest.mark.process
def test_two_processes_take_the_step_of_one_in_every_recipe(tmp_path):
    names = list(VARIANTS)
    first, second = together(2, tmp_path / "two", stepped, tmp_path / "two", names, torch.float64)
    together(1, tmp_path / "one", stepped, tmp_path / "one", names, torch.float64)
    for name, here, there in zip(names, first, second, strict=True):
        assert all(torch.equal(here[key], there[key]) for key in here), f"{name}: processes differ"
        states, gradients, terms = left_by(tmp_path / "two" / name)
        alone = left_by(tmp_path / "one" / name)
        assert terms == pytest.approx(alone[2], rel=1e-5, abs=2e-6), name
        assert gradients.keys() == alone[1].keys() and states.keys() == alone[0].keys()
        for key, value in {**alone[0], **alone[1]}.items():
            mine = {**states, **gradients}[key]
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-12, msg=lambda m, k=key: f"{name}, {k}: {m}")
        assert any(value.abs().max() > 1e-4 for value in alone[1].values())
