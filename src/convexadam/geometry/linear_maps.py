"""Fits and averages of linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from convexadam._typing import Volume
from convexadam.errors import GeometryError
from convexadam.geometry.affine import Affine
from convexadam.geometry.grid import Grid
from convexadam.geometry.transform import Transform

_LATTICE = 24
"""Points along each axis that a linear map is fitted at."""


def fit_affine(transform: Transform, grid: Grid, weight: Volume) -> Affine:
    """Fit an affine transform to another one by weighted least squares over a lattice of a grid.

    Raises
    ------
    GeometryError
        If the weights leave no volume to fit at.
    """
    steps = [max(1, n // _LATTICE) for n in grid.shape]
    axes = [torch.arange(s // 2, n, s, dtype=torch.int64, device="cpu") for n, s in zip(grid.shape, steps, strict=True)]
    nodes = torch.cartesian_prod(*axes)
    share = weight.cpu()[tuple(nodes.T)].double().sqrt()[:, None]
    points = grid.index_to_world(nodes.double())
    targets = transform(points).double()
    if grid.slice_axis is not None:  # one slice says nothing of what lies beside it, which moves with it
        across = torch.from_numpy(grid.affine[:3, grid.slice_axis].copy())
        points, targets = (torch.cat([x - across, x + across]) for x in (points, targets))
        share = share.repeat(2, 1)
    centre = (points * share**2).sum(0) / (share**2).sum().clamp_min(1e-30)
    design = torch.cat([points - centre, torch.ones(len(points), 1, dtype=torch.float64, device="cpu")], 1)
    solution, _, rank, _ = np.linalg.lstsq((design * share).numpy(), (targets * share).numpy(), rcond=None)
    if rank < 4:
        raise GeometryError("the weight must extend in all directions, got a flat one; check the image")
    matrix = np.eye(4)
    matrix[:3, :3] = solution[:3].T
    matrix[:3, 3] = solution[3] - matrix[:3, :3] @ centre.numpy()
    return Affine(matrix)


def average_affines(affines: Sequence[Affine], weights: Sequence[float] | None = None) -> Affine:
    """Return the exponential of the mean of the logarithms of the matrices: the log-Euclidean mean.

    Arsigny, Commowick, Ayache, Pennec, "A fast and log-Euclidean polyaffine framework for locally linear
    registration", JMIV 2009.

    Raises
    ------
    GeometryError
        If a matrix has no real logarithm, because it mirrors or turns by half a turn.
    """
    from scipy.linalg import expm, logm

    total = np.zeros((4, 4))
    shares = np.ones(len(affines)) if weights is None else np.asarray(weights, dtype=float)
    for affine, share in zip(affines, shares / shares.sum(), strict=True):
        logarithm = logm(affine.matrix)
        if np.abs(np.imag(logarithm)).max() > 1e-6:
            raise GeometryError(
                f"affine maps must have real logarithms, got one that mirrors or turns by 180 degrees: {affine!r}; "
                "check the orientations of the images"
            )
        total += share * np.real(logarithm)
    return Affine(expm(total))
