"""Evaluation at the sizes of the real protocols, against sorting the gallery for each query.

The textbook method does what public scripts do, written from the published formulas. For each trial it computes a
float64 distance matrix, sorts the whole gallery for each query, and loops over the queries in Python to compute average
precision along the whole ranking. The matrix product alone, over all pictures that the trials share, is the limit. The
features are random. Their difficulty is about that of a trained model.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from vireid.bench.growth import grown
from vireid.bench.measure import Line, close
from vireid.bench.run import Bench
from vireid.data.protocol import Trial, draw_trials, parse_protocol
from vireid.evaluation.distance import blocks
from vireid.evaluation.metrics import average_precision
from vireid.evaluation.ranking import rank_trials
from vireid.evaluation.scoring import score_trials

WIDTH = 2048
LARGE_WIDTH = 512
METRICS = ("rank1", "rank5", "rank10", "rank20", "map", "minp")
TEXTBOOK, OURS, PRODUCT = "float64, a sort for each query", "vireid", "the matrix product alone"
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Identity, camera and modality of N pictures."""


def measure(bench: Bench) -> Iterator[Line]:
    """Ten trials of SYSU-MM01, a fold of RegDB, and a gallery of 100,000."""
    scale = bench.size(1.0, 0.05)
    sysu = sysu_mm01(scale)
    # The multi-shot trials take the textbook two minutes: they are compared with the matrix product only.
    goals = {"sysu-mm01/all/single": 55.0, "sysu-mm01/all/multi": None, "regdb/v2i": 25.0}
    for name, goal in goals.items():
        yield from of_protocol(bench, name, regdb(scale) if name.startswith("regdb") else sysu, goal)
    yield large(bench)


def growth(bench: Bench) -> Iterator[Line]:
    """The time of a ranking against the pictures and against the identities of the gallery."""
    counts = bench.size((10_000, 20_000, 40_000, 80_000), (100, 200))
    yield grown(bench, "1,000 queries", {n: ranking(1000, n, n // 10) for n in counts}, unit="gallery pictures")
    identities = bench.size((100, 1000, 10_000), (10, 20))
    pictures = bench.size(40_000, 100)
    works = {n: ranking(1000, pictures, n) for n in identities}
    yield grown(bench, f"1,000 queries in {pictures:,} pictures", works, unit="identities")


def of_protocol(bench: Bench, name: str, columns: Columns, goal: float | None) -> Iterator[Line]:
    """A protocol with all its trials: against the textbook if there is a goal, and against the product."""
    identity, camera, modality = columns
    features = features_for(identity, modality, bench.size(WIDTH, 64))
    cmc = parse_protocol(name).cmc
    trials = draw_trials(name, identity, camera, modality)
    everything = np.unique(np.concatenate([trial.gallery for trial in trials]))

    def ours() -> np.ndarray:
        scored = score_trials(features, identity, trials, cmc=cmc)
        return np.array([[one.metrics[metric] for metric in METRICS] for one in scored])

    contenders: dict[str, Callable[[], object]] = {OURS: ours}
    if goal is not None:
        contenders = {TEXTBOOK: lambda: textbook(features, identity, trials, cmc=cmc), **contenders}
    others = {PRODUCT: lambda: product(features, trials[0].query, everything)}
    timed = bench.timed(contenders, rounds=3 if goal is None else 2, agree=close(1e-4), others=others)
    what = f"{name}, {len(trials)} × {len(trials[0].query):,} × {len(trials[0].gallery):,}"
    if goal is not None:
        yield timed.line(what, baseline=TEXTBOOK, ours=OURS, goal=goal, limit=PRODUCT)
    yield timed.line(what, baseline=PRODUCT, ours=OURS, goal=1.3, limit=1.0, larger=False)


def large(bench: Bench) -> Line:
    """10,000 × 100,000, which the textbook cannot hold in memory."""
    queries, gallery = bench.size((10_000, 100_000), (50, 500))
    works = {PRODUCT: multiplying(queries, gallery), OURS: ranking(queries, gallery, gallery // 10)}
    timed = bench.timed({}, others=works, rounds=2)
    more = memory_of(works[OURS])
    what = f"average precision, {queries:,} × {gallery:,}, width {LARGE_WIDTH}"
    line = timed.line(what, baseline=PRODUCT, ours=OURS, goal=1.3, limit=1.0, larger=False)
    said = f"{what}: {more / 2**20:,.0f} MiB of memory in addition to the features"
    return replace(line, figures={"memory": more}, notes=(said,))


def memory_of(work: Callable[[], object]) -> int:
    """The most bytes that a call needs in addition to what is there."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def ranking(queries: int, gallery: int, identities: int) -> Callable[[], np.ndarray]:
    """A call that computes the average precision of queries in one gallery."""
    features, trial = _one_trial(queries, gallery)
    identity = np.random.default_rng(0).integers(0, identities, len(features))
    return lambda: average_precision(rank_trials(features, identity, [trial])[0])


def multiplying(queries: int, gallery: int) -> Callable[[], None]:
    """The matrix product of the same size."""
    features, trial = _one_trial(queries, gallery)
    return lambda: product(features, trial.query, trial.gallery)


def _one_trial(queries: int, gallery: int) -> tuple[np.ndarray, Trial]:
    features = np.random.default_rng(0).normal(size=(queries + gallery, LARGE_WIDTH)).astype(np.float32)
    nobody = np.full(queries, -1), np.full(gallery, -1)
    return features, Trial(np.arange(queries), np.arange(queries, queries + gallery), *nobody)


def product(features: np.ndarray, query: np.ndarray, gallery: np.ndarray) -> None:
    """The distances of all pairs, block by block, as the evaluation computes them, and nothing else."""
    for _ in blocks(features, query, gallery):
        pass


def textbook(features: np.ndarray, identity: np.ndarray, trials: Sequence[Trial], *, cmc: str) -> np.ndarray:
    """Six metrics of each trial, T×6 in percent, computed by sorting the gallery for each query."""
    out = []
    for trial in trials:
        query, gallery = features[trial.query].astype(np.float64), features[trial.gallery].astype(np.float64)
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        order = np.argsort(-(query @ gallery.T), axis=1, kind="stable")
        asked, searched = identity[trial.query], identity[trial.gallery]
        curves, precisions, penalties = [], [], []
        for q in range(len(asked)):
            key = trial.query_key[q]
            kept = order[q][(trial.gallery_key[order[q]] != key) | (key == -1)]
            hit = searched[kept] == asked[q]
            if not hit.any():
                continue
            listed = searched[kept]
            if cmc == "identity":
                _, place = np.unique(listed, return_index=True)
                listed = listed[np.sort(place)]
            curves.append((listed == asked[q]).cumsum()[:20].clip(max=1))
            found = hit.cumsum()
            precision = [x / (i + 1.0) for i, x in enumerate(found)]
            precisions.append((np.asarray(precision) * hit).sum() / hit.sum())
            last = np.flatnonzero(hit)[-1]
            penalties.append(found[last] / (last + 1.0))
        curve = np.zeros(20)
        for one in curves:
            curve += np.pad(one, (0, 20 - len(one)), mode="edge") / len(curves)
        out.append([*curve[[0, 4, 9, 19]], np.mean(precisions), np.mean(penalties)])
    return 100 * np.array(out)


def sysu_mm01(scale: float) -> Columns:
    """A test set with the sizes of SYSU-MM01."""
    cells = {1: (56, 1374), 2: (56, 1565), 3: (93, 1883), 4: (94, 1918), 5: (95, 1918), 6: (96, 1920)}
    return _columns({camera: (n, pictures, int(camera in (3, 6))) for camera, (n, pictures) in cells.items()}, scale)


def regdb(scale: float) -> Columns:
    """The same for RegDB: 206 identities with ten visible and ten infrared pictures each."""
    return _columns({1: (206, 2060, 0), 2: (206, 2060, 1)}, scale)


def _columns(cells: dict[int, tuple[int, int, int]], scale: float) -> Columns:
    """The columns of N pictures, from camera → (identities, pictures, modality)."""
    pictures_of = []
    for camera, (identities, pictures, modality) in cells.items():
        count = max(int(identities * scale), 4)
        for picture in range(max(int(pictures * scale), count)):
            pictures_of.append((camera, picture % count, modality))
    camera, identity, modality = np.array(sorted(pictures_of)).T
    return identity, camera, modality


def features_for(identity: np.ndarray, modality: np.ndarray, width: int) -> np.ndarray:
    """N×width float32 random features. Their rank-1 accuracy is between chance and 100 %."""
    generator = np.random.default_rng(0)
    centre = generator.normal(size=(identity.max() + 1, width))
    centre = centre[identity] + 0.5 * generator.normal(size=(2, width))[modality]
    return (0.22 * centre + generator.normal(size=(len(identity), width))).astype(np.float32)
