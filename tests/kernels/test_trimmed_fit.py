"""Fits of rigid, similarity and affine transforms to points, with and without outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convexadam.kernels.trimmed_fit import Model, fit_trimmed, fit_weighted


def make_similarity(degrees: tuple[float, float, float], scale: float = 1.0) -> np.ndarray:
    """Rotations about the three axes, one after the other, and a translation."""
    matrix = np.eye(4)
    for axis, angle in enumerate(degrees):
        a, b = (n for n in range(3) if n != axis)
        turn = np.eye(4)
        turn[a, a] = turn[b, b] = math.cos(math.radians(angle))
        turn[a, b], turn[b, a] = -math.sin(math.radians(angle)), math.sin(math.radians(angle))
        matrix = turn @ matrix
    matrix[:3, :3] *= scale
    matrix[:3, 3] = 12.0, -7.0, 30.0
    return matrix


def make_affine() -> np.ndarray:
    return make_similarity((10, -20, 5)) @ np.array(
        [[1.1, 0.1, 0, 0], [0, 0.9, -0.2, 0], [0.05, 0, 1.05, 0], [0, 0, 0, 1]]
    )


TRUTHS: list[tuple[Model, np.ndarray]] = [
    ("rigid", make_similarity((25, -10, 40))),
    ("similarity", make_similarity((-5, 30, 10), 1.15)),
    ("affine", make_affine()),
]


def make_points(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal((100, -20, 5), (40, 30, 50), size=(n, 3))


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize(("model", "truth"), TRUTHS, ids=[name for name, _ in TRUTHS])
def test_exact_points_are_fitted(model: Model, truth: np.ndarray) -> None:
    points = make_points()
    weights = np.random.default_rng(1).uniform(0.1, 1, len(points))
    found = fit_weighted(points, transform_points(truth, points), weights, model=model)
    # The ridge term of the affine fit is a thousandth of the variance.
    np.testing.assert_allclose(
        transform_points(found, points), transform_points(truth, points), atol=0.3 if model == "affine" else 1e-9
    )


@pytest.mark.parametrize("model", ["rigid", "similarity"])
def test_rigid_and_similarity_fits_have_no_shear(model: Model) -> None:
    points = make_points()
    found = fit_weighted(points, transform_points(make_affine(), points), np.ones(len(points)), model=model)[:3, :3]
    scale = np.linalg.det(found) ** (1 / 3)
    np.testing.assert_allclose(found @ found.T, scale**2 * np.eye(3), atol=1e-12)
    assert (abs(scale - 1) < 1e-12) == (model == "rigid")


def test_mirrored_points_are_not_mirrored() -> None:
    points = make_points()
    for model in ("rigid", "similarity"):
        found = fit_weighted(points, points * (-1, 1, 1), np.ones(len(points)), model=model)
        assert np.linalg.det(found[:3, :3]) > 0


@pytest.mark.parametrize(("model", "truth"), TRUTHS, ids=[name for name, _ in TRUTHS])
def test_a_third_of_outliers_is_ignored(model: Model, truth: np.ndarray) -> None:
    points, rng = make_points(600), np.random.default_rng(2)
    targets = transform_points(truth, points)
    targets[::3] += rng.normal(scale=30, size=(200, 3))
    inliers = np.arange(600) % 3 > 0
    found = fit_trimmed(points, targets, np.ones(600), model=model, inlier_fraction=0.6)
    np.testing.assert_allclose(
        transform_points(found, points)[inliers], targets[inliers], atol=0.4 if model == "affine" else 1e-6
    )
    plain = fit_weighted(points, targets, np.ones(600), model=model)
    assert np.abs(transform_points(plain, points)[inliers] - targets[inliers]).max() > 1


def test_points_of_weight_0_are_ignored() -> None:
    points = make_points()
    targets = transform_points(TRUTHS[0][1], points)
    targets[:50] += 1000
    weights = np.ones(len(points))
    weights[:50] = 0
    found = fit_trimmed(points, targets, weights, model="rigid", inlier_fraction=1.0)
    np.testing.assert_allclose(found, TRUTHS[0][1], atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_fit_does_not_depend_on_the_unit(unit: float) -> None:
    points, rng = make_points(600), np.random.default_rng(3)
    targets = transform_points(TRUTHS[0][1], points) + rng.normal(scale=2, size=points.shape)
    scale = np.diag([unit, unit, unit, 1])
    one, other = (
        fit_trimmed(points * n, targets * n, np.ones(600), model="rigid", inlier_fraction=0.5) for n in (1.0, unit)
    )
    np.testing.assert_allclose(scale @ one @ np.linalg.inv(scale), other, rtol=1e-9, atol=1e-9 * max(unit, 1))


def test_affine_fits_to_a_plane_are_the_identity_across_it() -> None:
    points = make_points()
    points[:, 2] = 7
    targets = points * (1.1, 0.9, 1) + (0, 0, 5)
    found = fit_weighted(points, targets, np.ones(len(points)), model="affine")
    np.testing.assert_allclose(found[:3, 2], (0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(transform_points(found, points), targets, atol=0.3)


def test_one_point_gives_a_translation() -> None:
    for model in ("rigid", "similarity", "affine"):
        found = fit_weighted(np.array([[1.0, 2, 3]]), np.array([[4.0, 4, 4]]), np.ones(1), model=model)
        np.testing.assert_allclose(found, np.array([[1, 0, 0, 3], [0, 1, 0, 2], [0, 0, 1, 1], [0, 0, 0, 1]]), atol=1e-9)
