"""t-SNE of the features of some people, visible and infrared, with the numbers that the picture can only hint at.

WRIM-Net shows such a figure (Fig. 5: the baseline, and the baseline with AICL). The method is that of van der Maaten
and Hinton, "Visualizing Data using t-SNE", JMLR 9 (2008). It keeps neighbours together, but distances between groups
and the sizes of groups say little. So the numbers of `vireid.evaluation.separation` stand below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from vireid.data.settings import Count, Positive, Whole, settings
from vireid.evaluation.distance import normalise
from vireid.evaluation.scoring import checked
from vireid.evaluation.separation import Separation, draw_people, in_both, known, scikit_learn, separation
from vireid.figures.drawing import COLUMN, PALETTE, Figure, Look, canvas
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

MODALITIES = ((0, "visible", "o"), (1, "infrared", "^"))
ROWS = ("silhouette", "silhouette across", "modality probe", "centroid distance / spread")


@settings
class Choices:
    """What can be chosen."""

    people: Annotated[int, Interval(ge=2)] = len(PALETTE)
    """ours: how many people are drawn at random from those with pictures of both modalities; as many as there are
    colours. The numbers below the picture are of all people."""
    pictures: Count = 10
    """ours: at most how many pictures of a person in each modality."""
    perplexity: Positive = 30.0
    """ours: how many neighbours count, roughly; scikit-learn's default. For few pictures, a third of them."""
    seed: Whole = 0
    """ours: of the people, of their pictures, of t-SNE, and of the probe."""


@dataclass(frozen=True)
class Map:
    """One network's panel.

    Attributes:
        points: P×2 float32.
        identity, modality: P integers each.
        perplexity: the one that was used.
        numbers: of all pictures, not only of those on the panel.
    """

    points: np.ndarray
    identity: np.ndarray
    modality: np.ndarray
    perplexity: float
    numbers: Separation


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure, with a panel for each run."""
    found = {}
    for one in subjects:
        used, records = one.samples, one.records
        found[one.name] = project(one.features[used], records.identity[used], records.modality[used], choices)
    return [_figure(found, choices, " ".join(one.says() for one in subjects))]


def tsne(
    features: Any,
    identity: Any,
    modality: Any,
    *,
    people: int = len(PALETTE),
    pictures: int = 10,
    perplexity: float = 30.0,
    seed: int = 0,
    caption: str = "",
) -> Figure:
    """t-SNE of the features of any network, or of several networks on the same pictures.

    Args:
        features: N×D real numbers; or name → N×D, a panel for each.
        identity: N integers; `vireid.data.records.UNLABELLED` (−1) for a picture of an unknown person.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb`.
        people, pictures, perplexity, seed: see `Choices`.
        caption: sentences to end the caption with, such as the name of the data.

    Raises:
        BadInput: an array or a choice cannot be used, or scikit-learn is not installed.
        DoesNotApply: fewer than two people have pictures of both modalities.
    """
    choices = Choices(people, pictures, perplexity, seed)
    networks = features if isinstance(features, Mapping) else {"": features}
    return _figure(
        {name: project(own, identity, modality, choices) for name, own in networks.items()}, choices, caption
    )


def project(features: Any, identity: Any, modality: Any, choices: Choices) -> Map:
    """The panel of one network; for the arguments and errors see `tsne`."""
    features, identity, modality = known(*checked(features, identity, modality))
    if (people := len(np.unique(identity[in_both(identity, modality)]))) < 2:
        raise DoesNotApply(f"t-SNE needs two people with pictures of both modalities; there are {people}")
    chosen = draw_people(identity, modality, people=choices.people, pictures=choices.pictures, seed=choices.seed)
    perplexity = min(choices.perplexity, (len(chosen) - 1) / 3)
    # Of features of length one, squared distances are twice the cosine distances, so this is t-SNE by cosine.
    method = scikit_learn("manifold").TSNE(perplexity=perplexity, init="pca", random_state=choices.seed)
    points = method.fit_transform(normalise(features, chosen))
    numbers = separation(features, identity, modality, seed=choices.seed)
    return Map(points, identity[chosen], modality[chosen], perplexity, numbers)


def _figure(maps: Mapping[str, Map], choices: Choices, caption: str) -> Figure:
    numbers = {
        name: {
            "points": one.points,
            "identity": one.identity,
            "modality": one.modality,
            "perplexity": one.perplexity,
            **asdict(one.numbers),
            "centroid_ratio": one.numbers.centroid_ratio,
        }
        for name, one in maps.items()
    }

    def draw(look: Look) -> Any:
        columns = min(len(maps), 2 if look.width == "column" else 4)
        rows = -(-len(maps) // columns)
        panel = min(look.inches / columns, COLUMN)
        titles = [textwrap.fill(name, round(15 * panel)) for name in maps]
        above = 0.13 * max(title.count("\n") for title in titles)
        made, axes = canvas(look, rows * (panel + above + 0.72) + 0.27, nrows=rows, ncols=columns, squeeze=False)
        for axis, title, one in zip(axes.flat, titles, maps.values(), strict=False):
            axis.set_title(title)
            _panel(axis, one, look, panel)
        for axis in axes.flat[len(maps) :]:
            axis.remove()
        made.legend(handles=_legend(look), loc="outside lower center", ncols=2)
        return made

    return Figure("tsne", " ".join([_says(maps, choices), caption]).strip(), numbers, draw)


def _says(maps: Mapping[str, Map], choices: Choices) -> str:
    shown = next(iter(maps.values()))
    used = sorted({f"{one.perplexity:g}" for one in maps.values()})
    of = sorted({f"{one.numbers.pictures} pictures of {one.numbers.people} people" for one in maps.values()})
    return (
        f"t-SNE (cosine distance, perplexity {' and '.join(used)}, seed {choices.seed}) of the features of "
        f"{len(np.unique(shown.identity))} people, drawn at random, with at most {choices.pictures} pictures in each "
        "modality. A thick line joins the middle of the visible and of the infrared pictures of a person; the number "
        f"beside it is the identity. Below, of {' and '.join(of)}: silhouette by identity (−1 to 1), the same where a "
        "picture is compared with the other modality only, balanced accuracy of a linear probe for the modality on "
        "people it was not fitted on (chance 50 %), and the distance between the centroids of the modalities divided "
        "by the mean distance of features to their centroid."
    )


def _panel(axis: Any, one: Map, look: Look, inches: float) -> None:
    """The points of one network, and its numbers below. `inches` is the width of the panel, roughly."""
    low, high = one.points.min(axis=0), one.points.max(axis=0)
    points = 0.5 + (one.points - (low + high) / 2) / max(float((high - low).max()), 1e-9)
    people, middles = np.unique(one.identity), []
    for number, person in enumerate(people):
        colour, own = look.colour(number), one.identity == person
        # The colours begin anew after the last one, with hollow markers.
        inside = "none" if number // len(PALETTE) % 2 else colour
        ends = []
        for kind, _, marker in MODALITIES:
            at = points[own & (one.modality == kind)]
            axis.scatter(*at.T, s=9, marker=marker, facecolors=inside, edgecolors=colour, linewidths=0.6)
            ends.append(np.median(at, axis=0))
        axis.plot(*np.transpose(ends), color=colour, linewidth=0.8)
        middles.append(np.mean(ends, axis=0))
    _label(axis, [str(person) for person in people], np.array(middles), points, look, inches)
    axis.set(xlim=(-0.08, 1.08), ylim=(-0.08, 1.08), xticks=[], yticks=[])
    axis.set_box_aspect(1)
    axis.spines[:].set_visible(True)
    for row, (name, value) in enumerate(zip(ROWS, _values(one.numbers), strict=True)):
        for x, side, text in ((0, "left", name), (1, "right", value)):
            axis.annotate(
                text, (x, 0), (0, -4 - 9 * row), "axes fraction", textcoords="offset points", ha=side, va="top"
            )


def _label(axis: Any, texts: Sequence[str], middles: np.ndarray, points: np.ndarray, look: Look, inches: float) -> None:
    """Write each text near its middle where it hides the fewest points and no other text, and join the two."""
    point = 1.16 / (72 * inches)  # of print, in the units of the panel
    height = 8 * point
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], axis=1)
    steps = np.concatenate([np.zeros((1, 2)), *(circle * radius * height for radius in (1, 1.5, 2, 3, 4))])
    placed: list[np.ndarray] = []
    for text, middle in zip(texts, middles, strict=True):
        half = np.array([4.6 * point * len(text), height]) / 2
        places = np.clip(middle + steps, half - 0.07, 1.07 - half)
        hidden = (np.abs(places[:, None] - points) < half + 2 * point).all(axis=2).sum(axis=1).astype(float)
        if placed:
            hidden += 20 * (np.abs(places[:, None] - np.array(placed)) < 2 * half).all(axis=2).sum(axis=1)
        best = places[np.argmin(hidden + 0.5 * np.linalg.norm(places - middle, axis=1) / height)]
        placed.append(best)
        way = middle - best
        edge = best + way * min(1.0, *(half / np.maximum(np.abs(way), 1e-9)))  # the line ends where the text begins
        axis.plot(*np.transpose([middle, edge]), color=look.ink, linewidth=0.4)
        # A background, not an outline: outlined text would be shapes in an SVG.
        behind = {"facecolor": look.paper, "edgecolor": "none", "pad": 0.3, "alpha": 0.8}
        axis.text(*best, text, ha="center", va="center", bbox=behind, zorder=5)


def _values(found: Separation) -> tuple[str, ...]:
    return (
        f"{found.silhouette:.2f}".replace("-", "−"),
        f"{found.silhouette_across:.2f}".replace("-", "−"),
        f"{found.probe:.0f} %",
        f"{found.centroid_ratio:.2f}",
    )


def _legend(look: Look) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=look.ink, linestyle="", marker=marker, label=word) for _, word, marker in MODALITIES]
