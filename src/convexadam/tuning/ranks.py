"""How good settings are beside each other, over metrics that have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convexadam.tuning.truth import HARDEST, HIGHER_IS_BETTER, Entries, hardest

_WORST = 0.1
"""Rank of the worst; the best has 1."""

_LEVEL = 0.05
"""Of significance."""


def linear_ranks(goodness: Sequence[float]) -> np.ndarray:
    """Ranks from 1 for the largest down to 0.1 for the smallest, evenly; equals share the mean of theirs.

    NaN counts as smaller than all. A single one has the rank 1.

    Examples
    --------
    >>> linear_ranks([0.7, 0.9, 0.7, 0.1]).round(2).tolist()
    [0.55, 1.0, 0.55, 0.1]
    """
    from scipy.stats import rankdata

    values = np.asarray(goodness, dtype=np.float64)
    if len(values) < 2:
        return np.ones(len(values))
    places = rankdata(np.where(np.isnan(values), -np.inf, values), method="average") - 1
    ranks: np.ndarray = _WORST + (1 - _WORST) * places / (len(values) - 1)
    return ranks


def scored(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """Geometric mean of the ranks by several metrics."""
    score: np.ndarray = np.exp(np.mean(np.log(np.stack(ranks)), axis=0))
    return score


def by_figures(figures: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> np.ndarray:
    """Scores of settings by their figures over all pairs: the ranking of the published search.

    Siebert, Hansen and Heinrich, IEEE TMI 2024: for each metric the sorted settings have ranks from 1 to 0.1; the
    score is their geometric mean.
    """
    return scored([linear_ranks([_sign(name) * found[name] for found in figures]) for name in metrics])


def by_significance(
    entries: Sequence[Mapping[str, Entries]], before: Mapping[str, Entries], metrics: Sequence[str]
) -> np.ndarray:
    """Scores of settings as Learn2Reg ranks its participants: by how many others are significantly better.

    Two settings differ in a metric where a rank-sum test over labels, landmarks or pairs says so (p < 0.05, without
    correction, as there); losses are turned into ranks as in `linear_ranks`.
    """
    return scored([linear_ranks([-n for n in _losses(_samples(entries, before, name), name)]) for name in metrics])


def _losses(samples: np.ndarray, metric: str) -> list[int]:
    """How many of the other rows are significantly better than each row."""
    from scipy.stats import ranksums

    losses = []
    for mine in samples:
        statistic, p = ranksums(samples, np.broadcast_to(mine, samples.shape), axis=1)
        losses.append(int(np.sum((p < _LEVEL) & (_sign(metric) * statistic > 0))))
    return losses


def _samples(entries: Sequence[Mapping[str, Entries]], before: Mapping[str, Entries], metric: str) -> np.ndarray:
    """One row for each setting: a metric's entries of all pairs, those that are missing as bad as the worst."""
    whole = {hardest: name for name, hardest in HARDEST.items()}.get(metric, metric)
    rows = np.array([[value for case in found.values() for value in case.get(whole, [])] for found in entries])
    if whole != metric:
        rows = rows[:, hardest([value for case in before.values() for value in case.get(whole, [])], whole)]
    worst = np.nanmin(_sign(metric) * rows) if np.isfinite(rows).any() else 0.0
    return np.where(np.isnan(rows), _sign(metric) * worst, rows)


def _sign(metric: str) -> int:
    return 1 if HIGHER_IS_BETTER[metric] else -1
