"""A training step of each recipe, against the plain step of the same trunk and batch.

A step is the objective, the backward pass and the optimiser. The networks start at random, the pictures are noise. The
plain step is that of AGW without attention, unless the paper has a baseline of its own; what each recipe is compared
with stands in `BASELINES`. One backward pass counts as two forward ones: from that follow the limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from vireid import recipes
from vireid.bench.growth import grown
from vireid.bench.measure import Line, close, computes_bfloat16, counted, one_thread
from vireid.bench.run import Bench
from vireid.data.batch import Batch
from vireid.data.size import Size
from vireid.losses.pairs import unit
from vireid.networks.tokens import attend
from vireid.recipes import peca
from vireid.training.configuration import with_fields
from vireid.training.loop import seed_everything
from vireid.training.memory import keep_freed_memory

IDENTITIES = 395  # SYSU-MM01's, for classifiers and memories
PEOPLE, PICTURES = 2, 4  # of a batch: identities, and pictures of each in each modality
ROUNDS = 3
PLAIN = "AGW without attention"
SHAPES = {"stage 1": (216, 24, 16), "stages 2 and 3": (216, 24, 32), "stage 4": (216, 24, 64)}
"""Queries, keys and width of the heads of WRIM-Net's attention."""


@dataclass(frozen=True)
class Baseline:
    """What the step of a recipe is compared with.

    Attributes:
        name: in words.
        spec: `RECIPE` or `RECIPE:ROW`.
        fields: what is different from it.
        goal, limit: how many times as long the recipe's step may take, and takes at least.
    """

    name: str
    spec: str = "agw"
    fields: Mapping[str, Any] = field(default_factory=dict)
    goal: float | None = None
    limit: float | None = None


BASELINES: Mapping[str, Baseline] = {
    # The same attention in both, so that the ratio is that of what PECA adds.
    "peca": Baseline("AGW", goal=1.75, limit=1.70),
    "wrim_net": Baseline("without MIIM and AICL", "wrim_net:table3/baseline", goal=1.22, limit=1.18),
    "fusion_dml": Baseline(PLAIN, fields={"non_local": None}, goal=1.15),
}
OTHERS = Baseline(PLAIN, fields={"non_local": None})
"""For a recipe that is not listed, such as a new one or a plug-in's."""


def measure(bench: Bench) -> Iterator[Line]:
    """AGW's step in the layout and the precision that it can have, and each recipe's step."""
    keep_freed_memory()  # as the training loop does on a CPU
    yield from layouts(bench)
    for name in recipes.recipes():
        if name != "agw":
            yield of_recipe(bench, name)
    yield parts_of_peca(bench)
    yield from attention(bench)


def growth(bench: Bench) -> Iterator[Line]:
    """The time of AGW's step against the batch."""
    sizes = bench.size((2, 4, 8), (1, 2))
    works = {2 * PEOPLE * k: step_of("agw", sized(bench, recipes.recipe("agw").PAPER), k) for k in sizes}
    yield grown(bench, "a step of AGW", works, unit="pictures in a batch")


def layouts(bench: Bench) -> Iterator[Line]:
    """The step with the arithmetic of AGW's public code, whose attention has width 1: memory layout and precision.

    And what the width that the paper states costs.
    """
    paper = recipes.recipe("agw").PAPER
    config = sized(bench, paper, {"non_local": "code"})
    usual, last, bf16 = "float32, channels first", "float32, channels last", "bfloat16, channels last"
    wide = "attention of half the channels, float32, channels last"
    contenders = {
        usual: step_of("agw", config, memory_format=torch.contiguous_format),
        last: step_of("agw", config),
    }
    if computes_bfloat16():
        contenders[bf16] = step_of("agw", config, bf16=True)
    else:
        bench.leave_out("training, bfloat16", "this processor has no arithmetic for it")
    timed = bench.timed(
        contenders,
        agree=close(0.05),
        others={wide: step_of("agw", sized(bench, paper))},
        rounds=ROUNDS,
    )
    what = f"AGW with attention of width 1, {_size(config)}"
    pictures = _pictures()
    yield counted(timed.line(what, baseline=usual, ours=last, goal=1.2, limit=1.2), pictures, "pictures")
    if bf16 in contenders:
        yield counted(timed.line(what, baseline=usual, ours=bf16, goal=2.3, limit=2.8), pictures, "pictures")
    yield counted(timed.line(what, baseline=last, ours=wide, goal=1.1, larger=False), pictures, "pictures")


def of_recipe(bench: Bench, name: str) -> Line:
    """The step of a recipe over that of its baseline."""
    baseline = BASELINES.get(name, OTHERS)
    ours = sized(bench, recipes.recipe(name).PAPER)
    size = {"size": ours.training.size}  # WRIM-Net's pictures are larger, and those of its baseline too
    theirs = sized(bench, recipes.find_row(baseline.spec)[2].config, {**baseline.fields, **size})
    timed = bench.timed(
        {},
        others={
            baseline.name: step_of(baseline.spec.partition(":")[0], theirs),
            name: step_of(name, ours),
        },
        rounds=ROUNDS,
    )
    line = timed.line(
        f"{name}, {_size(ours)}",
        baseline=baseline.name,
        ours=name,
        goal=baseline.goal,
        limit=baseline.limit,
        larger=False,
    )
    return counted(line, _pictures(), "pictures")


def parts_of_peca(bench: Bench) -> Line:
    """PECA's step against a form that gives the parts a graph, which equation 1 does not need, one after another.

    With a small trunk: the ratio is about the same.
    """
    config = sized(bench, peca.PAPER, {"trunk": "resnet18", "size": Size(144, 72)})
    naive = "the parts one after another, with gradients"
    timed = bench.timed(
        {naive: step_of("peca", config, change=with_graph_of_parts), "peca": step_of("peca", config)},
        agree=close(1e-3),
        rounds=ROUNDS,
    )
    return timed.line(f"peca, {_size(config)}", baseline=naive, ours="peca")


def with_graph_of_parts(network: Any) -> None:
    """Let a network of PECA compute its parts, and equation 1, in the naive form. The terms are the same."""
    objective = network.objective

    def local_features(images: torch.Tensor, modality: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad(), peca.normalising_by(network, "batch_stats_no_update"):
            parts = peca.three_parts(images).chunk(3)
            return torch.cat([network.features(part, modality)["bn"] for part in parts], 1)

    def similarity(global_features: torch.Tensor, local_features: torch.Tensor) -> torch.Tensor:
        return -(unit(global_features) * unit(local_features)).sum(1).mean()

    def naive(batch: Batch) -> Any:
        stopped, peca.similarity_loss = peca.similarity_loss, similarity
        try:
            return objective(batch)
        finally:
            peca.similarity_loss = stopped

    network.local_features, network.objective = local_features, naive


def attention(bench: Bench) -> Iterator[Line]:
    """Plain products against PyTorch's fused kernel, with the few keys of WRIM-Net at 384×144."""
    samples, fused, plain = bench.size(32, 2), "the fused kernel", "plain products"
    for stage, (queries, keys, width) in SHAPES.items():
        tokens = [torch.randn(samples, 8, n, width).requires_grad_() for n in (queries, keys, keys)]
        with one_thread():
            timed = bench.timed(
                {fused: gradients(tokens, "fused"), plain: gradients(tokens, "plain")}, agree=close(1e-3), calls=5
            )
        what = f"attention of {stage}, {samples} × 8 heads of {width}, {queries} queries, {keys} keys"
        yield timed.line(what, baseline=fused, ours=plain, clock="cpu")


def gradients(tokens: list[torch.Tensor], path: Literal["fused", "plain"]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """A call that computes the gradients of query, key and value through one path of the attention."""
    return lambda: torch.autograd.grad(attend(*tokens, path=path).square().sum(), tokens)


def sized(bench: Bench, config: Any, fields: Mapping[str, Any] | None = None) -> Any:
    """A configuration with these fields, from a random start, with a small trunk and pictures for `--quick`."""
    small = {"trunk": "tiny", "size": Size(64, 32)} if bench.quick else {}
    people = {"identities_per_batch": PEOPLE, "visible_per_identity": PICTURES, "infrared_per_identity": PICTURES}
    return with_fields(config, {"weights": "none", **people, **(fields or {}), **small})


def step_of(
    recipe: str,
    config: Any,
    pictures: int = PICTURES,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    bf16: bool = False,
    change: Callable[[Any], None] = lambda network: None,
) -> Callable[[], float]:
    """One training step of a new network, which returns the sum of the terms.

    Raises (by the step):
        RuntimeError: a term is not finite.
    """
    seed_everything(0)
    network: Any = recipes.build(recipe, config, IDENTITIES, pretrained=False)
    network = network.train().to(memory_format=memory_format)
    change(network)
    optimiser = config.training.optimiser.build(network, network.new_parameters())
    batch = made_up(pictures, config.training.size)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms = network.objective(batch)
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        if not math.isfinite(value := total.item()):
            raise RuntimeError(f"a term of {recipe} is not finite: its time says nothing")
        return value

    return step


def made_up(pictures: int, size: Size) -> Batch:
    """Noise, identity by identity, visible before infrared, in the order of the sampler."""
    modality = torch.tensor([0] * pictures + [1] * pictures).repeat(PEOPLE)
    identity = torch.arange(PEOPLE).repeat_interleave(2 * pictures)
    images = torch.randn(len(identity), 3, *size, generator=torch.Generator().manual_seed(0))
    return Batch(images, identity, modality, modality, seed=1)


def _pictures() -> int:
    return 2 * PEOPLE * PICTURES


def _size(config: Any) -> str:
    return f"{_pictures()} pictures of {config.training.size}, {config.training.trunk}"
