"""Several processes take the same steps as one, stop together, and report a mistake once."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.processes import free_port, program, said, start, together, wait
from tests.small import SECOND
from tests.training.facts import some_facts
from vireid import datasets
from vireid.cli.main import main
from vireid.data.batch import Batch
from vireid.data.sampling import ModalityBalancedSampler
from vireid.data.size import Size
from vireid.recipes import build, recipe, recipes
from vireid.recipes.peca import aggregate_channels
from vireid.training import checkpoint, distributed
from vireid.training.configuration import with_fields
from vireid.training.loop import accelerator_for, seed_everything, train
from vireid.training.run import Run, create, held

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


def samples(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """8 samples far from the origin. There, a difference of large squares would lose digits."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(8, 3, *shape, generator=generator, dtype=torch.float64) * 0.5 + 30).to(dtype)


def normalised(norm: nn.Module, x: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs, buffers and gradients after two training steps; the loss is `(y · wanted).sum()`."""
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
            whole, wanted = samples(shape), torch.cos(samples(shape) * 100)
            mine = distributed.torch.distributed.get_rank()
            found.append(normalised(network[0], whole.split(share)[mine], wanted.split(share)[mine]))
    half = nn.Sequential(nn.BatchNorm2d(3))
    distributed.synchronise_normalisation(half)
    x, wanted = samples((4, 5), torch.bfloat16), torch.cos(samples((4, 5)) * 100).float()
    found.append(normalised(half[0], x.chunk(2)[mine], wanted.chunk(2)[mine]))
    return found


@pytest.mark.process
def test_normalisation_in_two_processes_is_that_of_one_whatever_their_shares(tmp_path):
    first, second = together(2, tmp_path, normalised_in_shares)
    cases = [(make().double(), samples(shape)) for make, shape in NORMS.values() for _ in SHARES]
    cases.append((nn.BatchNorm2d(3), samples((4, 5), torch.bfloat16)))
    assert len(first) == len(second) == len(cases)
    for one, other, (norm, x) in zip(first, second, cases, strict=True):
        expected = normalised(
            norm, x, torch.cos(samples(tuple(x.shape[2:])) * 100).to(torch.promote_types(x.dtype, torch.float32))
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


def test_on_a_gpu_normalisation_is_torchs_own_with_the_same_parameters_and_buffers():
    network = nn.ModuleDict({"a": nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)), "b": nn.BatchNorm1d(2)})
    network["b"].bias.requires_grad_(False)
    network["a"].eval()
    before = {name: id(value) for name, value in network.state_dict(keep_vars=True).items()}
    distributed.synchronise_normalisation(network, "cuda")
    assert {name: id(value) for name, value in network.state_dict(keep_vars=True).items()} == before
    assert type(network["a"][0]) is type(network["b"]) is nn.SyncBatchNorm
    assert not network["a"][0].training and network["b"].training and not network["b"].bias.requires_grad
    x = torch.randn(4, 2)
    torch.testing.assert_close(network["b"](x), nn.BatchNorm1d(2)(x))  # alone it is the ordinary one


# --- the step of one process ------------------------------------------------------------------------------------------

# Every paper's own configuration, and configurations with means over a part of the samples or with auxiliary samples.
VARIANTS = {
    **{name: (name, ()) for name in recipes()},
    "peca: a memory that knows some of the samples": ("peca", ("modality.start=first_seen", "epochs=2")),
    "peca: auxiliary samples in every term": ("peca", ("ical.in_ce=true", "ical.in_ins=true", "ical.in_mod=true")),
    "peca: a triplet": ("peca", ("instance=Triplet", "ce_scale=batch_mean", "gsl.statistics=train")),
    "wrim_net: a triplet": ("wrim_net", ("contrast=BatchHardTriplet",)),
    "wrim_net: sums": ("wrim_net", ("contrast.reduction=sum",)),
    "fusion_dml: sums": ("fusion_dml", ("mutual.reduction=sum",)),
}
SIZE = Size(64, 32)
IDENTITIES = 6


def batch_of(epoch: int, dtype: torch.dtype) -> Batch:
    """4 identities with 2 visible and 2 infrared samples each, one identity after the other, as from the sampler."""
    generator = torch.Generator().manual_seed(epoch)
    identity = torch.arange(4).repeat_interleave(4) + epoch
    modality = torch.tensor([0, 0, 1, 1]).repeat(4)
    images = torch.randn(16, 3, *SIZE, generator=generator) + identity.view(-1, 1, 1, 1) * 0.3
    return Batch(images.to(dtype), identity, modality, modality + 1, seed=epoch)


def all_pictures(dtype: torch.dtype) -> list[Batch]:
    return [batch_of(epoch, dtype) for epoch in (0, 2)]


def share(batch: Batch, rank: int, seed: int = 0) -> Batch:
    """The half of a batch that a process gets."""
    columns = {name: getattr(batch, name).chunk(2)[rank] for name in ("images", "identity", "modality", "camera")}
    return Batch(**columns, seed=seed)


def seed_of_half(batch: Batch, rank: int) -> int:
    """A seed with which PECA draws for half a batch what it draws for these samples with the whole batch.

    It is found by search: in 20,000 seeds there is about one. Two processes and one process then see the same auxiliary
    samples, although each process draws its own random numbers.
    """
    marked = Batch(torch.arange(48.0).view(16, 3, 1, 1), batch.identity, batch.modality, batch.camera, batch.seed)
    wanted = made_from(marked).chunk(2)[rank]
    return next(seed for seed in itertools.count() if torch.equal(made_from(share(marked, rank, seed)), wanted))


def made_from(batch: Batch) -> torch.Tensor:
    """The auxiliary pictures of a batch."""
    return aggregate_channels(batch.images, batch.identity, batch.modality, generator=batch.generator())[0]


Weights = dict[str, torch.Tensor]


def stepped(folder: Path, names: list[str], dtype: torch.dtype, seeds: list[list[int]]) -> list[Weights]:
    """Epochs of one step, of each recipe, through the real loop. After one step, the momentum is the gradient itself.

    `seeds` holds for each epoch the seeds of the two halves of the batch.
    """
    torch.set_num_threads(1)
    processes = distributed.begin()
    found = []
    for name in names:
        of, sets = VARIANTS[name]
        small = ("trunk=tiny", "weights=none", f"size={SIZE}", "epochs=1")
        plain = ("optimiser=SGD", "optimiser.weight_decay=0")
        # The colours of a sample change at random. They are no part of the step where augmentation changes them.
        colour = ("ical.source=after_colour_aug",) if of == "peca" else ()
        config = with_fields(recipe(of).PAPER, (*small, *plain, *colour, *sets))
        seed_everything(0)
        network = build(of, config, IDENTITIES, pretrained=True).to(dtype)

        def batches(epoch: int, first: int):
            whole = batch_of(epoch, dtype)
            rank = processes.process_index
            yield whole if processes.num_processes == 1 else share(whole, rank, seeds[epoch][rank])

        run = Run(folder / name, some_facts())
        if processes.is_main_process:
            run = create(folder / name, some_facts())
        accelerator = accelerator_for("off")
        pictures = partial(all_pictures, dtype)
        train(network, config.training, run, batches, steps=1, accelerator=accelerator, pictures=pictures)
        found.append({key: value.clone() for key, value in network.state_dict().items()})
    return found


def left_by(run: Path):
    """Weights and buffers, gradients, terms."""
    state = checkpoint.load(run / "last.pt")
    gradients = {key: value["momentum_buffer"] for key, value in state["optimiser"]["state"].items()}
    return state["model"], gradients, Run(run, some_facts()).epochs()[-1]["terms"]


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_take_the_step_of_one_in_every_recipe(tmp_path):
    names = list(VARIANTS)
    seeds = [[seed_of_half(batch_of(epoch, torch.float64), rank) for rank in (0, 1)] for epoch in (0, 1)]
    first, second = together(2, tmp_path / "two", stepped, tmp_path / "two", names, torch.float64, seeds)
    together(1, tmp_path / "one", stepped, tmp_path / "one", names, torch.float64, seeds)
    for name, here, there in zip(names, first, second, strict=True):
        assert all(torch.equal(here[key], there[key]) for key in here), f"{name}: processes differ"
        states, gradients, terms = left_by(tmp_path / "two" / name)
        alone = left_by(tmp_path / "one" / name)
        assert terms == pytest.approx(alone[2], rel=1e-5, abs=2e-6), name
        assert gradients.keys() == alone[1].keys() and states.keys() == alone[0].keys()
        for key, value in {**alone[0], **alone[1]}.items():
            mine, where = {**states, **gradients}[key], f"{name}, {key}: "
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-12, msg=where.__add__)
        assert any(value.abs().max() > 1e-4 for value in alone[1].values())


def apart() -> list:
    """`all_gather` and `mean_over_processes` on the samples of two processes."""
    distributed.begin()
    rank = torch.distributed.get_rank()
    x = torch.tensor([[1.0 + rank], [2.0 + rank]], requires_grad=True)
    gathered, names = distributed.all_gather(x, torch.tensor([10 + rank, 20 + rank]))
    # Both processes compute the whole loss. The mean over processes in the wrapper then divides the gradient by two.
    (gathered.squeeze() * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    return [gathered.detach(), names, x.grad / 2, distributed.mean_over_processes(x)]


@pytest.mark.process
def test_the_all_gather_is_in_process_order_and_each_sample_gets_its_gradient_back(tmp_path):
    first, second = together(2, tmp_path, apart)
    for found in (first, second):
        assert found[0].squeeze().tolist() == [1, 2, 2, 3] and found[1].tolist() == [10, 20, 11, 21]
        assert found[3].squeeze().tolist() == [1.5, 2.5]
    assert first[2].squeeze().tolist() == [1, 2] and second[2].squeeze().tolist() == [3, 4]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def arguments(world: Path, run: Path, *more: str, sets: tuple[str, ...] = ()) -> list[str]:
    common = ["train", "agw", "--data", f"sysu-mm01:{world}", "--run", str(run), "--workers", "0", *more]
    return [*common, "--set", *SECOND, "identities_per_batch=4", *sets]


def ended(folder: Path, target: Callable, given: list[str]) -> str:
    """The one sentence of two processes, which both end with code 2."""
    assert wait(start(2, folder, target, given)) == [2, 2], said(folder, 0) + said(folder, 1)
    assert said(folder, 1) == ""
    (sentence,) = [line for line in said(folder, 0).splitlines() if line.startswith("vireid: ")]
    assert "Traceback" not in said(folder, 0)
    return sentence


def on_a_small_disk(given: list[str]) -> None:
    """The program, where the main process may write no file of more than a megabyte."""
    import resource
    import signal

    if os.environ["RANK"] == "0":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    program(given)


@pytest.mark.process
def test_a_picture_that_only_the_second_process_meets_ends_both(worlds, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(worlds["sysu-mm01"], world)
    records = datasets.training_records(datasets.read("sysu-mm01", world))
    counts = {"identities_per_batch": 4, "visible_per_identity": 2, "infrared_per_identity": 2, "epoch_length": 3}
    sampler = ModalityBalancedSampler(records.labels()[0], records.modality, **counts, rank=1, world=2)
    victim = records.file(int(sampler.samples(0, 1)[0]))
    victim.write_bytes(victim.read_bytes()[:200])
    sentence = ended(tmp_path / "said", program, arguments(world, tmp_path / "run"))
    assert str(victim) in sentence


@pytest.mark.process
def test_a_full_disk_of_the_main_process_ends_both(worlds, tmp_path):
    given = arguments(worlds["sysu-mm01"], tmp_path / "run")
    assert "cannot save checkpoint" in ended(tmp_path / "said", on_a_small_disk, given)


@pytest.mark.process
def test_mistakes_before_and_during_training_end_both(worlds, tmp_path):
    given = arguments(
        worlds["sysu-mm01"],
        tmp_path / "run",
        sets=("optimiser.lr=1000", "optimiser.weight_decay=1000", "schedule.warm_up_epochs=0"),
    )
    assert "term '" in (sentence := ended(tmp_path / "diverges", program, given)) and "epoch 0, step" in sentence
    given = arguments(worlds["sysu-mm01"], tmp_path / "odd", sets=("identities_per_batch=3",))
    assert "2 processes cannot share equally" in ended(tmp_path / "shares", program, given)
    assert not (tmp_path / "odd").exists()
    with held(tmp_path / "held"):
        given = arguments(worlds["sysu-mm01"], tmp_path / "held")
        assert "in use by another process" in ended(tmp_path / "used", program, given)


def different_modalities() -> None:
    distributed.begin()
    rank = torch.distributed.get_rank()
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), torch.tensor([0, rank]), torch.zeros(2).long())
    list(distributed.synchronised([batch]))


@pytest.mark.process
def test_processes_with_samples_of_different_modalities_stop_instead_of_waiting(tmp_path):
    assert wait(start(2, tmp_path, different_modalities)) == [1, 1]
    assert "ValueError: processes have samples of different modalities" in said(tmp_path, 0)


# --- the end of a process ---------------------------------------------------------------------------------------------

# A run of two processes, from the first connection to the exit of the interpreter.
ENDING = """
import sys
from vireid.data.errors import BadInput
from vireid.training import distributed

how = sys.argv[1]
state = distributed.begin()
try:
    with distributed.main_process_speaks():
        with distributed.raise_together():
            if how == "mistake" and state.process_index == 1:
                raise BadInput("the second process found it")
        if how == "fault" and state.process_index == 1:
            raise RuntimeError("a fault of one process")
        distributed.gather_objects(how)
except BadInput as sentence:
    print(f"said: {sentence}", flush=True)
    sys.exit(2)
print("ended", flush=True)
"""


def end_of(how: str) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of two processes."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ENDING, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


@pytest.mark.process
def test_processes_end_cleanly_after_a_run_and_after_a_mistake():
    assert end_of("well") == [(0, "ended\n", ""), (0, "ended\n", "")]
    assert end_of("mistake") == [(2, "said: the second process found it\n", ""), (2, "", "")]


@pytest.mark.process
def test_a_fault_of_one_process_ends_the_other():
    (first, _, lost), (second, _, fault) = end_of("fault")
    assert second == 1 and "RuntimeError: a fault of one process" in fault
    assert first != 0 and "Traceback" in lost


# --- launched ---------------------------------------------------------------------------------------------------------

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.mark.slow
@pytest.mark.process
def test_torchrun_trains_one_run_and_another_number_of_processes_may_not_resume_it(worlds, tmp_path, capsys):
    given = arguments(worlds["sysu-mm01"], tmp_path / "run", "--validate-every", "1", "--validate-on", "test")
    launcher = [*TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "--", "vireid.cli.main"]
    done = subprocess.run([*launcher, *given], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained agw") == 1 and done.stderr.count("epoch   2/2") == 1
    test = ["test", str(tmp_path / "run"), "--data", given[3], "--workers", "0"]
    tested = subprocess.run([*launcher, *test], capture_output=True, text=True, timeout=240)
    assert tested.returncode == 0 and tested.stdout.count("sysu-mm01/all/single ") == 1, tested.stderr
    assert "2 processes were started; this verb uses one of them" in tested.stderr
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["processes"] == 2 and facts["normalisation"] == "over the samples of all processes"
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["validation"]["on"] for line in lines] == ["test", "test"] and (tmp_path / "run" / "best.pt").exists()
    before = (tmp_path / "run" / "last.pt").read_bytes()
    assert main([*given[:6], "--resume", "--extend", "epochs=3", *given[6:]]) == 2
    assert "was written by 2 process(es), this run has 1" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
