"""Corresponding points as a cost: value, gradient, curvature, and how both optimisers follow it."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import Adam, Diffusion, Displacement, Level, LevenbergMarquardt, Refinement
from convexadam.continuous.guide import PairCost
from convexadam.continuous.problem import Problem, mean_curvature
from convexadam.kernels.pairs import Pairs
from convexadam.kernels.warp_ssd import compared

SHAPE = (7, 9, 8)
CURVATURE = 0.7


def some_pairs(sigma: tuple[float, float, float] = (0.0, 0.0, 0.0), outlier: float = math.inf) -> Pairs:
    points = 1 + oracles.uniform(6, 3, seed=3) * (torch.tensor(SHAPE) - 3)
    return Pairs(
        points=points,
        displacements=oracles.noise(6, 3, seed=4),
        weights=oracles.uniform(6, seed=5),
        sigma=sigma,
        outlier=outlier,
    )


def value_of(pairs: Pairs, displacement: np.ndarray) -> float:
    """``1/2 sum_n c_n rho(|u(p_n) - t_n|^2)``, point by point."""
    total = 0.0
    mass = (2 * math.pi) ** 1.5 * math.prod(max(s, 1.0) for s in pairs.sigma)
    for point, wanted, weight in zip(
        pairs.points.numpy(), pairs.displacements.numpy(), pairs.weights.tolist(), strict=True
    ):
        u = oracles.trilinear(displacement, point.reshape(3, 1, 1, 1))[:, 0, 0, 0]
        squared = float(((u - wanted) ** 2).sum())
        total += 0.5 * CURVATURE * mass * weight * squared / (1 + squared / pairs.outlier**2)
    return total


@pytest.mark.parametrize("outlier", [math.inf, 1.3])
def test_value_and_gradient(outlier: float) -> None:
    pairs, u = some_pairs(outlier=outlier), oracles.noise(3, *SHAPE, seed=6)
    value, gradient = PairCost(pairs, u, curvature=CURVATURE)(u)
    assert float(value) == pytest.approx(value_of(pairs, u.numpy()), rel=1e-12)
    expected, step = np.zeros(u.shape), 1e-5
    for at in np.ndindex(*u.shape):
        ends = []
        for side in (-step, step):
            moved = u.numpy().copy()
            moved[at] += side
            ends.append(value_of(pairs, moved))
        expected[at] = (ends[1] - ends[0]) / (2 * step)
    # central differences: rounding of the value over the step, and the step squared
    assert np.allclose(gradient.numpy(), expected, rtol=0, atol=1e-7)
    assert float(gradient.abs().max()) > 0.1


def test_a_gaussian_spreads_the_pull_and_keeps_its_sum() -> None:
    shape = (31, 31, 31)
    wanted = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    point = torch.full((1, 3), 15.0, dtype=torch.float64)
    u = torch.zeros(3, *shape, dtype=torch.float64)
    pairs = Pairs(points=point, displacements=wanted, weights=torch.ones(1, dtype=torch.float64), sigma=(2.0, 3.0, 1.5))
    value, gradient = PairCost(pairs, u, curvature=CURVATURE)(u)
    assert float(value) == pytest.approx(0.5 * CURVATURE * pairs.mass * 5.25)
    torch.testing.assert_close(gradient.sum((1, 2, 3)), -CURVATURE * pairs.mass * wanted[0])
    away = oracles.indices(shape) - 15.0
    gaussian = np.exp(-0.5 * ((away / np.array(pairs.sigma).reshape(3, 1, 1, 1)) ** 2).sum(0))
    near = np.abs(away / np.array(pairs.sigma).reshape(3, 1, 1, 1)).max(0) <= 2
    # what is cut off is spread over the rest: (1 / 0.954)^3 more, and less than a node's share of rounding at the cut
    ratio = -gradient[0].numpy()[near] / (CURVATURE * gaussian[near])
    assert np.allclose(ratio, ratio.mean(), rtol=1e-9)
    assert 1 < ratio.mean() < 1.2


@pytest.mark.parametrize("sigma", [(0.0, 0.0, 0.0), (1.0, 1.5, 0.6)])
def test_the_curvature_is_that_of_a_shift(sigma: tuple[float, float, float]) -> None:
    pairs, u = some_pairs(sigma), oracles.noise(3, *SHAPE, seed=6)
    onto = oracles.uniform(*SHAPE, seed=8)
    before = onto.clone()
    added = PairCost(pairs, u, curvature=CURVATURE).curvature(u, onto=onto) - before
    values = [value_of(pairs, u.numpy() + np.array([shift, 0, 0]).reshape(3, 1, 1, 1)) for shift in (-1, 0, 1)]
    assert float(added.sum()) == pytest.approx(values[0] - 2 * values[1] + values[2], rel=1e-9)  # quadratic
    assert float(added.min()) >= 0


def test_the_gradient_is_added_in_place_whatever_the_strides() -> None:
    pairs, u = some_pairs(), oracles.noise(3, *SHAPE, seed=6)
    cost = PairCost(pairs, u, curvature=CURVATURE)
    plain = cost(u)[1]
    onto = torch.ones(*SHAPE, 3, dtype=torch.float64).movedim(-1, 0)
    assert cost(u, onto=onto)[1] is onto
    torch.testing.assert_close(onto, 1 + plain)


@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_both_optimisers_follow_points_where_the_image_says_nothing(
    optimiser: Adam | LevenbergMarquardt, sigma: float
) -> None:
    shape = (24, 20, 18)
    fixed = torch.from_numpy(oracles.blobs(oracles.indices(shape), shape, channels=2, sigma=2.0)).float()
    fixed[:, 12:] = 0
    wanted = torch.tensor([[1.5, -1.0, 0.8]], dtype=torch.float64)
    pairs = Pairs(
        points=torch.tensor([[18.2, 10.4, 9.0]], dtype=torch.float64),
        displacements=wanted,
        weights=torch.ones(1, dtype=torch.float64),
        sigma=(sigma,) * 3,
    )
    refine = Refinement(
        levels=(Level(spacing=1, iterations=60),), regularisers=(Diffusion(weight=0.02),), optimiser=optimiser
    )
    curvature = float(fixed.diff(dim=2).square().sum(0).mean()) / fixed[0].numel()
    cost = PairCost(pairs, fixed[:1].expand(3, -1, -1, -1), curvature=curvature)
    found = refine.on_nodes(fixed, fixed, costs=[cost])
    here = oracles.trilinear(found.double().numpy(), np.array([18.2, 10.4, 9.0]).reshape(3, 1, 1, 1))[:, 0, 0, 0]
    # the pull of one node (sigma 0) is shared with the elasticity around it; that of many is not
    assert np.linalg.norm(here - wanted[0].numpy()) < (0.25 if sigma == 0 else 0.1) * float(wanted.norm())
    assert float(found[:, 2:6].abs().max()) < 0.2  # and the image holds the rest in place


def test_the_problem_has_the_curvature_of_the_points_as_well() -> None:
    features = oracles.noise(2, *SHAPE, seed=9), oracles.noise(2, *SHAPE, seed=10)
    u, pairs = oracles.noise(3, *SHAPE, seed=6), some_pairs((1.0, 1.0, 1.0))
    cost, comparison = PairCost(pairs, u, curvature=CURVATURE), compared(*features)
    value, found, scale = Problem(comparison, [cost], (*features, None, None)).curvature(u, out=u.new_empty(4, *SHAPE))
    alone, expected = comparison.curvature(u)
    assert scale == pytest.approx(float(expected[3].mean()))
    assert value == pytest.approx(float(alone) + value_of(pairs, u.numpy()))
    torch.testing.assert_close(found[:3], expected[:3] + cost(u)[1])
    torch.testing.assert_close(found[3], expected[3] + cost.curvature(u, onto=torch.zeros_like(u[0])))
    assert mean_curvature(comparison, u) == pytest.approx(float(expected[3].sum() / (expected[3] > 0).sum()))


def test_a_cost_without_curvature_of_its_own_goes_with_levenberg_marquardt() -> None:
    fixed = oracles.noise(2, *SHAPE, seed=9).float()
    refine = Refinement(levels=(Level(spacing=1, iterations=3),), optimiser=LevenbergMarquardt())
    plain = refine.on_nodes(fixed, fixed.roll(1, 1))
    assert torch.equal(plain, refine.on_nodes(fixed, fixed.roll(1, 1), costs=[Diffusion(weight=0.0)]))
    assert isinstance(refine.parametrisation, Displacement)
