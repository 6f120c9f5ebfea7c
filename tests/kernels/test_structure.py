"""Differences of features from those of their neighbours, against sums over pairs of points."""

from __future__ import annotations

import itertools

import numpy as np
import oracles
import pytest
import torch

from convexadam.kernels.structure import sum_differences


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 3, 4), (1, 1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_over_the_neighbours(shape: tuple[int, int, int], weighted: bool) -> None:
    features, weight = oracles.noise(2, *shape), oracles.uniform(*shape, low=0)
    weight[weight < 0.3] = 0
    expected = np.zeros(shape)
    for x, y in itertools.product(np.ndindex(*shape), repeat=2):
        known = not weighted or (weight[x] > 0 and weight[y] > 0)
        if np.abs(np.subtract(x, y)).sum() == 1 and known:
            expected[x] += float((features[:, *x] - features[:, *y]).square().sum())
    found = sum_differences(features, weight if weighted else None)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert found.dtype == torch.float64
