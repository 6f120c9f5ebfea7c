"""Matrices that take points to points, by trimmed least squares."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

Model: TypeAlias = Literal["rigid", "similarity", "affine"]

_ROUNDS = 20
_ENOUGH = 20_000
"""Points that a fit of twelve numbers needs at most; of more, every second, third, ... is taken."""
_STILL_MM = 1e-3
_FLAT = 1e-3
"""Share of the mean spread of points below which a direction counts as unknown, and keeps its length."""


def trimmed_fit(
    points: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, model: Model, keep: float
) -> tuple[np.ndarray, float]:
    """Fit to the share ``keep`` of the points that fits best; the others count as outliers.

    Alternates between a fit and a choice of the smallest residuals (Rousseeuw and Van Driessen, Data Mining and
    Knowledge Discovery 2006), from the fit to all points.

    Parameters
    ----------
    points, targets
        ``(n, 3)`` in mm.
    weights
        ``(n,)``, not negative, not all zero; points of weight 0 are left out.
    model
        See `weighted_fit`.
    keep
        Share of the points, above 0 and at most 1.

    Returns
    -------
    The 4x4 matrix, and the root mean square residual in mm of what was kept.
    """
    (useful,) = np.nonzero(weights)
    useful = useful[:: -(-len(useful) // _ENOUGH)]
    points, targets, weights = points[useful], targets[useful], weights[useful]
    kept = max(1, round(keep * len(useful)))
    chosen = np.arange(len(useful))
    matrix = weighted_fit(points, targets, weights, model=model)
    for _ in range(_ROUNDS):
        chosen = np.argpartition(_squared(matrix, points, targets), kept - 1)[:kept]
        last, matrix = matrix, weighted_fit(points[chosen], targets[chosen], weights[chosen], model=model)
        if _squared(matrix, points, points @ last[:3, :3].T + last[:3, 3]).max() < _STILL_MM**2:
            break
    squared = _squared(matrix, points[chosen], targets[chosen])
    return matrix, float(np.sqrt(np.average(squared, weights=weights[chosen])))


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
