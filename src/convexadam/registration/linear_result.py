"""Result of a registration that is linear alone: its matrix, and diagnostics that need no displacement field."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from convexadam.geometry import Affine, Grid
from convexadam.geometry.to_grid import weight_on_grid
from convexadam.linear import LinearFit
from convexadam.registration.inputs import ImagePair, RegistrationInputs

_CHUNK_VOXELS = 2**18

_POINTS = 32
"""Points along an axis over which displacements are averaged."""


def measure_linear(inputs: RegistrationInputs, masks: ImagePair, fit: LinearFit) -> dict[str, float]:
    """Return the diagnostics of `RegistrationResult` for a linear transform, and warn if none was accepted.

    ``masks`` are those given or estimated.

    Warns
    -----
    UserWarning
        If no transform better than the initial one was found.
    """
    if not fit.accepted:
        warnings.warn(
            "the linear alignment found no transform better than the initial one, which is the result; check that the "
            "images overlap and show the same anatomy, or pass an initial_transform near the solution",
            stacklevel=3,
        )
    grid, transform = inputs.fixed.grid, fit.transform
    determinant = float(np.linalg.det(transform.matrix[:3, :3]))
    diagnostics = {
        "dissimilarity_before": fit.dissimilarity_before,
        "dissimilarity_after": fit.dissimilarity_after,
        "overlap_percent": 100 * _measure_overlap(inputs, masks, transform),
        "folded_percent": 100.0 * (determinant <= 0),
        "jacobian_min": determinant,
        "jacobian_max": determinant,
        "displacement_mean_mm": float(np.mean(_measure_displacements(transform, grid, _POINTS))),
        "displacement_max_mm": float(np.max(_measure_displacements(transform, grid, 2))),  # it is at a corner
        "repaired_voxels": 0,
        "repaired_largest_mm": 0.0,
    }
    return diagnostics | ({} if inputs.landmarks is None else inputs.landmarks.summary(transform))


def _measure_overlap(inputs: RegistrationInputs, masks: ImagePair, transform: Affine) -> float:
    """Return the share of the fixed voxels that have weight in both images; slab by slab, to bound memory."""
    grid = inputs.fixed.grid
    rows = max(1, _CHUNK_VOXELS // math.prod(grid.shape[1:]))
    total = torch.zeros((), dtype=torch.float64, device=inputs.fixed.data.device)
    for first in range(0, grid.shape[0], rows):
        affine = grid.affine @ np.array([[1.0, 0, 0, first], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        slab = Grid((min(rows, grid.shape[0] - first), *grid.shape[1:]), affine)
        compared = torch.ones(slab.shape, dtype=torch.bool, device=total.device)
        moved = Grid(slab.shape, transform.matrix @ slab.affine)
        for image, mask, seen in ((inputs.fixed, masks[0], slab), (inputs.moving, masks[1], moved)):
            weight = weight_on_grid(image, mask, seen, 0)
            compared = compared if weight is None else compared & (weight > 0)
        total += compared.sum()
    return float(total) / grid.n_voxels


def _measure_displacements(transform: Affine, grid: Grid, count: int) -> np.ndarray:
    """Return the lengths of the displacements in mm at a lattice of points from the first to the last voxels."""
    axes = [np.linspace(0, n - 1, min(n, count)) for n in grid.shape]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    difference = transform.matrix - np.eye(4)
    return np.asarray(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1))
