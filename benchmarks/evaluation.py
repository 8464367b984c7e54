"""Evaluation at the sizes of the real protocols, compared with the textbook method in the same run.

The textbook method does what public scripts do, written from the published formulas. For each trial it computes a
float64 distance matrix, sorts the whole gallery for each query, and loops over the queries in Python to compute average
precision along the whole ranking. The features are random. Their difficulty is about that of a trained model.

    python benchmarks/evaluation.py            # all sizes; the textbook method takes about three minutes on two cores
    python benchmarks/evaluation.py --small    # a tenth of the identities; this takes seconds
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence

import numpy as np

from vireid.data.protocol import Trial, draw_trials, parse_protocol
from vireid.evaluation.distance import blocks
from vireid.evaluation.metrics import average_precision
from vireid.evaluation.ranking import rank_trials
from vireid.evaluation.scoring import score_trials

WIDTH = 2048
METRICS = ("rank1", "rank5", "rank10", "rank20", "map", "minp")


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


def sysu(scale: float) -> tuple[np.ndarray, ...]:
    """Identity, camera and modality of a test set with the sizes of SYSU-MM01."""
    cells = {1: (56, 1374), 2: (56, 1565), 3: (93, 1883), 4: (94, 1918), 5: (95, 1918), 6: (96, 1920)}
    return _columns({camera: (n, pictures, int(camera in (3, 6))) for camera, (n, pictures) in cells.items()}, scale)


def regdb(scale: float) -> tuple[np.ndarray, ...]:
    """The same for RegDB: 206 identities with ten visible and ten infrared pictures each."""
    return _columns({1: (206, 2060, 0), 2: (206, 2060, 1)}, scale)


def llcm(scale: float) -> tuple[np.ndarray, ...]:
    """The same for LLCM: 351 identities with 8,680 visible and 7,166 infrared pictures.

    (Identity, camera) has 484 combinations among the visible and 619 among the infrared pictures.
    """
    visible = {1: (351, 6300, 0), 2: (133, 2380, 0)}
    infrared = {3: (351, 4066, 1), 4: (268, 3100, 1)}
    return _columns(visible | infrared, scale)


def _columns(cells: dict[int, tuple[int, int, int]], scale: float) -> tuple[np.ndarray, ...]:
    """Identity, camera and modality of N pictures, from camera → (identities, pictures, modality)."""
    pictures_of = []
    for camera, (identities, pictures, modality) in cells.items():
        count = max(int(identities * scale), 4)
        for picture in range(max(int(pictures * scale), count)):
            pictures_of.append((camera, picture % count, modality))
    camera, identity, modality = np.array(sorted(pictures_of)).T
    return identity, camera, modality


def features_for(identity: np.ndarray, modality: np.ndarray, *, width: int = WIDTH) -> np.ndarray:
    """N×width float32 random features. Their rank-1 accuracy is between chance and 100 %."""
    generator = np.random.default_rng(0)
    centre = generator.normal(size=(identity.max() + 1, width))
    centre = centre[identity] + 0.5 * generator.normal(size=(2, width))[modality]
    return (0.22 * centre + generator.normal(size=(len(identity), width))).astype(np.float32)


def timed(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Smallest wall seconds and CPU seconds of several runs. Other work on the machine can only make runs slower."""
    best = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        best.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(wall for wall, _ in best), min(cpu for _, cpu in best)


def compare(name: str, columns: tuple[np.ndarray, ...]) -> None:
    """Print the seconds for one protocol: the textbook method, ours, and the matrix product alone."""
    identity, camera, modality = columns
    features = features_for(identity, modality)
    rules = parse_protocol(name)
    trials = draw_trials(name, identity, camera, modality)
    ours = score_trials(features, identity, trials, cmc=rules.cmc)  # compiles the kernels or loads them from the cache
    expected = np.empty(0)

    def baseline() -> None:
        nonlocal expected
        expected = textbook(features, identity, trials, cmc=rules.cmc)

    def product() -> None:
        union = np.unique(np.concatenate([trial.gallery for trial in trials]))
        for _ in blocks(features, trials[0].query, union):
            pass

    slow = timed(baseline, 1)
    fast = timed(lambda: score_trials(features, identity, trials, cmc=rules.cmc), 5)
    alone = timed(product, 5)
    found = np.array([[one.metrics[metric] for metric in METRICS] for one in ours])
    size = f"{len(trials)} × {len(trials[0].query)}×{len(trials[0].gallery)}"
    print(
        f"{name:24}{size:>18}  {slow[0]:9.3f} {fast[0]:8.3f} {alone[0]:8.3f}   {slow[0] / fast[0]:6.1f}×"
        f" {slow[1] / fast[1]:6.1f}×   {np.abs(found - expected).max():.1e}"
    )


def large(queries: int, gallery: int) -> None:
    """Print the seconds for a gallery that is too large for the textbook method, and of the matrix product alone."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(queries + gallery, WIDTH // 4)).astype(np.float32)
    identity = generator.integers(0, gallery // 10, queries + gallery)
    trial = Trial(np.arange(queries), np.arange(queries, queries + gallery), np.full(queries, -1), np.full(gallery, -1))
    tracemalloc.start()
    wall, _ = timed(lambda: average_precision(rank_trials(features, identity, [trial])[0]), 1)
    more = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()

    def product() -> None:
        for _ in blocks(features, trial.query, trial.gallery):
            pass

    alone, _ = timed(product, 1)
    print(
        f"{queries} × {gallery}, width {WIDTH // 4}: {wall:.2f} s, {wall / alone:.2f} times the matrix product alone "
        f"({alone:.2f} s); {more:.0f} MiB in addition to features of {features.nbytes / 2**20:.0f} MiB"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tenth of the identities")
    scale = 0.1 if parser.parse_args(arguments).small else 1.0
    print(
        f"features of width {WIDTH}, {os.cpu_count()} cores; wall seconds, then how many times as fast as the textbook"
    )
    print(
        f"{'protocol':24}{'trials':>18}  {'textbook':>9} {'ours':>8} {'product':>8}   {'wall':>7} {'CPU':>7}   differs"
    )
    compare("sysu-mm01/all/single", sysu(scale))
    compare("sysu-mm01/all/multi", sysu(scale))
    compare("regdb/v2i", regdb(scale))
    compare("llcm/i2v", llcm(scale))
    compare("llcm/v2i", llcm(scale))
    compare("llcm/i2v@full", llcm(scale))
    large(int(10_000 * scale), int(100_000 * scale))


if __name__ == "__main__":
    main()
