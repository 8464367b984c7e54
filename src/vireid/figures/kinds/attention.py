"""Attention maps: on which places of a picture a network's answer depends (Grad-CAM), for runs or branches."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from vireid.data.errors import BadInput, unknown
from vireid.data.modality import Modality
from vireid.data.pictures import read_picture
from vireid.data.records import Records
from vireid.data.settings import Count, Whole, settings
from vireid.data.size import Size
from vireid.evaluation.examples import Which, choose
from vireid.figures.drawing import Figure, Look, canvas
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

TOGETHER = 8  # pictures at once: the gradient needs the maps of all layers, about 1 GB with ResNet-50 at 384×144


@settings
class Choices:
    """What can be chosen."""

    maps: tuple[str, ...] = ("stage4",)
    """ours: the map that is looked at: a name of the recipe's `maps`, or a module of the network whose output is a map;
    one for all branches, or one for each of `branches`. stage4 is what most papers show."""
    towards: Literal["similarity", "identity"] = "similarity"
    """ours: the score: `similarity` is the cosine with another picture, which works for people that the network was not
    trained on; `identity` is the logit of the person, for pictures of training people."""
    branches: tuple[str, ...] = ()
    """ours: the branches whose feature or logit gives the score, one line of maps for each. Without any: the embedding,
    or for `identity` the only branch."""
    people: Count = 3
    """ours: how many people are shown, each by a query and its first true match in the gallery, or for `identity` by a
    visible and an infrared picture."""
    which: Which = "random"
    """ours: the queries: `random`, or the `best` or `worst` by average precision. `identity` shows random people."""
    seed: Whole = 0
    """ours: of the choice of queries or people."""
    pictures: tuple[str, ...] = ()
    """ours: paths of the pictures to show, as in the data set, instead of chosen ones."""
    partners: tuple[str, ...] = ()
    """ours: the picture that each of `pictures` is compared with; without any, its first true match."""

    def __post_init__(self) -> None:
        if len(self.maps) not in (1, max(1, len(self.branches))):
            raise BadInput(f"attention.maps names {len(self.maps)} maps for {len(self.branches)} branches")
        if self.partners and (len(self.partners) != len(self.pictures) or self.towards == "identity"):
            raise BadInput("attention.partners needs towards=similarity and one partner for each of attention.pictures")


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure: a column for each picture, a line for each run or branch."""
    first = subjects[0]
    shown = _pairs(subjects, choices) if choices.towards == "similarity" else _people(subjects, choices)
    branches: Sequence[str | None] = choices.branches or (None,)
    maps = choices.maps if len(choices.maps) > 1 else choices.maps * len(branches)
    lines = {}
    for one in subjects:
        for branch, layer in zip(branches, maps, strict=True):
            name = ": ".join([one.name] * (len(subjects) > 1 or branch is None) + ([branch] if branch else []))
            lines[name] = _maps(one, shown, branch, layer)
    size = _shown_size(first.model.size)
    files = [str(path) for path in shown.records.path]
    where = _masks(first, files, size)
    made = attention(shown.pixels(size), lines, masks=where, titles=shown.titles, together=shown.together)
    caption = " ".join([_says(choices, maps, made), *(one.says(protocol=shown.label is None) for one in subjects)])
    return [replace(made, caption=caption, numbers={"pictures": files, **made.numbers})]


def _shown_size(size: Size) -> Size:
    """The network's size, or a multiple of it that looks well in print."""
    times = -(-288 // size.height)
    return Size(times * size.height, times * size.width)


@dataclass(frozen=True)
class Shown:
    """The pictures of a figure.

    Attributes:
        records: N pictures.
        titles: N texts of two lines.
        partner: N positions in `records` of the pictures that each is compared with; None for `identity`.
        label: N labels of the classifier; None for `similarity`.
        together: how many neighbours belong together.
    """

    records: Records
    titles: list[str]
    partner: np.ndarray | None = None
    label: np.ndarray | None = None
    together: int = 2

    def pixels(self, size: Size) -> np.ndarray:
        """N×H×W×3 uint8."""
        scaling = self.records.scaling
        return np.stack([read_picture(self.records.file(i), size, scaling=scaling) for i in range(len(self.records))])


def _pairs(subjects: Sequence[Subject], choices: Choices) -> Shown:
    """Each query, followed by the picture that it is compared with."""
    first, others = subjects[0], subjects[1:]
    if first.rules.tracklets != "none":
        raise DoesNotApply(f"protocol {first.rules.name} ranks tracklets, which are no single pictures")
    for other in others:
        if not np.array_equal(first.records.path, other.records.path):
            raise DoesNotApply(f"{first.name} and {other.name} are tested on other pictures")
    records, trial = first.records, first.trials[0]
    if choices.pictures:
        queries = _positions(records, choices.pictures, "test")
    else:
        precision = first.evaluation.scores[0].precision
        chosen = choose(precision, records.identity[trial.query], choices.which, choices.people, seed=choices.seed)
        queries = trial.query[chosen].tolist()
    if choices.partners:
        partners = _positions(records, choices.partners, "test")
    else:
        partners = [_first_match(first, query) for query in queries]
    both = [sample for pair in zip(queries, partners, strict=True) for sample in pair]
    alike = records.identity[queries] == records.identity[partners]
    roles = [role for same in alike for role in ("query", "match" if same else "other")]
    words = [Modality(kind).word for kind in records.modality[both].tolist()]
    titles = [f"{role}\n{word}" for role, word in zip(roles, words, strict=True)]
    return Shown(records.take(both), titles, partner=np.arange(len(both)) ^ 1)


def _first_match(one: Subject, query: int) -> int:
    """The gallery picture of the query's person that is ranked first."""
    trial, identity = one.trials[0], one.records.identity
    own = np.flatnonzero(trial.query == query)
    if not len(own):
        raise BadInput(f"{one.records.path[query]} is no query of {one.rules.name}; name its partner: partners")
    key = trial.query_key[own[0]]
    seen = (identity[trial.gallery] == identity[query]) & ((key == -1) | (trial.gallery_key != key))
    if not seen.any():
        raise BadInput(f"{one.records.path[query]} has no true match in the gallery of {one.rules.name}")
    samples = trial.gallery[seen]
    return int(samples[(one.features[samples] @ one.features[query]).argmax()])


def _people(subjects: Sequence[Subject], choices: Choices) -> Shown:
    """A visible and an infrared picture of training people."""
    from vireid import datasets

    first = subjects[0]
    layout, root = datasets.parse_source(first.place.data)
    fold = first.place.fold or first.run.facts.data.fold or 1
    everyone = datasets.training_records(datasets.read(layout, root, fold=fold))
    everyone = everyone.with_scaling(first.run.facts.data.scaling)
    parts = {part.fingerprint(): part for part in (everyone.take(everyone.split != "val"), everyone)}
    for one in subjects:  # the validation people may have been held out of the training
        if (
            one.run.facts.data.fingerprint != first.run.facts.data.fingerprint
            or first.run.facts.data.fingerprint not in parts
        ):
            raise DoesNotApply(f"towards=identity needs the pictures that {one.name} was trained on, not {root}")
    records = parts[first.run.facts.data.fingerprint]
    label, _ = records.labels()
    chosen = _positions(records, choices.pictures, "training") if choices.pictures else _two_of_each(records, choices)
    words = [Modality(kind).word for kind in records.modality[chosen].tolist()]
    titles = [f"{number}\n{word}" for number, word in zip(records.identity[chosen].tolist(), words, strict=True)]
    return Shown(records.take(chosen), titles, label=label[chosen], together=1 if choices.pictures else 2)


def _two_of_each(records: Records, choices: Choices) -> list[int]:
    """A random visible and a random infrared picture of random people."""
    rng = np.random.default_rng(choices.seed)
    of_each = [records.modality == kind for kind in (Modality.VISIBLE, Modality.INFRARED)]
    visible, infrared = (records.identity[own] for own in of_each)
    people = rng.permutation(np.intersect1d(visible, infrared))[: choices.people]
    return [int(rng.choice(np.flatnonzero(own & (records.identity == who)))) for who in people for own in of_each]


def _positions(records: Records, paths: Sequence[str], kind: str) -> list[int]:
    there = {str(path): place for place, path in enumerate(records.path)}
    if missing := [path for path in paths if path not in there]:
        raise BadInput(f"'{missing[0]}' is not among the {len(there)} {kind} pictures of {records.root}")
    return [there[path] for path in paths]


def _maps(one: Subject, shown: Shown, branch: str | None, layer: str) -> np.ndarray:
    """The Grad-CAM of each picture, N×h×w."""
    import torch

    from vireid.augment.normalise import normalise
    from vireid.figures.gradients import grad_cam

    try:
        network = one.model.network
        device = next(network.parameters()).device
        images = normalise(torch.from_numpy(shown.pixels(one.model.size)).permute(0, 3, 1, 2)).to(device)
        modality = torch.from_numpy(shown.records.modality.astype(np.int64)).to(device)
        answer = _answer(one, branch, logits=shown.label is not None)
        pieces = [slice(start, start + TOGETHER) for start in range(0, len(images), TOGETHER)]
        with torch.no_grad():
            answers = torch.cat([answer(images[piece], modality[piece]) for piece in pieces])
        if shown.label is not None:
            wanted = torch.nn.functional.one_hot(torch.from_numpy(shown.label), answers.shape[1]).to(device)
        else:
            wanted = answers[torch.from_numpy(shown.partner)]

        def score(piece: slice) -> Callable[[Any, Any], Any]:
            return lambda images, modality: (answer(images, modality) * wanted[piece]).sum(1)

        made = [grad_cam(network, layer, images[piece], modality[piece], score(piece)) for piece in pieces]
    except BadInput as error:  # an exported model, or a recipe without such a map or branch
        raise DoesNotApply(f"{one.name}: {error}") from error
    return np.concatenate(made)


def _answer(one: Subject, branch: str | None, *, logits: bool) -> Callable[[Any, Any], Any]:
    """The function from images and modalities to features of length one, or to logits."""
    from vireid.losses.pairs import unit

    network: Any = one.model.network
    if branch is None and not logits:
        return network.embed

    def answer(images: Any, modality: Any) -> Any:
        if not hasattr(network, "by_branch"):
            raise BadInput(f"recipe {one.model.recipe} does not say what its branches are (by_branch)")
        found = network.by_branch(images, modality)
        if branch is None and len(found) > 1:
            raise BadInput(f"{one.model.recipe} has several classifiers; attention.branches takes {', '.join(found)}")
        name = branch or next(iter(found))
        if name not in found:
            raise unknown(f"branch of {one.model.recipe}", name, found)
        return found[name][1] if logits else unit(found[name][0])

    return answer


def _masks(first: Subject, files: Sequence[str], size: Size) -> np.ndarray | None:
    """Where the people are, if the pictures are a generated world's."""
    if not first.generated:
        return None
    from vireid.synthesis.masks import masks

    try:
        return masks(first.records.root, files, size)
    except BadInput as reason:
        first.progress.say(f"attention: without shares on the person: {reason}")
        return None


def _says(choices: Choices, maps: Sequence[str], made: Figure) -> str:
    """The sentences about what is drawn."""
    where = f"at {maps[0]}" if len(set(maps)) == 1 else f"at {', '.join(maps)} in the order of the branches"
    feature = "feature of the branch" if choices.branches else "embedding"
    towards = {
        "similarity": f"the cosine with the picture beside it ({feature})",
        "identity": "the logit of the person, who is a training identity",
    }[choices.towards]
    told = [f"Grad-CAM {where}, towards {towards}.", SCALE]
    if choices.towards == "identity":
        told.append("Above: identity and modality.")
    else:
        told.append(MATCH if not choices.partners else "The partners were chosen by hand.")
    return " ".join([*told, SHARE] if "share" in made.numbers else told)


SCALE = "Each map is divided by its largest value; the white line is at half of it."
MATCH = "A match is the query's true match that the first run ranks first."
SHARE = "Numbers: the person's share of the picture (area), and the share of each map that is on the person."


def attention(
    pictures: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    masks: np.ndarray | None = None,
    titles: Sequence[str] = (),
    together: int = 1,
    caption: str = "",
) -> Figure:
    """Attention maps of one or several networks over the same pictures: a column for each picture.

    Args:
        pictures: N×H×W×3 uint8.
        maps: name of a line → N×h×w of 0 or more, such as `vireid.figures.gradients.grad_cam` gives.
        masks: N×H×W, the share of each pixel that the person covers, 0 to 1; with them, the share of each map that is
            on the person is written below it.
        titles: N texts for above the pictures.
        together: how many neighbouring pictures stand closer to each other.
        caption: the caption.

    Raises:
        BadInput: the numbers of pictures, maps, masks and titles differ, or there is no picture or no map.
    """
    from vireid.figures.gradients import energy_share, enlarged

    pictures = np.asarray(pictures)
    given = {**maps, "masks": masks, "titles": titles or None}
    wrong = [name for name, one in given.items() if one is not None and len(one) != len(pictures)]
    if not len(pictures) or pictures.ndim != 4 or not maps or wrong:
        needs = "attention needs N×H×W×3 pictures, one line of N maps or more, and N masks and titles"
        raise BadInput(f"{needs}; of another length: {', '.join(wrong)}" if wrong else needs)
    largest = {name: np.maximum(own.max(axis=(1, 2), keepdims=True), 1e-30) for name, own in maps.items()}
    scaled = {name: own / largest[name] for name, own in maps.items()}
    numbers: dict[str, Any] = {"titles": list(titles), "maps": {name: own.round(4) for name, own in scaled.items()}}
    if masks is not None:
        numbers["area"] = masks.mean(axis=(1, 2))
        numbers["share"] = {name: energy_share(own, masks) for name, own in maps.items()}
    large = {name: enlarged(own, pictures.shape[1:3]) for name, own in scaled.items()}

    def draw(look: Look) -> Any:
        return _drawn(look, pictures, large, numbers, together)

    return Figure("attention", caption, numbers, draw)


LINE, GAP, TALLEST = 0.135, 0.03, 2.2  # inches: of a line of text, between pictures, of a picture
HALF = 0.5  # where the line is
COLOURS = "inferno"  # perceptually uniform: from dark to light also in grey
WEIGHTS = 0.4, 0.75  # of the map's colour over the grey picture, where the map is 0 and where it is 1


def _drawn(look: Look, pictures: np.ndarray, maps: Mapping[str, np.ndarray], numbers: dict, together: int) -> Any:
    """The canvas. Places are in inches, from the upper left corner."""
    high, wide = pictures.shape[1:3]
    extra = 3 * GAP * (np.arange(len(pictures)) // together if together > 1 else np.zeros(len(pictures)))
    free = look.inches - LINE - 3 * GAP - extra[-1]
    width = min(free / len(pictures) - GAP, TALLEST * wide / high)
    lefts = (
        (free - len(pictures) * (width + GAP)) / 2 + LINE + 2 * GAP + extra + np.arange(len(pictures)) * (width + GAP)
    )
    size, shares = (width, width * high / wide), "share" in numbers
    step = size[1] + (LINE if shares else 0) + 2 * GAP
    top = 2 * LINE + GAP if numbers["titles"] else GAP
    made, axis = _sheet(look, top + step * (1 + len(maps)) + 3.2 * LINE)
    points = min(7.0, 7.0 * width / 0.52)  # "area 35 %" takes 0.5 inches at 7 points
    text = partial(axis.text, ha="center", fontsize=points, linespacing=1.1)
    grey = pictures @ np.array([0.299, 0.587, 0.114])
    for n, left in enumerate(lefts):
        middle, below = left + width / 2, top + size[1] + GAP
        if numbers["titles"]:
            for line, title in enumerate(numbers["titles"][n].split("\n")):
                text(middle, (line + 0.8) * LINE, title, va="baseline")
        _picture(axis, pictures[n], left, top, size)
        if shares:
            text(middle, below, f"area {_percent(numbers['area'][n])}", va="top")
        for line, (name, own) in enumerate(maps.items(), start=1):
            _picture(axis, _overlay(grey[n], own[n]), left, top + line * step, size)
            _half(axis, own[n], left, top + line * step, size)
            if shares:
                text(middle, below + line * step, _percent(numbers["share"][name][n]), va="top")
    for line, name in enumerate(maps, start=1):
        short = textwrap.shorten(name, max(8, int(size[1] / 0.052)), placeholder="…")
        axis.text(lefts[0] - GAP, top + line * step + size[1] / 2, short, rotation=90, ha="right", va="center")
    _bar(axis, look, top + step * (1 + len(maps)))
    return made


def _sheet(look: Look, height: float) -> tuple[Any, Any]:
    made, axis = canvas(look, height)
    made.set_layout_engine("none")
    axis.set_axis_off()
    axis.set(position=(0, 0, 1, 1), xlim=(0, look.inches), ylim=(height, 0))
    return made, axis


def _picture(axis: Any, pixels: np.ndarray, left: float, top: float, size: tuple[float, float], **how: Any) -> None:
    place = (left, left + size[0], top + size[1], top)
    axis.imshow(pixels, extent=place, aspect="auto", interpolation="antialiased", **how)


def _half(axis: Any, own: np.ndarray, left: float, top: float, size: tuple[float, float]) -> None:
    """The line at half of the largest value."""
    if own.max() > HALF:
        x, y = ((np.arange(n) + 0.5) / n * long for n, long in zip(reversed(own.shape), size, strict=True))
        axis.contour(left + x, top + y, own, levels=[HALF], colors="white", linewidths=0.6)


def _overlay(grey: np.ndarray, own: np.ndarray) -> np.ndarray:
    """H×W×3 in 0..1: the map's colours over the grey picture."""
    import matplotlib as mpl

    weight = (WEIGHTS[0] + (WEIGHTS[1] - WEIGHTS[0]) * own)[..., None]
    return (1 - weight) * grey[..., None] / 255 + weight * mpl.colormaps[COLOURS](own)[..., :3]


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.0f} %"


def _bar(axis: Any, look: Look, top: float) -> None:
    """The colours of the values."""
    left, width = look.inches / 2 - 0.6, 1.2
    _picture(axis, np.linspace(0, 1, 256)[None], left, top + LINE / 2, (width, LINE / 2), cmap=COLOURS)
    axis.plot([left + HALF * width] * 2, [top + LINE / 2, top + LINE], color="white", linewidth=0.6)
    for value in (0, HALF, 1):
        axis.text(left + value * width, top + 1.2 * LINE, f"{value:g}", ha="center", va="top")
    axis.text(look.inches / 2, top + 2.2 * LINE, "share of the map's largest value", ha="center", va="top")
