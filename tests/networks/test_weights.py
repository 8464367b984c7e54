"""Pretrained weights: every key is checked, no code is executed, and nothing is loaded in part."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vireid import recipes
from vireid.data.errors import BadInput
from vireid.networks import weights
from vireid.networks.resnet import TRUNKS, Stages, Stem
from vireid.training.configuration import with_fields


@pytest.fixture
def state():
    """The tensors of a complete classification network under torchvision's names."""
    torch.manual_seed(1)
    state = {**Stem("tiny").state_dict(), **Stages("tiny").state_dict()}
    state = {key: torch.rand_like(value) if value.is_floating_point() else value + 3 for key, value in state.items()}
    return {**state, "fc.weight": torch.rand(10, 256), "fc.bias": torch.rand(10)}


def _trunk(**options):
    return [Stem("tiny"), Stem("tiny")], Stages("tiny", **options)


def _loaded(stem, stages):
    found = {**stem.state_dict(), **stages.state_dict()}
    return {key: value for key, value in found.items() if not key.startswith(("inserted", "within"))}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".t", ".pth.tar", ".pth.tar-60", ".safetensors"])
def test_a_file_is_loaded_into_every_stem_and_the_stages(state, suffix, tmp_path):
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    stems, stages = _trunk(inserted={(2, 0): nn.Conv2d(64, 64, 1)}, within={(1, 0): nn.Conv2d(32, 32, 1)})
    inserted = stages.inserted["stage2_block0"].weight.clone()
    weights.load_trunk(weights.read_state(file), stems, stages)
    for stem in stems:
        found = _loaded(stem, stages)
        assert all(torch.equal(found[key], state[key]) for key in found)
    assert torch.equal(stages.inserted["stage2_block0"].weight, inserted)
    assert len(found) == len(state) - 2


@pytest.mark.parametrize("container", ["state_dict", "net", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_one_level_deeper_are_found(container, prefix, state, tmp_path):
    torch.save({container: {f"{prefix}{key}": value for key, value in state.items()}, "epoch": 3}, tmp_path / "run.pth")
    found = weights.read_state(tmp_path / "run.pth")
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


def test_a_prefix_that_only_some_tensors_have_is_a_part_of_their_names(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "some.pth")
    assert weights.read_state(tmp_path / "some.pth").keys() == {"module.a", "b"}


RESULTS = {
    "cmc": np.linspace(0, 1, 20),
    "ranks": np.arange(3),
    "mAP": np.float64(0.4765),
    "mINP": np.float32(0.353),
    "best": np.int64(3),
    "done": np.bool_(True),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("room", [b"numpy._core.multiarray", b"numpy.core.multiarray"], ids=["numpy 2", "numpy 1"])
def test_measured_results_beside_the_tensors_are_no_hindrance(zipped, room, state, tmp_path):
    file = tmp_path / "best.t"
    torch.save({"net": state, **RESULTS, "epoch": 60}, file, _use_new_zipfile_serialization=zipped)
    if not zipped:  # in the old form the text of the pickle can be changed
        file.write_bytes(file.read_bytes().replace(b"numpy._core.multiarray", room))
    assert weights.read_state(file).keys() == state.keys()
    torch.save({"net": state, "results": np.array([None, {}], dtype=object)}, file)
    with pytest.raises(BadInput, match="could execute code"):
        weights.read_state(file)


def test_numbers_of_numpy_are_allowed_here_only(tmp_path):
    torch.save({"net": {"a": torch.ones(1)}, **RESULTS}, tmp_path / "best.t")
    weights.read_state(tmp_path / "best.t")
    with pytest.raises(Exception, match=r"[Ww]eights only load failed"):
        torch.load(tmp_path / "best.t", weights_only=True)


def test_old_files_without_batch_counters(state):
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    stems, stages = _trunk()
    weights.load_trunk(old, stems, stages)
    assert torch.equal(stages.get_submodule("layer1.0.conv1").weight, state["layer1.0.conv1.weight"])
    assert stems[0].bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), r"1 missing \(layer2.0.conv1.weight\)"),
        (lambda s: s.update(head=torch.zeros(1)), r"1 unexpected \(head\)"),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(7)}),
            r"1 of another shape \(bn1.bias \(7,\) instead of \(32,\)\)",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("layer1") and "num" not in k], r"10 missing \(.*, …\)"),
    ],
    ids=["missing", "unexpected", "shape", "many"],
)
def test_a_state_that_does_not_fit_changes_nothing(state, spoil, sentence):
    stems, stages = _trunk()
    before = {key: value.clone() for key, value in _loaded(stems[0], stages).items()}
    spoil(state)
    with pytest.raises(BadInput, match=sentence):
        weights.load_trunk(state, stems, stages)
    assert all(torch.equal(value, before[key]) for key, value in _loaded(stems[0], stages).items())


class _Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["weights.pth", "best.t", "model.pth.tar-60"])
def test_a_hostile_pickle_is_refused_and_not_run(name, tmp_path):
    marker = tmp_path / "executed"
    torch.save({"net": {"conv1.weight": torch.ones(1)}, "mAP": _Hostile(marker)}, tmp_path / name)
    with pytest.raises(BadInput, match="not a checkpoint of plain tensors") as caught:
        weights.read_state(tmp_path / name)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG not weights", b"PK\x03\x04 torn zip"])
def test_a_file_of_another_kind_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match="not a checkpoint") as caught:
        weights.read_state(tmp_path / name)
    assert "weights_only" not in str(caught.value)


def test_other_refusals(tmp_path):
    with pytest.raises(BadInput, match="no file"):
        weights.read_state(tmp_path / "absent.pth")
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(BadInput, match=r"\.safetensors"):
        weights.read_state(tmp_path / "weights.onnx")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="tensors by name"):
        weights.read_state(tmp_path / "list.pth")
    torch.save({"format": "vireid-checkpoint-2", "model": {"a": torch.zeros(1)}}, tmp_path / "best.pt")
    with pytest.raises(BadInput, match="weights=RUN"):
        weights.read_state(tmp_path / "best.pt")


def test_imagenet_weights_exist_for_all_trunks_but_tiny():
    assert set(weights.ADDRESSES) == set(TRUNKS) - {"tiny"}
    with pytest.raises(BadInput, match="choices for weights: none, world, FILE"):
        weights.imagenet_state("tiny")
    with pytest.raises(BadInput, match="unknown trunk"):
        weights.imagenet_state("resnet101")


def _publish(state, folder, monkeypatch, *, name="resnet18-{digest}.pth"):
    """Write a file and use its address for resnet18. As for the public files, its name ends with the first hash digits.

    Returns the place of the file in torch's cache, where nothing is yet.
    """
    torch.save(state, folder / "weights")
    digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()[:8]
    file = (folder / "weights").rename(folder / name.format(digest=digest))
    monkeypatch.setitem(weights.ADDRESSES, "resnet18", file.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    return folder / "cache" / "hub" / "checkpoints" / file.name


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a local server of the files in `tmp_path`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(_Silent, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def test_a_file_with_the_right_hash_is_downloaded_and_read(state, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch)
    found = weights.imagenet_state("resnet18")
    assert found.keys() == state.keys() and torch.equal(found["fc.bias"], state["fc.bias"])
    assert cached.is_file()


def test_a_file_in_the_cache_is_read_without_a_download(state, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch)
    cached.parent.mkdir(parents=True)
    (tmp_path / cached.name).rename(cached)
    assert weights.imagenet_state("resnet18").keys() == state.keys()


def test_a_changed_file_is_refused(state, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch, name="resnet18-00000000.pth")
    with pytest.raises(BadInput, match="hash"):
        weights.imagenet_state("resnet18")
    assert not cached.exists()


def _torn(content):
    return content[: len(content) // 2]


def _zeros(content):
    state = torch.load(io.BytesIO(content), weights_only=True)
    zeros = io.BytesIO()
    torch.save({key: torch.zeros_like(value) for key, value in state.items()}, zeros)
    return zeros.getvalue()


@pytest.mark.parametrize("spoil", [_torn, _zeros, lambda content: b""], ids=["torn", "zeros", "empty"])
def test_a_wrong_file_in_the_cache_is_named_and_replaced(spoil, state, server, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch)
    monkeypatch.setitem(weights.ADDRESSES, "resnet18", f"{server}/{cached.name}")
    right = (tmp_path / cached.name).read_bytes()
    cached.parent.mkdir(parents=True)
    cached.write_bytes(spoil(right))
    said = []
    found = weights.imagenet_state("resnet18", said.append)
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert cached.read_bytes() == right and [file.name for file in cached.parent.iterdir()] == [cached.name]
    (sentence,) = said
    assert str(cached) in sentence and "SHA-256 begins with" in sentence and "replaced" in sentence
    assert weights.imagenet_state("resnet18", said.append).keys() == state.keys() and len(said) == 1


@pytest.mark.parametrize("published", ["gone", "damaged"])
def test_a_wrong_file_that_cannot_be_replaced_is_not_used(published, state, server, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch)
    monkeypatch.setitem(weights.ADDRESSES, "resnet18", f"{server}/{cached.name}")
    right = tmp_path / cached.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(_torn(right.read_bytes()))
    if published == "gone":
        right.unlink()
    else:
        right.write_bytes(_zeros(right.read_bytes()))
    with pytest.raises(BadInput, match="damaged or incomplete") as caught:
        weights.imagenet_state("resnet18")
    assert str(cached) in str(caught.value) and "cannot download" in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("spoil", [_torn, _zeros, lambda content: b""], ids=["torn", "zeros", "empty"])
def test_the_hash_in_the_name_of_a_given_file_is_checked_too(spoil, state, tmp_path, monkeypatch):
    cached = _publish(state, tmp_path, monkeypatch)
    file = tmp_path / cached.name
    assert weights.read_state(file).keys() == state.keys()
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(BadInput, match="damaged or incomplete") as caught:
        weights.read_state(file)
    assert str(file) in str(caught.value)


def test_only_names_of_published_files_promise_a_hash(state, tmp_path):
    for name in ("run-20260101.pth", "resnet50-last.pth", "resnet50-deadbeef.pt", "my-resnet18-f37072fd.pth"):
        torch.save(state, tmp_path / name)
        assert weights.read_state(tmp_path / name).keys() == state.keys()
    assert all(weights.PUBLISHED.fullmatch(address.rpartition("/")[2]) for address in weights.ADDRESSES.values())


def test_the_names_of_the_public_files_hold_their_hash():
    beginnings = [re.fullmatch(r".*-([0-9a-f]{8})\.pth", address) for address in weights.ADDRESSES.values()]
    assert all(beginnings)


def test_without_a_network_the_user_learns_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(weights.ADDRESSES, "resnet50", (tmp_path / "absent-0676ba61.pth").as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="give the file instead: weights=FILE"):
        weights.imagenet_state("resnet50")


def test_the_weights_of_this_package_fit_their_trunk_and_a_damaged_file_is_named(monkeypatch, tmp_path):
    """Three megabytes at most, every tensor used, the hash checked, and only for the trunk that has them."""
    for trunk in weights.WORLD:
        file = Path(weights.__file__).with_name(f"{trunk}.safetensors")
        assert file.stat().st_size <= 3_000_000 and weights.sha256(file) == weights.WORLD[trunk]
        state = weights.world_state(trunk)
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        stems, stages = [Stem(trunk), Stem(trunk)], Stages(trunk)
        weights.load_trunk(state, stems, stages)
        own = {**stems[1].state_dict(), **stages.state_dict()}
        assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
        copy = tmp_path / file.name
        copy.write_bytes(file.read_bytes()[:-1] + b"x")
        with monkeypatch.context() as patched:
            patched.setattr(weights, "__file__", str(tmp_path / "weights.py"))
            with pytest.raises(BadInput, match="is damaged"):
                weights.world_state(trunk)
    with pytest.raises(BadInput, match="world is for trunk=tiny, and the trunk is 'resnet18'"):
        weights.world_state("resnet18")


@pytest.mark.parametrize("name", recipes.recipes())
def test_every_recipe_starts_from_the_weights_of_this_package(name):
    config = with_fields(recipes.recipe(name).PAPER, ["trunk=tiny", "weights=world", "size=48x24"])
    stems, _ = recipes.build(name, config, 5, pretrained=True).pretrained_parts()  # type: ignore[operator]
    assert torch.equal(stems[0].conv1.weight, weights.world_state("tiny")["conv1.weight"])
