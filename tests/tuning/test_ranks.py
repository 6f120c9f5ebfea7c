"""Ranks against values computed by hand and by counting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ranksums

from convexadam.tuning.ranks import rank_linearly, score_by_metrics, score_by_significance

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([], []),
        ([3.0], [1.0]),
        ([1.0, 2.0], [0.1, 1.0]),
        ([5.0, 1.0, 3.0], [1.0, 0.1, 0.55]),
        ([2.0, 2.0, 2.0], [0.55] * 3),
        ([1.0, 4.0, 4.0, 2.0], [0.1, 0.85, 0.85, 0.4]),  # places 2 and 3 of 0, 1, 2, 3
        ([NAN, 1.0, -9.0], [0.1, 1.0, 0.55]),
    ],
)
def test_from_one_tenth_to_one(values: list[float], ranks: list[float]) -> None:
    np.testing.assert_allclose(rank_linearly(values), ranks, atol=1e-12)


def test_the_score_is_the_geometric_mean_over_metrics() -> None:
    metrics = [{"dice": 0.9, "sdlogj": 0.3}, {"dice": 0.8, "sdlogj": 0.1}, {"dice": 0.7, "sdlogj": 0.2}]
    # Dice: 1, 0.55, 0.1; SDlogJ, where less is better: 0.1, 1, 0.55
    expected = [math.sqrt(1 * 0.1), math.sqrt(0.55 * 1), math.sqrt(0.1 * 0.55)]
    np.testing.assert_allclose(score_by_metrics(metrics, ("dice", "sdlogj")), expected)


def test_losses_count_significantly_better_others() -> None:
    chance = np.random.default_rng(0)
    means = [0.8, 0.8, 0.7, 0.5]
    samples = [np.clip(m + 0.05 * chance.standard_normal(40), 0, 1) for m in means]
    before = {"a": {"dice": chance.random(25).tolist()}, "b": {"dice": chance.random(15).tolist()}}
    entries = [{"a": {"dice": s[:25].tolist()}, "b": {"dice": s[25:].tolist()}} for s in samples]

    losses = [0] * 4
    for mine, other in itertools.permutations(range(4), 2):
        test = ranksums(samples[other], samples[mine])
        losses[mine] += test.pvalue < 0.05 and test.statistic > 0
    assert losses == [0, 0, 2, 3]
    np.testing.assert_allclose(score_by_significance(entries, before, ("dice",)), [0.85, 0.85, 0.4, 0.1])


def test_the_hardest_are_those_that_were_worst_before() -> None:
    before = {"a": {"tre_mm": [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 1.0, 1.0, 2.0] * 4}}
    hard = np.isin(before["a"]["tre_mm"], (9.0, 8.0, 7.0))
    chance = np.random.default_rng(1)
    good, bad = ((5 + shift * hard + 0.1 * chance.random(40)).tolist() for shift in (-4, 4))
    entries = [{"a": {"tre_mm": values}} for values in (bad, good)]
    np.testing.assert_allclose(score_by_significance(entries, before, ("tre30_mm",)), [0.1, 1.0])


def test_missing_values_count_as_the_worst() -> None:
    before = {"a": {"dice": [0.5] * 30}}
    entries = [
        {"a": {"dice": [0.5] * 30, "hd95_mm": [2.0 + 0.01 * n for n in range(30)]}},
        {"a": {"dice": [0.5] * 30, "hd95_mm": [NAN] * 29 + [9.0]}},
    ]
    np.testing.assert_allclose(score_by_significance(entries, before, ("hd95_mm",)), [1.0, 0.1])
