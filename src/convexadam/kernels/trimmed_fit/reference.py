"""Fits of linear transforms to pairs of points, by weighted and by trimmed least squares."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Volume
from convexadam.kernels._device import send

Model: TypeAlias = Literal["rigid", "similarity", "affine"]

MODELS: tuple[Model, ...] = get_args(Model)
"""From the simplest to the richest."""

MAX_ITERATIONS = 20

MAX_POINTS = 20_000
"""Points used at most: many more than the twelve numbers of an affine fit need; of more, every second, third, ..."""

CLOSE = 1e-5
"""Largest change of a transformed point between two iterations, as a share of the extent of the points, at which the
trimmed fit has converged."""

RIDGE = 1e-3
"""Ridge term of the affine fit, as a share of the mean variance of the points along an axis."""


def fit_displacements(
    disp: Field,
    weights: Volume,
    affine: Float[Tensor, "4 4"],
    target_map: Float[Tensor, "4 4"],
    *,
    model: Shaped[Tensor, ""],
    inlier_fraction: float,
) -> Float[Tensor, "4 4"]:
    """See the package; by numpy, on the host."""
    found = torch.cat([disp, weights[None].to(disp)]).flatten(1).double().cpu().numpy()
    if not found[3].any():
        return target_map.clone()
    index, (to_mm, target) = np.indices(weights.shape).reshape(3, -1).T, (m.cpu().numpy() for m in (affine, target_map))
    points, displaced = (x @ to_mm[:3, :3].T + to_mm[:3, 3] for x in (index, index + found[:3].T))
    if not np.array_equal(target, np.eye(4)):
        displaced = displaced @ target[:3, :3].T + target[:3, 3]
    matrix = fit_trimmed(points, displaced, found[3], model=MODELS[int(model)], inlier_fraction=inlier_fraction)
    return send(torch.from_numpy(matrix), affine)


def fit_trimmed(
    points: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, model: Model, inlier_fraction: float
) -> np.ndarray:
    """Fit a transform by least trimmed squares: only the ``inlier_fraction`` with the smallest residuals counts.

    Alternates between a fit to the inliers and the choice of the smallest residuals (Rousseeuw and Van Driessen, Data
    Mining and Knowledge Discovery 2006), initialised with the fit to all points.

    Parameters
    ----------
    points, targets
        ``(n, 3)`` in mm.
    weights
        ``(n,)``, at least 0 and not all 0; points of weight 0 are ignored.
    model
        See `fit_weighted`.
    inlier_fraction
        Share of the points that are inliers, above 0 and at most 1.

    Returns
    -------
    The 4x4 matrix.
    """
    (used,) = np.nonzero(weights)
    used = used[:: -(-len(used) // MAX_POINTS)]
    points, targets, weights = points[used], targets[used], weights[used]
    count = max(1, round(inlier_fraction * len(used)))
    inliers = np.arange(len(used))
    matrix = fit_weighted(points, targets, weights, model=model)
    close = (CLOSE * np.linalg.norm(np.ptp(points, axis=0))) ** 2
    for _ in range(MAX_ITERATIONS):
        inliers = np.argpartition(_squared_residuals(matrix, points, targets), count - 1)[:count]
        last, matrix = matrix, fit_weighted(points[inliers], targets[inliers], weights[inliers], model=model)
        if _squared_residuals(matrix, points, points @ last[:3, :3].T + last[:3, 3]).max() <= close:
            break
    return matrix


def fit_weighted(points: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, model: Model) -> np.ndarray:
    """Return the 4x4 matrix ``(A, t)`` that minimises ``sum_i w_i |A p_i + t - q_i|^2``.

    Rigid and similarity transforms have a closed form without reflections (Umeyama, IEEE PAMI 1991). The affine fit is
    regularised towards the identity by a ridge term, which decides only along directions in which the points hardly
    vary.
    """
    share = (weights / weights.sum())[:, None]
    point_mean, target_mean = (share * points).sum(0), (share * targets).sum(0)
    x, y = points - point_mean, targets - target_mean
    covariance, cross = (share * x).T @ x, (share * x).T @ y
    if model == "affine":
        ridge = RIDGE * np.trace(covariance) / 3 * np.eye(3)
        linear = np.linalg.solve(covariance + ridge, cross + ridge).T if ridge.any() else np.eye(3)
    else:
        left, sizes, right = np.linalg.svd(cross)
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0])  # no reflection
        linear = (right.T * signs) @ left.T
        if model == "similarity" and np.trace(covariance) > 0:
            linear = linear * (sizes * signs).sum() / np.trace(covariance)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = target_mean - linear @ point_mean
    return matrix


def _squared_residuals(matrix: np.ndarray, points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    residuals = points @ matrix[:3, :3].T + matrix[:3, 3] - targets
    return np.asarray((residuals**2).sum(1))
