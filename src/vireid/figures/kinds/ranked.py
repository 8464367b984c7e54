"""Ranked lists of the best, the worst and random queries, and the mistakes that a network is most sure of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from vireid.data.errors import BadInput
from vireid.data.pictures import read_picture
from vireid.data.settings import Count, Whole, settings
from vireid.data.size import Size
from vireid.evaluation.examples import By, Mistake, Which, choose, mistakes
from vireid.evaluation.ranking import top_matches
from vireid.figures.drawing import MILLIMETRE, RIGHT, WRONG, Figure, Look, canvas
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

Picture = np.ndarray
"""H×W×3 uint8; all pictures are drawn at a height of twice their width."""
SHOWN = Size(192, 96)
# In millimetres: a line of text and a wide character of 7 points; the space around a figure, and between pictures.
LINE, CHARACTER = 3.0, 1.4
MARGIN, GAP = 1.0, 1.4

FRAMES = "Solid green frame: the query's person; dashed orange frame: another person."
EXCLUDED = {
    "none": "",
    "location": "Gallery pictures of the query's own place are excluded, as the protocol says. ",
    "camera": "Gallery pictures of the query's own camera are excluded, as the protocol says. ",
    "identity-camera": "The person's gallery pictures from the query's own camera are excluded, as the protocol says. ",
    "identity-location": "The person's gallery pictures of the query's own place are excluded, as the protocol says. ",
    "identity-modality": "The person's pictures of the query's own modality are excluded, as the protocol says. ",
}


@settings
class Choices:
    """What can be chosen."""

    which: tuple[Which, ...] = ("best", "worst", "random")
    """ours: one figure of each; best and worst are by average precision, and each query is of another person."""
    queries: Count = 4
    """ours: queries in each figure."""
    top: Annotated[int, Interval(ge=1, le=20)] = 10
    """ours: the length of a list, as in most papers; more than 10 can be read at page width only."""
    mistakes: Whole = 6
    """ours: mistakes of each run in the figure of failures; 0 leaves it out."""
    surest: By = "similarity"
    """ours: mistakes are ordered by the similarity of the wrong picture, or by its `margin` over the nearest true
    match."""
    seed: Whole = 0
    """ours: of the random queries, and of the order of equally good ones."""


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """A figure for each choice of queries, and one of the mistakes. All runs show the queries of the first one."""
    first = subjects[0]
    if first.rules.tracklets != "none":
        raise DoesNotApply(f"protocol {first.rules.name} ranks tracklets, which are no single pictures")
    if first.rules.compare != "distance":
        raise DoesNotApply(f"protocol {first.rules.name} ranks by ratios, and the lists show cosines")
    for other in subjects[1:]:
        if not np.array_equal(first.records.path, other.records.path):
            raise DoesNotApply(
                f"{first.name} and {other.name} are tested on other pictures, so they have no queries in common"
            )
    found = [_lists(subjects, which, choices) for which in choices.which]
    return [*found, _failures(subjects, choices)] if choices.mistakes else found


@dataclass(frozen=True)
class _Listed:
    """A query's list by one run: samples of the query and of k gallery pictures (−1 where there are no more)."""

    run: Subject
    query: int
    samples: np.ndarray
    similarity: np.ndarray
    title: str

    @property
    def correct(self) -> np.ndarray:
        people = self.run.records.identity
        return (self.samples >= 0) & (people[self.samples] == people[self.query])


def _lists(subjects: Sequence[Subject], which: Which, choices: Choices) -> Figure:
    first = subjects[0]
    trial, path = first.trials[0], first.records.path
    people, precision = first.records.identity[trial.query], first.evaluation.scores[0].precision
    chosen = choose(precision, people, which, choices.queries, seed=choices.seed)
    tops = [top_matches(one.features, trial, chosen, choices.top) for one in subjects]
    lists = [
        _Listed(one, int(trial.query[q]), samples[n], 1 - distances[n], _title(one, q, several=len(subjects) > 1))
        for n, q in enumerate(chosen.tolist())
        for one, (samples, distances) in zip(subjects, tops, strict=True)
    ]
    made = ranked(
        [_read(one.run, one.query) if one.run is first else None for one in lists],
        [[_read(one.run, s) if s >= 0 else None for s in one.samples] for one in lists],
        [one.correct for one in lists],
        [one.similarity for one in lists],
        titles=[one.title for one in lists],
        name=f"ranked-{which}",
    )
    named = [
        {"run": one.run.name, "query": path[one.query], "gallery": [path[s] if s >= 0 else None for s in one.samples]}
        for one in lists
    ]
    numbers = {"lists": [{**one, **own} for one, own in zip(named, made.numbers["lists"], strict=True)]}
    return replace(made, numbers=numbers, caption=_says(subjects, which, len(chosen), choices))


def _title(one: Subject, position: int, *, several: bool) -> str:
    """What stands above a list: how good it is, and where its first true match is."""
    precision, matches = one.evaluation.scores[0].precision[position], one.evaluation.rankings[0].matches
    told = f"AP {100 * precision:.1f} %, first true match at rank {matches.ranks[matches.start[position]]}"
    return f"{one.name}: {told}" if several else told


def _says(subjects: Sequence[Subject], which: Which, count: int, choices: Choices) -> str:
    by = f" of {subjects[0].name}" if len(subjects) > 1 else ""
    how = f"at random (seed {choices.seed})" if which == "random" else f"by the {which} average precision{by}"
    return (
        f"The {choices.top} most similar gallery pictures of {count} queries of different people"
        f"{_first_trial(subjects[0])}, chosen {how}. Below: similarity (cosine). AP: average precision. "
        f"{_ends(subjects)}"
    )


def _first_trial(first: Subject) -> str:
    return f" in the first of {len(first.trials)} trials" if len(first.trials) > 1 else ""


def _ends(subjects: Sequence[Subject]) -> str:
    """What both captions end with."""
    about = " ".join(one.says() for one in subjects)
    return f"{FRAMES} Ranks count pictures. {EXCLUDED[subjects[0].rules.exclusion]}{about}"


def _failures(subjects: Sequence[Subject], choices: Choices) -> Figure:
    found = {one.name: _mistakes(one, choices) for one in subjects}
    made = failures(
        {one.name: [[_read(one, s) for s in (m.query, m.wrong, m.right)] for m in found[one.name]] for one in subjects},
        {name: [(m.rank, m.similarity, m.true_similarity) for m in own] for name, own in found.items()},
    )
    path = subjects[0].records.path
    numbers = {
        name: [{**vars(m), "query": path[m.query], "wrong": path[m.wrong], "right": path[m.right]} for m in own]
        for name, own in found.items()
    }
    sure = {"similarity": "the highest similarity", "margin": "the largest margin over the nearest true match"}
    caption = (
        f"The surest mistakes{_first_trial(subjects[0])}: pictures of another person at rank 1 with "
        f"{sure[choices.surest]}, for queries of different people. From left to right: query, picture at rank 1, "
        f"nearest true match with its rank. Below: similarity (cosine). {_ends(subjects)}"
    )
    return replace(made, numbers=numbers, caption=caption)


def _mistakes(one: Subject, choices: Choices) -> list[Mistake]:
    ranking, people = one.evaluation.rankings[0], one.records.identity
    return mistakes(one.features, people, ranking.trial, ranking.matches, choices.mistakes, by=choices.surest)


def _read(subject: Subject, sample: int) -> Picture:
    """A picture of the records, to be looked at."""
    return read_picture(subject.records.file(int(sample)), SHOWN, scaling="percentile")


def ranked(
    queries: Sequence[Picture | None],
    gallery: Sequence[Sequence[Picture | None]],
    correct: Any,
    similarity: Any,
    *,
    titles: Sequence[str] = (),
    name: str = "ranked",
    caption: str = "",
) -> Figure:
    """Ranked lists: each query with its nearest gallery pictures.

    Args:
        queries: R pictures, H×W×3 uint8; None for the query of the list above, for lists of several networks.
        gallery: R lists of k pictures, nearest first; None where the gallery has no more.
        correct: R×k, whether a picture shows the query's person.
        similarity: R×k, what stands below the pictures.
        titles: R texts to stand above the lists.
        name: the name of the figure's files.
        caption: the caption.

    Raises:
        BadInput: the numbers of queries, lists, `correct` and `similarity` differ, or there are none.
    """
    correct, similarity = np.atleast_2d(correct).astype(bool), np.atleast_2d(similarity)
    shape = (len(queries), len(gallery[0]) if gallery else 0)
    lengths = {len(own) for own in gallery}
    if correct.shape != shape or similarity.shape != shape or len(gallery) != shape[0] or lengths != {shape[1]}:
        raise BadInput(
            f"ranked: {len(queries)} queries need as many lists of one length, and correct and similarity of the same "
            f"shape; got {len(gallery)} lists of {sorted(lengths)}, {correct.shape} and {similarity.shape}"
        )

    def draw(look: Look) -> Any:
        wide = (look.inches / MILLIMETRE - 2 * MARGIN - GAP * (shape[1] + 1)) / (shape[1] + 1)
        row = 2 * wide + GAP + LINE + (LINE + GAP / 2 if titles else 0)
        sheet = _Sheet(look, 2 * MARGIN + LINE + row * len(queries))
        left = [MARGIN, *(MARGIN + 2 * GAP + wide + (wide + GAP) * k for k in range(shape[1]))]
        for x, text in zip(left, ["query", *range(1, shape[1] + 1)], strict=True):
            sheet.text(x, MARGIN, str(text), wide)
        for number, query in enumerate(queries):
            y = MARGIN + LINE + GAP / 2 + row * number
            if titles:
                sheet.text(MARGIN, y, titles[number])
                y += LINE + GAP / 2
            if query is not None:
                sheet.picture(query, left[0], y, wide)
            for x, picture, right, near in zip(
                left[1:], gallery[number], correct[number], similarity[number], strict=True
            ):
                if picture is not None:
                    sheet.picture(picture, x, y, wide, bool(right))
                    sheet.text(x, y + 2 * wide + GAP / 4, f"{near:.2f}", wide)
        return sheet.made

    lists = [
        {"title": title, "correct": right, "similarity": near}
        for title, right, near in zip(titles or [""] * len(queries), correct, similarity, strict=True)
    ]
    return Figure(name, caption, {"lists": lists}, draw)


def failures(
    pictures: Mapping[str, Sequence[Sequence[Picture]]],
    numbers: Mapping[str, Sequence[tuple[int, float, float]]],
    *,
    caption: str = "",
) -> Figure:
    """Mistakes at rank 1 of one or several networks: query, wrong picture, nearest true match.

    Args:
        pictures: name of a network → for each mistake the three pictures, H×W×3 uint8.
        numbers: name of a network → for each mistake the rank of the true match, the similarity of the wrong picture
            and the similarity of the true match.
        caption: the caption.
    """

    def draw(look: Look) -> Any:
        across = 2 if look.width == "column" else 3
        cell = (look.inches / MILLIMETRE - 2 * MARGIN - 3 * GAP * (across - 1)) / across
        wide = (cell - 2 * GAP) / 3
        high, heading = 2 * wide + 2 * LINE + 2 * GAP, LINE if len(pictures) > 1 else 0.0
        heights = {name: heading + (high * -(-len(own) // across) or LINE) for name, own in pictures.items()}
        sheet = _Sheet(look, 2 * MARGIN + sum(heights.values()))
        y = MARGIN
        for name, own in pictures.items():
            if heading:
                sheet.text(MARGIN, y, name)
            if not own:
                sheet.text(MARGIN, y + heading, "No query has another person at rank 1.")
            for number, (three, values) in enumerate(zip(own, numbers[name], strict=True)):
                x = MARGIN + (cell + 3 * GAP) * (number % across)
                _mistake(sheet, three, values, x, y + heading + high * (number // across), wide)
            y += heights[name]
        return sheet.made

    return Figure("ranked-failures", caption, numbers, draw)


def _mistake(
    sheet: _Sheet, pictures: Sequence[Picture], values: tuple[int, float, float], x: float, y: float, wide: float
) -> None:
    """Query, wrong picture and true match side by side, with their ranks and similarities."""
    rank, wrong, right = values
    told = (("query", ""), ("rank 1", f"{wrong:.3f}"), (f"rank {rank}", f"{right:.3f}"))
    for place, (picture, lines) in enumerate(zip(pictures, told, strict=True)):
        at = x + (wide + GAP) * place
        sheet.picture(picture, at, y + GAP / 2, wide, (None, False, True)[place])
        for number, line in enumerate(lines):
            sheet.text(at, y + GAP + 2 * wide + LINE * number, line, wide)


class _Sheet:
    """A canvas on which pictures and texts are placed in millimetres, from the upper left corner.

    Args:
        look: the look.
        height: in millimetres.
    """

    def __init__(self, look: Look, height: float) -> None:
        self.made, self.axis = canvas(look, height * MILLIMETRE)
        self.made.set_layout_engine("none")
        self.axis.set_axis_off()
        self.axis.set_position((0, 0, 1, 1))
        self.wide = look.inches / MILLIMETRE
        self.axis.set(xlim=(0, self.wide), ylim=(height, 0))  # from now on, pictures do not change the limits

    def picture(self, pixels: Picture, x: float, y: float, width: float, correct: bool | None = None) -> None:
        """A picture, twice as high as wide. Where it is known whether it is a true match, it has a frame."""
        from matplotlib.patches import Rectangle

        self.axis.imshow(pixels, extent=(x, x + width, y + 2 * width, y), aspect="auto", interpolation="antialiased")
        if correct is not None:
            colour, dash = (RIGHT, "solid") if correct else (WRONG, (0, (2, 1.4)))
            frame = Rectangle((x, y), width, 2 * width, fill=False, linewidth=1.3, edgecolor=colour, linestyle=dash)
            self.axis.add_patch(frame)

    def text(self, x: float, y: float, text: str, width: float | None = None) -> None:
        """A line of text below the height y: from x on or, with the width of a picture, below the picture at x."""
        room, at = (self.wide - MARGIN - x, x) if width is None else (width + GAP / 2, x + width / 2)
        size = 7 * min(1, room / (CHARACTER * max(1, len(text))))
        self.axis.text(at, y + 0.8 * LINE, text, fontsize=size, ha="left" if width is None else "center")
