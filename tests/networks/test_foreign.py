"""Checkpoints of other public code: files with the keys that their code writes, and the features that it would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.data.size import Size
from vireid.networks import foreign
from vireid.networks.resnet import TRUNKS, Stages, Stem, Trunk
from vireid.training.configuration import with_fields

BLOCKS, WIDTHS = (3, 4, 6, 3), (4, 8, 16, 32)
"""ResNet-50, for which AGW's code is, with a sixteenth of its width, so that a test is short."""
WIDTH = 4 * WIDTHS[-1]
NON_LOCAL = {2: (2, 3), 3: (3, 4, 5)}
"""After which blocks AGW's code places its non-local blocks: `NL_2.0` after block 2 of stage 2, and so on."""


def draw(generator, *shape, mean=0.0, scale=0.1):
    return mean + scale * torch.randn(*shape, generator=generator)


def normalisation(name, width, generator):
    return {
        f"{name}.weight": draw(generator, width, mean=1.0),
        f"{name}.bias": draw(generator, width),
        f"{name}.running_mean": draw(generator, width),
        f"{name}.running_var": draw(generator, width).abs() + 1.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def convolution(name, outputs, inputs, size, generator):
    return {f"{name}.weight": draw(generator, outputs, inputs, size, size, scale=(1 / (inputs * size * size)) ** 0.5)}


def resnet(generator):
    """The tensors of one whole ResNet by torchvision's names, without its classifier."""
    before = WIDTHS[0]
    state = {**convolution("conv1", before, 3, 7, generator), **normalisation("bn1", before, generator)}
    for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            sizes = ((1, before, width, 1), (2, width, width, 3), (3, width, 4 * width, 1))
            for number, inputs, outputs, size in sizes:
                state |= convolution(f"{name}.conv{number}", outputs, inputs, size, generator)
                state |= normalisation(f"{name}.bn{number}", outputs, generator)
            if block == 0:
                state |= convolution(f"{name}.downsample.0", 4 * width, before, 1, generator)
                state |= normalisation(f"{name}.downsample.1", 4 * width, generator)
            before = 4 * width
    return state


def agw(*, width="code", identities=20, seed=0):
    """A file of AGW's or CAJ's public code: three whole networks, of which it uses only parts."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for module in ("thermal_module.thermal", "visible_module.visible", "base_resnet.base"):
        state |= {f"{module}.{name}": value for name, value in resnet(generator).items()}
    for stage, blocks in NON_LOCAL.items():
        channels = 4 * WIDTHS[stage - 1]
        inner = 1 if width == "code" else channels // 2
        for index in range(len(blocks)):
            name = f"NL_{stage}.{index}"
            for part in ("g.0", "theta", "phi"):
                state |= convolution(f"{name}.{part}", inner, channels, 1, generator)
                state[f"{name}.{part}.bias"] = draw(generator, inner)
            state |= convolution(f"{name}.W.0", channels, inner, 1, generator)
            state[f"{name}.W.0.bias"] = draw(generator, channels)
            state |= normalisation(f"{name}.W.1", channels, generator)
    state |= normalisation("bottleneck", WIDTH, generator)
    return {**state, "classifier.weight": draw(generator, identities, WIDTH)}


def saved(state, file):
    """As the public code saves it: with results, which are numbers and arrays of NumPy."""
    results = {"cmc": np.linspace(0, 1, 20), "mAP": np.float64(0.4765), "mINP": np.float32(0.353), "epoch": 60}
    torch.save({"net": state, **results}, file)
    return file


# --- an oracle: AGW's network by its public names, step by step -------------------------------------------------------


def normalised(state, name, x):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = (state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var"))
    weight, bias = (state[f"{name}.{part}"].reshape(shape) for part in ("weight", "bias"))
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def residual(state, name, x, stride):
    y = normalised(state, f"{name}.bn1", functional.conv2d(x, state[f"{name}.conv1.weight"])).relu()
    y = functional.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
    y = normalised(state, f"{name}.bn2", y).relu()
    y = normalised(state, f"{name}.bn3", functional.conv2d(y, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = normalised(state, f"{name}.downsample.1", x)
    return (x + y).relu()


def non_local(state, name, x):
    """Attention of every position to every other, with loops: the sum over them divided by their number."""
    found = {}
    for part in ("g.0", "theta", "phi"):
        found[part] = functional.conv2d(x, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"]).flatten(2)
    y = torch.zeros_like(found["g.0"])
    positions = y.shape[2]
    for i in range(positions):
        for j in range(positions):
            similar = (found["theta"][:, :, i] * found["phi"][:, :, j]).sum(1, keepdim=True)
            y[:, :, i] += similar * found["g.0"][:, :, j] / positions
    y = functional.conv2d(y.unflatten(2, x.shape[2:]), state[f"{name}.W.0.weight"], state[f"{name}.W.0.bias"])
    return normalised(state, f"{name}.W.1", y) + x


def embedded(state, images, module):
    """The features before and after the neck, of length one."""
    x = functional.conv2d(images, state[f"{module}.conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(normalised(state, f"{module}.bn1", x).relu(), 3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in range(BLOCKS[stage - 1]):
            stride = 2 if block == 0 and stage in (2, 3) else 1
            x = residual(state, f"base_resnet.base.layer{stage}.{block}", x, stride)
            if block in NON_LOCAL.get(stage, ()) and "NL_2.0.theta.weight" in state:
                x = non_local(state, f"NL_{stage}.{NON_LOCAL[stage].index(block)}", x)
    pooled = ((x.flatten(2) ** 3).mean(2) + 1e-12) ** (1 / 3)
    return [functional.normalize(feature) for feature in (pooled, normalised(state, "bottleneck", pooled))]


@pytest.fixture
def narrow(monkeypatch):
    """`trunk=tiny` has the blocks of ResNet-50 in this test."""
    monkeypatch.setitem(TRUNKS, "tiny", Trunk("bottleneck", BLOCKS, WIDTHS))  # type: ignore[arg-type]


def network(file, recipe="agw", **changes):
    own = {"non_local": "code"} if recipe == "agw" else {}
    fields = {"trunk": "tiny", "size": Size(96, 48), "weights": str(file), **own, **changes}
    said = []
    config = with_fields(recipes.recipe(recipe).PAPER, fields)
    return recipes.build(recipe, config, 5, pretrained=True, say=said.append).eval(), said[0]


@pytest.mark.parametrize("width", ["code", "half"])
@torch.no_grad()
def test_agw_s_file_embeds_as_agw_s_network(width, narrow, tmp_path):
    state = agw(width=width)
    built, said = network(saved(state, tmp_path / "sysu_agw_p4_n8_lr_0.1_seed_0_best.t"), non_local=width)
    images = torch.randn(3, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    for modality, module in ((0, "visible_module.visible"), (1, "thermal_module.thermal")):
        pooled, necked = embedded(state, images, module)
        modalities = torch.full((3,), modality)
        # The public code adds 1e-12 before the cube root, which lifts a channel that is 0 everywhere to 1e-4.
        assert torch.allclose(built.embed_pooled(images, modalities), pooled, atol=2e-4)
        assert torch.allclose(built.embed(images, modalities), necked, atol=2e-4)
        assert necked.std() > 0.03  # so the tolerance means something
    one, other = (embedded(state, images, module)[1] for module in foreign.STEMS)
    assert (one - other).abs().max() > 0.01
    assert "AGW's public code" in said and "classifier.weight (1, classifier)" in said
    assert "never used by its network" in said


def test_every_tensor_of_agw_s_file_is_accounted_for():
    state = agw()
    found = foreign.named(state)
    assert found.encoder and len(found.tensors) + len(found.left_out) == len(state)
    used = [name for name in state if name not in found.left_out]
    values = {id(value) for value in found.tensors.values()}
    assert values == {id(state[name]) for name in used} and len(values) == len(used)
    for name in used:
        stem = name.startswith(("visible", "thermal")) and name.split(".")[2] in ("conv1", "bn1")
        assert stem or name.startswith(("base_resnet.base.layer", "NL_", "bottleneck.")), name
    assert found.tensors["stages.inserted.stage3_block4.w.weight"] is state["NL_3.1.W.0.weight"]
    assert found.tensors["stages.inserted.stage2_block2.bn.bias"] is state["NL_2.0.W.1.bias"]
    assert found.tensors["stems.copies.infrared.bn1.weight"] is state["thermal_module.thermal.bn1.weight"]


def test_the_prefix_of_data_parallel_training(narrow, tmp_path):
    state = agw()
    one, _ = network(saved(state, tmp_path / "one.t"))
    other, _ = network(saved({f"module.{name}": value for name, value in state.items()}, tmp_path / "other.t"))
    left = [name for name, value in one.state_dict().items() if not torch.equal(value, other.state_dict()[name])]
    assert left == ["classifier.linear.weight"]  # random


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (lambda s: None, {"non_local": "half"}, ["of another shape", "set non_local=code"]),
        (lambda s: None, {"non_local": None}, ["unexpected", "set non_local=code"]),
        (lambda s: [s.pop(k) for k in list(s) if k[:3] == "NL_"], {}, ["lacks", "set non_local=null gem_power=1"]),
        (lambda s: s.update({"attention.weight": torch.ones(1)}), {}, ["'attention.weight' is unknown"]),
        (lambda s: s.update({"NL_2.0.psi.weight": torch.ones(1)}), {}, ["'NL_2.0.psi.weight' is unknown"]),
        (lambda s: s.pop("bottleneck.running_mean"), {}, ["lacks 1 tensors (encoder.neck.bn.running_mean)"]),
        (lambda s: None, {"trunk": "resnet18"}, ["another trunk than this network"]),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_advice(spoil, changes, words, narrow, tmp_path):
    state = agw()
    spoil(state)
    with pytest.raises(BadInput) as caught:
        network(saved(state, tmp_path / "agw.t"), **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_another_recipe_takes_stems_and_trunk_of_agw_s_file(narrow, tmp_path):
    state = agw()
    built, said = network(saved(state, tmp_path / "agw.t"), recipe="fusion_dml")
    values = [value for name, value in built.state_dict().items() if name.endswith("layer3.5.conv2.weight")]
    assert values and all(torch.equal(value, state["base_resnet.base.layer3.5.conv2.weight"]) for value in values)
    stems = {name: value for name, value in built.state_dict().items() if name.endswith("visible.conv1.weight")}
    assert all(torch.equal(value, state["visible_module.visible.conv1.weight"]) for value in stems.values()) and stems
    assert "because its recipe is agw and this one is fusion_dml" in said


# --- trunks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trunk():
    """A tiny trunk by torchvision's names."""
    torch.manual_seed(2)
    state = {**Stem("tiny").state_dict(), **Stages("tiny").state_dict()}
    return {key: torch.rand_like(value) if value.is_floating_point() else value + 3 for key, value in state.items()}


def torchreid(state, file):
    """With what torchreid adds: its optimiser, its scheduler and Rank-1, which is a number of NumPy."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([parameter], amsgrad=True)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones=[20, 40])
    (parameter.sum() ** 2).backward()
    optimiser.step()
    heads = {"classifier.weight": torch.ones(7, 256), "classifier.bias": torch.ones(7)}
    content = {f"module.{name}": value for name, value in {**state, **heads}.items()}
    more = {"optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict(), "rank1": np.float64(0.9)}
    torch.save({"state_dict": content, "epoch": 60, **more}, file)


def fast_reid(state, file):
    heads = {
        "heads.bottleneck.0.weight": torch.ones(256),
        "heads.bottleneck.0.running_mean": torch.ones(256),
        "heads.weight": torch.ones(7, 256),
        "pixel_mean": torch.ones(1, 3, 1, 1),
        "pixel_std": torch.ones(1, 3, 1, 1),
    }
    blocks = {"backbone.NL_2.0.theta.weight": torch.ones(1)}
    content = {**{f"backbone.{name}": value for name, value in state.items()}, **blocks, **heads}
    torch.save({"model": content, "epoch": 59, "iteration": 100, "metric": np.float32(0.8)}, file)


@pytest.mark.parametrize(
    ("save", "name", "left"),
    [
        (torchreid, "model.pth.tar-60", ["torchreid's names", "classifier.weight, classifier.bias (2, classifier)"]),
        (torchreid, "best_model.pth.tar", ["torchreid's names"]),
        (fast_reid, "model_final.pth", ["fast-reid", "(3, head)", "NL_2.0.theta.weight (1, non-local block)"]),
    ],
)
def test_a_trunk_of_other_code_is_loaded_into_both_stems(save, name, left, trunk, tmp_path):
    save(trunk, tmp_path / name)
    built, said = network(tmp_path / name)
    state = built.state_dict()
    for key, value in trunk.items():
        prefixes = ["stages."] if key.startswith("layer") else ["stems.copies.visible.", "stems.copies.infrared."]
        assert all(torch.equal(state[f"encoder.{prefix}{key}"], value) for prefix in prefixes), key
    assert f"weights: {len(trunk)} tensors" in said and all(words in said for words in left)


def test_blocks_that_no_trunk_here_has(trunk, tmp_path):
    with pytest.raises(BadInput, match="IBN or squeeze-and-excitation"):
        foreign.named({f"backbone.{name}": value for name, value in trunk.items()} | {
            "backbone.layer1.0.bn1.IN.weight": torch.ones(16)
        })  # fmt: skip
    torch.save({"conv1.conv.weight": torch.ones(1), "classifier.weight": torch.ones(1)}, tmp_path / "osnet.pth")
    with pytest.raises(BadInput, match="do not fit the trunk"):
        network(tmp_path / "osnet.pth")


def test_no_trunk_here_is_mistaken_for_another_code():
    for name in TRUNKS:
        state = {**Stem(name).state_dict(), **Stages(name).state_dict()}
        found = foreign.named({**state, "fc.weight": torch.ones(1)})
        assert not found.encoder and found.tensors.keys() == state.keys() and set(found.left_out) == {"fc.weight"}
