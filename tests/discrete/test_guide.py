"""Corresponding points in the cost volume."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch

from convexadam.discrete import ConvexSearch, Window
from convexadam.discrete.guide import add_pairs, mean_curvature
from convexadam.kernels.pairs import Pairs

SHAPE = (7, 6, 8)


def pairs_of(points: list[list[float]], wanted: list[list[float]], **options: object) -> Pairs:
    given = {"weights": torch.ones(len(points), dtype=torch.float64)} | options
    return Pairs(
        points=torch.tensor(points, dtype=torch.float64),
        displacements=torch.tensor(wanted, dtype=torch.float64),
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("ball", [False, True])
def test_the_curvature_of_quadratic_costs(ball: bool) -> None:
    window = Window((2, 3, 2), ball=ball)
    factors = oracles.uniform(*SHAPE, seed=1)
    factors[:2] = 0  # says nothing
    squared = torch.tensor([float(sum(v * v for v in step)) for step in window.steps], dtype=torch.float64)
    costs = 5 + squared[:, None, None, None] * factors
    assert mean_curvature(costs, window) == pytest.approx(float(factors[2:].mean()))


@pytest.mark.parametrize("outlier", [math.inf, 1.5])
def test_what_is_added(outlier: float) -> None:
    window = Window((2, 1, 2))
    costs = oracles.uniform(len(window.steps), *SHAPE, seed=2)
    points, wanted, weights = [[2.25, 3.0, 4.5], [5.0, 1.0, 6.0]], [[1.2, -0.3, 0.8], [4.0, 0.0, -1.0]], [2.0, 0.5]
    pairs = pairs_of(points, wanted, weights=torch.tensor(weights, dtype=torch.float64), outlier=outlier)
    found, scale = costs.clone(), mean_curvature(costs, window)
    add_pairs(found, window, pairs)
    expected = costs.numpy().copy()
    for point, target, weight in zip(points, wanted, weights, strict=True):
        each = []
        for step in window.steps:
            r = sum((d - t) ** 2 for d, t in zip(step, target, strict=True))
            each.append(scale * weight * r / (1 + r / outlier**2))
        for x in np.ndindex(*SHAPE):
            share = math.prod(max(0.0, 1 - abs(a - p)) for a, p in zip(x, point, strict=True))
            expected[(slice(None), *x)] += min(1.0, (2 * math.pi) ** 1.5 * share) * (np.array(each) - min(each))
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    assert not np.allclose(found.numpy(), costs.numpy(), rtol=0, atol=0.1)


def test_half_precision_does_not_overflow() -> None:
    window = Window((3, 3, 3))
    costs = (16000 * oracles.uniform(len(window.steps), *SHAPE, seed=3)).half()
    pairs = pairs_of(
        [[3.0, 3.0, 4.0]] * 3, [[9.0, -9.0, 2.0]] * 3, weights=torch.tensor([1.0, 1e3, 1e9]).double(), sigma=(2.0,) * 3
    )
    add_pairs(costs, window, pairs)
    assert bool(costs.isfinite().all())
    best = window.steps[int(costs[:, 3, 3, 4].argmin())]
    assert best == (3, -3, 2)  # the nearest of the window


@pytest.mark.parametrize("inverse_consistency", [0, 5])
def test_a_search_follows_points_where_the_image_says_nothing(inverse_consistency: int) -> None:
    shape = (18, 12, 12)
    fixed = torch.from_numpy(oracles.blobs(oracles.indices(shape), shape, channels=3, sigma=1.5)).float()
    fixed[:, 9:] = 0
    search = ConvexSearch(radius=3, inverse_consistency=inverse_consistency, thetas=(0.003, 0.01, 0.03))
    wanted = [[1.0, -2.0, 1.0], [1.0, -2.0, 1.0]]
    points = [[14.0, 6.0, 6.0], [15.0, 4.0, 8.0]]
    ends = [[p + d for p, d in zip(*both, strict=True)] for both in zip(points, wanted, strict=True)]
    there = pairs_of(points, wanted, sigma=(1.5,) * 3)
    back = pairs_of(ends, [[-d for d in each] for each in wanted], sigma=(1.5,) * 3)
    plain, _ = search.on_cells(fixed, fixed, (3, 3, 3))
    found, _ = search.on_cells(fixed, fixed, (3, 3, 3), pairs=(there, back))
    target = torch.tensor(wanted[0])
    assert float((plain[:, 14, 6, 6] - target).norm()) > 2
    assert float((found[:, 14, 6, 6] - target).norm()) < 0.5
    assert float(found[:, :4].abs().max()) < 0.5


def test_a_second_search_aims_at_what_remains() -> None:
    flat = torch.zeros(1, 12, 12, 12)
    flat[:, :2] = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0))  # a scale to go by
    search = ConvexSearch(inverse_consistency=0, thetas=())
    start = torch.zeros(3, 12, 12, 12)
    start[0], start[1] = 2.0, -1.0
    pairs = pairs_of([[7.0, 6.0, 6.0]], [[3.0, -1.0, 1.0]], sigma=(2.0,) * 3)
    found, _ = search.on_cells(flat, flat, (1, 1, 1), start=(start, None), pairs=(pairs, None))
    torch.testing.assert_close(found[:, 7, 6, 6], torch.tensor([3.0, -1.0, 1.0]), rtol=0, atol=0.1)
