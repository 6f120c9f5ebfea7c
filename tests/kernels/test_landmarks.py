"""Pairs of landmarks on control points: interpolation, cost of a displacement, costs of a search, and their effect."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import Adam, Diffusion, Level, LevenbergMarquardt, Refinement
from convexadam.continuous.objective import RegistrationObjective, mean_curvature
from convexadam.discrete import ConvexSearch, Window
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.landmarks import LandmarkCost, LandmarkPairs, add_landmark_costs, mean_cost_curvature
from convexadam.kernels.warp import add_step
from convexadam.kernels.warp_ssd import prepare_ssd

NO_GAUSSIAN = (0.0, 0.0, 0.0)


def make_pairs(points: Any, displacements: Any = None, **options: Any) -> LandmarkPairs:
    points = torch.as_tensor(points, dtype=torch.float64)
    displacements = (
        torch.zeros_like(points) if displacements is None else torch.as_tensor(displacements, dtype=torch.float64)
    )
    weights = {"weights": torch.ones(len(points), dtype=torch.float64)}
    return LandmarkPairs(points=points, displacements=displacements, **(weights | options))


# Interpolation ----------------------------------------------------------------------------------------------------

SHAPE = (9, 13, 11)


def dense_weights(pairs: LandmarkPairs, shape: tuple[int, int, int]) -> torch.Tensor:
    """Interpolation weights of every control point for each landmark, ``[n, i, j, k]``."""
    indices, weights = pairs.interpolation(shape)
    rows = [
        torch.zeros(len(index), n, dtype=torch.float64).scatter_add_(1, index, weight)
        for n, index, weight in zip(shape, indices, weights, strict=True)
    ]
    return torch.einsum("ni,nj,nk->nijk", *rows)


def test_without_a_gaussian_interpolation_is_trilinear() -> None:
    last = torch.tensor(SHAPE) - 1
    points = oracles.uniform(40, 3, seed=1) * (last + 2) - 1  # some up to one control point outside
    volume = oracles.noise(1, *SHAPE, seed=2)
    found = (dense_weights(make_pairs(points), SHAPE) * volume).sum((1, 2, 3))
    expected = oracles.trilinear(volume.numpy(), points.T.numpy().reshape(3, -1, 1, 1))[0, :, 0, 0]
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_with_a_gaussian_linear_fields_are_exact_and_the_variance_is_that_of_the_gaussian() -> None:
    points = torch.tensor([[20.3, 21.0, 19.75], [24.9, 18.5, 22.0]], dtype=torch.float64)
    shape, sigma = (44, 41, 43), (2.5, 1.2, 4.0)
    weights = dense_weights(make_pairs(points, sigma=sigma), shape)
    positions = torch.from_numpy(oracles.indices(shape))
    means = torch.einsum("nijk,aijk->na", weights, positions)
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(means, points, rtol=0, atol=1e-9)
    variances = torch.einsum("nijk,aijk->na", weights, positions**2) - means**2
    # truncated at two standard deviations, rounded up to whole control points, a Gaussian keeps at least 77 % of its
    # variance; linear interpolation adds f (1 - f) <= 1/4
    expected = torch.tensor(sigma, dtype=torch.float64) ** 2
    assert bool((variances > 0.77 * expected).all())
    assert bool((variances < expected + 0.25).all())


def test_the_mass_is_the_integral_of_a_gaussian_of_height_one() -> None:
    wide = make_pairs(torch.zeros(1, 3), sigma=(3.0, 2.0, 4.0))
    offsets = oracles.indices((61, 61, 61)) - 30.0
    sigma = np.array(wide.sigma).reshape(3, 1, 1, 1)
    assert wide.mass == pytest.approx(np.exp(-0.5 * ((offsets / sigma) ** 2).sum(0)).sum(), rel=1e-6)
    assert dataclasses.replace(wide, sigma=NO_GAUSSIAN).mass == pytest.approx((2 * np.pi) ** 1.5)


def test_displacements_relative_to_a_start_compose_with_it_to_the_given_ones() -> None:
    positions = torch.from_numpy(oracles.indices(SHAPE))
    start = torch.stack([torch.sin(positions[a] / 3 + positions[(a + 1) % 3] / 4) for a in range(3)]) * 1.2
    points = torch.tensor([[4, 6, 5], [3, 7, 6]])
    targets = torch.tensor([[0.7, -1.4, 1.1], [-0.5, 0.8, 0.2]], dtype=torch.float64)
    remaining = make_pairs(points, targets).relative_to(start).displacements
    for point, target, displacement in zip(points.tolist(), targets, remaining, strict=True):
        shift = displacement.reshape(3, 1, 1, 1).expand(3, *SHAPE).contiguous()
        composed = add_step(start, shift)
        # slopes are up to 1.2 (1/3 + 1/4) = 0.7: twenty iterations reduce an error of 2 control points to 2 * 0.7^20
        torch.testing.assert_close(composed[(slice(None), *point)], target, rtol=0, atol=2 * 0.7**20)


# Cost of a displacement -------------------------------------------------------------------------------------------

SMALL = (7, 9, 8)
CURVATURE = 0.7


def random_pairs(sigma: tuple[float, float, float] = NO_GAUSSIAN, robust_scale: float = math.inf) -> LandmarkPairs:
    return make_pairs(
        1 + oracles.uniform(6, 3, seed=3) * (torch.tensor(SMALL) - 3),
        oracles.noise(6, 3, seed=4),
        weights=oracles.uniform(6, seed=5),
        sigma=sigma,
        robust_scale=robust_scale,
    )


def reference_cost(pairs: LandmarkPairs, displacement: np.ndarray) -> float:
    """``1/2 sum_n c_n rho(|u(p_n) - t_n|^2)``, landmark by landmark."""
    total = 0.0
    mass = (2 * math.pi) ** 1.5 * math.prod(max(s, 1.0) for s in pairs.sigma)
    for point, target, weight in zip(
        pairs.points.numpy(), pairs.displacements.numpy(), pairs.weights.tolist(), strict=True
    ):
        u = oracles.trilinear(displacement, point.reshape(3, 1, 1, 1))[:, 0, 0, 0]
        squared = float(((u - target) ** 2).sum())
        total += 0.5 * CURVATURE * mass * weight * squared / (1 + squared / pairs.robust_scale**2)
    return total


@pytest.mark.parametrize("robust_scale", [math.inf, 1.3])
def test_value_and_gradient_of_the_cost(robust_scale: float) -> None:
    pairs, u = random_pairs(robust_scale=robust_scale), oracles.noise(3, *SMALL, seed=6)
    value, gradient = LandmarkCost(pairs, u, curvature=CURVATURE)(u)
    assert float(value) == pytest.approx(reference_cost(pairs, u.numpy()), rel=1e-12)
    expected, step = np.zeros(u.shape), 1e-5
    for index in np.ndindex(*u.shape):
        ends = []
        for side in (-step, step):
            perturbed = u.numpy().copy()
            perturbed[index] += side
            ends.append(reference_cost(pairs, perturbed))
        expected[index] = (ends[1] - ends[0]) / (2 * step)
    # central differences: rounding of the value over the step, and the step squared
    assert np.allclose(gradient.numpy(), expected, rtol=0, atol=1e-7)
    assert float(gradient.abs().max()) > 0.1


def test_a_gaussian_spreads_the_gradient_and_keeps_its_sum() -> None:
    shape = (31, 31, 31)
    pairs = make_pairs([[15.0, 15.0, 15.0]], [[1.0, -2.0, 0.5]], sigma=(2.0, 3.0, 1.5))
    u = torch.zeros(3, *shape, dtype=torch.float64)
    value, gradient = LandmarkCost(pairs, u, curvature=CURVATURE)(u)
    assert float(value) == pytest.approx(0.5 * CURVATURE * pairs.mass * 5.25)
    torch.testing.assert_close(gradient.sum((1, 2, 3)), -CURVATURE * pairs.mass * pairs.displacements[0])
    offsets = (oracles.indices(shape) - 15.0) / np.array(pairs.sigma).reshape(3, 1, 1, 1)
    gaussian = np.exp(-0.5 * (offsets**2).sum(0))
    near = np.abs(offsets).max(0) <= 2
    # the truncated tails are added to the rest: (1 / 0.954)^3 more, or less where truncation is at whole control points
    ratio = -gradient[0].numpy()[near] / (CURVATURE * gaussian[near])
    assert np.allclose(ratio, ratio.mean(), rtol=1e-9)
    assert 1 < ratio.mean() < 1.2


@pytest.mark.parametrize("sigma", [NO_GAUSSIAN, (1.0, 1.5, 0.6)])
def test_the_curvature_sums_to_that_of_a_common_shift(sigma: tuple[float, float, float]) -> None:
    pairs, u = random_pairs(sigma), oracles.noise(3, *SMALL, seed=6)
    add_to = oracles.uniform(*SMALL, seed=8)
    before = add_to.clone()
    added = LandmarkCost(pairs, u, curvature=CURVATURE).curvature(u, add_to=add_to) - before
    values = [reference_cost(pairs, u.numpy() + np.array([shift, 0, 0]).reshape(3, 1, 1, 1)) for shift in (-1, 0, 1)]
    assert float(added.sum()) == pytest.approx(values[0] - 2 * values[1] + values[2], rel=1e-9)  # it is quadratic
    assert float(added.min()) >= 0


def test_the_gradient_is_added_in_place_for_any_strides() -> None:
    pairs, u = random_pairs(), oracles.noise(3, *SMALL, seed=6)
    cost = LandmarkCost(pairs, u, curvature=CURVATURE)
    gradient = cost(u)[1]
    add_to = torch.ones(*SMALL, 3, dtype=torch.float64).movedim(-1, 0)
    assert cost(u, add_to=add_to)[1] is add_to
    torch.testing.assert_close(add_to, 1 + gradient)


def test_the_objective_includes_value_gradient_and_curvature_of_the_landmarks() -> None:
    features = oracles.noise(2, *SMALL, seed=9), oracles.noise(2, *SMALL, seed=10)
    u, pairs = oracles.noise(3, *SMALL, seed=6), random_pairs((1.0, 1.0, 1.0))
    cost, term = LandmarkCost(pairs, u, curvature=CURVATURE), prepare_ssd(*features)
    objective = RegistrationObjective(term, [cost], (*features, None, None))
    value, derivatives, scale = objective.curvature(u, out=u.new_empty(4, *SMALL))
    alone, expected = term.curvature(u)
    assert scale == pytest.approx(float(expected[3].mean()))
    assert value == pytest.approx(float(alone) + reference_cost(pairs, u.numpy()))
    torch.testing.assert_close(derivatives[:3], expected[:3] + cost(u)[1])
    torch.testing.assert_close(derivatives[3], expected[3] + cost.curvature(u, add_to=torch.zeros_like(u[0])))
    assert mean_curvature(term, u) == pytest.approx(float(expected[3].sum() / (expected[3] > 0).sum()))


@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_a_refinement_follows_landmarks_where_the_images_are_constant(optimiser: Any, sigma: float) -> None:
    shape, point = (24, 20, 18), [18.2, 10.4, 9.0]
    fixed = torch.from_numpy(oracles.blobs(oracles.indices(shape), shape, channels=2, sigma=2.0)).float()
    fixed[:, 12:] = 0
    pairs = make_pairs([point], [[1.5, -1.0, 0.8]], sigma=(sigma,) * 3)
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=60),), regularisers=(Diffusion(weight=0.02),), optimiser=optimiser
    )
    found = refinement.refine_level(FeatureLevel(fixed=fixed, moving=fixed, landmarks=pairs))
    displacement = oracles.trilinear(found.double().numpy(), np.array(point).reshape(3, 1, 1, 1))[:, 0, 0, 0]
    target = pairs.displacements[0].numpy()
    # the force on a single control point (sigma 0) is opposed by the elasticity around it; that on many is not
    assert np.linalg.norm(displacement - target) < (0.25 if sigma == 0 else 0.1) * np.linalg.norm(target)
    assert float(found[:, 2:6].abs().max()) < 0.2  # the images hold the rest in place


# Costs of a search ------------------------------------------------------------------------------------------------

COARSE = (7, 6, 8)


@pytest.mark.parametrize("ball", [False, True])
def test_the_curvature_of_quadratic_costs(ball: bool) -> None:
    window = Window((2, 3, 2), ball=ball)
    factors = oracles.uniform(*COARSE, seed=1)
    factors[:2] = 0  # constant costs do not count
    squared = torch.tensor([float(sum(v * v for v in step)) for step in window.steps], dtype=torch.float64)
    costs = 5 + squared[:, None, None, None] * factors
    assert mean_cost_curvature(costs, window) == pytest.approx(float(factors[2:].mean()))


@pytest.mark.parametrize("robust_scale", [math.inf, 1.5])
def test_costs_added_equal_the_formula(robust_scale: float) -> None:
    window = Window((2, 1, 2))
    costs = oracles.uniform(len(window.steps), *COARSE, seed=2)
    points, targets, weights = [[2.25, 3.0, 4.5], [5.0, 1.0, 6.0]], [[1.2, -0.3, 0.8], [4.0, 0.0, -1.0]], [2.0, 0.5]
    pairs = make_pairs(points, targets, weights=torch.tensor(weights, dtype=torch.float64), robust_scale=robust_scale)
    found, scale = costs.clone(), mean_cost_curvature(costs, window)
    add_landmark_costs(found, window, pairs)
    expected = costs.numpy().copy()
    for point, target, weight in zip(points, targets, weights, strict=True):
        each = []
        for step in window.steps:
            r = sum((d - t) ** 2 for d, t in zip(step, target, strict=True))
            each.append(scale * weight * r / (1 + r / robust_scale**2))
        for x in np.ndindex(*COARSE):
            weight_at_x = math.prod(max(0.0, 1 - abs(a - p)) for a, p in zip(x, point, strict=True))
            height = min(1.0, (2 * math.pi) ** 1.5 * weight_at_x)
            expected[(slice(None), *x)] += height * (np.array(each) - min(each))
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    assert not np.allclose(found.numpy(), costs.numpy(), rtol=0, atol=0.1)


def test_half_precision_does_not_overflow() -> None:
    window = Window((3, 3, 3))
    costs = (16000 * oracles.uniform(len(window.steps), *COARSE, seed=3)).half()
    weights = torch.tensor([1.0, 1e3, 1e9], dtype=torch.float64)
    pairs = make_pairs([[3, 3, 4]] * 3, [[9, -9, 2]] * 3, weights=weights, sigma=(2.0,) * 3)
    add_landmark_costs(costs, window, pairs)
    assert bool(costs.isfinite().all())
    best = window.steps[int(costs[:, 3, 3, 4].argmin())]
    assert best == (3, -3, 2)  # the nearest of the window


@pytest.mark.parametrize("inverse_consistency", [0, 5])
def test_a_search_follows_landmarks_where_the_images_are_constant(inverse_consistency: int) -> None:
    shape = (18, 12, 12)
    fixed = torch.from_numpy(oracles.blobs(oracles.indices(shape), shape, channels=3, sigma=1.5)).float()
    fixed[:, 9:] = 0
    search = ConvexSearch(radius=3, inverse_consistency=inverse_consistency, coupling_weights=(0.003, 0.01, 0.03))
    points = torch.tensor([[14.0, 6.0, 6.0], [15.0, 4.0, 8.0]])
    target = torch.tensor([1.0, -2.0, 1.0])
    targets = target.expand(2, 3)
    level = FeatureLevel(fixed=fixed, moving=fixed)
    guided = dataclasses.replace(
        level,
        landmarks=make_pairs(points, targets, sigma=(1.5,) * 3),
        reverse_landmarks=make_pairs(points + targets, -targets, sigma=(1.5,) * 3),
    )
    plain, found = (search.search_features(each, (3, 3, 3)).forward for each in (level, guided))
    assert float((plain[:, 14, 6, 6] - target).norm()) > 2
    assert float((found[:, 14, 6, 6] - target).norm()) < 0.5
    assert float(found[:, :4].abs().max()) < 0.5


def test_a_search_around_a_start_uses_the_remaining_displacement_of_the_landmarks() -> None:
    flat = torch.zeros(1, 12, 12, 12)
    flat[:, :2] = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0))  # gives the costs a scale
    search = ConvexSearch(inverse_consistency=0, coupling_weights=())
    start = torch.zeros(3, 12, 12, 12)
    start[0], start[1] = 2.0, -1.0
    pairs = make_pairs([[7, 6, 6]], [[3, -1, 1]], sigma=(2.0,) * 3)
    level = FeatureLevel(fixed=flat, moving=flat, landmarks=pairs)
    found = search.search_features(level, (1, 1, 1), start=ForwardBackward(forward=start)).forward
    torch.testing.assert_close(found[:, 7, 6, 6], torch.tensor([3.0, -1.0, 1.0]), rtol=0, atol=0.1)
