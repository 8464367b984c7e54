"""Curves behind the numbers of a report: CMC at every rank, and precision over recall."""

from __future__ import annotations

import numpy as np

from vireid.evaluation import metrics
from vireid.evaluation.ranking import Matches
from vireid.evaluation.scoring import Evaluation

STEPS = 100  # of recall, so a step is a hundredth


def curves(evaluation: Evaluation, ranks: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The CMC and the precision–recall curve of every trial.

    Args:
        evaluation: what `vireid.evaluation.scoring.evaluate` gives.
        ranks: the last rank of the CMC.

    Returns:
        T×ranks float64, CMC in percent, as the protocol counts ranks; and T×100 float64, precision in percent (see
        `precision_over_recall`). The means over trials are the report's Rank-k, and its mAP is the mean of the second.
    """
    cmc = [100.0 * metrics.cumulative_matches(one.first, ranks) for one in evaluation.scores]
    return np.stack(cmc), np.stack([100.0 * precision_over_recall(one.matches) for one in evaluation.rankings])


def precision_over_recall(matches: Matches) -> np.ndarray:
    """Precision in each hundredth of recall, averaged over the queries with a true match.

    A query with n true matches has recall i/n when its i-th match is found, at rank r. Its precision there is i/r. It
    is taken for all recalls from (i−1)/n to i/n, without interpolation. So the area under the steps of a query is its
    average precision, and the area under their mean is mAP. A hundredth that several steps share has their mean in it,
    which keeps the area.

    Args:
        matches: true matches of Q queries.

    Returns:
        100 float64 in 0..1, for recalls 0 to 0.01, 0.01 to 0.02, and so on; their mean is mAP. NaN if no query has a
        match.
    """
    count, edges = np.diff(matches.start), np.linspace(0.0, 1.0, STEPS + 1)
    area = np.zeros(STEPS + 1)  # under the steps of all queries, from 0 to each edge
    for n in np.unique(count[count > 0]):
        found = np.arange(1, n + 1)
        ranks = matches.ranks[matches.start[:-1][count == n][:, None] + found - 1]
        heights = (found / ranks).sum(axis=0)
        area += np.interp(edges, np.arange(n + 1) / n, np.concatenate([[0.0], np.cumsum(heights) / n]))
    queries = np.count_nonzero(count)
    return np.diff(area) * STEPS / queries if queries else np.full(STEPS, np.nan)
