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
from vireid.data.modality import MODALITIES, Modality
from vireid.data.pictures import read_picture
from vireid.data.size import Size
from vireid.model import EMBEDDINGS, Model, as_modalities, as_picture, embedder, load, nearest
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
        (file for file in files),
        iter(arrays),
        dict(enumerate(pictures)).values(),
        np.array([str(file) for file in files]),
        np.array(files, dtype=object),
        [torch.from_numpy(array) for array in arrays],
        torch.from_numpy(images),
    ):
        assert np.array_equal(model.embed(given, "infrared"), expected)
    resized = np.stack([read_picture(file, SIZE) for file in files])
    for given in (resized, torch.from_numpy(resized), list(resized)):
        assert np.array_equal(model.embed(given, "infrared"), expected)
    assert np.array_equal(model.embed((file for file in files), [1] * 7), expected)
    assert np.array_equal(model.embed((file for file in files), (1 for _ in files)), expected)


def test_one_picture_is_a_list_of_one(model, files):
    """Also where it has no list around it; a grey picture has three equal channels."""
    for file in files:
        expected = model.embed([file], "ir")
        array = read_picture(file)
        for given in (file, str(file), np.str_(file), Image.open(file), array, torch.from_numpy(array)):
            found = model.embed(given, "ir")
            assert found.shape == (1, 256) and np.array_equal(found, expected), (file.name, type(given))
    (grey,) = [file for file in files if file.name == "grey.jpg"]
    plane = read_picture(grey)[:, :, 0]
    for given in (plane, plane[:, :, None], [plane], [torch.from_numpy(plane)], torch.from_numpy(plane)):
        assert np.array_equal(model.embed(given, 1), model.embed([grey], 1))


def test_the_modality_is_one_for_all_or_one_for_each(model, files):
    visible, infrared = model.embed(files, "visible"), model.embed(files, "infrared")
    assert np.abs(visible - infrared).max() > 1e-4
    for words in (["rgb", "ir", "nir", 0, 1, Modality.INFRARED, "VIS"], np.array([0, 1, 1, 0, 1, 1, 0])):
        found = model.embed(files, words)
        is_infrared = as_modalities(words, 7).bool().numpy()[:, None]
        np.testing.assert_allclose(found, np.where(is_infrared, infrared, visible), atol=1e-6)
    for word, modality in MODALITIES.items():
        assert as_modalities(word, 3).tolist() == [modality] * 3
    assert as_modalities([np.array(0), torch.tensor(1), 1.0], 3).tolist() == [0, 1, 1]
    for one in (1, Modality.INFRARED, np.int64(1), np.array(1), np.str_("ir"), np.array("ir"), torch.tensor(1)):
        assert as_modalities(one, 2).tolist() == [1, 1]
    assert as_modalities(torch.tensor([1, 0]), 2).tolist() == [1, 0] and as_modalities([], 0).tolist() == []


def test_pictures_with_16_bits_are_scaled_as_those_that_the_run_was_trained_on(run, model, tmp_path):
    """The four values are those of a 12-bit sensor. With the run's rule they fill the whole range."""
    values = np.array([0, 1365, 2730, 4095], dtype=np.uint16).repeat(12).reshape(8, 6)
    Image.fromarray(values).save(tmp_path / "deep.png")
    scaled = (values // 16.06).astype(np.uint8)
    assert np.unique(scaled).tolist() == [0, 84, 169, 254]
    facts = replace(run.facts, data=replace(run.facts.data, scaling="window:0-4095"))
    thermal = replace(model, run=replace(run, facts=facts))
    for given in (tmp_path / "deep.png", Image.open(tmp_path / "deep.png")):
        assert (thermal.embed(given, 1) @ model.embed(scaled, 1).T).item() > 0.9999
        assert (model.embed(given, 1) @ model.embed(scaled, 1).T).item() < 0.99


def test_many_pictures_are_embedded_in_batches(model, files):
    many = [files[i % 7] for i in range(130)]
    found = model.embed(many, "rgb")
    assert np.array_equal(model.embed(iter(many), "rgb"), found)
    np.testing.assert_allclose(found, np.tile(model.embed(files, "rgb"), (19, 1))[:130], atol=1e-6)
    assert len(model.embed([], "rgb")) == 0


HALVES = np.linspace(0.25, 0.5, 192).reshape(8, 8, 3)
GREY, LARGE, EMPTY = (np.zeros(shape, np.uint8) for shape in ((8, 8), (2, 3, 8, 8), (0, 8, 3)))
NONE = "none.jpg"
#   what is wrong                     the pictures, in a folder           the modality        what the sentence says
MISTAKES = {
    "a size that is not the model's": (lambda f: LARGE,                    0,                  "N×3×64×32 uint8"),
    "floating-point images":          (lambda f: torch.zeros(2, 3, 64, 32), 0,                 "N×3×64×32 uint8"),
    "one array with colours in front":(lambda f: LARGE[0],                 0,                  "list of pictures"),
    "a list of these":                (lambda f: [LARGE[0]],               0,                  r"transpose\(1, 2, 0\)"),
    "one path of a missing file":     (lambda f: f / NONE,                 0,                  "none.jpg does not"),
    "one text of a missing file":     (lambda f: NONE,                     0,                  "none.jpg does not"),
    "a file that is missing":         (lambda f: [f / NONE],               0,                  "none.jpg does not"),
    "a folder":                       (lambda f: f,                        0,                  "is a folder"),
    "the bytes of a file":            (lambda f: b"\xff\xd8\xff",          0,                  "pictures cannot be"),
    "pictures in no order":           (lambda f: {NONE},                   0,                  "pictures cannot be"),
    "pictures by name":               (lambda f: {"a": NONE},              0,                  "pictures cannot be"),
    "a file that is no picture":      (lambda f: [f / "text.jpg"],         0,                  "text.jpg"),
    "a stack of grey arrays":         (lambda f: np.stack([GREY] * 2),     0,                  r"\(2, 8, 8\) uint8"),
    "a floating-point array":         (lambda f: [HALVES],                 0,                  "64.*0.25 to 0.5 .*255"),
    "one floating-point array":       (lambda f: HALVES,                   0,                  "64.*0.25 to 0.5 .*255"),
    "a floating-point grey tensor":   (lambda f: torch.ones(8, 8),         0,                  "32.*1 to 1 .*255"),
    "16 bits in an array":            (lambda f: [GREY.astype("u2") + 700], 0,                 "uint16.*700 to 700"),
    "four channels":                  (lambda f: [np.zeros((8, 8, 4), "u1")], 0,               r"\(8, 8, 4\) uint8"),
    "an empty array":                 (lambda f: [EMPTY],                  0,                  "H×W×3"),
    "something else":                 (lambda f: [None],                   0,                  "picture 0 is NoneType"),
    "a floating-point PIL image":     (lambda f: [Image.new("F", (8, 8))], 0,                  "picture 0.*white"),
    "a third modality":               (lambda f: [f / NONE],               2,                  "modality takes 0"),
    "the auxiliary modality":         (lambda f: [f / NONE],               Modality.AUXILIARY, "modality takes 0"),
    "no modality":                    (lambda f: [f / NONE],               None,               "modality takes 0"),
    "an unknown word":                (lambda f: [f / NONE],               "infrarot",         "'infrared'.*thermal"),
    "too few modalities":             (lambda f: [f, f, f],                [0, 1],             "2 modalities for 3"),
    "modalities of one picture":      (lambda f: f / NONE,                 ["ir", "rgb"],      "2 modalities for 1"),
    "a number between":               (lambda f: [f / NONE],               [0.5],              "modality takes 0"),
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


def slowly_ranked(queries: np.ndarray, gallery: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Every cosine in double precision, rounded so that equal ones are equal, and one stable sort for each query."""
    index, score = [], []
    for query in queries.astype(np.float64):
        cosines = [query @ one / np.sqrt((query @ query) * (one @ one)) for one in gallery.astype(np.float64)]
        order = sorted(range(len(gallery)), key=lambda place: (-round(cosines[place], 5), place))[:top]
        index.append(order)
        score.append([cosines[place] for place in order])
    return np.array(index), np.array(score)


@pytest.mark.parametrize("top", [1, 17, 90, 500])
def test_ranking_is_a_stable_sort_of_cosines(top):
    """The gallery has each direction several times, at different lengths, so nearly all places are ties."""
    random = np.random.default_rng(3)
    directions = random.integers(-2, 3, (12, 8)) + 0.5
    gallery = directions[random.integers(0, 12, 90)]
    queries = random.normal(size=(11, 8)).astype(np.float32)
    index, score = slowly_ranked(queries, gallery, top)
    for block_bytes in (1, 4000, 2**27):
        found = nearest(queries, gallery, top, block_bytes=block_bytes)
        assert found.index.dtype == np.int64 and found.score.dtype == np.float32
        assert found.index.shape == (11, min(top, 90)) and np.array_equal(found.index, index)
        np.testing.assert_allclose(found.score, score, atol=1e-6)


def test_a_model_ranks_pictures_or_features(model, files):
    infrared, visible = model.embed(files[:3], "ir"), model.embed(files, "rgb")
    expected = model.rank(infrared, visible, top=4)
    assert expected.index.shape == expected.score.shape == (3, 4) and (np.diff(expected.score) <= 0).all()
    np.testing.assert_allclose(expected.score, np.take_along_axis(infrared @ visible.T, expected.index, 1), atol=1e-6)
    pictures = {"queries": files[:3], "query_modality": "ir"}, {"gallery": iter(files), "gallery_modality": "rgb"}
    features = {"queries": torch.from_numpy(infrared)}, {"gallery": visible.astype(np.float64)}
    for asked in (pictures[0], features[0]):
        found = model.rank(**asked, **features[1], top=4)
        assert np.array_equal(found.index, expected.index)
        np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
    found = model.rank(**features[0], **pictures[1], top=4)
    assert np.array_equal(found.index, expected.index)
    one = model.rank(files[0], visible, query_modality="ir", top=100)
    assert one.index.shape == (1, 7) and one.index[0, :4].tolist() == expected.index[0].tolist()
    assert model.rank([], visible, query_modality="ir").index.shape == (0, 7)


FEATURES = np.ones((2, 4), np.float32)
#   what is wrong                  queries, gallery, options                                      what the sentence says
UNRANKED = {
    "no modality":               ((["a.jpg"], FEATURES, {}),                                      "query_modality"),
    "no gallery modality":       ((FEATURES, ["a.jpg"], {}),                                      "gallery:.*modality"),
    "features with a modality":  ((FEATURES, FEATURES, {"gallery_modality": 1}),                  "leave out gallery"),
    "no gallery":                ((FEATURES, FEATURES[:0], {}),                                   "gallery is empty"),
    "other features":            ((FEATURES, FEATURES[:, :3], {}),                                "4 numbers.* 3"),
    "not a number":              ((FEATURES, FEATURES * np.array([[1], [np.nan]]), {}),           "gallery: feature 1"),
    "top of none":               ((FEATURES, FEATURES, {"top": 0}),                               "top is 0"),
    "half a top":                ((FEATURES, FEATURES, {"top": 1.5}),                             "top is 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", UNRANKED)
def test_what_cannot_be_ranked_is_one_sentence(mistake, model):
    (queries, gallery, options), words = UNRANKED[mistake]
    with pytest.raises(BadInput, match=words) as refusal:
        model.rank(queries, gallery, **options)
    assert "\n" not in str(refusal.value)
