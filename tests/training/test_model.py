"""A trained model: what it embeds, and what it refuses in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.facts import DATA, some_facts
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.pictures import read_picture
from vireid.data.size import Size
from vireid.model import EMBEDDINGS, MODALITIES, Model, as_modalities, as_picture, embedder, load
from vireid.recipes import build, recipe
from vireid.training import checkpoint
from vireid.training.configuration import to_json, with_fields
from vireid.training.loop import seed_everything
from vireid.training.run import Run, create

SIZE = Size(64, 32)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of AGW with a checkpoint of a network that was not trained."""
    config = with_fields(recipe("agw").PAPER, {"trunk": "tiny", "weights": "none", "size": SIZE, "seed": 5})
    facts = some_facts(config=to_json(config), data=replace(DATA, identities=6))
    made = create(tmp_path_factory.mktemp("model") / "run", facts)
    seed_everything(5)
    network = build("agw", config, 6, pretrained=True)
    checkpoint.save(made.checkpoint, {"model": network.state_dict(), "progress": {"epoch": 7, "step": 0, "sums": {}}})
    return made


@pytest.fixture(scope="module")
def model(run) -> Model:
    return load(run)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Pictures of several formats, modes and sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (120, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: 90 degrees
    picture.save(folder / "plain.jpg", quality=90)
    picture.save(folder / "turned.jpg", exif=turned)
    picture.resize((31, 77)).save(folder / "small.png")
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("P").save(folder / "palette.png")
    Image.fromarray(np.dstack((noise, noise[:, :, :1]))).save(folder / "transparent.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    return sorted(folder.iterdir())


def test_a_run_gives_its_model(run, model):
    assert (model.recipe, model.epochs, model.checkpoint, model.size) == ("agw", 7, "last", SIZE)
    assert model.config.training.seed == 5 and not model.network.training and load(str(run.path)).epochs == 7
    untrained = load(run, untrained=True)
    weights = torch.load(run.checkpoint, weights_only=True)["model"]
    assert untrained.epochs == 0
    assert all(torch.equal(value, weights[key]) for key, value in untrained.network.state_dict().items())
    with pytest.raises(BadInput, match=r"no best\.pt; vireid train --validate-every N .*choices here: last"):
        load(run, checkpoint="best")
    with pytest.raises(BadInput, match="unknown checkpoint 'bset'; did you mean 'best'"):
        load(run, checkpoint="bset")


def test_a_picture_has_the_pixels_of_its_file_whatever_it_is_given_as(files):
    assert len(files) == 7
    for file in files:
        expected = read_picture(file, SIZE)
        with Image.open(file) as picture:
            assert np.array_equal(as_picture(picture, SIZE), expected), file.name
        given = (file, str(file), read_picture(file), torch.from_numpy(read_picture(file)), read_picture(file)[::1])
        assert all(np.array_equal(as_picture(one, SIZE), expected) for one in given), file.name
    strided = np.zeros((40, 20, 3), np.uint8)[::2, ::-1]
    assert as_picture(strided, SIZE).shape == (64, 32, 3)


def test_features_do_not_depend_on_how_pictures_are_given(model, files):
    pictures = [Image.open(file) for file in files]
    arrays = [read_picture(file) for file in files]
    images = np.stack([read_picture(file, SIZE).transpose(2, 0, 1) for file in files])
    expected = model.embed(images, 1)
    assert expected.shape == (7, 256) and expected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    mixed = [files[0], str(files[1]), pictures[2], arrays[3], *files[4:]]
    for given in (
        files,
        [str(file) for file in files],
        pictures,
        arrays,
        mixed,
        tuple(files),
        torch.from_numpy(images),
    ):
        assert np.array_equal(model.embed(given, "infrared"), expected)


def test_the_modality_is_one_for_all_or_one_for_each(model, files):
    visible, infrared = model.embed(files, "visible"), model.embed(files, "infrared")
    assert np.abs(visible - infrared).max() > 1e-4
    for words in (["rgb", "ir", "nir", 0, 1, Modality.INFRARED, "VIS"], np.array([0, 1, 1, 0, 1, 1, 0])):
        found = model.embed(files, words)
        is_infrared = as_modalities(words, 7).bool().numpy()[:, None]
        np.testing.assert_allclose(found, np.where(is_infrared, infrared, visible), atol=1e-6)
    for word, modality in MODALITIES.items():
        assert as_modalities(word, 3).tolist() == [modality] * 3
    for one in (1, Modality.INFRARED, np.int64(1), np.array(1), torch.tensor(1)):
        assert as_modalities(one, 2).tolist() == [1, 1]
    assert as_modalities(torch.tensor([1, 0]), 2).tolist() == [1, 0] and as_modalities([], 0).tolist() == []


def test_many_pictures_are_embedded_in_batches(model, files):
    many = [files[i % 7] for i in range(130)]
    found = model.embed(many, "rgb")
    np.testing.assert_allclose(found, np.tile(model.embed(files, "rgb"), (19, 1))[:130], atol=1e-6)
    assert len(model.embed([], "rgb")) == 0


GREY, LARGE, EMPTY = (np.zeros(shape, np.uint8) for shape in ((8, 8), (2, 3, 8, 8), (0, 8, 3)))
NONE = "none.jpg"
#   what is wrong                     the pictures, in a folder           the modality        what the sentence says
MISTAKES = {
    "a size that is not the model's": (lambda f: LARGE,                    0,                  "N×3×64×32 uint8"),
    "floating-point images":          (lambda f: torch.zeros(2, 3, 64, 32), 0,                 "N×3×64×32 uint8"),
    "one array instead of a list":    (lambda f: LARGE[0],                 0,                  "list of pictures"),
    "one path instead of a list":     (lambda f: f / NONE,                 0,                  "a list of one"),
    "one text instead of a list":     (lambda f: NONE,                     0,                  "a list of one"),
    "a file that is missing":         (lambda f: [f / NONE],               0,                  "none.jpg does not"),
    "a file that is no picture":      (lambda f: [f / "text.jpg"],         0,                  "text.jpg"),
    "a grey array":                   (lambda f: [GREY],                   0,                  "picture 0 is .*H×W×3"),
    "a floating-point array":         (lambda f: [np.zeros((8, 8, 3))],    0,                  "float64.*uint8"),
    "an empty array":                 (lambda f: [EMPTY],                  0,                  "H×W×3"),
    "something else":                 (lambda f: [None],                   0,                  "picture 0 is NoneType"),
    "a floating-point PIL image":     (lambda f: [Image.new("F", (8, 8))], 0,                  "picture 0.*white"),
    "a third modality":               (lambda f: [f / NONE],               2,                  "modality takes 0"),
    "the auxiliary modality":         (lambda f: [f / NONE],               Modality.AUXILIARY, "modality takes 0"),
    "no modality":                    (lambda f: [f / NONE],               None,               "modality takes 0"),
    "an unknown word":                (lambda f: [f / NONE],               "infrarot",         "'infrared'.*thermal"),
    "too few modalities":             (lambda f: [f, f, f],                [0, 1],             "2 modalities for 3"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake, model, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    pictures, modality, words = MISTAKES[mistake]
    with pytest.raises(BadInput, match=words) as refusal:
        model.embed(pictures(tmp_path), modality)
    assert "\n" not in str(refusal.value)


def test_a_damaged_picture_that_pillow_has_not_decoded_yet_is_named(model, files, tmp_path):
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(files[0].read_bytes()[:600])
    for given in (cut, Image.open(cut)):
        with pytest.raises(BadInput, match=r"cut\.jpg"):
            model.embed([given], "rgb")


def test_the_embeddings_are_after_before_and_beside_the_neck(model):
    images, modality = torch.randn(2, 3, *SIZE), torch.tensor([0, 1])
    with torch.inference_mode():
        neck, pooled, both = (embedder(model.network, name)(images, modality) for name in EMBEDDINGS)
        assert torch.equal(embedder(model.network)(images, modality), neck)
    torch.testing.assert_close(both @ both.T, (neck @ neck.T + pooled @ pooled.T) / 2)
    with pytest.raises(BadInput, match="unknown embedding 'nek'; did you mean 'neck'"):
        embedder(model.network, "nek")
