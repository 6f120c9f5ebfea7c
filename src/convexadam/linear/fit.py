"""Matrices that take points to points, by trimmed least squares."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Model: TypeAlias = Literal["rigid", "similarity", "affine"]

_ROUNDS = 20
_FLAT = 1e-3
"""Share of the mean spread of points below which a direction counts as unknown, and keeps its length."""


def trimmed_fit(
    points: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, model: Model, keep: float
) -> tuple[np.ndarray, float]:
    """Fit to the share ``keep`` of the weight that fits best; the others count as outliers.

    Alternates between a fit and a choice of the smallest residuals (Rousseeuw and Van Driessen, Data Mining and
    Knowledge Discovery 2006), from the fit to all points.

    Parameters
    ----------
    points, targets
        ``(n, 3)`` in mm.
    weights
        ``(n,)``, not negative, not all zero.
    model
        See `weighted_fit`.
    keep
        Share of the whole weight, above 0 and at most 1.

    Returns
    -------
    The 4x4 matrix, and the root mean square residual in mm of what was kept.
    """
    chosen = weights
    matrix = weighted_fit(points, targets, chosen, model=model)
    for _ in range(_ROUNDS):
        order = np.argsort(_squared(matrix, points, targets), kind="stable")
        inliers = np.zeros_like(weights)
        within = np.cumsum(weights[order]) <= keep * weights.sum() * (1 + 1e-9)
        within[0] = True
        inliers[order[within]] = weights[order[within]]
        if np.array_equal(inliers, chosen):
            break
        chosen = inliers
        matrix = weighted_fit(points, targets, chosen, model=model)
    squared = _squared(matrix, points, targets)
    return matrix, float(np.sqrt((chosen * squared).sum() / chosen.sum()))


def weighted_fit(points: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, model: Model) -> np.ndarray:
    """Return the 4x4 matrix with the smallest weighted sum of squared distances between ``A p + t`` and the targets.

    Rigid and similarity transforms in closed form (Umeyama, IEEE PAMI 1991); they never mirror. Affine ones stay close
    to the identity along directions in which the points are not spread.
    """
    share = (weights / weights.sum())[:, None]
    here, there = (share * points).sum(0), (share * targets).sum(0)
    x, y = points - here, targets - there
    spread, cross = (share * x).T @ x, (share * x).T @ y
    if model == "affine":
        hold = _FLAT * np.trace(spread) / 3 * np.eye(3)
        turn = np.linalg.solve(spread + hold, cross + hold).T if hold.any() else np.eye(3)
    else:
        left, sizes, right = np.linalg.svd(cross)
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
        turn = (right.T * signs) @ left.T
        if model == "similarity" and np.trace(spread) > 0:
            turn = turn * (sizes * signs).sum() / np.trace(spread)
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = there - turn @ here
    return matrix


def _squared(matrix: np.ndarray, points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    apart = points @ matrix[:3, :3].T + matrix[:3, 3] - targets
    return np.asarray((apart**2).sum(1))
