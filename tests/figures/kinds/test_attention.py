"""Attention maps of runs: the pictures, the score, and what the maps are worth on a generated world."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.small import SECOND
from vireid import datasets, recipes
from vireid.augment.normalise import normalise
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.pictures import read_picture
from vireid.figures.drawing import Look, style
from vireid.figures.gradients import energy_share, grad_cam
from vireid.figures.kinds import DoesNotApply
from vireid.figures.kinds.attention import Choices, _first_match, attention, figures
from vireid.figures.subject import Subject, Where, subjects
from vireid.synthesis.masks import masks
from vireid.synthesis.world import World, render_mask, render_person
from vireid.training.configuration import with_fields


def subject(runs: dict[str, Path], worlds: dict[str, Path], layout: str = "sysu-mm01", **where: Any) -> Subject:
    return subjects([runs[layout]], Where(f"{layout}:{worlds[layout]}", workers=0, **where))[0]


def trained(tmp_path: Path, recipe: str, world: Path, *changes: str) -> Path:
    run = tmp_path / recipe
    arguments = ["train", recipe, "--data", f"sysu-mm01:{world}", "--run", str(run), "--workers", "0"]
    assert main([*arguments, "--set", *SECOND, *changes]) == 0
    return run


def by_loop(one: Subject, query: int, *, rule: bool = True) -> int | None:
    """The gallery picture of the query's person with the highest cosine, among those that the protocol allows."""
    trial, identity = one.trials[0], one.records.identity
    own_key = trial.query_key[trial.query.tolist().index(query)]
    best, found = -2.0, None
    for key, sample in zip(trial.gallery_key, trial.gallery, strict=True):
        seen = not rule or own_key == -1 or key != own_key
        cosine = float(one.features[query] @ one.features[sample])
        if seen and identity[sample] == identity[query] and cosine > best:
            best, found = cosine, int(sample)
    return found


@pytest.mark.parametrize("layout", ["sysu-mm01", "regdb", "llcm"])
def test_a_query_stands_beside_its_first_true_match(runs, worlds, layout: str) -> None:
    one = subject(runs, worlds, layout)
    (made,) = figures([one], Choices(people=2))
    records = one.records
    there = {path: place for place, path in enumerate(records.path)}
    shown = [there[path] for path in made.numbers["pictures"]]
    assert len(shown) == 4
    assert len({int(records.identity[sample]) for sample in shown}) == 2
    for query, match in zip(shown[::2], shown[1::2], strict=True):
        assert match == by_loop(one, query)
        assert {int(records.modality[query]), int(records.modality[match])} == {0, 1}
    words = [Modality(int(records.modality[sample])).word for sample in shown]
    roles = ("query", "match", "query", "match")
    assert made.numbers["titles"] == [f"{role}\n{word}" for role, word in zip(roles, words, strict=True)]
    assert "generated pictures" in made.caption and one.rules.name in made.caption


def test_a_match_from_the_same_place_is_no_match(runs, worlds) -> None:
    one = subject(runs, worlds)
    queries = one.trials[0].query.tolist()
    found = [_first_match(one, query) for query in queries]
    assert found == [by_loop(one, query) for query in queries]
    assert found != [by_loop(one, query, rule=False) for query in queries]


def network_map(one: Subject, paths: list[str], layer: str, score: Any) -> np.ndarray:
    """Grad-CAM of pictures of the data set, divided by the largest value of each."""
    network = one.model.network
    pictures = [read_picture(one.records.root / path, one.model.size) for path in paths]
    images = normalise(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    kinds = [int(path.startswith(("cam3/", "cam6/"))) for path in paths]  # the infrared cameras
    found = grad_cam(network, layer, images, torch.tensor(kinds), lambda x, m: score(network, x, m))
    return found / np.maximum(found.max(axis=(1, 2), keepdims=True), 1e-30)


def test_the_score_is_the_cosine_with_the_picture_beside_it(runs, worlds) -> None:
    one = subject(runs, worlds)
    (made,) = figures([one], Choices(people=2, maps=("stage3",)))
    paths = made.numbers["pictures"]
    place = [one.records.path.tolist().index(path) for path in paths]
    partner = torch.from_numpy(one.features[place][[1, 0, 3, 2]])
    expected = network_map(one, paths, "stage3", lambda net, x, m: (net.embed(x, m) * partner).sum(1))
    (found,) = made.numbers["maps"].values()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    size = (320, 160)  # the network's 64×32, five times
    shares = energy_share(found, masks(one.records.root, paths, size))
    np.testing.assert_allclose(made.numbers["share"][one.name], shares, atol=2e-3)
    np.testing.assert_allclose(made.numbers["area"], masks(one.records.root, paths, size).mean(axis=(1, 2)))


def test_towards_the_identity_of_a_training_person(runs, worlds) -> None:
    one = subject(runs, worlds)
    (made,) = figures([one], Choices(people=2, towards="identity"))
    training = datasets.training_records(datasets.read("sysu-mm01", worlds["sysu-mm01"]))
    identities = sorted(set(training.identity.tolist()))
    there = dict(zip(training.path, training.identity.tolist(), strict=True))
    people = [there[path] for path in made.numbers["pictures"]]
    assert len(set(people)) == 2 and people[0] == people[1]
    assert made.numbers["titles"] == [
        f"{who}\n{word}" for who, word in zip(people, ["visible", "infrared"] * 2, strict=True)
    ]
    label = torch.tensor([identities.index(who) for who in people])

    def logit(network: Any, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return network.classifier(network.encoder.neck(network.encoder.pooled(x, m)))[torch.arange(len(x)), label]

    expected = network_map(one, made.numbers["pictures"], "stage4", logit)
    np.testing.assert_allclose(made.numbers["maps"][one.name], expected, atol=2e-3)


def test_two_runs_show_the_same_pictures(runs, worlds) -> None:
    where = Where(f"sysu-mm01:{worlds['sysu-mm01']}", workers=0)
    trained_, before = subjects([runs["sysu-mm01"]] * 2, where), Where(where.data, workers=0, untrained=True)
    two = [trained_[0], Subject(trained_[1].run, "before its first step", before)]
    (both,) = figures(two, Choices(people=2))
    (one,) = figures(two[:1], Choices(people=2))
    assert both.numbers["pictures"] == one.numbers["pictures"]
    first, second = both.numbers["maps"].values()
    np.testing.assert_array_equal(first, one.numbers["maps"][two[0].name])
    assert list(both.numbers["maps"]) == [two[0].name, "before its first step"]
    assert not np.allclose(first, second, atol=0.05)


def test_runs_on_other_pictures_are_refused(runs, worlds) -> None:
    two = [subject(runs, worlds, layout) for layout in ("sysu-mm01", "llcm")]
    with pytest.raises(DoesNotApply, match="tested on other pictures"):
        figures(two, Choices())
    with pytest.raises(DoesNotApply, match="needs the pictures that llcm was trained on"):
        figures(two, Choices(towards="identity"))


def test_branches_stand_below_each_other_each_at_its_map(worlds, tmp_path: Path) -> None:
    run = trained(tmp_path, "fusion_dml", worlds["sysu-mm01"])
    one = subjects([run], Where(f"sysu-mm01:{worlds['sysu-mm01']}", workers=0))[0]
    (made,) = figures([one], Choices(people=1, branches=("global", "fusion"), maps=("stage4", "fusion")))
    shapes = {name: own.shape for name, own in made.numbers["maps"].items()}
    assert shapes == {"global": (2, 4, 2), "fusion": (2, 16, 8)}
    assert "at stage4, fusion in the order of the branches" in made.caption
    paths = made.numbers["pictures"]
    network = one.model.network

    def cosine(net: Any, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        feature = nn.functional.normalize(net.necks["fusion"](net.branches(net.maps(x, m))["fusion"]))
        return (feature * feature.flip(0).detach()).sum(1)

    np.testing.assert_allclose(made.numbers["maps"]["fusion"], network_map(one, paths, "fusion", cosine), atol=2e-3)
    assert not network.training
    with pytest.raises(DoesNotApply, match="does not depend on the map 'stage4'"):
        figures([one], Choices(people=1, branches=("fusion",)))
    with pytest.raises(DoesNotApply, match=r"unknown branch .* Choices: global, fusion, joint"):
        figures([one], Choices(people=1, branches=("local",)))
    with pytest.raises(DoesNotApply, match=r"several classifiers; attention\.branches takes global, fusion, joint"):
        figures([one], Choices(people=1, towards="identity"))
    with pytest.raises(DoesNotApply, match="unknown map 'stage5'; did you mean 'stage"):
        figures([one], Choices(people=1, maps=("stage5",)))


def test_pictures_and_partners_can_be_named(runs, worlds) -> None:
    one = subject(runs, worlds)
    identity, path = one.records.identity, one.records.path
    query = int(one.trials[0].query[0])
    other = int(np.flatnonzero(identity != identity[query])[0])
    (made,) = figures([one], Choices(pictures=(path[query],), partners=(path[other],)))
    assert made.numbers["pictures"] == [path[query], path[other]]
    assert [title.split("\n")[0] for title in made.numbers["titles"]] == ["query", "other"]
    assert "chosen by hand" in made.caption
    with pytest.raises(BadInput, match=r"'cam9/x\.jpg' is not among the .* test pictures"):
        figures([one], Choices(pictures=("cam9/x.jpg",)))
    gallery = path[one.trials[0].gallery[0]]
    with pytest.raises(BadInput, match="is no query of sysu-mm01/all/single"):
        figures([one], Choices(pictures=(gallery,)))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"maps": ("stage3", "stage4")}, "names 2 maps for 0 branches"),
        ({"maps": ("stage3", "stage4"), "branches": ("a", "b", "c")}, "names 2 maps for 3 branches"),
        ({"partners": ("a.jpg",)}, "one partner for each of attention.pictures"),
        ({"pictures": ("a.jpg",), "partners": ("b.jpg",), "towards": "identity"}, "needs towards=similarity"),
    ],
)
def test_choices_that_do_not_fit_each_other(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Choices(**wrong)


def test_the_command_draws_the_numbers_that_it_writes(runs, worlds, tmp_path: Path, capsys) -> None:
    data = f"sysu-mm01:{worlds['sysu-mm01']}"
    arguments = ["figures", str(runs["sysu-mm01"]), "--data", data, "--figure", "attention", "--workers", "0"]
    chosen = ["attention.people=1", "attention.maps=[stage2]"]
    assert main([*arguments, "--set", *chosen, "--format", "png", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        str(tmp_path / "attention.png"),
        str(tmp_path / "figures.json"),
    ]
    found = json.loads((tmp_path / "figures.json").read_text())["attention"]
    assert set(found["numbers"]) == {"pictures", "titles", "maps", "area", "share"}
    assert np.array(next(iter(found["numbers"]["maps"].values()))).shape == (2, 8, 4)
    assert "Grad-CAM at stage2" in found["caption"]


PICTURES = np.full((2, 40, 20, 3), 128, dtype=np.uint8)


def spot(row: int, column: int) -> np.ndarray:
    made = np.zeros((2, 4, 2))
    made[:, row, column] = 5.0
    return made


def drawn(*args: Any, **kwargs: Any) -> np.ndarray:
    image = Image.open(io.BytesIO(attention(*args, **kwargs).image())).convert("RGB")
    return np.asarray(image).astype(float)


def test_the_spot_is_drawn_where_the_map_is_large() -> None:
    """Two lines with one spot each; the places that are most yellow are in the lower left and the upper right."""
    pixels = drawn(PICTURES, {"a": spot(3, 0), "b": spot(0, 1)})
    yellow = pixels[..., 0] - pixels[..., 2]
    half = pixels.shape[1] // 2
    rows = np.array_split(np.arange(int(pixels.shape[0] * 0.9)), 3)  # pictures, a, b; the scale is below
    centre = []
    for line in rows[1:]:
        part = np.clip(yellow[line, :half] - 100, 0, None)
        centre.append([(part.sum(1 - axis) @ np.arange(part.shape[axis])) / part.sum() for axis in (0, 1)])
    assert centre[0][0] > centre[1][0] + 0.3 * len(rows[1])
    assert centre[0][1] < centre[1][1] - 0.05 * pixels.shape[1]


@pytest.mark.parametrize("people", [1, 3, 5])
@pytest.mark.parametrize("width", ["column", "page"])
def test_no_text_is_cut_off_or_stands_on_another(width: Any, people: int) -> None:
    """With few and many pictures, a long name, and a map that is 0 everywhere."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    count = 2 * people
    maps = {
        "a name that is much longer than its pictures are high": np.zeros((count, 4, 2)),
        "b": np.ones((count, 4, 2)),
    }
    titles = ["query\ninfrared", "match\nvisible"] * people
    masks_ = np.full((count, 40, 20), 0.35)
    made = attention(np.repeat(PICTURES, people, axis=0), maps, masks=masks_, titles=titles, together=2)
    look = Look(width=width)
    with rc_context(style(look)):
        canvas = made.draw(look)
        renderer = FigureCanvasAgg(canvas).get_renderer()
        (axis,) = canvas.axes
        boxes = [text.get_window_extent(renderer) for text in axis.texts]
    assert len(boxes) == 4 * count + count + 2 + 4  # titles, areas, shares, names, colour bar
    edge = canvas.bbox
    for number, box in enumerate(boxes):
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1, axis.texts[number]
        for other in range(number):
            assert not (box.overlaps(boxes[other])), (axis.texts[number], axis.texts[other])


def test_the_numbers_are_those_of_the_arrays() -> None:
    mask = np.zeros((2, 40, 20))
    mask[0, 20:] = 1.0
    made = attention(PICTURES, {"a": spot(3, 0), "none": np.zeros((2, 4, 2))}, masks=mask)
    assert made.numbers["maps"]["a"].max() == 1.0
    np.testing.assert_allclose(made.numbers["area"], [0.5, 0])
    np.testing.assert_allclose(made.numbers["share"]["a"], [1, 0])
    assert np.isnan(made.numbers["share"]["none"]).all()
    assert made.name == "attention"
    assert "share" not in attention(PICTURES, {"a": spot(3, 0)}).numbers


@pytest.mark.parametrize(
    "wrong", [{"maps": {"a": spot(0, 0)[:1]}}, {"masks": np.zeros((1, 40, 20))}, {"titles": ["one"]}, {"maps": {}}]
)
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"maps": {"a": spot(0, 0)}, **wrong}
    with pytest.raises(BadInput, match="attention needs"):
        attention(PICTURES, given.pop("maps"), **given)


# --- what the maps are worth: a network that knows the people of a world ----------------------------------------------

SIZE, PEOPLE = (128, 64), 6
WORLD = World(PEOPLE, seed=1)


class Known:
    """AGW's encoder with pretrained stems and trunk. Its classifier is the centred mean feature of each person."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = with_fields(recipes.recipe("agw").PAPER, ["trunk=tiny", "weights=world", "size=128x64"])
        self.network: Any = recipes.build("agw", config, PEOPLE, pretrained=True).eval()
        shots = [(who, kind, moment) for who in range(PEOPLE) for kind in (0, 1) for moment in range(5)]
        how = [
            {"identity": who, "camera": 1 + 2 * kind, "modality": kind, "moment": moment} for who, kind, moment in shots
        ]
        self.pictures = np.stack([render_person(WORLD, **one, size=SIZE) for one in how])
        self.masks = np.stack([render_mask(WORLD, **one, size=SIZE) for one in how])
        self.who, self.kind, moment = (torch.tensor(column) for column in zip(*shots, strict=True))
        self.new = (moment == 0).numpy()
        feature = self.features(self.pictures, self.kind)
        means = torch.stack([
            sum(feature[(self.who == who) & (self.kind == kind) & (moment > 0)].mean(0) for kind in (0, 1))
            for who in range(PEOPLE)
        ])  # fmt: skip
        self.network.classifier.linear.weight.data = means - means.mean(0)

    def features(self, pictures: np.ndarray, kind: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.network.by_branch(self.images(pictures), kind)["global"][0]

    @staticmethod
    def images(pictures: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))

    def maps(self, pictures: np.ndarray, layer: str) -> np.ndarray:
        """Towards the identity of the pictures of new moments."""
        who, kind = self.who[self.new], self.kind[self.new]

        def score(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
            return self.network.by_branch(x, m)["global"][1][torch.arange(len(x)), who]

        return grad_cam(self.network, layer, self.images(pictures), kind, score)


@pytest.fixture(scope="module")
def known() -> Known:
    return Known()


@pytest.mark.parametrize("layer", ["stage3", "stage4"])
def test_more_of_the_map_is_on_the_person_than_by_chance(known: Known, layer: str) -> None:
    mask = known.masks[known.new]
    share = energy_share(known.maps(known.pictures[known.new], layer), mask)
    assert np.nanmean(share) > mask.mean() + 0.08


@pytest.mark.parametrize("layer", ["stage3", "stage4"])
def test_the_map_follows_a_person_who_moves(known: Known, layer: str) -> None:
    """The same people on a grey ground, at the left and at the right of a picture of twice the width."""
    centre = []
    for left in (0, SIZE[1]):
        wide = np.full((int(known.new.sum()), SIZE[0], 2 * SIZE[1], 3), 110.0)
        cut = known.masks[known.new][..., None]
        wide[:, :, left : left + SIZE[1]] = cut * known.pictures[known.new] + (1 - cut) * 110
        maps = known.maps(wide.astype(np.uint8), layer)
        across = (np.arange(maps.shape[2]) + 0.5) / maps.shape[2]
        centre.append((maps.sum(axis=1) @ across) / maps.sum(axis=(1, 2)))
    moved = centre[1] - centre[0]
    assert (moved > 0).mean() > 0.9 and np.mean(moved) > 0.2
