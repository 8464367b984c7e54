"""Tests of every recipe and every row. They find recipes and rows themselves, so a new one needs no new test here."""

from __future__ import annotations

import inspect
import io
import re
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
import torch

from vireid.data.batch import Batch
from vireid.data.modality import Modality
from vireid.data.settings import hints
from vireid.data.size import Size
from vireid.recipes import Row, build, find_row, recipe, recipes
from vireid.training.configuration import describe, from_json, to_json, with_fields
from vireid.training.loop import seed_everything
from vireid.training.settings import Training

SIZE = Size(64, 32)
IDENTITIES = 5
COMMON = (
    "seed", "epochs", "trunk", "size", "identities_per_batch", "visible_per_identity", "infrared_per_identity",
    "precision", "weights", "epoch_length", "optimiser", "schedule", "gradient_clip", "with_replacement",
    "compile",
)  # fmt: skip
SMALL = {"trunk": "tiny", "weights": "none", "size": SIZE, "precision": "off"}


def small(name: str, row: str | None):
    _, _, found = find_row(name if row is None else f"{name}:{row}")
    return with_fields(found.config, SMALL)


EVERY_ROW = [(name, row) for name in recipes() for row in (None, *recipe(name).ROWS)]


def _distinct() -> list[tuple[str, str | None]]:
    """Every computation once. Rows that differ only in epochs, schedule, or numbers such as a weight count as one."""
    seen: dict[tuple[str, str], tuple[str, str | None]] = {}
    for name, row in EVERY_ROW:
        config = to_json(small(name, row))
        seen.setdefault((name, str(_outline({**config, "schedule": None, "epochs": None}))), (name, row))
    return list(seen.values())


def _outline(value: Any) -> Any:
    """Settings without the sizes of their numbers with a decimal point. A zero stays: it can switch a part off."""
    if isinstance(value, dict):
        return {key: _outline(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_outline(one) for one in value]
    return "number" if isinstance(value, float) and value else value


def network(name: str, row: str | None):
    seed_everything(0)
    return build(name, small(name, row), IDENTITIES, pretrained=True)


def a_batch(seed: int = 0) -> Batch:
    """3 identities × 4 visible and 4 infrared samples: enough for every top-K and for batch statistics."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(3).repeat_interleave(8)
    modality = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).repeat(3)
    images = torch.randn(24, 3, *SIZE, generator=generator) + identity.view(-1, 1, 1, 1) * 0.3
    return Batch(images, identity, modality, modality + 1, seed=seed)


def prepared(name: str, row: str | None):
    """A network before its first step, with its memory filled."""
    net = network(name, row)
    if hasattr(net, "before_training"):
        net.eval()
        with torch.no_grad():
            batch = a_batch(7)
            net.before_training([replace(batch, identity=batch.identity + shift) for shift in (0, 2)])
    return net.train()


def lively(net: torch.nn.Module) -> torch.nn.Module:
    """The network in evaluation mode, with weights and statistics of normalisations that are not those of the start.

    Non-local blocks are no identity then, and a normalisation in the wrong place changes features."""
    generator = torch.Generator().manual_seed(0)
    norms = [one for one in net.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.1, generator=generator)
        batch, momenta = a_batch(3), [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        net.train().embed(batch.images, batch.modality)  # type: ignore[operator]
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return net.eval()


DISTINCT = _distinct()

# Parameters that no objective can depend on, and why.
NO_GRADIENT = (
    r"miims\..*key\.bias$",  # adds one number to all scores of a query, which the softmax over the keys removes
    r"inserted\..*\.phi\.bias$",  # the same in a non-local block
    r"inserted\..*\.(g|w)\.bias$",  # the normalisation at the end of the block removes what they add everywhere
    r"miims\.stage4\.(.*\.)?bn_out\.bias$",  # shifts the pooled feature, which the neck and the head normalise
)
# At the size of these tests, these rows have one key in each MIIM, so the softmax over the keys is 1.
ROWS_OF_ONE_KEY = ("wrim_net:table7/8-4-2-2", "wrim_net:table9/pool=4")
ONE_KEY = (r"miims\..*(query\.(weight|bias)|key\.weight)$",)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_has_the_common_fields_and_explains_every_field(name):
    config = recipe(name).PAPER
    assert isinstance(config.training, Training)
    assert set(hints(Training)) == set(COMMON)
    described = describe(config)  # raises where a note is missing or does not begin with a source
    assert {field.path for field in described} >= set(COMMON)
    unexplained = [field.path for field in described if not field.meaning]
    assert not unexplained, f"say what these fields do: {unexplained}"


def explained_in_the_note_of_training(kind: type) -> set[str]:
    """The fields of `Training` that the note of a recipe's own `training` names, such as `epochs, size: paper: …`."""
    text = inspect.cleandoc(kind.__pydantic_fields__["training"].description or "")
    return {name for names in re.findall(r"^(\S[^:]*):", text, re.MULTILINE) for name in re.split(r",\s*", names)}


@pytest.mark.parametrize("name", recipes())
def test_the_note_of_training_names_every_field_that_the_recipe_sets(name):
    config = recipe(name).PAPER
    defaults = {f: getattr(Training, f) for f in hints(Training) if hasattr(Training, f)}
    own = {f for f in hints(Training) if f not in defaults or getattr(config.training, f) != defaults[f]}
    named = explained_in_the_note_of_training(type(config))
    assert own <= named, f"say where these values come from: {sorted(own - named)}"
    paths = {field.path for field in describe(config)}
    strange = {one for one in named if one not in paths or one.partition(".")[0] not in COMMON}
    assert not strange, f"no such fields: {sorted(strange)}"


@pytest.mark.parametrize(("name", "row"), DISTINCT)
def test_one_step_is_finite_and_every_trainable_parameter_gets_a_gradient(name, row):
    net = prepared(name, row)
    for parameter in net.parameters():
        if not parameter.any():  # a weight that starts at zero, as in a non-local block, hides what is before it
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    terms = net.objective(a_batch())
    assert terms and all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    gradients = {key: value.grad for key, value in net.named_parameters() if value.requires_grad}
    without = [key for key, gradient in gradients.items() if gradient is None]
    assert not without
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    zero = [key for key, gradient in gradients.items() if float(gradient.abs().max()) < 1e-7 * largest]
    allowed = [*NO_GRADIENT, *(ONE_KEY if f"{name}:{row}" in ROWS_OF_ONE_KEY else ())]
    left = [key for key in zero if not any(re.search(pattern, key) for pattern in allowed)]
    assert not left, f"these get a gradient of zero, so they cannot learn: {left}"
    new = {id(parameter) for parameter in net.new_parameters()}
    assert new and new <= {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize(("name", "row"), DISTINCT)
def test_embedding_is_deterministic_of_length_one_and_uses_the_modality(name, row):
    net = prepared(name, row).eval()
    images = a_batch(1).images[:6]
    modality = torch.tensor([0, 1, 0, 1, 1, 0])
    with torch.no_grad():
        once, again = net.embed(images, modality), net.embed(images, modality)
        alone = torch.cat([net.embed(images[i : i + 1], modality[i : i + 1]) for i in range(6)])
    assert torch.equal(once, again)
    torch.testing.assert_close(once.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(once, alone, atol=2e-5, rtol=1e-4)
    if hasattr(net, "embed_pooled"):
        with torch.no_grad():
            pooled = net.embed_pooled(images, modality)
        torch.testing.assert_close(pooled.norm(dim=1), torch.ones(6))
        assert pooled.shape == once.shape


@pytest.mark.parametrize(("name", "row"), DISTINCT)
def test_the_order_of_samples_does_not_change_the_terms(name, row):
    """The terms must not depend on the position of a sample in the batch, unless the recipe draws partners at random,
    as it says by `draws_samples`."""
    net = prepared(name, row)
    if getattr(net, "draws_samples", False):
        pytest.skip("this row draws partners from the batch; its own tests hand the draws in")
    batch = a_batch()
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(3))
    moved = Batch(batch.images[order], batch.identity[order], batch.modality[order], batch.camera[order], batch.seed)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    here = net.objective(batch)
    net.load_state_dict(state)
    there = net.objective(moved)
    for term in here:
        torch.testing.assert_close(here[term], there[term], rtol=2e-4, atol=2e-5, msg=lambda m, t=term: f"{t}: {m}")


@pytest.mark.parametrize(("name", "row"), DISTINCT)
def test_saved_and_loaded_it_embeds_the_same(name, row):
    net = prepared(name, row)
    net.objective(a_batch())  # so that statistics and memories are not those of the start
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = build(name, small(name, row), IDENTITIES, pretrained=False)
    other.load_state_dict(torch.load(file, weights_only=True))
    images, modality = a_batch(2).images[:4], torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        assert torch.equal(net.eval().embed(images, modality), other.eval().embed(images, modality))


@pytest.mark.parametrize(("name", "row"), EVERY_ROW)
def test_a_configuration_survives_json(name, row):
    config = small(name, row)
    assert from_json(type(config), to_json(config)) == config


def decimals(row: Row) -> int:
    """How many decimals the paper prints in this row. A last 0 is not seen, so the row's longest number counts."""
    return max((len(repr(value).partition(".")[2]) for value in row.published.values() if value is not None), default=0)


@pytest.mark.parametrize("name", recipes())
def test_rows_with_equal_configurations_carry_equal_published_numbers(name):
    """A check of our copies: a row that one paper prints in two tables has the same digits in both. If one table
    prints fewer decimals, its numbers are the rounded ones of the other."""
    seen: dict[tuple[str, str | None, str], tuple[str, Row]] = {}
    for row_name, row in recipe(name).ROWS.items():
        assert isinstance(row, Row)
        for metric, value in row.published.items():
            key = (str(to_json(row.config)), row.on, metric)
            if value is None:
                continue
            first_name, first = seen.setdefault(key, (row_name, row))
            digits = min(decimals(row), decimals(first))
            assert rounded(value, digits) == rounded(first.published[metric], digits), (
                f"{row_name} and {first_name} are one configuration, but differ in {metric}"
            )


def rounded(value: float | None, digits: int) -> Decimal:
    """Halves are rounded up, as on paper: 64.75 to 64.8."""
    return Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


@pytest.mark.parametrize("name", recipes())
def test_rows_name_known_protocols(name):
    from vireid.data.protocol import parse_protocol

    for row in recipe(name).ROWS.values():
        assert row.on is None or parse_protocol(row.on)
        assert row.on is not None or not row.published or set(row.published) <= {"parameters_path", "macs_path"}


def test_the_two_modalities_go_through_different_stems():
    net = network("agw", None).eval()
    images = a_batch().images[:2]
    with torch.no_grad():
        visible = net.embed(images, torch.tensor([int(Modality.VISIBLE)] * 2))
        infrared = net.embed(images, torch.tensor([int(Modality.INFRARED)] * 2))
    assert not torch.allclose(visible, infrared)
