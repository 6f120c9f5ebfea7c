"""Scores of settings beside each other, from the ranks by several metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convexadam.tuning.reference import HARDEST, HIGHER_IS_BETTER, Entries, find_hardest

_WORST = 0.1
"""Rank of the worst settings; the best have 1."""

_SIGNIFICANCE_LEVEL = 0.05


def rank_linearly(values: Sequence[float]) -> np.ndarray:
    """Return ranks from 1 for the largest value to 0.1 for the smallest, evenly spaced; ties share their mean rank.

    NaN ranks below all numbers. A single value has the rank 1.

    Examples
    --------
    >>> rank_linearly([0.7, 0.9, 0.7, 0.1]).round(2).tolist()
    [0.55, 1.0, 0.55, 0.1]
    """
    from scipy.stats import rankdata

    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return np.ones(len(array))
    places = rankdata(np.where(np.isnan(array), -np.inf, array), method="average") - 1
    ranks: np.ndarray = _WORST + (1 - _WORST) * places / (len(array) - 1)
    return ranks


def combine_ranks(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the geometric mean of the ranks by several metrics."""
    scores: np.ndarray = np.exp(np.mean(np.log(np.stack(ranks)), axis=0))
    return scores


def score_by_metrics(metrics: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """Score settings by their metrics over all pairs, as the published search does.

    Siebert, Hansen and Heinrich, IEEE TMI 2024: for each metric the sorted settings get ranks from 1 to 0.1; the score
    is their geometric mean.
    """
    return combine_ranks([rank_linearly([_sign(name) * of_one[name] for of_one in metrics]) for name in names])


def score_by_significance(
    entries: Sequence[Mapping[str, Entries]], before: Mapping[str, Entries], names: Sequence[str]
) -> np.ndarray:
    """Score settings as Learn2Reg ranks its participants: by the number of others that are significantly better.

    Two settings differ in a metric if a rank-sum test over labels, landmarks or pairs says so (p < 0.05, without
    correction for multiple tests, as in Learn2Reg); the numbers of losses are ranked by `rank_linearly`.
    """
    return combine_ranks([rank_linearly([-n for n in _count_losses(_tabulate(entries, before, m), m)]) for m in names])


def _count_losses(table: np.ndarray, metric: str) -> list[int]:
    """Count for each row how many others are significantly better."""
    from scipy.stats import ranksums

    losses = []
    for row in table:
        statistic, p = ranksums(table, np.broadcast_to(row, table.shape), axis=1)
        losses.append(int(np.sum((p < _SIGNIFICANCE_LEVEL) & (_sign(metric) * statistic > 0))))
    return losses


def _tabulate(entries: Sequence[Mapping[str, Entries]], before: Mapping[str, Entries], metric: str) -> np.ndarray:
    """Return one row for each of the settings: the values of all pairs; missing ones are set to the worst value."""
    whole = {name30: name for name, name30 in HARDEST.items()}.get(metric, metric)
    table = np.array([[value for pair in of_one.values() for value in pair.get(whole, [])] for of_one in entries])
    if whole != metric:
        table = table[:, find_hardest([value for pair in before.values() for value in pair.get(whole, [])], whole)]
    worst = np.nanmin(_sign(metric) * table) if np.isfinite(table).any() else 0.0
    return np.where(np.isnan(table), _sign(metric) * worst, table)


def _sign(metric: str) -> int:
    return 1 if HIGHER_IS_BETTER[metric] else -1
