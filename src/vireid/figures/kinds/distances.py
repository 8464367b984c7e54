"""Distances of pairs of pictures, within and across the modalities, of one person and of two.

PECA shows such a figure (Fig. 8: the distances within and across the modalities, of M4 and of the whole method). Its
point is the gap Δ: how much farther pairs across the modalities are than pairs within them. The numbers are those of
`vireid.evaluation.pairs`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vireid.data.settings import Count, Whole, settings
from vireid.evaluation.pairs import KINDS, LIMIT, Overlap, Pairs, modality_gap, overlap, pair_distances
from vireid.figures.drawing import INFRARED, VISIBLE, Figure, Look, canvas
from vireid.figures.kinds import DoesNotApply
from vireid.figures.subject import Subject

WHOSE = {"same": "one person", "different": "two people"}
LABELS = {"visible": "visible pairs", "infrared": "infrared pairs", "across": "across"}
BINS = 400  # over the distances 0 to 2
_EXCLUDED = {
    "none": "",
    "location": "Pairs of one place are left out, as the protocol does.",
    "camera": "Pairs of one camera are left out, as the protocol does.",
    "identity-camera": "Pairs of one person and one camera are left out, as the protocol does.",
    "identity-location": "Pairs of one person and one place are left out, as the protocol does.",
    "identity-modality": "Pairs of one person within a modality are left out, as the protocol does.",
}


@settings
class Choices:
    """What can be chosen."""

    pairs: Count = LIMIT
    """ours: at most how many pairs of one person, and how many of two people, of each kind. If there are more, they are
    drawn at random."""
    seed: Whole = 0
    """ours: of the draw of pairs."""


@dataclass(frozen=True)
class Measured:
    """One network's panel: the pairs and their numbers, by kind of pairs."""

    pairs: Mapping[str, Pairs]
    overlaps: Mapping[str, Overlap]


def figures(subjects: Sequence[Subject], choices: Choices) -> list[Figure]:
    """One figure, with a column of panels for each run."""
    found = {}
    for one in subjects:
        used, records = one.samples, one.records
        columns = (one.features[used], records.identity[used], records.modality[used])
        found[one.name] = measure(*columns, keys(one)[used], choices)
    told = [_EXCLUDED[subjects[0].rules.exclusion], *(one.says() for one in subjects)]
    return [_figure(found, choices, " ".join(told).strip())]


def keys(subject: Subject) -> np.ndarray:
    """The key of each record in the protocol's draws, N int64: no query sees a gallery picture of the same key."""
    found = np.full(len(subject.records), -1, dtype=np.int64)
    for trial in subject.trials:
        sides = (
            (trial.query, trial.query_sets, trial.query_key),
            (trial.gallery, trial.gallery_sets, trial.gallery_key),
        )
        for samples, sets, own in sides:
            for pictures, key in zip(samples if sets is None else sets, own, strict=True):
                found[pictures] = key
    return found


def distances(
    features: Any,
    identity: Any,
    modality: Any,
    *,
    key: Any = None,
    pairs: int = LIMIT,
    seed: int = 0,
    caption: str = "",
) -> Figure:
    """Densities of the cosine distances of pairs, of any network, or of several networks on the same pictures.

    Args:
        features: N×D real numbers; or name → N×D, a column of panels for each.
        identity: N integers; `vireid.data.records.UNLABELLED` (−1) for a picture of an unknown person.
        modality: N integers, 0 visible or 1 infrared, or words such as `rgb`.
        key: N integers, such as cameras: pairs of one key are left out. −1 is no key. None for all pairs.
        pairs, seed: see `Choices`.
        caption: sentences to end the caption with, such as the name of the data.

    Raises:
        BadInput: an array or a choice cannot be used.
        DoesNotApply: there are no pairs across the modalities of one person, or none of two people.
    """
    choices = Choices(pairs, seed)
    networks = features if isinstance(features, Mapping) else {"": features}
    found = {name: measure(own, identity, modality, key, choices) for name, own in networks.items()}
    return _figure(found, choices, caption)


def measure(features: Any, identity: Any, modality: Any, key: Any, choices: Choices) -> Measured:
    """The panel of one network; for the arguments and errors see `distances`."""
    found = pair_distances(features, identity, modality, key=key, limit=choices.pairs, seed=choices.seed)
    for which, whose in WHOSE.items():
        if not len(getattr(found["across"], which)):
            raise DoesNotApply(f"there are no pairs of a visible and an infrared picture of {whose}")
    return Measured(found, {name: overlap(one.same, one.different) for name, one in found.items()})


def density(values: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """The density of distances in 0..2: a Gaussian kernel estimate with the bandwidth of Silverman's rule.

    The values are counted in bins first, so the cost does not depend on how many there are. What the kernel would put
    outside 0..2 is reflected at the ends, so the density integrates to one.

    Args:
        values: at least one number in 0..2.
        bins: how many bins; the bandwidth is at least the width of one.

    Returns:
        The middles of the bins, and the density there; float64.
    """
    counts, edges = np.histogram(values, bins, (0.0, 2.0))
    x, step = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0]
    quarter, three = np.percentile(values, (25, 75))
    spread = min(float(np.std(values)), float(three - quarter) / 1.34)
    width = max(0.9 * spread * len(values) ** -0.2, step)
    # Each value stands also behind both ends, as in a mirror.
    away = np.stack([x[:, None] - x, x[:, None] + x, x[:, None] + x - 4.0])
    kernel = np.exp(-0.5 * (away / width) ** 2).sum(axis=0)
    kernel /= kernel.sum(axis=0) * step  # each value has weight one, whatever the bins
    return x, kernel @ counts / len(values)


def _figure(found: Mapping[str, Measured], choices: Choices, caption: str) -> Figure:
    numbers = {name: _numbers(one) for name, one in found.items()}
    farthest = _farthest(numbers)

    def draw(look: Look) -> Any:
        columns = min(len(found), 2 if look.width == "column" else 4)
        blocks = -(-len(found) // columns)
        titles = [textwrap.fill(name, round(15 * look.inches / columns)) for name in found]
        above = 0.13 * max(title.count("\n") for title in titles)
        made, axes = canvas(look, blocks * (2.9 + above) + 0.3, nrows=2 * blocks, ncols=columns, squeeze=False)
        for place, (title, values) in enumerate(zip(titles, numbers.values(), strict=True)):
            block, column = divmod(place, columns)
            for axis, (which, whose) in zip(axes[2 * block : 2 * block + 2, column], WHOSE.items(), strict=True):
                _panel(axis, values, which, look)
                axis.set(xlim=(0, farthest), yticks=[])
                axis.tick_params(labelbottom=which == "different")
                axis.set_ylabel(whose if column == 0 else "")
            axes[2 * block, column].set_title(title)
            axes[2 * block + 1, column].set_xlabel("cosine distance")
            _table(axes[2 * block + 1, column], values)
        for axis in axes[-2:, (len(found) - 1) % columns + 1 :].flat:
            axis.remove()
        handles = [_line(kind, look, label=LABELS[kind]) for kind in KINDS]
        made.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3, columnspacing=1)
        return made

    return Figure("distances", " ".join([_says(found, choices), caption]).strip(), numbers, draw)


def _numbers(one: Measured) -> dict[str, Any]:
    kinds = {}
    for kind, pairs in one.pairs.items():
        lines = {which: getattr(pairs, which) for which in WHOSE}
        kinds[kind] = {
            "pairs": {which: len(values) for which, values in lines.items()},
            "complete": pairs.complete,
            **asdict(one.overlaps[kind]),
            "density": {which: density(values)[1] for which, values in lines.items() if len(values)},
        }
    found = {which: modality_gap(one.overlaps, which) for which in WHOSE}
    gaps = {which: gap and {"distance": gap[0], "deviations": gap[1]} for which, gap in found.items()}
    return {"modality_gap": gaps, "distance": density(one.pairs["across"].same)[0], **kinds}


def _farthest(numbers: Mapping[str, Mapping[str, Any]]) -> float:
    """The distance up to which there is something to see, in any panel."""
    return max(
        float(values["distance"][y > 0.005 * y.max()][-1])
        for values in numbers.values()
        for kind in KINDS
        for y in values[kind]["density"].values()
    )


def _line(kind: str, look: Look, **more: Any) -> Any:
    """How a kind of pairs is drawn, in colour and in grey."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {
        "visible": {"color": VISIBLE, "linestyle": "-", "marker": "o"},
        "infrared": {"color": INFRARED, "linestyle": "--", "marker": "^"},
        "across": {"color": look.ink, "linestyle": "-.", "marker": "D"},
    }[kind]
    return Line2D([], [], **style, **more)


def _panel(axis: Any, values: Mapping[str, Any], which: str, look: Look) -> None:
    """The densities of one network; above them, the means and the gap between the modalities."""
    drawn = {kind: values[kind]["density"][which] for kind in KINDS if which in values[kind]["density"]}
    top = max(float(y.max()) for y in drawn.values())
    for number, (kind, y) in enumerate(drawn.items()):
        style, mean, height = _line(kind, look), values[kind][f"{which}_mean"], top * (1.1 + 0.11 * number)
        colour = style.get_color()
        axis.plot(values["distance"], y, color=colour, linestyle=style.get_linestyle())
        axis.plot([mean, mean], [0, height], color=colour, linewidth=0.5)
        axis.plot([mean], [height], color=colour, marker=style.get_marker())
    axis.set_ylim(0, 1.65 * top)
    if (gap := values["modality_gap"][which]) is not None:
        scaled = "" if gap["deviations"] is None else f" ({gap['deviations']:.1f} σ)"
        text = f"Δ {gap['distance']:.3f}{scaled}".replace("-", "−")
        axis.text(0.98, 1.0, text, transform=axis.transAxes, ha="right", va="top")


def _table(axis: Any, values: Mapping[str, Any]) -> None:
    """How well distances tell people apart, for each kind of pairs, below the panel."""
    for row, kind in enumerate((None, *KINDS)):
        cells = ["", "d′", "EER"]
        if kind is not None:
            d_prime, rate = values[kind]["d_prime"], values[kind]["equal_error_rate"]
            cells = [LABELS[kind]]
            cells += ["–" if d_prime is None else f"{d_prime:.2f}", "–" if rate is None else f"{rate:.1f} %"]
        for x, side, text in zip((0, 70, 100), ("left", "right", "right"), cells, strict=True):
            below = (x, -27 - 9 * row)
            axis.annotate(text, (0, 0), below, "axes fraction", textcoords="offset points", ha=side, va="top")


def _says(found: Mapping[str, Measured], choices: Choices) -> str:
    whole = all(one.complete for network in found.values() for one in network.pairs.values())
    many = (
        "all pairs" if whole else f"at most {choices.pairs:,} pairs of each kind, drawn at random (seed {choices.seed})"
    )
    return (
        f"Cosine distances of pairs of different pictures of one person (above) and of two people (below): {many}. "
        "Kernel densities; the area below each is one. The markers stand at the means. Δ is the mean across the "
        "modalities minus the mean within them; in brackets, in standard deviations. The table says how well the "
        "distance tells one person from two: d′, the difference of the two means in standard deviations, and the equal "
        "error rate (chance 50 %)."
    )
